# Exchange: which class's memory is worth least.
#
# Owns the comparison of classes. Must never free or move anything. The items that would leave if a class gave one page are
# looked at, in the order in which they would leave: an item's worth is (requests since its last use) ^ -FADES, less if it is new
# and was never used; theirs on average, for each byte, is the class's. The class with the least gives (the size-adjusted LRU
# of Aggarwal, Wolf and Yu, 1999, by pages). Not all of them are looked at but the first SAMPLE of each list; that the others
# are younger is reckoned with, and those that were used, which don't leave yet, are passed over. A class whose items were used
# more often, or less, than their ages said counts so much more or less. Ages are counted in traffic: the same replay, slower, ends
# the same.

from libc.stdint cimport uint32_t, uint64_t
from .fading cimport *
from .memory cimport *
from .store cimport *
from .lists cimport *

cdef enum:
    JUDGED = 16                 # times while the memory's size is stored once
    JUDGED_LEAST = 64           # hits and stores without which nothing is judged
    IDLE_SHARE = 16             # hardly used: less than a 16th of what a class of its size would be on average,
    IDLE_LEAST = 32             # if that is enough to tell,
    IDLE_LONG = 6               # while so many sixteenths of the memory were stored, and twice as many as the last time that
    SPELL_MOST = 16             # what it had kept was used again after all (but after so many that is no habit),
    IDLE_FACTOR = 256           # then its pages go first


cdef inline double worth_of(Store* s, Item* it) noexcept nogil:
    return 1 / aged((<double> (s.clock - it.used) + 0.5) * (1 << TRAFFIC_GRAIN) + 1.0)


cdef inline double worth_at_end(Store* s, uint32_t h, double want, double has, bint* used) noexcept nogil:
    # The mean worth of the `want` items of a list of `has` that leave first, from h on: of those that were not used, unless all
    # were, which `used` tells.
    cdef int n = 0, passed = 0
    cdef double worth = 0, of_passed = 0
    cdef Item* it
    while h and n < SAMPLE and n < want and n + passed < LOOKED:
        it = item_at(&s.arena, h)
        if uses_of(it):
            of_passed += worth_of(s, it)
            passed += 1
        else:
            worth += worth_of(s, it)
            n += 1
        h = it.prev
    used[0] = n == 0
    return mean_worth(n, worth, passed, of_passed, want, has)


cdef inline void worth_of_both_ends(Store* s, Lru* l, double* used, double* unused) noexcept nogil:
    # The worth of all items of a list that has some: those that were used, and the others. With a class's last page the youngest
    # leave, too.
    cdef int n = 0, here, end
    cdef uint32_t h
    cdef Item* it
    used[0] = unused[0] = 0
    for end in range(2):
        h = l.head if end else l.tail
        here = 0
        while h and here < SAMPLE and n < <int> l.count:
            it = item_at(&s.arena, h)
            if uses_of(it):
                used[0] += worth_of(s, it)
            else:
                unused[0] += worth_of(s, it)
            h = it.next if end else it.prev
            here += 1
            n += 1
    used[0] *= <double> l.count / n
    unused[0] *= <double> l.count / n


cdef inline double readiness_now(Store* s, int cls, double* age) noexcept nogil:
    # The inverse of the worth of a byte of the class's next page of victims; 0 if it has no items that could leave. `age`: theirs,
    # in requests, one of HOT counting NEW_WORTH of one in the ring.
    cdef Lru* l = s.lru[cls]
    cdef double hot = l[HOT].count, ring = <double> l[COLD].count + l[WARM].count, items = hot + ring
    cdef double page, from_hot, of_hot, newest = 0, worth = 0, size = s.arena.cls[cls].size
    cdef bint used
    age[0] = 0
    if items == 0:
        items = l[TEMP].count
        if items == 0:
            return 0
        worth = worth_at_end(s, l[TEMP].tail, items, items, &used)
        age[0] = age_for(worth)
        return (1 if s.room_for_bytes else size) / worth
    page = s.arena.page_size / size
    page = 1 if page < 1 else items if page > items else page
    from_hot = new_that_leave(hot, ring, page, s.hot_pct / (100.0 * HOT_PART))
    if from_hot > 0 and page == items:
        worth_of_both_ends(s, &l[HOT], &worth, &newest)
    elif from_hot > 0:
        of_hot = from_hot * worth_at_end(s, l[HOT].tail, from_hot, hot, &used)
        if used:
            worth = of_hot
        else:
            newest = of_hot
    if page > from_hot:
        worth += (page - from_hot) * worth_at_end(s, l[COLD].tail, page - from_hot, ring, &used)
    if worth + newest <= 0:
        return 0
    age[0] = age_for((worth + NEW_WORTH * newest) / page)
    worth += worth_of_new(s.recent[cls].came, s.recent[cls].wanted) * newest
    return page * (1 if s.room_for_bytes else size) / worth


cdef inline void judge(Store* s) noexcept nogil:
    # Which classes are hardly used any more, since the sizes have changed: nobody stores in them, and they have few hits for
    # their bytes (or hardly anybody has: then stores tell). An item's age alone would keep them for long: small ones, of which a
    # page has thousands, seem worth more than the few large ones that there are requests for now.
    cdef int i
    cdef double hits = 0, stores = 0, bytes = 0, uses, own, all_uses
    cdef bint used
    cdef Recent* r
    cdef uint32_t turns = <uint32_t> (s.recent_bytes * JUDGED // s.memory_limit)
    for i in range(1, s.arena.lists + 1):
        hits += s.recent[i].hits
        stores += s.recent[i].stores
        bytes += <double> list_items(s, i) * s.arena.cls[i].size
    if hits + stores < JUDGED_LEAST:
        return                  # too few to tell: goes on to be counted
    s.recent_bytes = 0
    all_uses = hits if hits >= IDLE_LEAST else hits + stores
    for i in range(1, s.arena.lists + 1):
        r = &s.recent[i]
        own = <double> list_items(s, i) * s.arena.cls[i].size
        uses = r.hits if hits >= IDLE_LEAST else <double> r.hits + r.stores
        used = r.hits > 0 and r.hits * IDLE_SHARE * bytes >= hits * own     # however few the hits are
        if not used and uses * IDLE_SHARE * bytes < all_uses * own \
                and <double> r.stores * IDLE_SHARE * bytes < stores * own:
            if all_uses * own >= IDLE_LEAST * bytes:    # of one with few bytes left it can't be told: it stays what it was
                r.idle += turns
                s.ready[i].known = 0
        elif r.idle:
            r.spell = 0 if r.hits <= r.stores else SPELL_MOST if r.idle > SPELL_MOST else r.idle
            r.idle = 0
            s.ready[i].known = 0
        r.hits = 0
        r.stores = 0


cdef inline void count_store(Store* s, int cls, uint64_t n) noexcept nogil:
    s.recent[cls].stores += 1
    s.recent_bytes += n
    if s.recent_bytes > s.memory_limit // JUDGED:
        judge(s)


cdef inline double use_ratio_of(Store* s, int cls) noexcept nogil:
    cdef Uses* u = &s.recent[cls].uses
    return use_ratio(u.seen, u.expected, s.uses.seen, s.uses.expected)


cdef inline double readiness(Store* s, int cls) noexcept nogil:
    # The same, and not looked at again before an eighth of a page has left or its items are an eighth older.
    cdef Ready* r = &s.ready[cls]
    cdef uint32_t size = s.arena.cls[cls].size, age
    if r.known and s.gone[cls] - r.gone <= s.arena.page_size // size // 8:
        age = s.clock - r.at
        if age == 0 or <double> age * (8 << TRAFFIC_GRAIN) < r.age:
            return r.value
    r.value = readiness_now(s, cls, &r.age) / use_ratio_of(s, cls)
    if s.recent[cls].idle >= IDLE_LONG and s.recent[cls].idle > 2 * s.recent[cls].spell:
        r.value *= IDLE_FACTOR
    r.at = s.clock
    r.gone = s.gone[cls]
    r.known = 1
    return r.value


cdef inline int readiest(Store* s, int first, int last, double* most) noexcept nogil:
    # Of the classes first to last the one whose memory is worth least; 0 if none has an item.
    cdef int i, best = 0
    cdef double r
    most[0] = 0
    for i in range(first, last + 1):
        if list_items(s, i) and s.stuck[i] != s.attempt:
            r = readiness(s, i)
            if r > most[0] or best == 0:
                most[0] = r
                best = i
    return best


cdef inline int giver_for(Store* s, int taker, double own) noexcept nogil:
    # The slab class that is to give a page to `taker`, whose own next victims have the readiness `own` (0: it has none); 0 if
    # all others are worth more. The last slab class gives for all bands.
    cdef int i, best = 0
    cdef double r, most = own * (MARGIN if s.automove < 2 else 1.0)
    for i in range(1, s.arena.classes + 1):
        if i == taker or s.arena.cls[i].pages == 0 or s.tried[i] == s.attempt:
            continue
        if i == s.arena.classes:
            readiest(s, i, s.arena.lists, &r)
        elif list_items(s, i) == 0 or s.stuck[i] == s.attempt:
            continue
        else:
            r = readiness(s, i)
        if r > most:
            most = r
            best = i
    return best
