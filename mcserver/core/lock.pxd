# Lock: one mutex for a Store and everything in it. The order in which it is held is the order of what happened.
#
# Owns who may touch a Store: whoever runs between engine_lock and engine_unlock. Nobody makes or frees a Python object, reads or
# writes a socket, or takes the GIL meanwhile; a thread that has the GIL may wait for it, since who holds it never needs the GIL.

from libc.stdint cimport uint64_t
from .mail cimport *
from .store cimport Store, boot_clock

cdef enum:
    SLICE_NS = 100000           # background work, dumps and long batches let others have it after so long


cdef inline void engine_lock(Store* s) noexcept nogil:
    cdef uint64_t began
    if pthread_mutex_trylock(&s.mutex) == 0:
        return
    add32(&s.waiting, 1)
    began = boot_clock()
    pthread_mutex_lock(&s.mutex)
    add32(&s.waiting, -1)
    s.n.lock_waits += 1
    s.n.lock_wait_ns += boot_clock() - began


cdef inline void engine_unlock(Store* s) noexcept nogil:
    pthread_mutex_unlock(&s.mutex)


cdef inline bint lock_is_wanted(Store* s) noexcept nogil:
    return get32(&s.waiting) > 0
