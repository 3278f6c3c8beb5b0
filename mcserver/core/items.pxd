# Items: what is stored. Links and unlinks them, keeps the LRU lists in order, knows which are dead.
#
# Owns the consistency of index, LRU lists and figures: an item is in both or in neither. Must never evict (room.pxd
# does) nor parse anything.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from .memory cimport *
from .index cimport index_find, index_hash, index_insert, index_swap
from .mrc cimport *
from .store cimport *


cdef inline char* key_of(Item* it) noexcept nogil:
    return <char*> it + HEADER


cdef inline char* value_of(Item* it) noexcept nogil:
    # The value's bytes; only for items that are not S_LARGE.
    return <char*> it + HEADER + it.nkey


cdef inline uint32_t first_piece(Item* it) noexcept nogil:
    cdef uint32_t h
    memcpy(&h, <char*> it + HEADER + it.nkey, 4)
    return h


cdef inline void set_first_piece(Item* it, uint32_t h) noexcept nogil:
    memcpy(<char*> it + HEADER + it.nkey, &h, 4)


cdef inline uint64_t size_of(Store* s, Item* it) noexcept nogil:
    return printed_size(s, it.nkey, it.flags, it.nbytes)


cdef inline uint64_t hash_of(Store* s, Item* it) noexcept nogil:
    return index_hash(&s.index, key_of(it), it.nkey)


# The memory curve: what the miniatures are told

cdef inline uint32_t memory_of(Store* s, Item* it) noexcept nogil:
    # Bytes of the chunks that an item lies in.
    cdef Arena* a = &s.arena
    cdef uint64_t largest = a.cls[a.classes].size, most = largest - HEADER, bytes
    if not it.state & S_LARGE:
        return a.cls[it.cls].size
    bytes = a.cls[arena_class(a, HEADER + it.nkey + 4)].size + it.nbytes // most * largest
    if it.nbytes % most:
        bytes += a.cls[arena_class(a, HEADER + it.nbytes % most)].size
    return <uint32_t> bytes


cdef inline void curve_get(Store* s, uint64_t hv, uint32_t h, bint use) noexcept nogil:
    # A look-up for a client, before what follows from it; `use`: it makes the item younger.
    cdef Item* it
    if not mrc_samples(s.mrc, hv):
        return
    if s.gate == GATE_MISS:             # no cache, however large, would have answered
        mrc_count(s.mrc)
    elif h:
        it = item_at(&s.arena, h)
        mrc_get(s.mrc, hv, 1, use, memory_of(s, it), it.exptime, s.sec)
    else:
        if s.last_found == FLUSHED:     # by a prefix: it is gone from the others too
            mrc_delete(s.mrc, hv)
        mrc_get(s.mrc, hv, 0, use, 0, 0, s.sec)


cdef inline void curve_store(Store* s, Item* it, uint64_t hv) noexcept nogil:
    if mrc_samples(s.mrc, hv):
        mrc_store(s.mrc, hv, memory_of(s, it), it.exptime, s.sec)


cdef inline void curve_expiry(Store* s, Item* it, uint64_t hv) noexcept nogil:
    # The item was given another end.
    if mrc_samples(s.mrc, hv):
        mrc_expiry(s.mrc, hv, it.exptime)


cdef inline void curve_delete(Store* s, uint64_t hv) noexcept nogil:
    # Whether it was here or not: a larger cache may have held it.
    if mrc_samples(s.mrc, hv):
        mrc_delete(s.mrc, hv)


# LRU lists

cdef inline void lru_push(Store* s, uint32_t h, Item* it, int seg) noexcept nogil:
    cdef Lru* l = &s.lru[it.cls][seg]
    it.seg = <uint8_t> ((it.seg & ~SEG_MASK) | seg)
    it.prev = 0
    it.next = l.head
    if l.head:
        item_at(&s.arena, l.head).prev = h
    else:
        l.tail = h
    l.head = h
    l.count += 1
    l.bytes += size_of(s, it)


cdef inline void lru_remove(Store* s, uint32_t h, Item* it) noexcept nogil:
    cdef Lru* l = &s.lru[it.cls][it.seg & SEG_MASK]
    if it.prev:
        item_at(&s.arena, it.prev).next = it.next
    else:
        l.head = it.next
    if it.next:
        item_at(&s.arena, it.next).prev = it.prev
    else:
        l.tail = it.prev
    l.count -= 1
    l.bytes -= size_of(s, it)


cdef inline void lru_move(Store* s, uint32_t h, Item* it, int seg) noexcept nogil:
    lru_remove(s, h, it)
    lru_push(s, h, it, seg)


# Linking and freeing

cdef inline void count_size(Store* s, Item* it, int by) noexcept nogil:
    cdef uint64_t bucket
    if s.size_count != NULL:
        bucket = (size_of(s, it) + 31) // 32
        s.size_count[bucket] += <uint32_t> by


cdef inline void item_link(Store* s, uint32_t h, uint64_t hv) noexcept nogil:
    # Makes a filled item visible. Its key must not be in the index.
    cdef Item* it = item_at(&s.arena, h)
    cdef int seg = HOT if s.segmented else COLD
    it.time = s.tick
    it.epoch = s.epoch
    it.state |= S_LINKED
    if s.temp_ttl >= 0 and it.exptime and s.segmented and <int64_t> it.exptime - s.sec <= s.temp_ttl:
        seg = TEMP
    lru_push(s, h, it, seg)
    index_insert(&s.index, &s.arena, h, hv)
    curve_store(s, it, hv)
    s.bytes += size_of(s, it)
    s.n.total_items += 1
    if it.exptime:
        s.timed += 1
    count_size(s, it, 1)


cdef inline void item_free(Store* s, uint32_t h) noexcept nogil:
    cdef Item* it = item_at(&s.arena, h)
    cdef uint32_t piece, following
    if it.state & S_LARGE:
        piece = first_piece(it)
        while piece:
            following = item_at(&s.arena, piece).h_next
            chunk_give_back(&s.arena, piece)
            piece = following
    chunk_give_back(&s.arena, h)


cdef inline void item_unlink(Store* s, uint32_t h, uint64_t hv) noexcept nogil:
    # Takes it out of index and LRU; its memory is freed at once, or when the last user lets go.
    cdef Item* it = item_at(&s.arena, h)
    index_swap(&s.index, &s.arena, h, 0, hv)
    lru_remove(s, h, it)
    s.bytes -= size_of(s, it)
    if it.exptime:
        s.timed -= 1
    count_size(s, it, -1)
    it.state &= ~S_LINKED
    if it.refs == 0:
        item_free(s, h)


cdef inline void item_release(Store* s, uint32_t h) noexcept nogil:
    cdef Item* it = item_at(&s.arena, h)
    it.refs -= 1
    if it.refs == 0 and not it.state & S_LINKED:
        item_free(s, h)


cdef inline void set_expiry(Store* s, Item* it, uint32_t exptime) noexcept nogil:
    # For linked items only.
    if (it.exptime != 0) != (exptime != 0):
        if exptime:
            s.timed += 1
        else:
            s.timed -= 1
    it.exptime = exptime


# Life and death

cdef inline void mark_item_stale(Store* s, Item* it, int64_t exptime) noexcept nogil:
    # exptime < 0 leaves the expiry. The cas changes, so that older leases lose.
    it.state |= S_STALE
    it.seg &= ~G_TOKEN
    it.cas = new_cas(s)
    if exptime >= 0:
        set_expiry(s, it, <uint32_t> exptime)


cdef inline bint apply_rules(Store* s, Item* it) noexcept nogil:
    # Carries out the prefix rules that are younger than the item, each as at the time at which it came; true when the
    # item was dead by then or one of them kills it.
    cdef int i
    cdef Rule* r
    for i in range(s.rules):
        r = &s.rule[i]
        if it.epoch < r.epoch and it.nkey >= r.length and memcmp(key_of(it), r.prefix, r.length) == 0:
            if it.exptime and it.exptime <= r.came:
                return 1        # what an earlier rule left had run out
            # an empty item is a lease's stub: it is killed by a refresh too
            if not r.refresh or it.nbytes == 0:
                return 1
            mark_item_stale(s, it, <int64_t> r.expires if r.expires else -1)
    it.epoch = s.epoch
    return 0


cdef inline int fate(Store* s, Item* it) noexcept nogil:
    # FOUND, EXPIRED or FLUSHED.
    if it.epoch < s.flush_epoch:
        return FLUSHED
    if it.exptime and it.exptime <= s.sec:
        return EXPIRED
    if s.rules and it.epoch < s.epoch:
        if apply_rules(s, it):
            return FLUSHED
        if it.exptime and it.exptime <= s.sec:      # a refresh may have shortened its life
            return EXPIRED
    return FOUND


cdef inline uint32_t item_find(Store* s, const char* key, size_t nkey, uint64_t hv) noexcept nogil:
    # The live item, or 0; a dead one is freed and counted. s.last_found says why.
    cdef uint32_t h = index_find(&s.index, &s.arena, key, nkey, hv)
    cdef Item* it = NULL
    cdef int f = MISSING
    if h:
        it = item_at(&s.arena, h)
        f = fate(s, it)
    s.last_found = f
    if s.log_mask & LOG_FETCH:
        s.log(s.owner, LOG_FETCH, key, nkey, it, NULL, NULL, f, it.nbytes if f == FOUND else 0, it.cls if it != NULL else 0)
    if f == FOUND or h == 0:
        return h
    if f == EXPIRED:
        s.n.get_expired += 1
    else:
        s.n.get_flushed += 1
    item_unlink(s, h, hv)
    return 0


cdef inline void item_bump(Store* s, uint32_t h, Item* it) noexcept nogil:
    # A hit. Segmented: a second hit makes an item active, and an active one in COLD moves to WARM.
    cdef int seg = it.seg & SEG_MASK
    if not s.segmented:
        it.state |= S_FETCHED
        it.time = s.tick
        lru_move(s, h, it, seg)
        return
    if it.state & S_ACTIVE:
        return
    if not it.state & S_FETCHED:
        it.state |= S_FETCHED
        return
    if seg == COLD:
        it.time = s.tick
        lru_move(s, h, it, WARM)
        s.cls[it.cls].moves_to_warm += 1
    else:
        it.state |= S_ACTIVE
        it.time = s.tick


cdef inline void item_update(Store* s, uint32_t h, Item* it) noexcept nogil:
    # Something was done with the item that is no hit: it is young again, but not more active.
    it.time = s.tick
    if not s.segmented:
        lru_move(s, h, it, it.seg & SEG_MASK)


cdef inline void reclaim_dead(Store* s, uint32_t h, Item* it) noexcept nogil:
    # Frees a dead item that was met on the way, and counts it.
    cdef ClassStats* c = &s.cls[it.cls]
    c.reclaimed += 1
    if not it.state & S_FETCHED:
        c.expired_unfetched += 1
    item_unlink(s, h, hash_of(s, it))


# Hold-off (coherence page): after a remote invalidation plain stores of that key are refused for a while.

cdef inline uint64_t boot_ms(Store* s) noexcept nogil:
    return (s.elapsed_ns if s.manual else s.boot_ns) // 1000000


cdef inline void hold_key(Store* s, uint64_t hv) noexcept nogil:
    if s.hold_ms:
        s.hold[(hv >> 20) % HOLD_BUCKETS] = boot_ms(s) + s.hold_ms


cdef inline bint held_off(Store* s, uint64_t hv) noexcept nogil:
    cdef uint64_t now
    if not s.hold_ms:
        return 0
    now = boot_ms(s)
    return now < s.hold_all or now < s.hold[(hv >> 20) % HOLD_BUCKETS]
