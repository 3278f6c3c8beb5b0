# Classic commands: get, gets, gat, gats, set, add, replace, append, prepend, cas, delete, incr, decr, touch, flush_all.
#
# Each verb's whole behaviour in one place (protocol page, 1.3). A command gets its tokens and appends its reply; with
# noreply the session takes the reply back. Must never look at the socket or at input beyond its line.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from .memory cimport *
from .index cimport index_hash
from .store cimport *
from .items cimport *
from .flush cimport flush_all
from .text cimport *
from .values cimport *
from .arith cimport *
from .conn cimport *
from .intake cimport data_begins
from .wire cimport *

cdef enum:
    OP_GET = 0
    OP_HIT = 1
    OP_SET = 2
    OP_DELETE = 3
    LENGTH_MOST = 2147483645
    KEYS_A_SLICE = 2048         # keys of a multiget, after which the session looks at its turn's time


# Retrieval

cdef inline bint keys_fit(const char* p, size_t n) noexcept nogil:
    # No key in this text is too long.
    cdef size_t i, run = 0
    for i in range(n):
        run = 0 if p[i] == c' ' else run + 1
        if run > KEY_MAX:
            return 0
    return 1


cdef inline void put_value(Conn* c, uint32_t h, Item* it) noexcept nogil:
    # The value and its line end; a big one is left for the flush, which the session then does at once.
    if it.nbytes <= BIG:
        value_read(c.store, it, c.shared.out + c.shared.out_len)
        c.shared.out_len += it.nbytes
        puts(c, WIRE_CRLF)
    else:
        big_begin(c, h, it)
        c.tail = 1


cdef inline bint pinned_full(Item* it) noexcept nogil:
    return it.refs >= 0xFFF0        # the rest is for commands that need the item while they run


cdef inline bint get_one(Conn* c, const char* key, size_t nkey) noexcept nogil:
    # One key of a get, gets, gat or gats. 0: the answer is an error, already written.
    cdef Store* s = c.store
    cdef uint64_t hv = index_hash(&s.index, key, nkey)
    cdef uint32_t h = 0
    cdef Item* it
    if s.detail:
        s.prefix(s.owner, OP_GET, key, nkey)
    if s.gate != GATE_MISS:
        h = item_find(s, key, nkey, hv)
    curve_get(s, hv, h, 1)
    if c.touch:
        s.n.cmd_touch += 1
    else:
        s.n.cmd_get += 1
    if h == 0:
        if c.touch:
            s.n.touch_misses += 1
        else:
            s.n.get_misses += 1
        return 1
    it = item_at(&s.arena, h)
    if s.detail:
        s.prefix(s.owner, OP_HIT, key, nkey)
    if c.touch:
        s.cls[it.cls].touch_hits += 1
        set_expiry(s, it, c.expires)
        curve_expiry(s, it, hv)
    else:
        s.cls[it.cls].hits_to[it.seg & SEG_MASK] += 1
    item_bump(s, h, it)
    if pinned_full(it):
        c.shared.out_len = c.start
        puts(c, WIRE_REFCOUNT)
        return 0
    put(c, b"VALUE ", 6)
    put(c, key, nkey)
    put_char(c, c' ')
    put_u64(c, it.flags)
    put_char(c, c' ')
    put_u64(c, it.nbytes)
    if c.with_cas:
        put_char(c, c' ')
        put_u64(c, it.cas)
    puts(c, WIRE_CRLF)
    put_value(c, h, it)
    return 1


cdef inline void bad_key(Conn* c) noexcept nogil:
    # The whole answer becomes the error; memcached writes an empty line behind it.
    c.shared.out_len = c.start
    puts(c, WIRE_BAD_FORMAT)
    puts(c, WIRE_CRLF)
    c.phase = P_LINE


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
        if c.shared.out_len >= OUT_SOFT or c.big or (left == 0 and p < end):
            if not c.checked and not keys_fit(p, <size_t> (end - p)):
                big_drop(c)
                c.tail = 0
                bad_key(c)
                break
            c.checked = 1
            c.text = p
            c.text_len = <size_t> (end - p)
            return
        if p == end:
            puts(c, WIRE_END)
            c.phase = P_LINE
            break
        key = p
        while p < end and p[0] != c' ':
            p += 1
        if p - key > KEY_MAX:
            bad_key(c)
            break
        if not get_one(c, key, <size_t> (p - key)):
            c.phase = P_LINE
            break
        left -= 1
    drop_text(c)


cdef inline void cmd_get(Conn* c, const char* keys, size_t n, bint with_cas) noexcept nogil:
    c.noreply = 0               # here `noreply` is a key
    if keys_missing(keys, n):
        puts(c, WIRE_BAD_FORMAT)
        return
    if c.store.gate == GATE_ERROR:
        puts(c, WIRE_STALE)
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
    if c.store.gate == GATE_ERROR:
        puts(c, WIRE_STALE)
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
    c.swallow = length + 2
    c.phase = P_SWALLOW


cdef inline void log_store(Conn* c, int cls, const char* key, size_t nkey, const char* status, Mode mode, int64_t ttl,
                           uint64_t size) noexcept nogil:
    cdef const char* name = b"set"
    if mode == M_ADD: name = b"add"
    elif mode == M_REPLACE: name = b"replace"
    elif mode == M_APPEND: name = b"append"
    elif mode == M_PREPEND: name = b"prepend"
    elif mode == M_CAS: name = b"cas"
    c.store.log(c.store.owner, LOG_MUTATE, key, nkey, NULL, status, name, ttl, size, cls)


cdef inline void refuse_alloc(Conn* c, const char* key, size_t nkey, uint64_t hv, int error, uint64_t length, bint drop_old,
                              Mode mode) noexcept nogil:
    # No item for this value: the reply, the counters, and what a failed overwrite takes along.
    cdef Store* s = c.store
    cdef uint32_t old
    if error == A_TOO_LARGE:
        s.n.too_large += 1
        swallow(c, WIRE_TOO_LARGE, length)
    else:
        s.n.no_memory += 1
        swallow(c, WIRE_NO_MEMORY_STORE, length)
    if s.log_mask & LOG_MUTATE:
        log_store(c, 0, key, nkey, b"too_large" if error == A_TOO_LARGE else b"no_memory", mode, 0, length)
    if drop_old:
        old = item_find(s, key, nkey, hv)
        if old:
            item_unlink(s, old, hv)
        curve_delete(s, hv)


cdef inline void cmd_store(Conn* c, Token* t, int count, Mode mode) noexcept nogil:
    # The command line of set, add, replace, append, prepend and cas: makes the item that the data will fill.
    cdef Store* s = c.store
    cdef int32_t length
    cdef int64_t flags, exptime
    cdef uint64_t cas = 0, hv
    cdef uint32_t h, expires
    cdef int error = 0
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
    if s.gate == GATE_ERROR or s.gate == GATE_MISS:
        swallow(c, WIRE_STALE if s.gate == GATE_ERROR else (WIRE_NOT_FOUND if mode == M_CAS else WIRE_NOT_STORED), <uint64_t> length)
        return
    if s.detail:
        s.prefix(s.owner, OP_SET, t[1].at, t[1].len)
    hv = index_hash(&s.index, t[1].at, t[1].len)
    expires = expiry(s, <int32_t> exptime)
    h = item_alloc(s, t[1].at, t[1].len, <uint32_t> flags, expires, <uint64_t> length, &error)
    if h == 0:
        refuse_alloc(c, t[1].at, t[1].len, hv, error, <uint64_t> length, mode == M_SET, mode)
        return
    s.cls[item_at(&s.arena, h).cls].cmd_set += 1
    c.meta = 0
    c.mode = mode
    c.cas = cas
    c.hash = hv
    data_begins(c, h)


cdef inline void log_stored(Conn* c, int cls, const char* key, size_t nkey, Status r, Mode mode, int64_t ttl,
                            uint64_t size) noexcept nogil:
    cdef const char* status = b"stored"
    if r == R_NOT_STORED: status = b"not_stored"
    elif r == R_EXISTS: status = b"exists"
    elif r == R_NOT_FOUND: status = b"not_found"
    log_store(c, cls, key, nkey, status, mode, ttl, size)


cdef inline void finish_store(Conn* c) noexcept nogil:
    # The data is there: store it and answer.
    cdef Store* s = c.store
    cdef Item* it = item_at(&s.arena, c.item)
    cdef How how
    cdef uint32_t h = c.item, stored
    cdef Status r
    cdef char key[256]
    cdef size_t nkey = it.nkey
    cdef int64_t ttl = ttl_left(s, it) if it.exptime else 0
    cdef bint plain = c.mode != M_CAS
    cdef uint64_t size = it.nbytes
    cdef int cls = it.cls
    memcpy(key, key_of(it), nkey)
    if lock_stops(c, key, nkey):
        return
    c.item = 0
    if s.gate == GATE_ERROR:
        item_release(s, h)
        puts(c, WIRE_STALE)
        return
    if s.gate == GATE_MISS or (plain and held_off(s, c.hash)):
        item_release(s, h)
        puts(c, WIRE_NOT_STORED)
        return
    how.cas_given = c.mode == M_CAS
    how.cas = c.cas
    how.explicit = 0
    how.invalidate = 0
    how.vivify = 0
    r = store_item(s, h, c.hash, c.mode, &how, &stored)
    if s.log_mask & LOG_MUTATE:
        if r == R_STORED:               # with append and prepend another item than the one that was sent
            it = item_at(&s.arena, stored)
            ttl = ttl_left(s, it) if it.exptime else 0
            size = it.nbytes
            cls = it.cls
        log_stored(c, cls, key, nkey, r, c.mode, ttl, size)
    if r == R_STORED:
        write_event(c, key, nkey)
        puts(c, WIRE_STORED)
    elif r == R_NOT_STORED:
        puts(c, WIRE_NOT_STORED)
    elif r == R_EXISTS:
        puts(c, WIRE_EXISTS)
    else:
        puts(c, WIRE_NOT_FOUND)


# The rest

cdef inline void cmd_delete(Conn* c, Token* t, int count) noexcept nogil:
    cdef Store* s = c.store
    cdef uint64_t hv
    cdef uint32_t h
    cdef Item* it
    if count < 2:
        c.noreply = 0
        puts(c, WIRE_BAD_FORMAT)
        return
    if t[1].len > KEY_MAX:
        puts(c, WIRE_BAD_FORMAT)
        return
    if lock_stops(c, t[1].at, t[1].len):    # done and told whatever the gate says: a delete can only make fresher
        return
    event(c, EV_DELETE, t[1].at, t[1].len, -1)
    if s.detail:
        s.prefix(s.owner, OP_DELETE, t[1].at, t[1].len)
    hv = index_hash(&s.index, t[1].at, t[1].len)
    h = item_find(s, t[1].at, t[1].len, hv)
    curve_delete(s, hv)
    if h == 0:
        s.n.delete_misses += 1
        puts(c, WIRE_NOT_FOUND)
        return
    it = item_at(&s.arena, h)
    s.cls[it.cls].delete_hits += 1
    if s.log_mask & LOG_DELETE:
        s.log(s.owner, LOG_DELETE, t[1].at, t[1].len, it, NULL, b"delete", 0, it.nbytes, it.cls)
    item_unlink(s, h, hv)
    puts(c, WIRE_NOT_FOUND if s.gate == GATE_MISS else WIRE_DELETED)


cdef inline void cmd_arith(Conn* c, Token* t, int count, bint incr) noexcept nogil:
    cdef Store* s = c.store
    cdef uint64_t hv, delta, result
    cdef uint32_t h = 0
    cdef Delta d
    if count < 3:
        c.noreply = 0
        puts(c, WIRE_BAD_FORMAT)
        return
    if t[1].len > KEY_MAX:
        puts(c, WIRE_BAD_FORMAT)
        return
    if not read_u64(t[2].at, t[2].len, &delta):
        puts(c, WIRE_BAD_DELTA)
        return
    if s.gate == GATE_ERROR:
        puts(c, WIRE_STALE)
        return
    if lock_stops(c, t[1].at, t[1].len):
        return
    hv = index_hash(&s.index, t[1].at, t[1].len)
    if s.gate != GATE_MISS:
        h = item_find(s, t[1].at, t[1].len, hv)
    if h == 0:
        if incr:
            s.n.incr_misses += 1
        else:
            s.n.decr_misses += 1
        puts(c, WIRE_NOT_FOUND)
        return
    d = add_delta(s, &h, hv, incr, delta, 0, 0, 0, &result)
    if d == D_OK:
        write_event(c, t[1].at, t[1].len)
        put_u64(c, result)
        puts(c, WIRE_CRLF)
    elif d == D_NON_NUMERIC:
        puts(c, WIRE_NON_NUMERIC)
    else:
        puts(c, WIRE_NO_MEMORY)


cdef inline void cmd_touch(Conn* c, Token* t, int count) noexcept nogil:
    cdef Store* s = c.store
    cdef int32_t exptime
    cdef uint64_t hv
    cdef uint32_t h = 0
    cdef Item* it
    if count < 3:
        c.noreply = 0
        puts(c, WIRE_BAD_FORMAT)
        return
    if t[1].len > KEY_MAX:
        puts(c, WIRE_BAD_FORMAT)
        return
    if not read_i32(t[2].at, t[2].len, &exptime):
        puts(c, WIRE_BAD_EXPTIME)
        return
    if s.gate == GATE_ERROR:
        puts(c, WIRE_STALE)
        return
    s.n.cmd_touch += 1
    hv = index_hash(&s.index, t[1].at, t[1].len)
    if s.gate != GATE_MISS:
        h = item_find(s, t[1].at, t[1].len, hv)
    curve_get(s, hv, h, 1)
    if h == 0:
        s.n.touch_misses += 1
        puts(c, WIRE_NOT_FOUND)
        return
    it = item_at(&s.arena, h)
    s.cls[it.cls].touch_hits += 1
    set_expiry(s, it, expiry(s, exptime))
    curve_expiry(s, it, hv)
    item_bump(s, h, it)
    puts(c, WIRE_TOUCHED)


cdef inline void cmd_flush_all(Conn* c, Token* t, int count) noexcept nogil:
    cdef Store* s = c.store
    cdef int32_t delay = 0
    if not s.flush_enabled:
        s.n.cmd_flush += 1
        puts(c, WIRE_FLUSH_FORBIDDEN)
        return
    if count > 1 and not (count == 2 and c.noreply) and not read_i32(t[1].at, t[1].len, &delay):
        puts(c, WIRE_BAD_EXPTIME)
        return
    if delay > 0:
        event(c, EV_FLUSH_LATER, t[1].at, t[1].len, delay)
    else:
        event(c, EV_FLUSH, b"", 0, -1)
    flush_all(s, delay)
    puts(c, WIRE_OK)
