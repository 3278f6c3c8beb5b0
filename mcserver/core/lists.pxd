# Lists: the order in which a class's items leave.
#
# Owns the lists of each class, and what a use does to an item's place: nothing moves, it is only counted. Must never free
# anything. New items enter HOT, a FIFO of half of hot_pct of the class's bytes; one that was used by the time that it reaches the
# end goes on to the ring, the others leave. The ring is a CLOCK: at its end an item that was used goes round once more for
# each use, up to three (S3-FIFO, Yang et al., SOSP 2023; here one use in the FIFO is enough). COLD are the ring's items that
# were not used since they passed its end, WARM those that were: one list, counted apart. TEMP are items with so little
# time left that nothing is gained by evicting them. A flat LRU has everything in COLD, and a use moves an item to its head.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from .fading cimport *
from .memory cimport *
from .store cimport *

cdef enum:
    USES_MOST = 3
    HOT_PART = 2                # the FIFO needs half of what memcached's HOT is given (hot_lru_pct)
    TRIES = 256                 # items that are passed over at an end before another must leave


cdef inline uint64_t size_of(Store* s, Item* it) noexcept nogil:
    return printed_size(s, it.nkey, it.flags, it.nbytes)


cdef inline int list_id(int seg) noexcept nogil:
    # Which list an item of this segment stands in.
    return COLD if seg == WARM else seg


cdef inline int uses_of(Item* it) noexcept nogil:
    return (it.seg & G_USES) // G_USE


cdef inline void set_uses(Item* it, int uses) noexcept nogil:
    it.seg = <uint8_t> ((it.seg & ~G_USES) | uses * G_USE)


cdef inline void list_push(Store* s, uint32_t h, Item* it, int seg) noexcept nogil:
    # At the head.
    cdef Lru* l = &s.lru[it.cls][list_id(seg)]
    cdef Lru* counted = &s.lru[it.cls][seg]
    it.seg = <uint8_t> ((it.seg & ~SEG_MASK) | seg)
    it.prev = 0
    it.next = l.head
    if l.head:
        item_at(&s.arena, l.head).prev = h
    else:
        l.tail = h
    l.head = h
    counted.count += 1
    counted.bytes += size_of(s, it)


cdef inline void list_remove(Store* s, uint32_t h, Item* it) noexcept nogil:
    cdef int seg = it.seg & SEG_MASK
    cdef Lru* l = &s.lru[it.cls][list_id(seg)]
    cdef Lru* counted = &s.lru[it.cls][seg]
    if it.prev:
        item_at(&s.arena, it.prev).next = it.next
    else:
        l.head = it.next
    if it.next:
        item_at(&s.arena, it.next).prev = it.prev
    else:
        l.tail = it.prev
    counted.count -= 1
    counted.bytes -= size_of(s, it)


cdef inline void list_move(Store* s, uint32_t h, Item* it, int seg) noexcept nogil:
    list_remove(s, h, it)
    list_push(s, h, it, seg)


cdef inline void list_replace(Store* s, uint32_t old, uint32_t new, Item* it) noexcept nogil:
    # The item, of which `new` is a copy already, goes on standing where it stood.
    cdef Lru* l = &s.lru[it.cls][list_id(it.seg & SEG_MASK)]
    if it.prev:
        item_at(&s.arena, it.prev).next = new
    else:
        l.head = new
    if it.next:
        item_at(&s.arena, it.next).prev = new
    else:
        l.tail = new


cdef inline uint32_t list_items(Store* s, int cls) noexcept nogil:
    cdef Lru* l = s.lru[cls]
    return l[HOT].count + l[WARM].count + l[COLD].count + l[TEMP].count


cdef inline void learn(Uses* u, uint32_t seen, uint32_t expected, uint64_t most) noexcept nogil:
    u.seen += seen
    u.expected += expected
    if u.expected > most:
        u.seen //= 2
        u.expected //= 2


cdef inline void count_uses(Store* s, Item* it, uint32_t seen) noexcept nogil:
    # Since its last use the item was used again (1), or it leaves unused (0). A class that has lost nobody yet takes the ages that
    # count from whoever has lost one last.
    cdef Uses* u = &s.recent[it.cls].uses
    cdef int octave = octave_of(s.clock - it.used), grown = u.grown if u.grown else s.uses.grown
    cdef uint32_t expected
    cdef uint64_t most = EXPECTED_MOST
    if not seen:
        u.grown = s.uses.grown = grown_at(octave)
    if grown == 0 or octave < grown:
        return
    expected = expected_uses(octave, grown)
    if u.expected + expected > most:
        most = <uint64_t> list_items(s, it.cls) << EXPECTED_BITS
        if most < EXPECTED_MOST:
            most = EXPECTED_MOST
    learn(u, seen, expected, most)
    learn(&s.uses, seen, expected, 8 * EXPECTED_MOST)


cdef inline void item_touch(Store* s, Item* it) noexcept nogil:
    it.time = s.tick
    it.used = s.clock


cdef inline void item_bump(Store* s, uint32_t h, Item* it) noexcept nogil:
    # A use.
    cdef int seg = it.seg & SEG_MASK, uses = uses_of(it)
    cdef Lru* l
    cdef uint64_t n
    it.state |= S_FETCHED
    s.recent[it.cls].hits += 1
    count_uses(s, it, 1)
    item_touch(s, it)
    if not s.segmented:
        list_move(s, h, it, seg)
        return
    if uses == USES_MOST:
        return
    it.seg += G_USE
    if seg == HOT and uses == 0:
        s.recent[it.cls].wanted += 1
    elif seg == COLD:
        l = s.lru[it.cls]
        n = size_of(s, it)
        it.seg = <uint8_t> ((it.seg & ~SEG_MASK) | WARM)
        l[COLD].count -= 1
        l[COLD].bytes -= n
        l[WARM].count += 1
        l[WARM].bytes += n
        s.cls[it.cls].moves_to_warm += 1


cdef inline void item_update(Store* s, uint32_t h, Item* it) noexcept nogil:
    # Something was done with the item that is no use: it is young again, but no more used.
    item_touch(s, it)
    if not s.segmented:
        list_move(s, h, it, it.seg & SEG_MASK)


cdef inline void count_new(Store* s, int cls, bint returns) noexcept nogil:
    # A key comes that was not there; `returns`: it left not long ago.
    cdef Recent* r = &s.recent[cls]
    r.came += 1
    r.wanted += returns
    r.uses.seen += returns
    s.uses.seen += returns
    if r.came > LEARNT and r.came > list_items(s, cls):
        r.came //= 2
        r.wanted //= 2


cdef inline bint hot_is_next(Store* s, int cls) noexcept nogil:
    # Whether HOT has more than its share, so that its end leaves before the ring's.
    cdef Lru* l = s.lru[cls]
    if l[HOT].tail == 0:
        return 0
    if l[COLD].tail == 0:
        return 1
    return l[HOT].bytes * (100 * HOT_PART) > (l[HOT].bytes + l[WARM].bytes + l[COLD].bytes) * <uint64_t> s.hot_pct


cdef inline uint32_t newest_unused(Store* s, Lru* l, uint32_t otherwise) noexcept nogil:
    # Enough were passed over: what came last and has shown nothing leaves before one that was used.
    cdef uint32_t h = l[HOT].head
    cdef Item* it
    if h == 0:
        return otherwise
    it = item_at(&s.arena, h)
    return h if it.refs == 0 and uses_of(it) == 0 else otherwise


cdef inline uint32_t victim_of(Store* s, int cls) noexcept nogil:
    # The item of the class that is to leave next; 0 if nobody can. Passes over those that were used, and those in use.
    cdef Lru* l = s.lru[cls]
    cdef ClassStats* c = &s.cls[cls]
    cdef uint32_t h
    cdef Item* it
    cdef int tries = TRIES, seg, uses
    while tries > -TRIES:
        tries -= 1
        seg = HOT if hot_is_next(s, cls) else COLD if l[COLD].tail else TEMP
        h = l[seg].tail
        if h == 0:
            return 0
        it = item_at(&s.arena, h)
        uses = uses_of(it)
        if it.refs:
            list_move(s, h, it, it.seg & SEG_MASK)
        elif uses == 0 or seg == TEMP:
            return h
        elif tries <= 0:
            return newest_unused(s, l, h)
        elif seg == HOT:
            set_uses(it, 0)
            list_move(s, h, it, COLD)
            c.moves_to_cold += 1
        else:
            set_uses(it, uses - 1)
            list_move(s, h, it, WARM if uses > 1 else COLD)
            c.moves_within += 1
    for seg in range(4):                # clients use all that stood at the end that was next
        h = l[seg].tail
        tries = TRIES
        while h and tries:
            it = item_at(&s.arena, h)
            if it.refs == 0:
                return h
            h = it.prev
            tries -= 1
    return 0
