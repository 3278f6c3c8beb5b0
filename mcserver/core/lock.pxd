# Lock: one mutex for a Store and everything in it. The order in which it is held is the order of what happened.
#
# Owns who may touch a Store: whoever runs between engine_lock and engine_unlock. Nobody makes or frees a Python object, reads or
# writes a socket, or takes the GIL meanwhile; a thread that has the GIL may wait for it, since who holds it never needs the GIL.

from libc.stdint cimport uint64_t
from .mail cimport *
from .store cimport Store, boot_clock, work_clock

cdef enum:
    SLICE_NS = 100000           # background work, dumps and long batches let others have it after so long


cdef inline void hold_begins(Store* s) noexcept nogil:
    s.held_since = work_clock()


cdef inline void hold_ends(Store* s) noexcept nogil:
    # What is measured is this thread's CPU time: what the machine does meanwhile doesn't count.
    cdef uint64_t held = work_clock() - s.held_since
    set64(&s.held_ns, s.held_ns + held)
    if held > s.held_most:
        s.held_most = held


cdef inline void engine_lock(Store* s) noexcept nogil:
    cdef uint64_t began, others
    if pthread_mutex_trylock(&s.mutex) == 0:
        if s.measured:
            hold_begins(s)
        return
    add32(&s.waiting, 1)
    began = boot_clock()
    others = get64(&s.held_ns)
    pthread_mutex_lock(&s.mutex)
    add32(&s.waiting, -1)
    s.n.lock_waits += 1
    s.n.lock_wait_ns += boot_clock() - began
    if s.measured:
        if s.held_ns - others > s.passed_most:
            s.passed_most = s.held_ns - others
        hold_begins(s)


cdef inline void engine_unlock(Store* s) noexcept nogil:
    if s.measured:
        hold_ends(s)
    pthread_mutex_unlock(&s.mutex)


cdef inline bint lock_is_wanted(Store* s) noexcept nogil:
    return get32(&s.waiting) > 0
