# Room: who leaves when memory is full. Segmented LRU within a class, and pages that move between classes.
#
# Owns the order of eviction. Must never free what somebody still uses (refs). Each class keeps HOT, WARM and COLD
# lists (new items enter HOT; a second hit makes an item active; active ones go to WARM, others to COLD, and COLD's tail
# is evicted), so a scan passes through HOT and COLD and leaves WARM alone. When a class needs memory, the class whose
# oldest item is the oldest of all gives a page: as many of its oldest items are evicted as the page held, and those of
# the page that are younger move to the chunks that became free.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from .memory cimport *
from .index cimport index_swap
from .store cimport *
from .items cimport *

cdef enum:
    TAIL_TRIES = 50             # items in use that are stepped over at a tail


cdef inline bint juggle_one(Store* s, int cls, int seg, uint32_t h) noexcept nogil:
    # Moves the tail of HOT or WARM on.
    cdef Item* it = item_at(&s.arena, h)
    cdef ClassStats* c = &s.cls[cls]
    s.n.juggles += 1
    if it.state & S_ACTIVE:
        it.state &= ~S_ACTIVE
        if seg == WARM:
            c.moves_within += 1
        else:
            c.moves_to_warm += 1
        lru_move(s, h, it, WARM)
    else:
        c.moves_to_cold += 1
        lru_move(s, h, it, COLD)
    return 1


cdef inline void juggle(Store* s, int cls, int steps) noexcept nogil:
    # Keeps HOT and WARM within their share of the class's bytes.
    cdef Lru* l = &s.lru[cls][0]
    cdef uint64_t total
    if not s.segmented:
        return
    total = l[HOT].bytes + l[WARM].bytes + l[COLD].bytes
    while steps > 0:
        if l[HOT].tail and l[HOT].bytes * 100 > total * <uint64_t> s.hot_pct:
            juggle_one(s, cls, HOT, l[HOT].tail)
        elif l[WARM].tail and l[WARM].bytes * 100 > total * <uint64_t> s.warm_pct:
            juggle_one(s, cls, WARM, l[WARM].tail)
        else:
            return
        steps -= 1


cdef inline int juggle_by_age(Store* s, int cls, int steps) noexcept nogil:
    # HOT and WARM tails that were not used for (factor x the age of COLD's tail) move on. Returns steps done.
    cdef Lru* l = &s.lru[cls][0]
    cdef double cold = 0
    cdef int done = 0
    if not s.segmented:
        return 0
    if l[COLD].tail:
        cold = s.tick - item_at(&s.arena, l[COLD].tail).time
    while done < steps:
        if l[HOT].tail and s.tick - item_at(&s.arena, l[HOT].tail).time > TICKS + cold * s.hot_factor:
            juggle_one(s, cls, HOT, l[HOT].tail)
        elif l[WARM].tail and s.tick - item_at(&s.arena, l[WARM].tail).time > TICKS + cold * s.warm_factor:
            juggle_one(s, cls, WARM, l[WARM].tail)
        else:
            break
        done += 1
    return done


cdef inline uint32_t oldest(Store* s, int cls) noexcept nogil:
    # The item that would leave next, or 0.
    cdef Lru* l = &s.lru[cls][0]
    if l[COLD].tail:
        return l[COLD].tail
    if l[WARM].tail:
        return l[WARM].tail
    if l[HOT].tail:
        return l[HOT].tail
    return l[TEMP].tail


cdef inline void evict(Store* s, uint32_t h, Item* it) noexcept nogil:
    # A live item goes because memory is needed; a dead one is only reclaimed.
    cdef ClassStats* c = &s.cls[it.cls]
    if fate(s, it) != FOUND:
        c.direct_reclaims += 1
        reclaim_dead(s, h, it)
        return
    c.evicted += 1
    c.evicted_time = (s.tick - it.time) // TICKS
    if it.exptime:
        c.evicted_nonzero += 1
    if not it.state & S_FETCHED:
        c.evicted_unfetched += 1
    if it.state & S_ACTIVE:
        c.evicted_active += 1
    if s.log_mask & LOG_EVICT:
        s.log(s.owner, LOG_EVICT, key_of(it), it.nkey, it, b"", b"", ttl_left(s, it), it.nbytes, it.cls)
    item_unlink(s, h, hash_of(s, it))


cdef inline bint evict_tail(Store* s, int cls) noexcept nogil:
    # One item of the class leaves, the least deserving first. Active items at COLD's tail get another round in WARM.
    cdef uint32_t h, before
    cdef Item* it
    cdef int seg, i, tries
    cdef int order[4]
    order[0] = COLD; order[1] = WARM; order[2] = HOT; order[3] = TEMP
    for i in range(4):
        seg = order[i]
        h = s.lru[cls][seg].tail
        tries = TAIL_TRIES
        while h and tries:
            it = item_at(&s.arena, h)
            before = it.prev
            if it.refs == 0:
                if s.evictions or fate(s, it) != FOUND:
                    evict(s, h, it)
                    return 1
            h = before
            tries -= 1
    return 0


# Pages that move

cdef inline void item_relocate(Store* s, uint32_t old, uint32_t new) noexcept nogil:
    # The linked item at `old` goes on living at `new`, a free chunk of the same class.
    cdef Item* a = item_at(&s.arena, old)
    cdef Item* b = item_at(&s.arena, new)
    cdef Lru* l = &s.lru[a.cls][a.seg & SEG_MASK]
    cdef uint32_t piece
    cdef size_t n = HEADER + a.nkey + (4 if a.state & S_LARGE else a.nbytes)
    memcpy(b, a, n)
    if b.prev:
        item_at(&s.arena, b.prev).next = new
    else:
        l.head = new
    if b.next:
        item_at(&s.arena, b.next).prev = new
    else:
        l.tail = new
    if b.state & S_LARGE:
        piece = first_piece(b)
        while piece:
            item_at(&s.arena, piece).next = new
            piece = item_at(&s.arena, piece).h_next
    index_swap(&s.index, &s.arena, old, new, hash_of(s, b))
    chunk_give_back(&s.arena, old)
    if fate(s, b) == FOUND:     # passes over all items may have been at `new` already, and not yet at `old`
        renumber(s, b)
    else:
        set_expiry(s, b, 1)
    s.n.rescues += 1


cdef inline bint page_in_use(Store* s, uint32_t p) noexcept nogil:
    # True when a client reads from or writes into an item of the page.
    cdef Page* page = &s.arena.page[p]
    cdef uint32_t i
    cdef Item* it
    for i in range(page.fresh):
        it = item_at(&s.arena, chunk_in(&s.arena, p, i))
        if it.state & S_PIECE:
            it = item_at(&s.arena, it.next)
        if it.state and it.refs:
            return 1
    return 0


cdef inline bint page_empty_out(Store* s, uint32_t p) noexcept nogil:
    # Frees every chunk of a page; its class keeps its youngest items. The page ends in the pool. 0 if it is in use.
    cdef Arena* a = &s.arena
    cdef Page* page = &a.page[p]
    cdef int cls = page.cls
    cdef uint32_t i, h, fresh = page.fresh
    cdef Item* it
    if page_in_use(s, p):
        s.n.busy_pages += 1
        return 0
    room_remove(a, p)
    page.leaving = 1
    if page.used == 0:
        fresh = 0
    for i in range(fresh):
        h = chunk_in(a, p, i)
        it = item_at(a, h)
        while it.state & S_USED:
            if it.state & S_PIECE:
                evict(s, it.next, item_at(a, it.next))
                s.n.rescued_pieces += 1
            elif fate(s, it) != FOUND:
                reclaim_dead(s, h, it)
            elif it.state & S_LARGE:
                evict(s, h, it)
            elif a.cls[cls].room:
                item_relocate(s, h, chunk_take(a, cls))
            elif not evict_tail(s, cls):
                evict(s, h, it)
        if page.used == 0:
            break
    page.leaving = 0
    page_return(a, p)
    return 1


cdef inline bint give_page_of(Store* s, int victim) noexcept nogil:
    # One page of the LRU class `victim` goes to the pool, chosen where its oldest item lies.
    cdef uint32_t h, tries = TAIL_TRIES, p, last = 0
    cdef Item* it
    h = oldest(s, victim)
    while h and tries:
        it = item_at(&s.arena, h)
        p = page_of(&s.arena, first_piece(it) if it.state & S_LARGE else h)
        if p != last and page_empty_out(s, p):
            return 1
        last = p
        h = it.prev
        tries -= 1
    return 0


cdef inline uint32_t age_with_a_page_less(Store* s, int cls) noexcept nogil:
    # Ticks since the use of the item that would be a class's oldest if it gave one page of items; the class must have items.
    cdef Lru* l = &s.lru[cls][0]
    cdef uint32_t oldest_age = s.tick - item_at(&s.arena, oldest(s, cls)).time, youngest_age = oldest_age, age
    cdef uint64_t pages = s.arena.cls[cls].pages
    cdef int seg
    for seg in range(4):
        if l[seg].head:
            age = s.tick - item_at(&s.arena, l[seg].head).time
            if age < youngest_age:
                youngest_age = age
    if s.allocated - s.last_alloc[cls] > s.memory_limit >> 3:
        youngest_age = oldest_age + oldest_age // 4 + 2
        oldest_age = youngest_age
    if pages < 2:
        return youngest_age
    return youngest_age + <uint32_t> ((oldest_age - youngest_age) * (pages - 1) // pages)


cdef inline int oldest_class(Store* s, uint32_t* its_age) noexcept nogil:
    # The LRU class that a page less would hurt least; 0 if there are no items.
    cdef int i, best = 0
    cdef uint32_t most = 0, age
    for i in range(1, s.arena.classes + 1):
        if oldest(s, i):
            age = age_with_a_page_less(s, i)
            if best == 0 or age > most or (age == most and s.arena.cls[i].pages > s.arena.cls[best].pages):
                best = i
                most = age
    its_age[0] = most
    return best


cdef inline bint make_room(Store* s, int cls, int lru_class) noexcept nogil:
    # Frees at least one chunk somewhere for a class that has none. `lru_class` is whose item it will be.
    cdef uint32_t own, age, most
    cdef int victim
    if empty_page_reclaim(&s.arena):
        return 1
    own = oldest(s, lru_class)
    if s.arena.cls[cls].pages == 0:
        own = 0                 # evicting the own class's items would free nothing of use
    if not s.evictions:
        return own and evict_tail(s, lru_class)
    if own and (s.credit[lru_class] > 0 or not s.automove):
        if s.credit[lru_class] > 0:
            s.credit[lru_class] -= 1
        if evict_tail(s, lru_class):
            return 1
    victim = oldest_class(s, &most)
    if victim == 0:
        return 0
    if own:
        age = s.tick - item_at(&s.arena, own).time
        if victim == lru_class or most <= age + age // 8 + 1:
            s.credit[lru_class] = <int> s.arena.cls[cls].per_page // 4
            if evict_tail(s, lru_class):
                return 1
    if give_page_of(s, victim):
        s.n.page_moves += 1
        return 1
    return evict_tail(s, victim) or (own and evict_tail(s, lru_class))


cdef inline uint32_t obtain_chunk(Store* s, int cls, int lru_class) noexcept nogil:
    # A chunk of the class, at the price of others' lives. 0: nothing could be freed.
    cdef uint32_t h
    cdef int tries = 256
    if s.lru[lru_class][HOT].count:
        juggle(s, lru_class, 3)
    h = chunk_take(&s.arena, cls)
    while h == 0 and tries:
        if not make_room(s, cls, lru_class):
            if s.drop_reader == NULL or not s.drop_reader(s.owner):
                return 0
        h = chunk_take(&s.arena, cls)
        tries -= 1
    return h


cdef inline bint shrink_step(Store* s) noexcept nogil:
    # One page less towards a lowered limit; false when there is nothing (more) to do, or nothing can be done now.
    cdef int victim
    cdef uint32_t most
    if s.arena.pages_used <= s.arena.pages_limit:
        return 0
    if empty_page_reclaim(&s.arena):
        return 1
    victim = oldest_class(s, &most)
    if victim == 0:
        return 0
    return give_page_of(s, victim) or evict_tail(s, victim)


cdef inline const char* reassign(Store* s, int src, int dst) noexcept nogil:
    # `slabs reassign`: one page from src (-1: any) to dst.
    cdef Arena* a = &s.arena
    cdef uint32_t p
    cdef int i
    if src == dst:
        return b"SAME"
    if src == -1:
        for i in range(1, a.classes + 1):
            if i != dst and a.cls[i].pages > 1:
                src = i
                break
        if src == -1:
            return b"BADCLASS"
    if src < 0 or src > a.classes or dst < 0 or dst > a.classes:
        return b"BADCLASS"
    if src == 0:
        if a.pages_used >= a.pages_limit or a.pooled == 0:
            return b"NOSPARE"
    else:
        if a.cls[src].pages < 2:
            return b"NOSPARE"
        for p in range(1, a.high):
            if a.page[p].cls == src and page_empty_out(s, p):
                break
        else:
            return b"BUSY"
    s.n.page_moves += 1
    if dst:
        page_give(a, dst)
    return b"OK"
