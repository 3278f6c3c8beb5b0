# Remote: what other members of a fleet have changed, done here as well. Each takes the engine's lock by itself.
#
# Owns that plain stores are held off after each of them (coherence page): what was read before it must not be stored after it.
# Must never tell anybody: whoever asks has heard of it already.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from .index cimport index_hash
from .memory cimport *
from .store cimport *
from .lock cimport engine_lock, engine_unlock
from .items cimport *
from .flush cimport clock_update, flush_now, flush_prefix, refresh_prefix


cdef inline void hold_everything(Store* s) noexcept nogil:
    # Under the lock.
    if s.hold_ms:
        s.hold_all = boot_ms(s) + s.hold_ms


cdef inline bint remote_delete(Store* s, const char* key, size_t n) noexcept nogil:
    # True if the key, of 1 to KEY_MAX bytes, was there.
    cdef uint64_t hv = index_hash(&s.index, key, n)
    cdef uint32_t h
    engine_lock(s)
    clock_update(s)
    hold_key(s, hv)
    h = item_find(s, key, n, hv)
    if h:
        item_unlink(s, h, hv)
    curve_delete(s, hv)
    engine_unlock(s)
    return h != 0


cdef inline bint remote_stale(Store* s, const char* key, size_t n, int64_t ttl) noexcept nogil:
    # ... of which a value is marked stale, to live ttl seconds (-1: as long as before), and a lease removed.
    cdef uint64_t hv = index_hash(&s.index, key, n)
    cdef uint32_t h
    cdef Item* it
    engine_lock(s)
    clock_update(s)
    hold_key(s, hv)
    h = item_find(s, key, n, hv)
    if h:
        it = item_at(&s.arena, h)
        if it.nbytes == 0:
            item_unlink(s, h, hv)
            curve_delete(s, hv)
        else:
            mark_item_stale(s, it, <int64_t> expiry(s, ttl) if ttl >= 0 else -1)
    engine_unlock(s)
    return h != 0


cdef inline void remote_flush(Store* s) noexcept nogil:
    engine_lock(s)
    clock_update(s)
    flush_now(s)
    hold_everything(s)
    engine_unlock(s)


cdef inline void remote_rule(Store* s, const char* prefix, size_t n, bint refresh, uint32_t ttl) noexcept nogil:
    # A flush of the keys that begin with the prefix, or a refresh: they are stale, and live ttl seconds more (0: as they were).
    engine_lock(s)
    clock_update(s)
    if refresh:
        refresh_prefix(s, prefix, n, ttl)
    else:
        flush_prefix(s, prefix, n)
    hold_everything(s)
    engine_unlock(s)
