# Uploads: values that are on their way in, and what they may hold; and large values on their way out.
#
# Owns the lists of them and the bound: together uploads hold at most a quarter of the memory, or what one largest item needs.
# Must never read or write a socket. Beyond the bound the one that holds most and moves least is refused; those that hold little
# (UPLOAD_SMALL) never are, nor one that another thread is just writing to.

from libc.stdint cimport uint64_t
from .memory cimport *
from .store cimport *

cdef enum:
    UPLOAD_SMALL = 4096
    IDLE_LEAST_MS = 100         # who moved within this time is as good as who moves now


cdef inline uint64_t unfinished_most(Store* s) noexcept nogil:
    # Bytes. An item's pieces have headers, and the last one may be half empty.
    cdef uint64_t one = s.item_size_max + s.item_size_max // 64 + 2 * PIECE_MOST, most = s.memory_limit // 4
    return one if one > most else most


cdef inline bint uploading(Upload* u) noexcept nogil:
    return u.next != NULL


cdef inline void upload_begin(Store* s, Upload* u) noexcept nogil:
    u.held = 0
    u.moved_ms = boot_ms(s)
    u.next = &s.uploads
    u.prev = s.uploads.prev
    s.uploads.prev.next = u
    s.uploads.prev = u


cdef inline void upload_end(Store* s, Upload* u) noexcept nogil:
    if u.next == NULL:
        return
    u.prev.next = u.next
    u.next.prev = u.prev
    u.next = NULL
    s.unfinished -= u.held


cdef inline void upload_hold(Store* s, Upload* u, uint64_t n) noexcept nogil:
    u.held += n
    s.unfinished += n


cdef inline Upload* worst_upload(Store* s, Upload* extra, uint64_t more) noexcept nogil:
    # The one that holds most and moves least; NULL if all hold little. `extra` is counted with `more` bytes.
    cdef Upload* u = s.uploads.next
    cdef Upload* worst = NULL
    cdef uint64_t now = boot_ms(s), held
    cdef double score, most = 0
    while u != &s.uploads:
        held = u.held + (more if u == extra else 0)
        if held > UPLOAD_SMALL and not u.busy:
            score = <double> held * (IDLE_LEAST_MS + (now - u.moved_ms if now > u.moved_ms else 0))
            if score > most:
                most = score
                worst = u
        u = u.next
    return worst


cdef inline bint upload_fits(Store* s, Upload* u, uint64_t n) noexcept nogil:
    # Makes room for n bytes more below the bound, at the price of others; 0 when it is this one that must be refused.
    cdef Upload* worst
    while s.unfinished + n > unfinished_most(s):
        worst = worst_upload(s, u, n)
        if worst == NULL:
            return 1
        s.n.uploads_refused += 1
        if worst == u:
            return 0
        worst.refuse(worst.conn)
    return 1


cdef inline bint upload_drop_worst(Store* s) noexcept nogil:
    # Memory is needed and nothing can be evicted. False when nobody holds much, or the one that does is who asks.
    cdef Upload* worst = worst_upload(s, NULL, 0)
    if worst == NULL or worst == s.filling:
        return 0
    s.n.uploads_refused += 1
    worst.refuse(worst.conn)
    return 1


cdef inline void reader_begin(Store* s, Reader* r) noexcept nogil:
    if r.next == NULL:
        r.stuck = 0
        r.busy = 0
        r.next = &s.readers
        r.prev = s.readers.prev
        s.readers.prev.next = r
        s.readers.prev = r


cdef inline void reader_end(Reader* r) noexcept nogil:
    if r.next != NULL:
        r.prev.next = r.next
        r.next.prev = r.prev
        r.next = NULL


cdef inline bint reader_drop(Store* s) noexcept nogil:
    # Memory is needed and nothing can be evicted: the client that has kept a large value the longest without reading is dropped.
    cdef Reader* r = s.readers.next
    while r != &s.readers:
        if r.stuck and not r.busy:
            s.n.readers_dropped += 1
            r.drop(r.conn)
            return 1
        r = r.next
    return 0
