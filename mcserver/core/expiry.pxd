# Expiry: how many items expire in which second, so that it is known when many are dead and nobody has met them.
#
# Owns the count of seconds ahead (DUE_SECONDS of them) and of those that are overdue. Must never look for an item: each is
# counted when it is stored, and uncounted when it leaves. Items that live longer than that are found by the crawler's
# ordinary passes.

from libc.stdint cimport uint32_t
from .memory cimport *
from .store cimport *


cdef inline void due_add(Store* s, Item* it) noexcept nogil:
    if it.exptime > s.due_sec and it.exptime - s.due_sec < DUE_SECONDS:
        s.due[it.exptime % DUE_SECONDS] += 1
        it.seg |= G_DUE


cdef inline void due_remove(Store* s, Item* it) noexcept nogil:
    if it.seg & G_DUE:
        it.seg &= ~G_DUE
        if it.exptime > s.due_sec:
            s.due[it.exptime % DUE_SECONDS] -= 1
        else:
            s.overdue -= 1


cdef inline void due_advance(Store* s) noexcept nogil:
    # The clock has moved on to s.sec. What was counted before a clock that was set back stays overdue.
    cdef uint32_t left = DUE_SECONDS
    while s.due_sec < s.sec and left:
        s.due_sec += 1
        left -= 1
        s.overdue += s.due[s.due_sec % DUE_SECONDS]
        s.due[s.due_sec % DUE_SECONDS] = 0
    if s.due_sec < s.sec:
        s.due_sec = s.sec
