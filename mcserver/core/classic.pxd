# Classic commands: get, gets, gat, gats, set, add, replace, append, prepend, cas, delete, incr, decr, touch, flush_all.
#
# How each is asked for and answered (protocol page, 1.3); what it does is verbs.pxd's. A command gets its tokens and appends its
# reply; with noreply the session takes the reply back. Must never look at the socket or at input beyond its line.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from .memory cimport Item, item_at
from .store cimport expiry
from .text cimport *
from .values cimport How, M_CAS, M_SET, Mode
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .verbs cimport *
from .wire cimport *

cdef enum:
    KEYS_A_SLICE = 2048         # keys of a multiget, after which the session looks at its turn's time


cdef inline void put_result(Conn* c, Result r) noexcept nogil:
    # What is answered in the same words whatever the command was; nothing for the others, and while a write waits.
    if r == V_NOT_FOUND: puts(c, WIRE_NOT_FOUND)
    elif r == V_NOT_STORED: puts(c, WIRE_NOT_STORED)
    elif r == V_EXISTS: puts(c, WIRE_EXISTS)
    elif r == V_NON_NUMERIC: puts(c, WIRE_NON_NUMERIC)
    elif r == V_NO_MEMORY: puts(c, WIRE_NO_MEMORY)
    elif r == V_STALE: puts(c, WIRE_STALE)
    elif r == V_REFUSED: put(c, c.refusal, c.refusal_len)


# Retrieval

cdef inline bint keys_fit(const char* p, size_t n) noexcept nogil:
    # No key in this text is too long.
    cdef size_t i, run = 0
    for i in range(n):
        run = 0 if p[i] == c' ' else run + 1
        if run > KEY_MAX:
            return 0
    return 1


cdef inline void whole_answer(Conn* c, const char* text) noexcept nogil:
    # An error takes the place of what the running get has answered since its last batch.
    c.shared.out_len = c.start
    replies_end_here(c)
    puts(c, text)
    c.phase = P_LINE


cdef inline bint get_one(Conn* c, const char* key, size_t nkey) noexcept nogil:
    # One key of a get, gets, gat or gats. 0: the answer is an error, already written.
    cdef uint32_t h
    cdef Item* it
    cdef char* out
    cdef Result r = fetch(c, key, nkey, F_GET_AND_TOUCH if c.touch else F_GET, c.expires, &h)
    if r == V_NOT_FOUND:
        return 1
    if r != V_OK:
        whole_answer(c, WIRE_STALE if r == V_STALE else WIRE_REFCOUNT)
        return 0
    it = item_at(&c.store.arena, h)
    out = c.shared.out + c.shared.out_len
    memcpy(out, b"VALUE ", 6)
    memcpy(out + 6, key, nkey)
    out += 6 + nkey
    out[0] = c' '
    out += 1 + write_u64(out + 1, it.flags)
    out[0] = c' '
    out += 1 + write_u64(out + 1, it.nbytes)
    if c.with_cas:
        out[0] = c' '
        out += 1 + write_u64(out + 1, it.cas)
    memcpy(out, WIRE_CRLF, 2)
    c.shared.out_len = <size_t> (out + 2 - c.shared.out)
    put_value(c, h, it, 1)
    return 1


cdef inline void bad_key(Conn* c) noexcept nogil:
    # memcached writes an empty line behind it, in a datagram, too.
    whole_answer(c, WIRE_BAD_FORMAT)
    puts(c, WIRE_CRLF)


cdef inline void run_keys(Conn* c) noexcept nogil:
    # Answers the keys in c.text until all are done, or (the phase stays P_KEYS) the output should be sent first or many
    # keys have been looked up.
    cdef const char* p = c.text
    cdef const char* end = p + c.text_len
    cdef const char* key
    cdef int left = KEYS_A_SLICE
    while True:
        while p < end and p[0] == c' ':
            p += 1
        if p == end and not c.big:
            puts(c, WIRE_END)
            c.phase = P_LINE
            break
        if c.shared.out_len >= OUT_SOFT or c.big or left == 0:
            if not c.checked and not keys_fit(p, <size_t> (end - p)):
                big_drop(c)
                c.tail = NULL
                bad_key(c)
                break
            if c.big and p == end and not c.store.trace:    # END goes out with the value
                c.tail = WIRE_CRLF_END
                c.phase = P_LINE
                break
            c.checked = 1
            c.text = p
            c.text_len = <size_t> (end - p)
            return
        key = p
        p = word_end(p, end)
        if p - key > KEY_MAX:
            bad_key(c)
            break
        if c.datagram != NULL:              # each key is answered in datagrams of its own
            if c.datagram.keys:
                reply_begins(c, 0)
            c.datagram.keys = 1
        if not get_one(c, key, <size_t> (p - key)):
            break
        left -= 1
    drop_text(c)


cdef inline void cmd_get(Conn* c, const char* keys, size_t n, bint with_cas) noexcept nogil:
    c.noreply = 0               # here `noreply` is a key
    if keys_missing(keys, n):
        puts(c, WIRE_BAD_FORMAT)
        return
    c.with_cas = with_cas
    c.touch = 0
    c.checked = 0
    c.text = keys
    c.text_len = n
    c.phase = P_KEYS
    run_keys(c)


cdef inline bint keys_missing(const char* p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if p[i] != c' ':
            return 0
    return 1


cdef inline void cmd_gat(Conn* c, Token* t, int count, const char* end, bint with_cas) noexcept nogil:
    cdef int32_t exptime
    c.noreply = 0
    if count < 3:
        puts(c, WIRE_BAD_FORMAT)
        return
    if not read_i32(t[1].at, t[1].len, &exptime):
        puts(c, WIRE_BAD_EXPTIME)
        return
    c.with_cas = with_cas
    c.touch = 1
    c.expires = expiry(c.store, exptime)
    c.checked = 0
    c.text = t[2].at
    c.text_len = <size_t> (end - t[2].at)
    c.phase = P_KEYS
    run_keys(c)


# Storage

cdef inline void swallow(Conn* c, const char* text, uint64_t length) noexcept nogil:
    # Refuses a store: the reply now, the data block skipped.
    puts(c, text)
    skip(c, length + 2)


cdef inline void cmd_store(Conn* c, Token* t, int count, Mode mode) noexcept nogil:
    # The command line of set, add, replace, append, prepend and cas.
    cdef int32_t length
    cdef int64_t flags, exptime
    cdef uint64_t cas = 0
    cdef uint32_t h
    cdef Result r
    cdef bint good
    if count < 5 or not read_i32(t[4].at, t[4].len, &length) or length < 0 or length > LENGTH_MOST:
        c.noreply = 0
        puts(c, WIRE_BAD_FORMAT)
        return
    good = t[1].len <= KEY_MAX and read_c_number(t[2].at, t[2].len, 0, &flags) \
        and read_c_number(t[3].at, t[3].len, 1, &exptime)
    if mode == M_CAS:
        good = good and count > 5 and read_u64(t[5].at, t[5].len, &cas)
    if not good:
        swallow(c, WIRE_BAD_FORMAT, <uint64_t> length)
        return
    r = store_begin(c, t[1].at, t[1].len, <uint32_t> flags, expiry(c.store, <int32_t> exptime), <uint64_t> length, mode,
                    mode == M_SET, &h)
    if r != V_OK:
        if r == V_TOO_LARGE: puts(c, WIRE_TOO_LARGE)
        elif r == V_NO_MEMORY: puts(c, WIRE_NO_MEMORY_STORE)
        else: put_result(c, r)
        skip(c, <uint64_t> length + 2)
        return
    c.meta = 0
    c.cas = cas
    store_takes(c, h, mode, mode == M_SET)


cdef inline void finish_store(Conn* c) noexcept nogil:
    # The data is there: store it and answer.
    cdef How how
    cdef uint32_t stored
    cdef Result r
    how.cas_given = c.mode == M_CAS
    how.cas = c.cas
    how.explicit = 0
    how.invalidate = 0
    how.vivify = 0
    r = store_end(c, &how, &stored)
    if r == V_OK:
        puts(c, WIRE_STORED)
    else:
        put_result(c, r)


# The rest

cdef inline bint names_key(Conn* c, Token* t, int count, int least) noexcept nogil:
    # A command of at least so many words, of which the second is a key. 0: it is none, and is answered.
    if count < least:
        c.noreply = 0
    elif t[1].len <= KEY_MAX:
        return 1
    puts(c, WIRE_BAD_FORMAT)
    return 0


cdef inline void cmd_delete(Conn* c, Token* t, int count) noexcept nogil:
    cdef Removal how
    cdef Result r
    if not names_key(c, t, count, 2):
        return
    how.name = b"delete"
    how.cas_given = 0
    how.stale = 0
    how.empties = 0
    r = delete_key(c, t[1].at, t[1].len, &how)
    if r == V_OK:
        puts(c, WIRE_DELETED)
    else:
        put_result(c, r)


cdef inline void cmd_arith(Conn* c, Token* t, int count, bint incr) noexcept nogil:
    cdef Sum sum
    cdef Result r
    if not names_key(c, t, count, 3):
        return
    if not read_u64(t[2].at, t[2].len, &sum.delta):
        puts(c, WIRE_BAD_DELTA)
        return
    sum.incr = incr
    sum.cas_given = 0
    sum.cas = 0
    sum.has_explicit = 0
    sum.makes = 0
    r = add_up(c, t[1].at, t[1].len, &sum)
    if r == V_OK:
        put_u64(c, sum.number)
        puts(c, WIRE_CRLF)
    else:
        put_result(c, r)


cdef inline void cmd_touch(Conn* c, Token* t, int count) noexcept nogil:
    cdef int32_t exptime
    cdef uint32_t h
    cdef Result r
    if not names_key(c, t, count, 3):
        return
    if not read_i32(t[2].at, t[2].len, &exptime):
        puts(c, WIRE_BAD_EXPTIME)
        return
    r = fetch(c, t[1].at, t[1].len, F_TOUCH, expiry(c.store, exptime), &h)
    if r == V_OK or r == V_PINNED:
        puts(c, WIRE_TOUCHED)
    else:
        put_result(c, r)


cdef inline void cmd_flush_all(Conn* c, Token* t, int count) noexcept nogil:
    cdef int32_t delay = 0
    if c.store.flush_enabled and count > 1 and not (count == 2 and c.noreply) and not read_i32(t[1].at, t[1].len, &delay):
        c.store.n.cmd_flush += 1
        puts(c, WIRE_BAD_EXPTIME)
        return
    puts(c, WIRE_OK if flush_items(c, delay) == V_OK else WIRE_FLUSH_FORBIDDEN)
