# Flatten: `lru mode flat` puts all items of a class into one list.
#
# Owns the way there, which is long, so that others get the lock in between. Must never free anything.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from .memory cimport *
from .store cimport *
from .lock cimport engine_lock, engine_unlock
from .lists cimport *
from .items cimport item_release

cdef enum:
    MOVED_A_SLICE = 1024        # items that change lists before others get the lock


cdef inline void empty_list(Store* s, int cls, int seg) noexcept nogil:
    cdef uint32_t h, n = 0
    while s.lru[cls][seg].tail:
        h = s.lru[cls][seg].tail
        list_move(s, h, item_at(&s.arena, h), COLD)
        n += 1
        if n % MOVED_A_SLICE == 0:
            engine_unlock(s)
            engine_lock(s)


cdef inline void forget_uses(Store* s, int cls) noexcept nogil:
    # In a flat LRU nobody is counted as used.
    cdef uint32_t h = s.lru[cls][COLD].tail, before, n = 0
    cdef uint64_t size
    cdef Item* it
    while h:
        it = item_at(&s.arena, h)
        set_uses(it, 0)
        if it.seg & SEG_MASK == WARM:
            size = size_of(s, it)
            s.lru[cls][WARM].count -= 1
            s.lru[cls][WARM].bytes -= size
            s.lru[cls][COLD].count += 1
            s.lru[cls][COLD].bytes += size
            it.seg = <uint8_t> ((it.seg & ~SEG_MASK) | COLD)
        before = it.prev
        n += 1
        if n % MOVED_A_SLICE == 0:
            it.refs += 1
            engine_unlock(s)
            engine_lock(s)
            # Another thread may have taken it out of the list meanwhile: then from the end again, where all is done.
            before = it.prev if it.state & S_LINKED and it.cls == cls and list_id(it.seg & SEG_MASK) == COLD \
                else s.lru[cls][COLD].tail
            item_release(s, h)
        h = before


cdef inline void flatten(Store* s) noexcept nogil:
    # Under the lock, which others get in between.
    cdef int i
    for i in range(1, s.arena.lists + 1):
        empty_list(s, i, TEMP)
        empty_list(s, i, HOT)
        forget_uses(s, i)
