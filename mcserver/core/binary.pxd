# Binary commands: requests and replies of 24 bytes of header, extras, key and value, in network order.
#
# How each is asked for and answered, as memcached 1.6 does it (proto_bin.c; there is no page); what it does is verbs.pxd's. A
# quiet request is answered only when it fails, a quiet get only when it hits. Must never look at the socket or at input beyond
# the request (and its value).

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen
from .memory cimport Item, S_LARGE, item_at
from .store cimport expiry
from .items cimport item_release, key_of, value_of
from .text cimport KEY_MAX
from .values cimport How, M_ADD, M_APPEND, M_CAS, M_PREPEND, M_REPLACE, M_SET, Mode, item_alloc
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .intake cimport data_begins
from .login cimport *
from .packets cimport *
from .verbs cimport *
from .wire cimport *

cdef extern from "<endian.h>" nogil:
    uint16_t be16toh(uint16_t x)
    uint32_t be32toh(uint32_t x)
    uint64_t be64toh(uint64_t x)

cdef extern from *:
    """
    /* The opcode that a request means, by the opcode that it has; the high bit: quietly. */
    #define QUIETLY(verb) (0x80 | (verb))
    static const unsigned char BINARY_VERBS[] = {
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, QUIETLY(0x00), 0x0a, 0x0b, 0x0c, QUIETLY(0x0c), 0x0e, 0x0f,
        0x10, QUIETLY(0x01), QUIETLY(0x02), QUIETLY(0x03), QUIETLY(0x04), QUIETLY(0x05), QUIETLY(0x06), QUIETLY(0x07),
        QUIETLY(0x08), QUIETLY(0x0e), QUIETLY(0x0f), 0x1b, 0x1c, 0x1d, QUIETLY(0x1d), 0x1f,
        0x20, 0x21, 0x22, 0x23, QUIETLY(0x23),
    };
    """
    const uint8_t* BINARY_VERBS

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* one, const char* other, size_t n)

cdef enum:
    BINARY_OPCODES = 0x25       # of BINARY_VERBS
    NEVER_MAKE = 0xffffffff     # an expiry by which a counter that is missing stays so
    MECHANISM_MOST = 32

cdef enum:
    B_GET = 0x00
    B_SET = 0x01
    B_ADD = 0x02
    B_REPLACE = 0x03
    B_DELETE = 0x04
    B_INCREMENT = 0x05
    B_DECREMENT = 0x06
    B_QUIT = 0x07
    B_FLUSH = 0x08
    B_NOOP = 0x0a
    B_VERSION = 0x0b
    B_GETK = 0x0c
    B_APPEND = 0x0e
    B_PREPEND = 0x0f
    B_STAT = 0x10
    B_TOUCH = 0x1c
    B_GAT = 0x1d
    B_SASL_LIST = 0x20
    B_SASL_AUTH = 0x21
    B_SASL_STEP = 0x22
    B_GATK = 0x23
    B_NONE = 0x7f               # no command

# One request's header and where its parts are. `size` is what stands before the value.
cdef struct Request:
    uint8_t opcode
    uint8_t extlen
    uint16_t keylen
    uint32_t bodylen
    uint64_t cas
    const char* extras
    const char* key
    size_t size


cdef inline uint16_t read_16(const char* p) noexcept nogil:
    cdef uint16_t x
    memcpy(&x, p, 2)
    return be16toh(x)


cdef inline uint32_t read_32(const char* p) noexcept nogil:
    cdef uint32_t x
    memcpy(&x, p, 4)
    return be32toh(x)


cdef inline uint64_t read_64(const char* p) noexcept nogil:
    cdef uint64_t x
    memcpy(&x, p, 8)
    return be64toh(x)


cdef inline bint read_request(Conn* c, const char* p, size_t n, Request* r) noexcept nogil:
    # The request at p; false while a part of it is missing that stands before its value.
    if n < BINARY_HEADER:
        return 0
    r.opcode = <uint8_t> p[1]
    r.keylen = read_16(p + 2)
    r.extlen = <uint8_t> p[4]
    r.bodylen = read_32(p + 8)
    r.cas = read_64(p + 16)
    r.extras = p + BINARY_HEADER
    r.key = r.extras + r.extlen
    r.size = BINARY_HEADER + r.extlen + <size_t> r.keylen
    memcpy(&c.opaque, p + OPAQUE_AT, 4)
    c.opcode = r.opcode
    return n >= r.size


# Replies

cdef inline void put_header(Conn* c, BinaryStatus status, uint8_t extlen, uint16_t keylen, uint32_t bodylen,
                            uint64_t cas) noexcept nogil:
    header_write(c.shared.out + c.shared.out_len, c.opcode, &c.opaque, status, extlen, keylen, bodylen, cas)
    c.shared.out_len += BINARY_HEADER


cdef inline void put_words(Conn* c, BinaryStatus status, const char* text, size_t n) noexcept nogil:
    put_header(c, status, 0, 0, <uint32_t> n, 0)
    put(c, text, n)


cdef inline void put_status(Conn* c, BinaryStatus status) noexcept nogil:
    # An error in memcached's words.
    cdef const char* text
    if status == BIN_NOT_FOUND: text = WIRE_BIN_NOT_FOUND
    elif status == BIN_EXISTS: text = WIRE_BIN_EXISTS
    elif status == BIN_TOO_LARGE: text = WIRE_BIN_TOO_LARGE
    elif status == BIN_INVALID: text = WIRE_BIN_INVALID
    elif status == BIN_NOT_STORED: text = WIRE_BIN_NOT_STORED
    elif status == BIN_NON_NUMERIC: text = WIRE_BIN_NON_NUMERIC
    elif status == BIN_AUTH_ERROR: text = WIRE_BIN_AUTH_ERROR
    else: text = WIRE_BIN_UNKNOWN
    put_words(c, status, text, strlen(text))


cdef inline void put_done(Conn* c, uint64_t cas) noexcept nogil:
    # A success that has nothing to say.
    if not c.quiet:
        put_header(c, BIN_OK, 0, 0, 0, cas)


cdef inline void put_line(Conn* c, BinaryStatus status, const char* line, size_t n) noexcept nogil:
    # An error of the text protocol.
    as_words(&line, &n)
    put_words(c, status, line, n)


cdef inline void put_failure(Conn* c, Result r) noexcept nogil:
    # What is answered alike whatever the command was; nothing while a write waits for its lock.
    if r == V_NOT_FOUND: put_status(c, BIN_NOT_FOUND)
    elif r == V_NOT_STORED: put_status(c, BIN_NOT_STORED)
    elif r == V_EXISTS: put_status(c, BIN_EXISTS)
    elif r == V_NON_NUMERIC: put_status(c, BIN_NON_NUMERIC)
    elif r == V_TOO_LARGE: put_status(c, BIN_TOO_LARGE)
    elif r == V_FORBIDDEN: put_status(c, BIN_AUTH_ERROR)
    elif r == V_NO_MEMORY: put_words(c, BIN_NO_MEMORY, WIRE_BIN_NO_MEMORY_ITEM, strlen(WIRE_BIN_NO_MEMORY_ITEM))
    elif r == V_PINNED: put_line(c, BIN_TEMPORARY, WIRE_REFCOUNT, strlen(WIRE_REFCOUNT))
    elif r == V_STALE: put_line(c, BIN_TEMPORARY, WIRE_STALE, strlen(WIRE_STALE))
    elif r == V_REFUSED: put_line(c, BIN_TEMPORARY, c.refusal, c.refusal_len)


cdef inline void close_after(Conn* c) noexcept nogil:
    # What follows can't be understood: the connection ends when its replies are sent.
    c.quitting = QUIT_ERROR


cdef inline void bad_request(Conn* c) noexcept nogil:
    put_status(c, BIN_INVALID)
    close_after(c)


# Retrieval

cdef inline void bin_get(Conn* c, Request* r, int verb) noexcept nogil:
    # get, getk, touch, gat, gatk.
    cdef bint touches = verb == B_TOUCH or verb == B_GAT or verb == B_GATK
    cdef uint16_t keylen = r.keylen if verb == B_GETK or verb == B_GATK else 0
    cdef uint32_t h, flags, length
    cdef Item* it
    cdef Result result
    if touches:
        result = fetch(c, r.key, r.keylen, F_GET_AND_TOUCH, expiry(c.store, read_32(r.extras)), &h)
    else:
        result = fetch(c, r.key, r.keylen, F_GET, 0, &h)
    if result == V_OK:
        it = item_at(&c.store.arena, h)
        length = 0 if verb == B_TOUCH else it.nbytes
        put_header(c, BIN_OK, 4, keylen, 4 + keylen + length, it.cas)
        flags = htobe32(it.flags)
        put(c, <char*> &flags, 4)
        put(c, r.key, keylen)
        if length:
            put_value(c, h, it, 0)
    elif result != V_NOT_FOUND:
        put_failure(c, result)
    elif not c.quiet:
        if keylen:
            put_header(c, BIN_NOT_FOUND, 0, keylen, keylen, 0)
            put(c, r.key, keylen)
        else:
            put_status(c, BIN_NOT_FOUND)


# Storage

cdef inline Mode bin_mode(int verb) noexcept nogil:
    if verb == B_ADD: return M_ADD
    if verb == B_REPLACE: return M_REPLACE
    if verb == B_APPEND: return M_APPEND
    if verb == B_PREPEND: return M_PREPEND
    return M_SET


cdef inline void bin_not_stored(Conn* c, Result r) noexcept nogil:
    # add and replace say why.
    cdef int verb = BINARY_VERBS[c.opcode] & 0x7f
    if r == V_NOT_STORED and verb == B_ADD:
        r = V_EXISTS
    elif r == V_NOT_STORED and verb == B_REPLACE:
        r = V_NOT_FOUND
    put_failure(c, r)


cdef inline void skip_value(Conn* c, uint32_t length) noexcept nogil:
    # As memcached, whose lengths are signed: what is longer than such a number can say is not skipped.
    if 0 < length <= <uint32_t> 0x7fffffff:
        skip(c, length)


cdef inline void bin_store(Conn* c, Request* r, int verb) noexcept nogil:
    # set, add, replace, append, prepend: the value comes next.
    cdef bint grows = verb == B_APPEND or verb == B_PREPEND
    cdef uint32_t length = r.bodylen - r.keylen - r.extlen, h
    cdef uint32_t flags = 0 if grows else read_32(r.extras)
    cdef uint32_t expires = 0 if grows else expiry(c.store, read_32(r.extras + 4))
    cdef Mode mode = bin_mode(verb)
    cdef Result result
    c.cas = r.cas if c.store.use_cas else 0
    if c.cas and not grows:
        mode = M_CAS
    result = store_begin(c, r.key, r.keylen, flags, expires, length, mode, verb == B_SET, &h)
    if result == V_OK:
        store_takes(c, h, mode, verb == B_SET)
    else:
        bin_not_stored(c, result)
        skip_value(c, length)


cdef inline void bin_stored(Conn* c) noexcept nogil:
    # The value is there: store it and answer.
    cdef How how
    cdef uint32_t stored
    cdef Result r
    how.cas_given = c.cas != 0
    how.cas = c.cas
    how.explicit = 0
    how.invalidate = 0
    how.vivify = 0
    r = store_end(c, &how, &stored)
    if r == V_OK:
        put_done(c, item_at(&c.store.arena, stored).cas)
    else:
        bin_not_stored(c, r)


# The rest

cdef inline void bin_delete(Conn* c, Request* r) noexcept nogil:
    cdef Removal how
    cdef Result result
    how.name = b"delete"
    how.cas_given = r.cas != 0
    how.cas = r.cas
    how.stale = 0
    how.empties = 0
    result = delete_key(c, r.key, r.keylen, &how)
    if result == V_OK:
        put_done(c, 0)
    else:
        put_failure(c, result)


cdef inline void bin_arith(Conn* c, Request* r, bint incr) noexcept nogil:
    cdef Sum sum
    cdef Result result
    cdef uint32_t exptime = read_32(r.extras + 16)
    cdef uint64_t number
    cdef const char* text
    sum.incr = incr
    sum.delta = read_64(r.extras)
    sum.cas_given = r.cas != 0
    sum.cas = r.cas
    sum.has_explicit = 0
    sum.makes = exptime != <uint32_t> NEVER_MAKE
    sum.initial = read_64(r.extras + 8)
    sum.expires = expiry(c.store, exptime) if sum.makes else 0
    result = add_up(c, r.key, r.keylen, &sum)
    if result == V_OK:
        if not c.quiet:
            put_header(c, BIN_OK, 0, 0, 8, sum.unique)
            number = htobe64(sum.number)
            put(c, <char*> &number, 8)
    elif result == V_NO_MEMORY:
        text = WIRE_BIN_NO_MEMORY_NEW if sum.created else WIRE_BIN_NO_MEMORY_ADD
        put_words(c, BIN_NO_MEMORY, text, strlen(text))
    else:
        put_failure(c, result)


cdef inline void bin_flush(Conn* c, Request* r) noexcept nogil:
    cdef int64_t delay = read_32(r.extras) if r.extlen else 0
    cdef Result result = flush_items(c, delay if delay < 0x7fffffff else 0x7fffffff)
    if result == V_OK:
        put_done(c, 0)
    else:
        put_failure(c, result)


cdef inline void bin_version(Conn* c) noexcept nogil:
    # `VERSION x.y.z`, without its first word and its end.
    put_words(c, BIN_OK, c.shared.version + 8, c.shared.version_len - 10)


cdef inline bint begins(const char* p, size_t n, const char* word) noexcept nogil:
    return n >= strlen(word) and memcmp(p, word, strlen(word)) == 0


cdef inline const char* stat_words(const char* key, size_t n) noexcept nogil:
    # What `stats` is to be asked; NULL for what only the text protocol has. As memcached: reset, settings and detail need only
    # begin so, the others must be the whole key.
    if n == 0: return b""
    if begins(key, n, b"reset"): return b" reset"
    if begins(key, n, b"settings"): return b" settings"
    if begins(key, n, b"detail dump"): return b" detail dump"
    if begins(key, n, b"detail on"): return b" detail on"
    if begins(key, n, b"detail off"): return b" detail off"
    if n == 5 and begins(key, n, b"items"): return b" items"
    if n == 5 and begins(key, n, b"slabs"): return b" slabs"
    if n == 5 and begins(key, n, b"sizes"): return b" sizes"
    if n == 3 and begins(key, n, b"mrc"): return b" mrc"
    if n == 7 and begins(key, n, b"cluster"): return b" cluster"
    return NULL


cdef inline void bin_stat(Conn* c, Request* r) noexcept nogil:
    # The owner's lines become packets on their way (binary_face.pxi).
    cdef char line[32]
    cdef const char* words = stat_words(r.key, r.keylen)
    if words == NULL:
        put_status(c, BIN_NOT_FOUND)
        return
    memcpy(line, b"stats", 5)
    memcpy(line + 5, words, strlen(words))
    if not ask_owner(c, line, 5 + strlen(words)):
        put_words(c, BIN_NO_MEMORY, WIRE_BIN_NO_MEMORY_ITEM, strlen(WIRE_BIN_NO_MEMORY_ITEM))


# SASL

cdef inline void bin_mechanisms(Conn* c, Request* r) noexcept nogil:
    if c.store.login != LOGIN_SASL:
        put_status(c, BIN_UNKNOWN)
        return
    c.stranger = 1              # as memcached: who asks begins anew
    put_words(c, BIN_OK, b"PLAIN", 5)


cdef inline void bin_auth(Conn* c, Request* r) noexcept nogil:
    # auth, step: the mechanism is the key; what it says comes next, into an item that is never linked.
    cdef uint32_t length = r.bodylen - r.keylen, h = 0
    cdef int error = 0
    if c.store.login != LOGIN_SASL:
        put_status(c, BIN_UNKNOWN)
        skip_value(c, length)
        return
    if r.keylen <= MECHANISM_MOST:
        h = item_alloc(c.store, r.key, r.keylen, 0, 0, length, &error)
    if h and item_at(&c.store.arena, h).state & S_LARGE:
        item_release(c.store, h)
        h = 0
    if h == 0:
        put_status(c, BIN_INVALID)
        skip_value(c, length)
        return
    c.drops = 0
    data_begins(c, h)


cdef inline void bin_authenticate(Conn* c) noexcept nogil:
    # What the mechanism says is there.
    cdef Item* it = item_at(&c.store.arena, c.item)
    cdef Login login = LOGIN_WRONG
    cdef bint plain = it.nkey == 5 and strncasecmp(key_of(it), b"PLAIN", 5) == 0
    c.stranger = 1
    if c.opcode == B_SASL_STEP:
        if c.sasl_started:
            login = plain_login(c.store.users, value_of(it), it.nbytes)
    elif plain:
        login = LOGIN_MORE if it.nbytes == 0 else plain_login(c.store.users, value_of(it), it.nbytes)
        c.sasl_started = login != LOGIN_WRONG
    memset(value_of(it), 0, it.nbytes)
    item_release(c.store, c.item)
    c.item = 0
    if login == LOGIN_MORE:
        put_header(c, BIN_AUTH_CONTINUE, 0, 0, 0, 0)
        return
    c.store.n.auth_cmds += 1
    if login == LOGIN_RIGHT:
        c.stranger = 0
        put_words(c, BIN_OK, WIRE_BIN_AUTHENTICATED, strlen(WIRE_BIN_AUTHENTICATED))
    else:
        c.store.n.auth_errors += 1
        put_status(c, BIN_AUTH_ERROR)
        login_event(c)


# One request

cdef inline bint is_open_to_all(uint8_t opcode) noexcept nogil:
    return opcode == B_SASL_LIST or opcode == B_SASL_AUTH or opcode == B_SASL_STEP or opcode == B_VERSION


cdef inline bint fits(Request* r, int verb) noexcept nogil:
    # Whether the lengths are those of the command.
    cdef uint32_t ext = r.extlen, key = r.keylen, body = r.bodylen
    if verb == B_GET or verb == B_GETK or verb == B_DELETE: return ext == 0 and key and body == key
    if verb == B_SET or verb == B_ADD or verb == B_REPLACE: return ext == 8 and key
    if verb == B_APPEND or verb == B_PREPEND: return ext == 0 and key
    if verb == B_TOUCH or verb == B_GAT or verb == B_GATK: return ext == 4 and key
    if verb == B_INCREMENT or verb == B_DECREMENT: return ext == 20 and key and body == key + 20
    if verb == B_SASL_AUTH or verb == B_SASL_STEP: return ext == 0 and key
    if verb == B_STAT: return ext == 0
    if verb == B_FLUSH: return key == 0 and body == ext and (ext == 0 or ext == 4)
    return body == 0            # quit, noop, version, sasl_list


cdef inline void bin_command(Conn* c, Request* r, int verb) noexcept nogil:
    if verb == B_GET or verb == B_GETK or verb == B_TOUCH or verb == B_GAT or verb == B_GATK:
        bin_get(c, r, verb)
    elif verb == B_SET or verb == B_ADD or verb == B_REPLACE or verb == B_APPEND or verb == B_PREPEND:
        bin_store(c, r, verb)
    elif verb == B_DELETE:
        bin_delete(c, r)
    elif verb == B_INCREMENT or verb == B_DECREMENT:
        bin_arith(c, r, verb == B_INCREMENT)
    elif verb == B_NOOP:
        put_done(c, 0)
    elif verb == B_FLUSH:
        bin_flush(c, r)
    elif verb == B_VERSION:
        bin_version(c)
    elif verb == B_STAT:
        bin_stat(c, r)
    elif verb == B_QUIT:
        put_done(c, 0)
        c.quitting = QUIT_ASKED
    elif verb == B_SASL_LIST:
        bin_mechanisms(c, r)
    else:
        bin_auth(c, r)


cdef inline bint is_command(int verb) noexcept nogil:
    return verb <= B_STAT and verb != 0x09 and verb != 0x0d or B_TOUCH <= verb <= B_GAT or B_SASL_LIST <= verb <= B_GATK


cdef inline void bin_request(Conn* c, Request* r) noexcept nogil:
    # Runs one request, whose value may still be to come.
    cdef int verb = B_NONE
    c.meta = 0
    c.quiet = 0
    if <uint32_t> r.keylen + r.extlen > r.bodylen:
        put_status(c, BIN_UNKNOWN)
        close_after(c)
        return
    if c.stranger and not is_open_to_all(r.opcode):
        put_status(c, BIN_AUTH_ERROR)
        close_after(c)
        return
    if r.keylen > KEY_MAX:
        bad_request(c)
        return
    if r.opcode < BINARY_OPCODES:
        c.quiet = BINARY_VERBS[r.opcode] >> 7
        verb = BINARY_VERBS[r.opcode] & 0x7f
    if not is_command(verb):
        put_status(c, BIN_UNKNOWN)
        skip_value(c, r.bodylen)        # as memcached: though extras and key are taken already
    elif fits(r, verb):
        bin_command(c, r, verb)
    else:
        bad_request(c)


cdef inline void bin_data_done(Conn* c) noexcept nogil:
    # A request's value is complete.
    if c.opcode == B_SASL_AUTH or c.opcode == B_SASL_STEP:
        bin_authenticate(c)
    else:
        bin_stored(c)
