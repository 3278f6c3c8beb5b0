# Text: tokens, numbers and base64, exactly as memcached reads and writes them (protocol page, 1.1 and 1.2).
#
# Owns no state. Must never read beyond the length that it is given: input is bytes, not C strings.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    /* The decimal digits of 0 to 99, two for each. */
    static const char TWO_DIGITS[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960"
        "616263646566676869707172737475767778798081828384858687888990919293949596979899";
    """
    const char* TWO_DIGITS
    int first_set_bit "__builtin_ctzll"(unsigned long long) noexcept nogil

cdef enum:
    MAX_TOKENS = 24             # tokens that are split off; further ones are ignored
    KEY_MAX = 250
    LENGTH_MOST = 2147483645    # of a value

cdef struct Token:
    const char* at
    size_t len


cdef inline const char* word_end(const char* p, const char* end) noexcept nogil:
    # Where the first space from p on is, else `end`. Eight bytes at a time: a byte that is 0 once the spaces are taken out
    # borrows from its top bit (those above it may seem to be 0, too, but the first is always told).
    cdef uint64_t eight, hit
    while end - p >= 8:
        memcpy(&eight, p, 8)
        eight ^= <uint64_t> 0x2020202020202020
        hit = (eight - <uint64_t> 0x0101010101010101) & ~eight & <uint64_t> 0x8080808080808080
        if hit:
            return p + (first_set_bit(hit) >> 3)
        p += 8
    while p < end and p[0] != c' ':
        p += 1
    return p


cdef inline int tokenise(const char* line, size_t n, Token* tokens) noexcept nogil:
    # Splits at spaces (runs count once). The first token ends at the first space, so it is empty after a leading space.
    cdef const char* end = line + n
    cdef const char* p = word_end(line, end)
    cdef int count = 1
    tokens[0].at = line
    tokens[0].len = <size_t> (p - line)
    while count < MAX_TOKENS:
        while p < end and p[0] == c' ':
            p += 1
        if p == end:
            break
        tokens[count].at = p
        p = word_end(p, end)
        tokens[count].len = <size_t> (p - tokens[count].at)
        count += 1
    return count


cdef inline int indexed(Token* t, int count) noexcept nogil:
    # Of so many tokens those that memcached tells apart, 23 that are not empty.
    return count if count < MAX_TOKENS or t[0].len == 0 else MAX_TOKENS - 1


cdef inline bint last_is_noreply(const char* line, size_t n) noexcept nogil:
    while n and line[n - 1] == c' ':
        n -= 1
    return n >= 8 and memcmp(line + n - 7, b"noreply", 7) == 0 and line[n - 8] == c' '


cdef inline bint append_digit(uint64_t* value, uint64_t digit) noexcept nogil:
    # 0: it would be more than 64 bits.
    if value[0] >= <uint64_t> 0x1999999999999999 and (value[0] > <uint64_t> 0x1999999999999999 or digit > 5):
        return 0
    value[0] = value[0] * 10 + digit
    return 1


cdef inline bint read_u64(const char* p, size_t n, uint64_t* out) noexcept nogil:
    cdef uint64_t value = 0, digit
    cdef size_t i
    if n == 0 or n > 22:
        return 0
    for i in range(n):
        digit = <uint8_t> (p[i] - c'0')
        if digit > 9 or not append_digit(&value, digit):
            return 0
    out[0] = value
    return 1


cdef inline bint read_u32(const char* p, size_t n, uint32_t* out) noexcept nogil:
    cdef uint64_t value
    if n > 11 or not read_u64(p, n, &value) or value > <uint64_t> 0xFFFFFFFF:
        return 0
    out[0] = <uint32_t> value
    return 1


cdef inline bint read_i32(const char* p, size_t n, int32_t* out) noexcept nogil:
    cdef int64_t value = 0
    cdef uint8_t digit
    cdef size_t i
    cdef bint minus = n > 0 and p[0] == c'-'
    i = minus
    if n == 0 or n > 11:                # fewer than 19 digits: no sum is beyond 64 bits. A minus alone is 0, as in memcached
        return 0
    while i < n:
        digit = <uint8_t> (p[i] - c'0')
        if digit > 9:
            return 0
        value = value * 10 + digit
        i += 1
    if value > <int64_t> 0x7FFFFFFF + minus:
        return 0
    out[0] = <int32_t> (-value if minus else value)
    return 1


cdef inline bint is_blank(char c) noexcept nogil:
    return c == c' ' or (9 <= c <= 13)


cdef inline bint read_c_number(const char* p, size_t n, bint is_signed, int64_t* out) noexcept nogil:
    # What C's strtoul (or strtol, if signed) reads, with memcached's checks: it must end at a blank, a NUL or the end;
    # out of range fails; for the unsigned one a minus sign with a result that is negative as a long fails.
    cdef size_t i = 0
    cdef uint64_t value = 0, digit
    cdef bint minus = 0, any = 0
    while i < n and is_blank(p[i]):
        i += 1
    if i < n and (p[i] == c'-' or p[i] == c'+'):
        minus = p[i] == c'-'
        i += 1
    while i < n:
        digit = <uint8_t> (p[i] - c'0')
        if digit > 9:
            break
        if not append_digit(&value, digit):
            return 0
        any = 1
        i += 1
    if not any or (i < n and p[i] != 0 and not is_blank(p[i])):
        return 0
    if is_signed:
        if value > <uint64_t> 0x7FFFFFFFFFFFFFFF + minus:
            return 0
        out[0] = <int64_t> (<uint64_t> 0 - value) if minus else <int64_t> value
        return 1
    if minus:
        value = <uint64_t> 0 - value
        if <int64_t> value < 0:
            return 0
    out[0] = <int64_t> value
    return 1


cdef inline int write_u64(char* out, uint64_t value) noexcept nogil:
    # Decimal digits; returns how many (at most 20).
    cdef char digits[20]
    cdef int n = 20
    if value < 10:
        out[0] = <char> (48 + <int> value)
        return 1
    if value < 100:
        memcpy(out, TWO_DIGITS + 2 * value, 2)
        return 2
    while value >= 10:
        n -= 2
        memcpy(digits + n, TWO_DIGITS + 2 * (value % 100), 2)
        value //= 100
    if value:
        n -= 1
        digits[n] = <char> (48 + <int> value)
    memcpy(out, digits + n, <size_t> (20 - n))
    return 20 - n


cdef inline int write_i64(char* out, int64_t value) noexcept nogil:
    if value < 0:
        out[0] = c'-'
        return 1 + write_u64(out + 1, <uint64_t> 0 - <uint64_t> value)
    return write_u64(out, <uint64_t> value)


cdef inline int base64_value(uint8_t c) noexcept nogil:
    if c'A' <= c <= c'Z':
        return c - 65
    if c'a' <= c <= c'z':
        return c - 71
    if c'0' <= c <= c'9':
        return c + 4
    if c == c'+':
        return 62
    if c == c'/':
        return 63
    return -1


cdef inline int base64_read(const char* p, size_t n, char* out) noexcept nogil:
    # Decodes n <= KEY_MAX bytes; bytes outside the alphabet are skipped. Returns the length, 0 on bad input.
    cdef size_t i
    cdef int count = 0, pad = 0, at = 0, length = 0, v
    cdef int block[4]
    for i in range(n):
        if p[i] == c'=' or base64_value(<uint8_t> p[i]) >= 0:
            count += 1
    if count == 0 or count % 4:
        return 0
    for i in range(n):
        v = base64_value(<uint8_t> p[i])
        if p[i] == c'=':
            pad += 1
            v = 0
        if v < 0:
            continue
        block[at] = v
        at += 1
        if at == 4:
            out[length] = <char> ((block[0] << 2) | (block[1] >> 4))
            out[length + 1] = <char> (((block[1] & 15) << 4) | (block[2] >> 2))
            out[length + 2] = <char> (((block[2] & 3) << 6) | block[3])
            length += 3
            at = 0
            if pad:
                if pad > 2:
                    return 0
                length -= pad
                break
    return length


cdef inline int base64_write(char* out, const char* p, size_t n) noexcept nogil:
    # Encodes with padding; returns the length, 4 * ceil(n / 3).
    cdef const char* alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef size_t i = 0
    cdef int length = 0
    cdef uint32_t v
    while i < n:
        v = <uint32_t> (<uint8_t> p[i]) << 16
        if i + 1 < n:
            v |= <uint32_t> (<uint8_t> p[i + 1]) << 8
        if i + 2 < n:
            v |= <uint8_t> p[i + 2]
        out[length] = alphabet[v >> 18]
        out[length + 1] = alphabet[(v >> 12) & 63]
        out[length + 2] = alphabet[(v >> 6) & 63] if i + 1 < n else <char> c'='
        out[length + 3] = alphabet[v & 63] if i + 2 < n else <char> c'='
        length += 4
        i += 3
    return length
