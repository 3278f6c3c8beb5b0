# Evict: an item leaves because its memory is needed.
#
# Owns what is counted and remembered of it. Must never choose: lists.pxd says who is next in a class, exchange.pxd in which.

from libc.stdint cimport uint32_t, uint64_t
from .memory cimport *
from .store cimport *
from .ghosts cimport ghost_add
from .lists cimport *
from .items cimport *


cdef inline void evict(Store* s, uint32_t h, Item* it) noexcept nogil:
    # A live item goes; a dead one is only reclaimed.
    cdef ClassStats* c = &s.cls[it.cls]
    cdef uint64_t hv
    c.direct_reclaims += 1
    if fate(s, it) != FOUND:
        free_dead(s, h, it)
        return
    c.evicted += 1
    c.evicted_time = (s.tick - it.time) // TICKS
    if it.exptime:
        c.evicted_nonzero += 1
    if not it.state & S_FETCHED:
        c.evicted_unfetched += 1
    if uses_of(it):
        c.evicted_active += 1
    if s.log_mask & LOG_EVICT:
        s.log(s.owner, LOG_EVICT, key_of(it), it.nkey, it, b"", b"", ttl_left(s, it), it.nbytes, it.cls)
    count_uses(s, it, 0)
    hv = hash_of(s, it)
    s.evicted[it.cls] += 1
    if s.segmented:
        ghost_add(&s.ghosts, hv, it.cls, s.evicted[it.cls], s.index.count)
    item_unlink(s, h, hv)


cdef inline bint evict_one(Store* s, int cls) noexcept nogil:
    # The item of this list that is next; 0 if there is none that can go. Without evictions only a dead one goes.
    cdef uint32_t h = victim_of(s, cls)
    cdef Item* it
    if h == 0:
        s.stuck[cls] = s.attempt
        return 0
    it = item_at(&s.arena, h)
    if not s.evictions and fate(s, it) == FOUND:
        return 0
    evict(s, h, it)
    return 1


cdef inline uint32_t free_dead_ends(Store* s, int cls, uint32_t most) noexcept nogil:
    # Frees the dead at the ends of a class's lists, up to `most`; returns how many.
    cdef Lru* l = s.lru[cls]
    cdef uint32_t h, done = 0
    cdef Item* it
    cdef int i
    cdef int order[3]
    order[0] = HOT; order[1] = COLD; order[2] = TEMP
    for i in range(3):
        while done < most:
            h = l[order[i]].tail
            if h == 0:
                break
            it = item_at(&s.arena, h)
            if it.refs or fate(s, it) == FOUND:
                break
            free_dead(s, h, it)
            done += 1
    return done
