# Items: what is stored. Links and unlinks them, frees them, knows which are dead.
#
# Owns the consistency of index, lists and figures: an item is in both or in neither. Must never evict (room.pxd
# does) nor parse anything.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from .memory cimport *
from .index cimport index_find, index_hash, index_insert, index_swap
from .mrc cimport *
from .store cimport *
from .rules cimport Rule, Rules, is_flushed
from .ghosts cimport ghost_take
from .lists cimport *
from .expiry cimport due_add, due_remove

cdef enum:
    FREED_AT_ONCE = 256         # pieces of a value that is gone; more are garbage, and freed in slices


cdef inline char* key_of(Item* it) noexcept nogil:
    return <char*> it + HEADER


cdef inline char* value_of(Item* it) noexcept nogil:
    # The value's bytes; only for items that are not S_LARGE.
    return <char*> it + HEADER + it.nkey


cdef inline uint32_t* links_of(Item* it) noexcept nogil:
    # Where the handles of a large item's first and last piece stand, perhaps not aligned.
    return <uint32_t*> (<char*> it + HEADER + it.nkey)


cdef inline uint32_t first_piece(Item* it) noexcept nogil:
    cdef uint32_t h
    memcpy(&h, links_of(it), 4)
    return h


cdef inline uint32_t last_piece(Item* it) noexcept nogil:
    cdef uint32_t h
    memcpy(&h, <char*> links_of(it) + 4, 4)
    return h


cdef inline void set_first_piece(Item* it, uint32_t h) noexcept nogil:
    memcpy(links_of(it), &h, 4)


cdef inline void set_last_piece(Item* it, uint32_t h) noexcept nogil:
    memcpy(<char*> links_of(it) + 4, &h, 4)


cdef inline uint64_t hash_of(Store* s, Item* it) noexcept nogil:
    return index_hash(&s.index, key_of(it), it.nkey)


# The memory curve: what the miniatures are told

cdef inline uint32_t memory_of(Store* s, Item* it) noexcept nogil:
    # Bytes of the chunks that an item lies in, about: the end of a large value may lie in several.
    cdef Arena* a = &s.arena
    cdef uint64_t largest = a.cls[a.classes].size, most = largest - HEADER, bytes
    if not it.state & S_LARGE:
        return a.cls[it.cls].size
    bytes = a.cls[arena_class(a, HEADER + it.nkey + 8)].size + it.nbytes // most * largest
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


# Epochs (flush.pxd)

cdef inline uint64_t epoch_of(Store* s, Item* it) noexcept nogil:
    # An item keeps 16 bits; flush.pxd sees to it that none falls behind by more than they can say.
    return s.epoch - <uint16_t> (<uint16_t> s.epoch - it.epoch)


cdef inline void renumber(Store* s, Item* it) noexcept nogil:
    # Nothing that happened so far concerns the item any more.
    it.epoch = <uint16_t> s.epoch
    s.epoch_taken = 1


# Linking and freeing

cdef enum:
    SIZE_STEP = 32              # bytes between two sizes that track_sizes tells apart


cdef inline size_t size_buckets(uint64_t item_size_max) noexcept nogil:
    # How many there are: an item takes some hundred bytes more than its value.
    return <size_t> (item_size_max // SIZE_STEP + 16)


cdef inline void count_size(Store* s, Item* it, int by) noexcept nogil:
    cdef uint64_t bucket
    if s.size_count != NULL:
        bucket = (size_of(s, it) + SIZE_STEP - 1) // SIZE_STEP
        s.size_count[bucket] += <uint32_t> by


cdef inline void count_in(Store* s, Item* it) noexcept nogil:
    # The figures of an item that enters. count_out: of one that leaves, or is about to be changed.
    s.bytes += size_of(s, it)
    if it.exptime:
        s.timed += 1
        due_add(s, it)
    count_size(s, it, 1)


cdef inline void count_out(Store* s, Item* it) noexcept nogil:
    s.bytes -= size_of(s, it)
    if it.exptime:
        s.timed -= 1
        due_remove(s, it)
    count_size(s, it, -1)
    s.gone[it.cls] += 1


cdef inline void item_link(Store* s, uint32_t h, uint64_t hv, int seg, int uses) noexcept nogil:
    # Makes a filled item visible. Its key must not be in the index.
    cdef Item* it = item_at(&s.arena, h)
    item_touch(s, it)
    renumber(s, it)
    it.state |= S_LINKED
    if not s.segmented:
        seg = COLD
        uses = 0
    elif s.temp_ttl >= 0 and it.exptime and <int64_t> it.exptime - s.sec <= s.temp_ttl:
        seg = TEMP
    set_uses(it, uses)
    list_push(s, h, it, seg)
    index_insert(&s.index, &s.arena, h, hv)
    s.n.total_items += 1
    count_in(s, it)


cdef inline void garbage_add(Store* s, uint32_t first, uint32_t last) noexcept nogil:
    # A chain of pieces without an item.
    item_at(&s.arena, last).h_next = s.garbage
    s.garbage = first


cdef inline uint32_t garbage_free(Store* s, uint32_t most) noexcept nogil:
    # Frees up to `most` pieces; returns how many.
    cdef uint32_t h, done = 0
    while s.garbage and done < most:
        h = s.garbage
        s.garbage = item_at(&s.arena, h).h_next
        chunk_give_back(&s.arena, h)
        done += 1
    return done


cdef inline void item_free(Store* s, uint32_t h) noexcept nogil:
    cdef Item* it = item_at(&s.arena, h)
    cdef uint32_t piece, following
    if it.state & S_LARGE and first_piece(it):
        if it.nbytes > <uint64_t> FREED_AT_ONCE * (s.arena.cls[s.arena.classes].size - HEADER):
            garbage_add(s, first_piece(it), last_piece(it))
        else:
            piece = first_piece(it)
            while piece:
                fetch_ahead(item_at(&s.arena, item_at(&s.arena, piece).time))
                following = item_at(&s.arena, piece).h_next
                chunk_give_back(&s.arena, piece)
                piece = following
    chunk_give_back(&s.arena, h)


cdef inline void item_unlink(Store* s, uint32_t h, uint64_t hv) noexcept nogil:
    # Takes it out of index and list; its memory is freed at once, or when the last user lets go.
    cdef Item* it = item_at(&s.arena, h)
    index_swap(&s.index, &s.arena, h, 0, hv)
    list_remove(s, h, it)
    count_out(s, it)
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
    if it.exptime:
        s.timed -= 1
        due_remove(s, it)
    it.exptime = exptime
    if exptime:
        s.timed += 1
        due_add(s, it)


cdef inline void item_replace(Store* s, uint32_t old, uint32_t new, uint64_t hv) noexcept nogil:
    # Links `new` (and lets go of it) in the place of `old`, if there is one. It is as used as the old one was; without one,
    # a key that was evicted not long ago has shown its worth and goes straight into the ring.
    cdef Item* it = item_at(&s.arena, new)
    cdef Item* was
    cdef int seg = HOT, uses = 0
    if old:
        was = item_at(&s.arena, old)
        uses = uses_of(was)
        if list_id(was.seg & SEG_MASK) == COLD:
            seg = WARM if uses else COLD
        item_unlink(s, old, hv)
    elif s.segmented:
        if ghost_take(&s.ghosts, hv, it.cls, s.evicted[it.cls], list_items(s, it.cls)):
            seg = COLD
        count_new(s, it.cls, seg == COLD)
    item_link(s, new, hv, seg, uses)
    curve_store(s, it, hv)
    item_release(s, new)


# Life and death

cdef inline void mark_item_stale(Store* s, Item* it, int64_t exptime) noexcept nogil:
    # exptime < 0 leaves the expiry. The cas changes, so that older leases lose.
    it.state |= S_STALE
    it.seg &= ~G_TOKEN
    it.cas = new_cas(s)
    if exptime >= 0:
        set_expiry(s, it, <uint32_t> exptime)


cdef inline bint apply_rules(Store* s, Item* it) noexcept nogil:
    # Carries out the prefix rules that are younger than the item, refreshes each as at the time at which it came; true when the
    # item was dead by then or one of them kills it.
    cdef Rules* rules = &s.rules
    cdef uint64_t epoch = epoch_of(s, it)
    cdef uint32_t i
    cdef Rule* r
    if is_flushed(rules, key_of(it), it.nkey, epoch):
        return 1
    for i in range(rules.refreshes):
        r = &rules.refresh[i]
        if epoch < r.epoch and it.nkey >= r.length and memcmp(key_of(it), r.prefix, r.length) == 0:
            if it.exptime and it.exptime <= r.came:
                return 1        # what an earlier rule left had run out
            if it.nbytes == 0:  # a lease's stub
                return 1
            mark_item_stale(s, it, <int64_t> r.expires if r.expires else -1)
    renumber(s, it)
    return 0


cdef inline int fate_by_rules(Store* s, Item* it) noexcept nogil:
    if apply_rules(s, it):
        return FLUSHED
    if it.exptime and it.exptime <= s.sec:          # a refresh may have shortened its life
        return EXPIRED
    return FOUND


cdef inline int fate(Store* s, Item* it) noexcept nogil:
    # FOUND, EXPIRED or FLUSHED.
    if epoch_of(s, it) < s.flush_epoch:
        return FLUSHED
    if it.exptime and it.exptime <= s.sec:
        return EXPIRED
    if s.rules.count and it.epoch != <uint16_t> s.epoch:
        return fate_by_rules(s, it)
    return FOUND


cdef inline void count_request(Store* s) noexcept nogil:
    # A key is looked for.
    s.requests += 1
    s.clock = <uint32_t> (s.requests >> TRAFFIC_GRAIN)


cdef inline uint32_t item_met(Store* s, const char* key, size_t nkey, uint64_t hv, uint32_t h) noexcept nogil:
    # What the index has of a key that is looked for, if it is alive, or 0; a dead one is freed and counted.
    cdef Item* it = NULL
    cdef int f = MISSING
    count_request(s)
    if h:
        it = item_at(&s.arena, h)
        f = FOUND if it.exptime == 0 and it.epoch == <uint16_t> s.epoch else fate(s, it)   # the most usual without a call
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


cdef inline uint32_t item_find(Store* s, const char* key, size_t nkey, uint64_t hv) noexcept nogil:
    # The live item, or 0. s.last_found says why.
    return item_met(s, key, nkey, hv, index_find(&s.index, &s.arena, key, nkey, hv))


cdef inline uint32_t item_find_quick(Store* s, const char* key, size_t nkey, uint64_t hv) noexcept nogil:
    # The same where most of a server's time goes: what is usual, in a few steps.
    cdef uint32_t h = index_find(&s.index, &s.arena, key, nkey, hv)
    cdef Item* it = item_at(&s.arena, h)
    if s.log_mask or h and (it.epoch != <uint16_t> s.epoch or it.exptime and it.exptime <= s.sec):
        return item_met(s, key, nkey, hv, h)
    count_request(s)
    s.last_found = FOUND if h else MISSING
    return h


cdef inline void free_dead(Store* s, uint32_t h, Item* it) noexcept nogil:
    # A dead item that was met at a list's end.
    cdef ClassStats* c = &s.cls[it.cls]
    c.reclaimed += 1
    if not it.state & S_FETCHED:
        c.expired_unfetched += 1
    item_unlink(s, h, hash_of(s, it))


# Hold-off (coherence page): after a remote invalidation plain stores of that key are refused for a while.

cdef inline void hold_key(Store* s, uint64_t hv) noexcept nogil:
    if s.hold_ms:
        s.hold[(hv >> 20) % HOLD_BUCKETS] = boot_ms(s) + s.hold_ms


cdef inline bint held_off(Store* s, uint64_t hv) noexcept nogil:
    cdef uint64_t now
    if not s.hold_ms:
        return 0
    now = boot_ms(s)
    return now < s.hold_all or now < s.hold[(hv >> 20) % HOLD_BUCKETS]
