# Slices: work that is too long to be done at once, in small steps. Pages that move, and large values that are freed.
#
# Owns the page that is on its way from one class to another, and how a thing moves to another chunk. Must never run longer
# than its budget (in chunks that are looked at; 512 bytes that are copied count as one). A page that is leaving is used as
# before, but its free chunks are not handed out: its class loses its next victims, not those that happen to lie in the
# page; the others move to chunks that became free.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from .memory cimport *
from .index cimport index_swap
from .store cimport *
from .lists cimport *
from .items cimport *
from .evict cimport *
from .exchange cimport readiest

cdef enum:
    PASSES = 3                  # over a page in which clients use something; then it stays
    PAGES_LOOKED_AT = 256       # when a page is chosen
    MOVE_A_STORE = 64           # budget of a store, besides what follows from the sizes
    CHUNK_COST = 8              # about what a chunk costs to empty
    COPY_UNIT = 512

cdef enum Moved:
    MOVE_GOES_ON
    MOVE_DONE
    MOVE_GIVEN_UP


cdef inline uint32_t piece_replace(Store* s, uint32_t old, uint32_t new) noexcept nogil:
    # The piece at `old` goes on living at `new`, a chunk that holds it; returns new.
    cdef Arena* a = &s.arena
    cdef Item* p = item_at(a, new)
    memcpy(p, item_at(a, old), HEADER + item_at(a, old).nbytes)
    if item_at(a, p.prev).state & S_PIECE:
        item_at(a, p.prev).h_next = new
    else:
        set_first_piece(item_at(a, p.prev), new)
    if p.h_next:
        item_at(a, p.h_next).prev = new
    else:
        set_last_piece(item_at(a, p.next), new)
    chunk_give_back(a, old)
    return new


cdef inline void item_relocate(Store* s, uint32_t old, uint32_t new) noexcept nogil:
    # The linked item at `old`, which is alive, goes on living at `new`, a free chunk of the same class.
    cdef Arena* a = &s.arena
    cdef Item* it = item_at(a, old)
    cdef Item* b = item_at(a, new)
    memcpy(b, it, HEADER + it.nkey + (LINKS if it.state & S_LARGE else it.nbytes))
    list_replace(s, old, new, b)
    if b.state & S_LARGE:
        item_at(a, first_piece(b)).prev = new
        item_at(a, last_piece(b)).next = new
    index_swap(&s.index, a, old, new, hash_of(s, b))
    renumber(s, b)                      # passes over all items may have been at `new` already, and not yet at `old`
    chunk_give_back(a, old)


cdef inline uint32_t owner_of(Store* s, uint32_t piece) noexcept nogil:
    # The item that a piece belongs to.
    cdef Item* p = item_at(&s.arena, piece)
    while p.h_next:
        p = item_at(&s.arena, p.h_next)
    return p.next


cdef inline bint free_one(Store* s, int cls) noexcept nogil:
    # A victim of the slab class leaves; 0 if there is none.
    cdef double r
    return evict_one(s, cls if cls < s.arena.classes else readiest(s, cls, s.arena.lists, &r))


cdef inline uint32_t page_to_leave(Store* s, int cls) noexcept nogil:
    # The class's page with the least in it, of those that are looked at; 0: it has none that this attempt has not tried.
    cdef Arena* a = &s.arena
    cdef uint32_t p, best = 0, looked = 0, start = 1
    if a.high > PAGES_LOOKED_AT:
        start = 1 + <uint32_t> (s.requests * <uint64_t> 2654435761 % (a.high - 1))
    p = start
    while looked < a.high - 1 and (looked < PAGES_LOOKED_AT or best == 0):
        if a.page[p].cls == cls and a.page[p].tried != s.attempt and (best == 0 or a.page[p].used < a.page[best].used):
            best = p
        looked += 1
        p = p + 1 if p + 1 < a.high else 1
    return best


cdef inline bint move_begin(Store* s, int source, int taker, bint tidy = 0) noexcept nogil:
    # A page of `source` is to become one of `taker` (0: of the pool). 0 if another one is on its way, or there is none.
    cdef uint32_t p
    if s.mover.page:
        return 0
    p = page_to_leave(s, source)
    if p == 0:
        s.tried[source] = s.attempt
        return 0
    room_remove(&s.arena, p)
    s.arena.page[p].leaving = 1
    s.mover.page = p
    s.mover.index = 0
    s.mover.passes = 0
    s.mover.source = source
    s.mover.taker = taker
    s.mover.tidy = tidy
    return 1


cdef inline void move_ends(Store* s) noexcept nogil:
    # The page is empty.
    cdef Mover* m = &s.mover
    s.arena.page[m.page].leaving = 0
    page_return(&s.arena, m.page)
    m.page = 0
    s.n.page_moves += 1
    s.cls[m.source].pages_given += 1
    if m.taker and page_give(&s.arena, m.taker):
        s.cls[m.taker].pages_taken += 1


cdef inline void move_give_up(Store* s) noexcept nogil:
    # The page stays where it is; its free chunks can be used again.
    cdef Arena* a = &s.arena
    cdef uint32_t p = s.mover.page, i, h
    cdef Page* page = &a.page[p]
    s.mover.page = 0
    page.leaving = 0
    page.tried = s.attempt
    page.free = 0
    for i in range(page.fresh):
        h = chunk_in(a, p, i)
        if item_at(a, h).state == 0:
            item_at(a, h).h_next = page.free
            page.free = h
    if page.free or page.fresh < a.cls[page.cls].per_page:
        room_add(a, p)


cdef inline bint room_for_move(Store* s, int cls) noexcept nogil:
    # A free chunk for something of the page that leaves: there is one, or an unused page is worth more than a life.
    cdef Arena* a = &s.arena
    return a.cls[cls].room != 0 or (s.mover.taker != 0 and a.pages_used < a.pages_limit and page_give(a, cls))


cdef inline uint32_t move_chunk(Store* s, uint32_t h) noexcept nogil:
    # Empties the next chunk of the page that leaves and goes on to the one after it, makes room so that the next call can, or
    # passes over what somebody uses. Returns what that cost.
    cdef Arena* a = &s.arena
    cdef Item* it = item_at(a, h)
    cdef int cls = s.mover.source
    s.mover.index += 1
    if not it.state & S_USED or it.refs:
        return 1
    if it.state & S_LINKED and fate(s, it) != FOUND:
        free_dead(s, h, it)
        return 2
    if not room_for_move(s, cls):
        if free_one(s, cls):
            s.mover.index -= 1
            return 4
        if it.state & S_PIECE:
            h = owner_of(s, h)
            it = item_at(a, h)
        if it.refs == 0 and it.state & S_LINKED and s.evictions:
            evict(s, h, it)
        return 4
    if it.state & S_PIECE:
        s.n.rescued_pieces += 1
        piece_replace(s, h, chunk_take(a, cls))
    else:
        s.n.rescues += 1
        item_relocate(s, h, chunk_take(a, cls))
    return 4 + a.cls[cls].size // COPY_UNIT


cdef inline uint32_t move_budget(Store* s) noexcept nogil:
    # Of one store: so much that a page comes before the taker has filled one.
    cdef Mover* m = &s.mover
    cdef uint32_t taker = s.arena.cls[m.taker].per_page if m.taker else 1
    return MOVE_A_STORE + CHUNK_COST * s.arena.cls[m.source].per_page // (taker if taker > 8 else 8)


cdef inline Moved move_step(Store* s, uint32_t budget) noexcept nogil:
    # A slice of the page's way.
    cdef Mover* m = &s.mover
    cdef Page* page = &s.arena.page[m.page]
    cdef uint32_t cost
    while budget:
        if s.garbage:
            cost = garbage_free(s, budget)
        elif page.used == 0:
            move_ends(s)
            return MOVE_DONE
        elif m.tidy and not s.arena.cls[m.source].room:
            move_give_up(s)
            return MOVE_GIVEN_UP
        elif m.index >= page.fresh:
            m.index = 0
            m.passes += 1
            cost = 1
            if m.passes == PASSES:
                s.n.busy_pages += 1
                move_give_up(s)
                return MOVE_GIVEN_UP
        else:
            cost = move_chunk(s, chunk_in(&s.arena, m.page, m.index))
        budget = budget - cost if budget > cost else 0
    return MOVE_GOES_ON
