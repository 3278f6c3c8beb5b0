# Room: a chunk for a class that has none free, at the price of others' lives.
#
# Owns when a class evicts its own and when it takes a page from another. Must never free what somebody still uses (refs).
# docs/memory.md says why the policy is what it is.

from libc.stdint cimport uint32_t, uint64_t
from .memory cimport *
from .store cimport *
from .lists cimport *
from .items cimport *
from .evict cimport *
from .exchange cimport *
from .slices cimport *
from .uploads cimport reader_drop, upload_drop_worst

cdef enum:
    GARBAGE_A_STORE = 64        # pieces
    DROPS_MOST = 256            # clients that may have to give way for one chunk
    ONE_STEP = 1                # patience for what is only taken ahead: nobody has to give way for it
    SPARE_PAGES = 5             # halves of a page: what a class has free beyond is given back (memcached's 2.5 pages)


cdef inline int own_list(Store* s, int cls) noexcept nogil:
    # The list whose victims free chunks of the slab class; 0 if it has none that could.
    cdef double r
    if s.arena.cls[cls].pages == 0:
        return 0
    if cls == s.arena.classes:
        return readiest(s, cls, s.arena.lists, &r)
    return cls if list_items(s, cls) and s.stuck[cls] != s.attempt else 0


cdef inline bint evict_own(Store* s, int cls, int lists) noexcept nogil:
    # One of the class's own leaves. The credit is in chunks.
    cdef uint32_t before = s.arena.cls[cls].used
    if lists == 0 or not evict_one(s, lists):
        return 0
    before -= s.arena.cls[cls].used
    s.credit[cls] -= 1 if before < 1 or before > 1 << 20 else <int> before
    return 1


cdef inline bint make_room(Store* s, int cls) noexcept nogil:
    # One step towards a free chunk of the class. 0: nothing more can be done.
    cdef Arena* a = &s.arena
    cdef int own, giver
    if s.garbage:
        garbage_free(s, GARBAGE_A_STORE)
        return 1
    if empty_page_reclaim(a):
        return 1
    own = own_list(s, cls)
    if not s.evictions:
        return own and evict_one(s, own)
    if s.mover.tidy and s.mover.page and s.mover.source == cls:
        move_give_up(s)
        return 1
    if s.mover.page:
        move_step(s, move_budget(s))
        if not a.cls[cls].room and a.pages_used >= a.pages_limit and s.mover.source != cls:
            evict_own(s, cls, own)
        return 1
    if own and (s.credit[cls] > 0 or not s.automove):
        evict_own(s, cls, own)
        return 1                        # if nobody could leave, the next list is asked
    giver = giver_for(s, cls, readiness(s, own) if own else 0)
    if giver:
        move_begin(s, giver, cls)       # if it has no page that can leave, the next one is asked
        return 1
    if own == 0:
        return 0
    s.credit[cls] = 1 + <int> a.cls[cls].per_page // (4 if s.automove < 2 else 32)
    evict_own(s, cls, own)
    return 1


cdef inline uint32_t obtain_chunk(Store* s, int cls, int patience) noexcept nogil:
    # A chunk of the class. 0: nothing could be freed, or (s.room_later) not within so many steps.
    cdef uint32_t h = chunk_take(&s.arena, cls)
    cdef int drops = DROPS_MOST if patience > ONE_STEP else 0
    s.room_later = 0
    if h == 0:
        s.attempt += 1
    while h == 0:
        if patience == 0:
            s.room_later = 1
            return 0
        patience -= 1
        if not make_room(s, cls):
            if drops == 0 or not (upload_drop_worst(s) or reader_drop(s)):
                return 0
            drops -= 1
            s.attempt += 1              # what they used may leave now
        h = chunk_take(&s.arena, cls)
    if not s.maintained:
        free_dead_ends(s, s.arena.page[page_of(&s.arena, h)].cls, 2)
    return h


cdef inline bint shrink_step(Store* s) noexcept nogil:
    # A step towards a lowered limit; false when there is nothing (more) to do, or nothing can be done now.
    cdef int giver
    if s.arena.pages_used <= s.arena.pages_limit:
        return 0
    if empty_page_reclaim(&s.arena):
        return 1
    if s.mover.page:
        return move_step(s, MOVE_A_STORE) != MOVE_GIVEN_UP
    giver = giver_for(s, 0, 0)
    return s.evictions and giver and move_begin(s, giver, 0)


cdef inline bint compact_step(Store* s) noexcept nogil:
    # Gives back to the pool what a class has free beyond SPARE_PAGES, one page at a time. False if no class has.
    cdef SlabClass* c
    cdef int i
    if s.mover.page:
        move_step(s, MOVE_A_STORE)
        return 1
    if not s.automove:
        return 0
    for i in range(1, s.arena.classes + 1):
        c = &s.arena.cls[i]
        if c.pages > 1 and (<uint64_t> c.pages * c.per_page - c.used) * 2 > <uint64_t> c.per_page * SPARE_PAGES:
            return move_begin(s, i, 0, 1)
    return 0


cdef inline const char* reassign(Store* s, int source, int taker) noexcept nogil:
    # `slabs reassign`: one page from source (-1: any) to taker goes on its way.
    cdef Arena* a = &s.arena
    cdef int i
    if source == taker:
        return b"SAME"
    if s.mover.page:
        return b"BUSY"
    if source == -1:
        for i in range(1, a.classes + 1):
            if i != taker and a.cls[i].pages > 1:
                source = i
                break
        if source == -1:
            return b"BADCLASS"
    if source < 0 or source > a.classes or taker < 0 or taker > a.classes:
        return b"BADCLASS"
    if source == 0:
        if a.pages_used >= a.pages_limit or a.pooled == 0:
            return b"NOSPARE"
        page_give(a, taker)
        s.n.page_moves += 1
        s.cls[taker].pages_taken += 1
        return b"OK"
    if a.cls[source].pages < 2:
        return b"NOSPARE"
    move_begin(s, source, taker)
    return b"OK"
