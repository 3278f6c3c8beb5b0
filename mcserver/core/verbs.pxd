# Verbs: what the commands do to the cache: fetch, touch, store, delete, arithmetic, flush, leases.
#
# Each verb's whole behaviour once, for every protocol (protocol page, 1.3 and 1.4): the gate, locks, hold-off and leases, what
# a fleet is told, counters and logs. A result is an enum and an item, never text: classic, meta and binary read a request, call
# a verb and write its result. Must never look at a request's text, nor write to the output.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from .memory cimport *
from .index cimport index_hash
from .store cimport *
from .items cimport *
from .flush cimport flush_all
from .text cimport write_i64, write_u64
from .values cimport *
from .arith cimport *
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .intake cimport data_begins

cdef enum Result:
    V_OK
    V_NOT_FOUND
    V_NOT_STORED
    V_EXISTS                    # its cas unique is another
    V_NON_NUMERIC
    V_TOO_LARGE
    V_NO_MEMORY
    V_PINNED                    # too many clients are reading this very item
    V_STALE                     # the gate is closed, and its policy is to say so
    V_FORBIDDEN                 # -F
    V_REFUSED                   # the write's lock was lost: c.refusal says why
    V_WAITS                     # ... it waits for its lock: nothing is to be answered, it will run again

# What `stats detail` counts.
cdef enum:
    OP_GET = 0
    OP_HIT = 1
    OP_SET = 2
    OP_DELETE = 3

cdef enum:
    REFS_MOST = 60000           # readers of an item

cdef enum Use:
    F_GET
    F_GET_AND_TOUCH
    F_TOUCH                     # no value is asked for


cdef inline bint pinned_full(Item* it) noexcept nogil:
    # memcached's limit (IT_REFCOUNT_LIMIT). What is left of 16 bits is for what isn't asked: a reader counts twice where the item
    # is its own only piece, each worker once more while it sends, and commands and dumps that need the item while they run.
    return it.refs >= REFS_MOST


cdef inline Result lock_first(Conn* c, const char* key, size_t nkey) noexcept nogil:
    # V_OK when a write may take effect now.
    cdef Lock lock
    if not c.store.locks:
        return V_OK
    lock = lock_stops(c, key, nkey)
    return V_OK if lock == LOCK_FREE else V_REFUSED if lock == LOCK_LOST else V_WAITS


# Fetch and touch

cdef inline uint32_t look_up(Conn* c, const char* key, size_t nkey, uint64_t hv, bint uses) noexcept nogil:
    # The live item that a client asked for, or 0; `uses`: it becomes younger.
    cdef Store* s = c.store
    cdef uint32_t h = 0
    if s.gate != GATE_MISS:
        h = item_find(s, key, nkey, hv)
    curve_get(s, hv, h, uses)
    return h


cdef inline Result fetch(Conn* c, const char* key, size_t nkey, Use use, uint32_t expires, uint32_t* found) noexcept nogil:
    # get, gat, touch: V_OK, V_NOT_FOUND, V_PINNED or V_STALE.
    cdef Store* s = c.store
    cdef uint64_t hv
    cdef uint32_t h = 0
    cdef Item* it
    if s.gate == GATE_ERROR:
        return V_STALE
    hv = index_hash(&s.index, key, nkey)
    if s.detail and use != F_TOUCH:
        s.prefix(s.owner, OP_GET, key, nkey)
    if s.gate != GATE_MISS:             # as look_up
        h = item_find_quick(s, key, nkey, hv)
    curve_get(s, hv, h, 1)
    if use == F_GET:
        s.n.cmd_get += 1
    else:
        s.n.cmd_touch += 1
    if h == 0:
        if use == F_GET:
            s.n.get_misses += 1
        else:
            s.n.touch_misses += 1
        return V_NOT_FOUND
    it = item_at(&s.arena, h)
    if s.detail and use != F_TOUCH:
        s.prefix(s.owner, OP_HIT, key, nkey)
    if use == F_GET:
        s.cls[it.cls].hits_to[it.seg & SEG_MASK] += 1
    else:
        s.cls[it.cls].touch_hits += 1
        set_expiry(s, it, expires)
        curve_expiry(s, it, hv)
    item_bump(s, h, it)
    found[0] = h
    return V_PINNED if pinned_full(it) else V_OK


cdef inline Result peek(Conn* c, const char* key, size_t nkey, uint32_t* found) noexcept nogil:
    # me: looks, and leaves no trace.
    cdef Store* s = c.store
    found[0] = 0
    if s.gate == GATE_ERROR:
        return V_STALE
    if s.gate != GATE_MISS:
        found[0] = item_find(s, key, nkey, index_hash(&s.index, key, nkey))
    return V_OK if found[0] else V_NOT_FOUND


# Leases: who sees that it won may compute the value; the others are told that somebody does.

cdef struct Lease:
    bint no_bump
    bint touches                # its time will be changed
    bint makes                  # an empty item, on a miss
    bint has_explicit
    uint64_t explicit           # the cas unique of that, if it was chosen
    bint created                # set here: it was made
    uint64_t hash               # set here


cdef inline uint32_t lease_make(Conn* c, const char* key, size_t nkey, Lease* l) noexcept nogil:
    # The empty item of a miss: whoever made it holds the lease. 0: out of memory.
    cdef Store* s = c.store
    cdef Item* it
    cdef int error = 0
    cdef uint32_t h = item_alloc(s, key, nkey, 0, 0, 0, &error)
    if h:
        it = item_at(&s.arena, h)
        it.cas = chosen_cas(s, l.has_explicit, l.explicit)
        item_replace(s, 0, h, l.hash)       # not S_BINARY, whatever b says: as memcached
    return h


cdef inline Result fetch_lease(Conn* c, const char* key, size_t nkey, Lease* l, uint32_t* found) noexcept nogil:
    # mg: V_OK, V_NOT_FOUND, V_NO_MEMORY, V_PINNED or V_STALE. The caller touches (set_expiry, then lease_end) and bumps.
    cdef Store* s = c.store
    cdef uint32_t h
    cdef Item* it
    l.created = 0
    if s.gate == GATE_ERROR:
        return V_STALE
    l.hash = index_hash(&s.index, key, nkey)
    if s.detail:
        s.prefix(s.owner, OP_GET, key, nkey)
    h = look_up(c, key, nkey, l.hash, not l.no_bump)
    if h == 0 and l.makes and s.gate != GATE_MISS:
        h = lease_make(c, key, nkey, l)
        l.created = 1
        if h == 0:
            return V_NO_MEMORY
    if h == 0:
        s.n.cmd_get += 1
        s.n.get_misses += 1
        return V_NOT_FOUND
    it = item_at(&s.arena, h)
    found[0] = h
    if pinned_full(it):
        return V_PINNED
    if s.detail and not l.created:
        s.prefix(s.owner, OP_HIT, key, nkey)
    if l.touches:                       # what was made counts as found
        s.n.cmd_touch += 1
        s.cls[it.cls].touch_hits += 1
    else:
        s.n.cmd_get += 1
        s.cls[it.cls].hits_to[it.seg & SEG_MASK] += 1
    s.n.vivified += l.created
    return V_OK


cdef inline bint lease_due(Store* s, Item* it, int32_t left) noexcept nogil:
    # Fewer than so many seconds are left to the item.
    return it.exptime and it.exptime < expiry(s, left)


cdef inline bint lease_won(Item* it, bint was_sent, bint won) noexcept nogil:
    # Whether this client is to compute the value: of those that ask for a stale item the first is, too.
    won = won or (it.state & S_STALE and not was_sent)
    if won:
        it.seg |= G_TOKEN
    return won


# Store

cdef inline void log_store(Conn* c, int cls, const char* key, size_t nkey, const char* status, Mode mode, int64_t ttl,
                           uint64_t size) noexcept nogil:
    cdef const char* name = b"set"
    if mode == M_ADD: name = b"add"
    elif mode == M_REPLACE: name = b"replace"
    elif mode == M_APPEND: name = b"append"
    elif mode == M_PREPEND: name = b"prepend"
    elif mode == M_CAS: name = b"cas"
    c.store.log(c.store.owner, LOG_MUTATE, key, nkey, NULL, status, name, ttl, size, cls)


cdef inline const char* status_name(Result r) noexcept nogil:
    # As `watch mutations` spells it.
    if r == V_OK: return b"stored"
    if r == V_EXISTS: return b"exists"
    if r == V_NOT_FOUND: return b"not_found"
    return b"not_stored"


cdef inline Result store_begin(Conn* c, const char* key, size_t nkey, uint32_t flags, uint32_t expires, uint64_t length,
                               Mode mode, bint drops, uint32_t* made) noexcept nogil:
    # set, add, replace, append, prepend, cas: makes the item for a value of this length; store_takes begins to fill it. When
    # there is no item, the data is to be skipped; `drops`: then what stood under the key goes, too.
    cdef Store* s = c.store
    cdef uint32_t h, old
    cdef int error = 0
    if s.gate == GATE_ERROR:
        return V_STALE
    if s.gate == GATE_MISS:
        return V_NOT_FOUND if mode == M_CAS else V_NOT_STORED
    if s.detail:
        s.prefix(s.owner, OP_SET, key, nkey)
    c.hash = index_hash(&s.index, key, nkey)
    h = item_alloc(s, key, nkey, flags, expires, length, &error)
    made[0] = h
    if h:
        return V_OK
    if error == A_TOO_LARGE:
        s.n.too_large += 1
    else:
        s.n.no_memory += 1
    if s.log_mask & LOG_MUTATE:
        log_store(c, 0, key, nkey, b"too_large" if error == A_TOO_LARGE else b"no_memory", mode, 0, length)
    if drops:
        old = item_find(s, key, nkey, c.hash)
        if old:
            item_unlink(s, old, c.hash)
        curve_delete(s, c.hash)
    return V_TOO_LARGE if error == A_TOO_LARGE else V_NO_MEMORY


cdef inline void store_takes(Conn* c, uint32_t h, Mode mode, bint drops) noexcept nogil:
    # The data of the item that store_begin made comes next.
    c.store.cls[item_at(&c.store.arena, h).cls].cmd_set += 1
    c.mode = mode
    c.drops = drops
    data_begins(c, h)


cdef inline Result store_held(Conn* c, uint32_t h, How* how, uint32_t* stored) noexcept nogil:
    # By the gate, the hold-off and the rules of the mode; lets go of h.
    cdef Store* s = c.store
    cdef Status r
    if s.gate == GATE_ERROR:
        item_release(s, h)
        return V_STALE
    if s.gate == GATE_MISS:
        item_release(s, h)
        return V_NOT_FOUND if c.mode == M_CAS else V_NOT_STORED
    if not how.cas_given and held_off(s, c.hash):
        item_release(s, h)
        return V_NOT_STORED
    r = store_item(s, h, c.hash, c.mode, how, stored)
    return V_OK if r == R_STORED else V_NOT_STORED if r == R_NOT_STORED else V_EXISTS if r == R_EXISTS else V_NOT_FOUND


cdef inline Result store_end(Conn* c, How* how, uint32_t* stored) noexcept nogil:
    # The data is there: stores it. `stored` is the item that is now linked, or 0.
    cdef Store* s = c.store
    cdef Item* it = item_at(&s.arena, c.item)
    cdef Result r
    cdef char key[256]
    cdef size_t nkey = it.nkey
    cdef uint32_t h = c.item
    cdef uint64_t size = it.nbytes
    cdef int cls = it.cls
    cdef int64_t ttl = shown_ttl(s, it) if it.exptime else 0
    stored[0] = 0
    memcpy(key, key_of(it), nkey)
    r = lock_first(c, key, nkey)
    if r != V_OK:
        return r
    c.item = 0
    r = store_held(c, h, how, stored)
    if s.log_mask & LOG_MUTATE and r != V_STALE:
        if r == V_OK:                   # with append and prepend another item than the one that was sent
            it = item_at(&s.arena, stored[0])
            ttl = shown_ttl(s, it) if it.exptime else 0
            size = it.nbytes
            cls = it.cls
        log_store(c, cls, key, nkey, status_name(r), c.mode, ttl, size)
    if r == V_OK:
        write_event(c, key, nkey)
    return r


# Delete

cdef struct Removal:
    const char* name            # as `watch deletions` spells the verb
    bint cas_given
    uint64_t cas
    bint stale                  # it stays, stale (md I)
    bint empties                # it stays, without a value (md x), with these client flags
    uint32_t flags
    bint has_ttl
    int32_t ttl                 # of what stays
    bint has_explicit
    uint64_t explicit           # its cas unique, if it was chosen


cdef inline bint drop_value(Store* s, const char* key, size_t nkey, Removal* how, uint32_t* h, uint64_t hv) noexcept nogil:
    # The item stays with no value, and its cas. 0: out of memory.
    cdef Item* it
    cdef Item* old = item_at(&s.arena, h[0])
    cdef int error = 0
    cdef uint32_t new
    old.refs += 1
    new = item_alloc(s, key, nkey, how.flags, expiry(s, how.ttl), 0, &error)
    if new and not old.state & S_LINKED:    # a set of its key, on its way in, was refused to make room
        item_release(s, new)
        new = 0
    item_release(s, h[0])
    if new == 0:
        return 0
    it = item_at(&s.arena, new)
    # In a fleet whoever held a lease on the old value must not store under it; alone it keeps its CAS, as in memcached.
    it.cas = chosen_cas(s, how.has_explicit, how.explicit) if how.has_explicit or s.tell_deletes else old.cas
    item_replace(s, h[0], new, hv)      # not S_BINARY any more: only ms marks, as in memcached
    h[0] = new
    return 1


cdef inline Result remove_found(Conn* c, const char* key, size_t nkey, Removal* how, uint32_t h, uint64_t hv) noexcept nogil:
    cdef Store* s = c.store
    cdef Item* it = item_at(&s.arena, h)
    if not how.stale:
        s.cls[it.cls].delete_hits += 1
    if how.empties and not drop_value(s, key, nkey, how, &h, hv):
        return V_NO_MEMORY
    it = item_at(&s.arena, h)
    if how.empties and s.log_mask & LOG_MUTATE:
        log_store(c, it.cls, key, nkey, b"stored", M_SET, shown_ttl(s, it) if it.exptime else 0, 0)
    if s.log_mask & LOG_DELETE and not how.stale:
        s.log(s.owner, LOG_DELETE, key, nkey, it, NULL, how.name, 0, it.nbytes, it.cls)
    if how.stale:
        mark_item_stale(s, it, <int64_t> expiry(s, how.ttl) if how.has_ttl else -1)
        if how.has_explicit and s.use_cas:
            it.cas = how.explicit
    elif not how.empties:
        item_unlink(s, h, hv)
    return V_NOT_FOUND if s.gate == GATE_MISS else V_OK


cdef inline Result delete_key(Conn* c, const char* key, size_t nkey, Removal* how) noexcept nogil:
    # delete, md. Done and told whatever the gate says: a delete can only make fresher.
    cdef Store* s = c.store
    cdef uint64_t hv
    cdef uint32_t h
    cdef bint other
    cdef Result r = lock_first(c, key, nkey)
    if r != V_OK:
        return r
    if s.detail:
        s.prefix(s.owner, OP_DELETE, key, nkey)
    hv = index_hash(&s.index, key, nkey)
    h = item_find(s, key, nkey, hv)
    other = h and how.cas_given and item_at(&s.arena, h).cas != how.cas
    if not how.cas_given or (h and not other):
        if how.stale and not how.empties and not (how.has_ttl and how.ttl < 0):     # T-1: gone at once, here and there
            event(c, EV_STALE, key, nkey, how.ttl if how.has_ttl else -1)
        else:
            event(c, EV_DELETE, key, nkey, -1)
        if not how.stale and not how.empties:
            curve_delete(s, hv)
    if other:
        return V_EXISTS
    if h == 0:
        s.n.delete_misses += 1
        return V_NOT_FOUND
    return remove_found(c, key, nkey, how, h, hv)


# Arithmetic

cdef struct Sum:
    bint incr
    uint64_t delta
    bint cas_given
    uint64_t cas
    bint has_explicit
    uint64_t explicit           # the new cas unique, if it was chosen
    bint makes                  # what is missing, with this number and expiry
    uint64_t initial
    uint32_t expires
    uint32_t item               # set here: the item that has the number now
    uint64_t number
    uint64_t unique             # ... and what is told of it
    bint created
    bint grown                  # ... which replaced a shorter one


cdef inline Result sum_make(Conn* c, const char* key, size_t nkey, uint64_t hv, Sum* sum) noexcept nogil:
    # The key is not there.
    cdef Store* s = c.store
    cdef char digits[24]
    cdef int n, error = 0
    cdef uint32_t h
    cdef Item* it
    if not sum.makes or s.gate == GATE_MISS:
        if sum.incr:
            s.n.incr_misses += 1
        else:
            s.n.decr_misses += 1
        return V_NOT_FOUND
    if held_off(s, hv):
        return V_NOT_STORED
    sum.created = 1
    n = write_u64(digits, sum.initial)
    h = item_alloc(s, key, nkey, 0, sum.expires, <uint64_t> n, &error)
    if h == 0:
        return V_NO_MEMORY
    it = item_at(&s.arena, h)
    memcpy(value_of(it), digits, <size_t> n)
    it.cas = chosen_cas(s, sum.has_explicit, sum.explicit)
    sum.unique = it.cas
    item_replace(s, 0, h, hv)
    if s.log_mask & LOG_MUTATE:
        log_store(c, it.cls, key, nkey, b"stored", M_ADD, 0, <uint64_t> n)
    sum.item = h
    sum.number = sum.initial
    write_event(c, key, nkey)
    return V_OK


cdef inline Result add_up(Conn* c, const char* key, size_t nkey, Sum* sum) noexcept nogil:
    # incr, decr, ma: V_OK with the number; V_NO_MEMORY with `created` when what was missing couldn't be made.
    cdef Store* s = c.store
    cdef uint64_t hv
    cdef uint32_t h = 0, found
    cdef Item* it
    cdef Delta d
    cdef Result r
    sum.created = 0
    sum.grown = 0
    if s.gate == GATE_ERROR:
        return V_STALE
    r = lock_first(c, key, nkey)
    if r != V_OK:
        return r
    hv = index_hash(&s.index, key, nkey)
    if s.gate != GATE_MISS:
        h = item_find(s, key, nkey, hv)
    if h == 0:
        return sum_make(c, key, nkey, hv, sum)
    found = h
    d = add_delta(s, &h, hv, sum.incr, sum.delta, sum.cas_given, sum.cas, &sum.number)
    if d != D_OK:
        return V_EXISTS if d == D_EXISTS else V_NON_NUMERIC if d == D_NON_NUMERIC else V_NO_MEMORY
    sum.item = h
    sum.grown = h != found
    it = item_at(&s.arena, h)
    sum.unique = it.cas
    if sum.has_explicit and s.use_cas:      # as in memcached, it is told and lost when the number has grown: the old item gets it
        sum.unique = sum.explicit
        if not sum.grown:
            it.cas = sum.explicit
    write_event(c, key, nkey)
    return V_OK


# Flush

cdef inline Result flush_items(Conn* c, int64_t delay) noexcept nogil:
    # flush_all: now, or after a delay (an exptime).
    cdef Store* s = c.store
    cdef char digits[24]
    if not s.flush_enabled:
        s.n.cmd_flush += 1
        return V_FORBIDDEN
    if delay > 0:
        event(c, EV_FLUSH_LATER, digits, <size_t> write_i64(digits, delay), delay)
    else:
        event(c, EV_FLUSH, b"", 0, -1)
    flush_all(s, delay)
    return V_OK
