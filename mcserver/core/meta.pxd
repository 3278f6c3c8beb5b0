# Meta commands: mg, ms, md, ma, mn, me.
#
# How each is asked for and answered (protocol page, 1.4); what it does is verbs.pxd's. Must never look at the socket or at input
# beyond its line (and, for ms, its data).

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from .memory cimport *
from .store cimport TICKS, Store, expiry, shown_ttl, ttl_left
from .items cimport *
from .text cimport *
from .values cimport *
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .verbs cimport *
from .wire cimport *

cdef enum:
    META_TOKENS = 20            # tokens of a meta command, verb and key included
    OPAQUE_MOST = 32            # the letter O included

# One meta command: its key and what its flags say. `first` is the first flag's token.
cdef struct Meta:
    Token t[MAX_TOKENS]
    int count
    int first
    char key[256]
    size_t nkey
    bint binary
    bint quiet
    bint value
    bint no_bump
    bint has_ttl
    bint has_vivify
    bint has_cas
    bint has_recache
    bint invalidate
    bint remove_value
    bint has_mode
    bint long_opaque
    char mode
    int32_t ttl
    int32_t vivify
    int32_t recache
    uint32_t flags
    uint64_t cas
    bint has_explicit
    uint64_t explicit
    uint64_t delta
    uint64_t initial


cdef inline const char* read_flag(Meta* m, Token* t) noexcept nogil:
    # One flag into m; the error's text, or NULL.
    cdef char f = t.at[0]
    cdef const char* arg = t.at + 1
    cdef size_t n = t.len - 1
    if f == c'q': m.quiet = 1
    elif f == c'v': m.value = 1
    elif f == c'u': m.no_bump = 1
    elif f == c'b':
        m.binary = 1
        m.nkey = <size_t> base64_read(m.t[1].at, m.t[1].len, m.key)
        if m.nkey == 0: return WIRE_FLAG_KEY
    elif f == c'I': m.invalidate = 1
    elif f == c'x': m.remove_value = 1
    elif f == c'T':
        m.has_ttl = 1
        if not read_i32(arg, n, &m.ttl): return WIRE_FLAG_TOKEN
    elif f == c'N':
        m.has_vivify = 1
        if not read_i32(arg, n, &m.vivify): return WIRE_FLAG_TOKEN
    elif f == c'R':
        m.has_recache = 1
        if not read_i32(arg, n, &m.recache): return WIRE_FLAG_TOKEN
    elif f == c'C':
        m.has_cas = 1
        if not read_u64(arg, n, &m.cas): return WIRE_FLAG_TOKEN
    elif f == c'E':
        m.has_explicit = 1
        if not read_u64(arg, n, &m.explicit): return WIRE_FLAG_TOKEN
    elif f == c'F':
        if not read_u32(arg, n, &m.flags): return WIRE_BAD_FORMAT
    elif f == c'J':
        if not read_u64(arg, n, &m.initial): return WIRE_FLAG_INITIAL
    elif f == c'D':
        if not read_u64(arg, n, &m.delta): return WIRE_FLAG_DELTA
    elif f == c'O':
        m.long_opaque = t.len > OPAQUE_MOST
    elif f == c'M':
        m.has_mode = 1
        m.mode = arg[0] if n else 0
    return NULL


cdef inline bint is_flag(uint8_t f) noexcept nogil:
    # Whether the letter means something to any meta command.
    return (f == c'q' or f == c'v' or f == c'u' or f == c'b' or f == c'I' or f == c'x' or f == c'T' or f == c'N' or f == c'R'
            or f == c'C' or f == c'E' or f == c'F' or f == c'J' or f == c'D' or f == c'O' or f == c'M' or f == c's'
            or f == c'k' or f == c't' or f == c'c' or f == c'f' or f == c'l' or f == c'h' or f == c'P' or f == c'L')


cdef inline bint no_flags(Meta* m, int first) noexcept nogil:
    # Whether one of the tokens begins with what is no flag of any command, now or ever.
    cdef int i
    cdef uint8_t f
    for i in range(first, indexed(m.t, m.count)):
        f = <uint8_t> m.t[i].at[0]
        if not (c'A' <= f <= c'z' or c'0' <= f <= c'9'):
            return 1
    return 0


cdef inline const char* read_meta(Meta* m, int first) noexcept nogil:
    # Key and flags of a tokenised command; the error's text, or NULL. As memcached: flags that cannot be come first,
    # then those that are twice or unknown, then bad arguments and keys, of which the last is told (a bad F only alone).
    # An opaque that is too long is told by each command in its own time.
    cdef uint8_t seen[128]
    cdef int i
    cdef uint8_t f
    cdef const char* error = NULL
    cdef const char* wrong
    cdef bint bad_flags = 0
    m.first = first
    if m.t[1].len > KEY_MAX:
        return WIRE_BAD_FORMAT
    if no_flags(m, first):
        return WIRE_BAD_FORMAT
    if m.count > META_TOKENS:
        return WIRE_FLAGS_TOO_LONG
    if m.count > first:
        memset(seen, 0, sizeof(seen))
        for i in range(first, m.count):
            f = <uint8_t> m.t[i].at[0]
            if seen[f]:
                return WIRE_FLAG_TWICE
            if not is_flag(f):
                return WIRE_FLAG_UNKNOWN
            seen[f] = 1
        for i in range(first, m.count):
            wrong = read_flag(m, &m.t[i])
            if m.t[i].at[0] == c'F':
                bad_flags = wrong != NULL
            elif wrong != NULL:
                error = wrong
    if m.binary:
        return error if error != NULL else WIRE_BAD_FORMAT if bad_flags else NULL
    m.nkey = m.t[1].len
    memcpy(m.key, m.t[1].at, m.nkey)
    return error if error != NULL else WIRE_BAD_FORMAT if bad_flags else NULL


cdef inline void meta_clear(Meta* m) noexcept nogil:
    m.binary = 0
    m.quiet = 0
    m.value = 0
    m.no_bump = 0
    m.has_ttl = 0
    m.has_vivify = 0
    m.has_cas = 0
    m.has_recache = 0
    m.invalidate = 0
    m.remove_value = 0
    m.has_mode = 0
    m.long_opaque = 0
    m.mode = 0
    m.ttl = 0
    m.flags = 0
    m.cas = 0
    m.has_explicit = 0
    m.explicit = 0
    m.delta = 1
    m.initial = 0


cdef inline void put_token(Conn* c, Token* t) noexcept nogil:
    put_char(c, c' ')
    put(c, t.at, t.len)


cdef inline void put_key(Conn* c, Meta* m) noexcept nogil:
    # The k flag: the key as it was asked for.
    put(c, b" k", 2)
    put(c, m.t[1].at, m.t[1].len)
    if m.binary:
        put(c, b" b", 2)


cdef inline void put_stored_key(Conn* c, Item* it) noexcept nogil:
    # In base64 when the item was stored so, whatever was asked.
    if it.state & S_BINARY:
        c.shared.out_len += <size_t> base64_write(c.shared.out + c.shared.out_len, key_of(it), it.nkey)
    else:
        put(c, key_of(it), it.nkey)


cdef inline void put_item_key(Conn* c, Item* it) noexcept nogil:
    # The k flag of a hit: base64 when the item was stored so.
    put(c, b" k", 2)
    put_stored_key(c, it)
    if it.state & S_BINARY:
        put(c, b" b", 2)


cdef inline void put_echo(Conn* c, Meta* m, const char* code) noexcept nogil:
    # A status with the flags that every reply may carry: O and k. Not with a long opaque: it may be longer than OUT_ROOM.
    cdef int i
    put(c, code, 2)
    for i in range(m.first, m.count):
        if m.t[i].at[0] == c'O':
            put_token(c, &m.t[i])
        elif m.t[i].at[0] == c'k':
            put_key(c, m)
    puts(c, WIRE_CRLF)


cdef inline const char* meta_code(Result r) noexcept nogil:
    if r == V_OK: return b"HD"
    if r == V_NOT_STORED: return b"NS"
    if r == V_EXISTS: return b"EX"
    return b"NF"


cdef inline void put_trouble(Conn* c, Result r) noexcept nogil:
    # What is answered in words; nothing for the other results.
    if r == V_NON_NUMERIC: puts(c, WIRE_NON_NUMERIC)
    elif r == V_NO_MEMORY: puts(c, WIRE_NO_MEMORY)
    elif r == V_STALE: puts(c, WIRE_STALE)
    elif r == V_REFUSED: put(c, c.refusal, c.refusal_len)


cdef inline void put_flag(Conn* c, char f, int64_t value) noexcept nogil:
    put_char(c, c' ')
    put_char(c, f)
    put_i64(c, value)


cdef inline void put_cas(Conn* c, uint64_t cas) noexcept nogil:
    put(c, b" c", 2)
    put_u64(c, cas)


# mg

cdef inline bint used_at_the_end(Meta* m) noexcept nogil:
    # With these memcached counts the item as used behind the last flag, where an error never comes; else when it finds it.
    cdef int i
    for i in range(m.first, m.count):
        if m.t[i].at[0] in b"hlNRT":
            return 1
    return 0


cdef inline void mg_hit(Conn* c, Meta* m, uint32_t h, bint created) noexcept nogil:
    cdef Store* s = c.store
    cdef Item* it = item_at(&s.arena, h)
    cdef bint won = created, was_sent = it.seg & G_TOKEN and not created
    # T, N and R take effect in their place among the flags, so `t` shows what came before them.
    cdef bint with_value = m.value and not (m.has_cas and m.cas == it.cas)
    cdef int i
    cdef char f
    cdef size_t start = c.shared.out_len
    if with_value:
        put(c, b"VA ", 3)
        put_u64(c, it.nbytes)
    else:
        put(c, b"HD", 2)
    for i in range(m.first, m.count):
        f = m.t[i].at[0]
        if f == c's': put_flag(c, f, it.nbytes)
        elif f == c't': put_flag(c, f, shown_ttl(s, it))
        elif f == c'c': put_cas(c, it.cas)
        elif f == c'f': put_flag(c, f, it.flags)
        elif f == c'l': put_flag(c, f, (s.tick - it.time) // TICKS)
        elif f == c'h': put_flag(c, f, 1 if it.state & S_FETCHED else 0)
        elif f == c'O':
            if m.long_opaque:           # what stood before it has been done, the rest is not
                c.shared.out_len = start
                puts(c, WIRE_FLAG_OPAQUE)
                if not m.no_bump and not created and not used_at_the_end(m):
                    item_bump(s, h, it)
                return
            put_token(c, &m.t[i])
        elif f == c'k': put_item_key(c, it)
        elif f == c'T': set_expiry(s, it, expiry(s, m.ttl))
        elif f == c'N':
            if created:
                set_expiry(s, it, expiry(s, m.vivify))
        elif f == c'R':
            if not was_sent and not created and lease_due(s, it, m.recache):
                won = 1
    if was_sent:
        put(c, b" Z", 2)
    if it.state & S_STALE:
        put(c, b" X", 2)
    if lease_won(it, was_sent, won):
        put(c, b" W", 2)
    puts(c, WIRE_CRLF)
    if with_value:
        put_value(c, h, it, 1)
    if not m.no_bump:
        item_bump(s, h, it)


cdef inline void cmd_mg(Conn* c, Meta* m) noexcept nogil:
    cdef const char* error
    cdef uint32_t h
    cdef Lease lease
    cdef Result r
    if m.count < 2:
        puts(c, WIRE_BAD_FORMAT)
        return
    error = read_meta(m, 2)
    if error != NULL:
        puts(c, error)
        return
    lease.no_bump = m.no_bump
    lease.touches = m.has_ttl
    lease.makes = m.has_vivify
    lease.has_explicit = m.has_explicit
    lease.explicit = m.explicit
    r = fetch_lease(c, m.key, m.nkey, &lease, &h)
    if r == V_OK:
        mg_hit(c, m, h, lease.created)
        curve_expiry(c.store, item_at(&c.store.arena, h), lease.hash)
    elif r == V_NOT_FOUND:
        if m.long_opaque:
            puts(c, WIRE_FLAG_OPAQUE)
        elif not m.quiet:
            put_echo(c, m, WIRE_EN)
    else:
        puts(c, WIRE_STALE if r == V_STALE else WIRE_REFCOUNT if r == V_PINNED else WIRE_NO_MEMORY_ITEM)


# ms

cdef inline bint set_mode(Meta* m, Mode* mode) noexcept nogil:
    # M's letter and C together; false for a letter that is no mode.
    mode[0] = M_SET
    if m.has_mode:
        if m.mode == c'E': mode[0] = M_ADD
        elif m.mode == c'A': mode[0] = M_APPEND
        elif m.mode == c'P': mode[0] = M_PREPEND
        elif m.mode == c'R': mode[0] = M_REPLACE
        elif m.mode != c'S': return 0
    if m.has_cas and (mode[0] == M_SET or mode[0] == M_REPLACE):
        mode[0] = M_CAS
    return 1


cdef inline void ms_refused(Conn* c, Meta* m, Result r) noexcept nogil:
    # Its data is not wanted.
    if r == V_STALE: puts(c, WIRE_STALE)
    elif r == V_TOO_LARGE: puts(c, WIRE_TOO_LARGE)
    elif r == V_NO_MEMORY: puts(c, WIRE_NO_MEMORY_STORE)
    elif m.long_opaque: puts(c, WIRE_FLAG_OPAQUE)
    else: put_echo(c, m, meta_code(r))


cdef inline void cmd_ms(Conn* c, Meta* m, const char* line, size_t n) noexcept nogil:
    # The command line of ms.
    cdef const char* error
    cdef int32_t length
    cdef uint32_t h
    cdef Mode mode
    cdef Result r
    cdef bint vivifies
    if m.count < 3 or not read_i32(m.t[2].at, m.t[2].len, &length) or length < 0 or length > LENGTH_MOST:
        puts(c, WIRE_BAD_FORMAT)
        return
    error = read_meta(m, 3)
    if error == NULL and not set_mode(m, &mode):
        error = WIRE_MODE_SET
    if error != NULL:
        puts(c, error)
        skip(c, <uint64_t> length + 2)
        return
    vivifies = m.has_vivify and (mode == M_APPEND or mode == M_PREPEND)
    r = store_begin(c, m.key, m.nkey, m.flags, expiry(c.store, m.vivify if vivifies else m.ttl), <uint64_t> length, mode, 1, &h)
    if r != V_OK:
        ms_refused(c, m, r)
        skip(c, <uint64_t> length + 2)
        return
    if m.long_opaque:
        item_release(c.store, h)
        puts(c, WIRE_FLAG_OPAQUE)
        skip(c, <uint64_t> length + 2)
        return
    if m.binary:
        item_at(&c.store.arena, h).state |= S_BINARY
    c.meta = 1
    c.text = line
    c.text_len = n
    store_takes(c, h, mode, 1)


cdef inline void finish_ms(Conn* c, Meta* m) noexcept nogil:
    # The data is there (m was read again from the kept line): store it and answer.
    cdef uint32_t stored
    cdef uint32_t nbytes = item_at(&c.store.arena, c.item).nbytes
    cdef How how
    cdef Result r
    cdef int i
    cdef char f
    how.cas_given = m.has_cas
    how.cas = m.cas
    how.explicit = m.explicit
    how.invalidate = m.invalidate
    how.vivify = m.has_vivify
    r = store_end(c, &how, &stored)
    if r == V_STALE or r == V_REFUSED or r == V_WAITS:
        put_trouble(c, r)
        return
    if r == V_OK:
        nbytes = item_at(&c.store.arena, stored).nbytes
        if m.quiet:
            return
    put(c, meta_code(r), 2)
    for i in range(m.first, m.count):
        f = m.t[i].at[0]
        if f == c'O': put_token(c, &m.t[i])
        elif f == c'k': put_key(c, m)
        elif f == c'c': put_cas(c, item_at(&c.store.arena, stored).cas if stored else 0)
        elif f == c's': put_flag(c, f, nbytes)
    puts(c, WIRE_CRLF)


# md

cdef inline void cmd_md(Conn* c, Meta* m) noexcept nogil:
    cdef const char* error
    cdef Removal how
    cdef Result r
    if m.count < 2:
        puts(c, WIRE_BAD_FORMAT)
        return
    error = read_meta(m, 2)
    if error == NULL and m.long_opaque:
        error = WIRE_FLAG_OPAQUE
    if error != NULL:
        puts(c, error)
        return
    how.name = b"md"
    how.cas_given = m.has_cas
    how.cas = m.cas
    how.stale = m.invalidate
    how.empties = m.remove_value
    how.flags = m.flags
    how.has_ttl = m.has_ttl
    how.ttl = m.ttl
    how.has_explicit = m.has_explicit
    how.explicit = m.explicit
    r = delete_key(c, m.key, m.nkey, &how)
    if r == V_EXISTS:
        c.store.n.delete_misses += 1    # as in memcached; a binary delete is counted nowhere then
    if r == V_EXISTS or r == V_NOT_FOUND or r == V_OK and not m.quiet:
        put_echo(c, m, meta_code(r))
    else:
        put_trouble(c, r)


# ma

cdef inline void ma_done(Conn* c, Meta* m, Sum* sum) noexcept nogil:
    # The reply of a success. T and N take effect here, in their place among the flags. As in memcached, T (and E, in add_up) is
    # shown and lost when the number has grown: it is set on the item that a longer one has replaced.
    cdef Store* s = c.store
    cdef Item* it = item_at(&s.arena, sum.item)
    cdef uint32_t kept = it.exptime
    cdef char digits[24]
    cdef int n = write_u64(digits, sum.number), i
    cdef char f
    cdef size_t start = c.shared.out_len
    if m.value:
        put(c, b"VA ", 3)
        put_u64(c, <uint64_t> n)
    else:
        put(c, b"HD", 2)
    for i in range(m.first, m.count):
        f = m.t[i].at[0]
        if f == c't': put_flag(c, f, shown_ttl(s, it))
        elif f == c'c': put_cas(c, sum.unique)
        elif f == c'O' and m.long_opaque: break
        elif f == c'O': put_token(c, &m.t[i])
        elif f == c'k': put_key(c, m)
        elif f == c'T': set_expiry(s, it, expiry(s, m.ttl))
        elif f == c'N':
            if sum.created:
                set_expiry(s, it, expiry(s, m.vivify))
    puts(c, WIRE_CRLF)
    if m.value:
        put(c, digits, <size_t> n)
        puts(c, WIRE_CRLF)
    if sum.grown:
        set_expiry(s, it, kept)
    if m.long_opaque or m.quiet:
        c.shared.out_len = start
    if m.long_opaque:
        puts(c, WIRE_FLAG_OPAQUE)


cdef inline void cmd_ma(Conn* c, Meta* m) noexcept nogil:
    cdef Sum sum
    cdef Result r
    if m.count < 2 or no_flags(m, 2):
        puts(c, WIRE_BAD_FORMAT)
        return
    if read_meta(m, 2) != NULL:
        puts(c, WIRE_MA_FLAG)
        return
    sum.incr = 1
    if m.has_mode:
        sum.incr = m.mode == c'I' or m.mode == c'+'
        if not sum.incr and m.mode != c'D' and m.mode != c'-':
            puts(c, WIRE_MODE_ARITH)
            return
    sum.delta = m.delta
    sum.cas_given = m.has_cas
    sum.cas = m.cas
    sum.has_explicit = m.has_explicit
    sum.explicit = m.explicit
    sum.makes = m.has_vivify
    sum.initial = m.initial
    sum.expires = 0
    r = add_up(c, m.key, m.nkey, &sum)
    if r == V_OK:
        ma_done(c, m, &sum)
    elif r != V_EXISTS and r != V_NOT_FOUND and r != V_NOT_STORED:
        put_trouble(c, r)
    elif m.long_opaque:
        puts(c, WIRE_FLAG_OPAQUE)
    else:
        put_echo(c, m, meta_code(r))


# me

cdef inline void cmd_me(Conn* c, Meta* m) noexcept nogil:
    cdef Store* s = c.store
    cdef uint32_t h
    cdef Item* it
    cdef Result r
    cdef int64_t left
    if m.count < 2 or m.t[1].len > KEY_MAX:
        puts(c, WIRE_BAD_FORMAT)
        return
    m.nkey = m.t[1].len
    memcpy(m.key, m.t[1].at, m.nkey)
    if no_flags(m, 2):
        puts(c, WIRE_BAD_FORMAT)
        return
    if m.count > 3 and m.t[2].len == 1 and m.t[2].at[0] == c'b':    # as memcached: only if it is first, and something follows
        m.nkey = <size_t> base64_read(m.t[1].at, m.t[1].len, m.key)
        if m.nkey == 0:
            puts(c, WIRE_BAD_FORMAT)
            return
    s.n.cmd_meta += 1
    r = peek(c, m.key, m.nkey, &h)
    if r != V_OK:
        puts(c, WIRE_STALE if r == V_STALE else WIRE_EN)
        return
    it = item_at(&s.arena, h)
    left = ttl_left(s, it)
    put(c, b"ME ", 3)
    put_stored_key(c, it)
    put(c, b" exp=", 5)
    put_i64(c, left)
    put(c, b" la=", 4)
    put_u64(c, (s.tick - it.time) // TICKS)
    put(c, b" cas=", 5)
    put_u64(c, it.cas)
    puts(c, b" fetch=yes cls=" if it.state & S_FETCHED else b" fetch=no cls=")
    put_u64(c, it.cls)
    put(c, b" size=", 6)
    put_u64(c, size_of(s, it))
    puts(c, WIRE_CRLF)
