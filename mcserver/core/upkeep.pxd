# Upkeep: an engine's background work, a slice at a time. What is dead, beyond a limit or unused gives its memory back.
#
# Owns the order of that work, and when a pass over all items begins. Must never go on beyond its slice: the lock is held for it.

from libc.stdint cimport uint32_t, uint64_t
from .memory cimport *
from .store cimport *
from .lists cimport list_items
from .items cimport garbage_free
from .flush cimport clock_update
from .evict cimport free_dead_ends
from .walk cimport *
from .room cimport compact_step, shrink_step

cdef enum:
    DEAD_A_STEP = 256           # items that are freed before the clock is looked at
    TRIM_A_SLICE = 8            # pages that are given back to the system, each a system call
    WALK_STEP = 256             # chunks of a pass before the clock is looked at again
    WALK_PAUSE = 10             # s of the engine's clock between two passes that nobody asked for,
    HURRY_PAUSE = 2             # ... and between two that begin because many are dead
    OVERDUE_SHARE = 64          # a pass begins at once when more than one item in so many is dead

cdef extern from *:
    """
    #define AT_ONCE 0.001
    """
    const double AT_ONCE        # seconds: there is more to do, and others have their turn first

cdef struct Upkeep:
    Walk walk                   # the pass that runs, or ran last
    uint64_t next_walk          # seconds of the engine's clock: when another may begin,
    uint64_t next_hurry         # ... and when one may because many are dead
    uint32_t clock_at_walk      # traffic, when the last one ended


cdef inline double upkeep_slice(Store* s, Upkeep* u, bint crawls, uint64_t limit) noexcept nogil:
    # Works for so many ns; returns the seconds after which there is more to do. crawls: passes may begin by themselves.
    cdef Walk* w = &u.walk
    cdef uint64_t began
    cdef int i
    cdef bint more = 0, full = 0
    clock_update(s)
    s.attempt += 1
    began = boot_clock()
    while s.arena.pages_used > s.arena.pages_limit:
        if not shrink_step(s):
            break
        if boot_clock() - began > limit:
            more = 1
            break
    if s.arena.pooled and s.arena.pages_used + s.arena.pooled > s.arena.pages_limit:
        more = more or arena_trim(&s.arena, TRIM_A_SLICE) == TRIM_A_SLICE
    while boot_clock() - began < limit and garbage_free(s, DEAD_A_STEP) == DEAD_A_STEP:
        pass
    while compact_step(s):
        if boot_clock() - began >= limit:
            more = 1
            break
    if s.maintained and boot_clock() - began < limit:
        s.n.juggles += 1
        for i in range(1, s.arena.lists + 1):
            while list_items(s, i) and free_dead_ends(s, i, DEAD_A_STEP) == DEAD_A_STEP:
                if boot_clock() - began > limit:
                    full = 1
                    break
            if full:
                break
        more = more or full
    more = more or s.garbage or s.mover.page
    if not w.running and s.rules.count:
        walk_start(s, w, ALL_CLASSES, 0, 1)
    elif not w.running and crawls and s.sec >= u.next_hurry and s.overdue > s.index.count // OVERDUE_SHARE:
        u.next_hurry = s.sec + HURRY_PAUSE      # many are dead, and who met them at the lists' ends met few
        walk_start(s, w, ALL_CLASSES, 0, 1)
    elif not w.running and (crawls and s.sec >= u.next_walk and (s.timed or s.flush_epoch)
                            or s.clock - u.clock_at_walk > <uint32_t> (OLDEST // 2)):
        walk_start(s, w, ALL_CLASSES, 0, 0)
    while w.running and boot_clock() - began < limit:
        if not walk_step(s, w, WALK_STEP):
            u.next_walk = s.sec + WALK_PAUSE
            u.clock_at_walk = s.clock
    if more or s.rules.count or w.running and w.asked:
        return AT_ONCE
    return 0.05 if w.running else 0.25
