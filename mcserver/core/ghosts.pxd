# Ghosts: what is remembered of items that were evicted, so that a key that comes back soon is known.
#
# Owns a table of fingerprints. Must never know an item: a key is its hash and the class that it left. A ghost is as old as
# there were evictions from its class since; one that is older than its class has items is none any more (S3-FIFO, Yang et
# al., SOSP 2023). Sets of eight, the youngest first; the table grows with the number of items and forgets half of itself when it does.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memmove
from .memory cimport mmap, munmap, PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_FAILED

cdef enum:
    GHOST_WAYS = 8
    GHOSTS_LEAST = 4096
    GHOSTS_FREE = 1 << 20       # entries (8 MiB) that every server may have; beyond, they are taken off -m

cdef struct Ghost:
    uint32_t print              # 0: none
    uint32_t when               # its class's evictions then

cdef struct Ghosts:
    Ghost* entry
    uint64_t most               # entries there is address space for, a power of two
    uint64_t size               # entries in use, a power of two


cdef inline uint64_t ghosts_for(uint64_t limit) noexcept nogil:
    # Entries for a memory of so many bytes: one for 512 bytes, but at least a million (used as far as there are items for them).
    cdef uint64_t most = GHOSTS_FREE
    while most < limit >> 9:
        most <<= 1
    return most


cdef inline uint64_t ghosts_beyond(uint64_t most) noexcept nogil:
    # Bytes of the table that are taken off the memory's limit.
    return (most - GHOSTS_FREE) * sizeof(Ghost)


cdef inline uint32_t ghost_print(uint64_t hv, int cls) noexcept nogil:
    cdef uint32_t print = <uint32_t> (hv >> 32) ^ (<uint32_t> cls << 26)
    return print if print else 1


cdef inline Ghost* ghost_set(Ghosts* g, uint64_t hv) noexcept nogil:
    return g.entry + (hv & (g.size // GHOST_WAYS - 1)) * GHOST_WAYS


cdef inline void ghost_add(Ghosts* g, uint64_t hv, int cls, uint32_t when, uint64_t items) noexcept nogil:
    # `items`: how many the cache has. A key that is there already is renewed.
    cdef uint32_t print = ghost_print(hv, cls)
    cdef Ghost* e
    cdef int at = 0
    while g.size < items and g.size < g.most:
        g.size <<= 1
    e = ghost_set(g, hv)
    while at < GHOST_WAYS - 1 and e[at].print != print and e[at].print != 0:
        at += 1
    memmove(e + 1, e, <size_t> at * sizeof(Ghost))      # the oldest is forgotten
    e[0].print = print
    e[0].when = when


cdef inline bint ghost_take(Ghosts* g, uint64_t hv, int cls, uint32_t now, uint64_t items) noexcept nogil:
    # True when the key left its class not more than `items` evictions ago. It is forgotten either way.
    cdef uint32_t print = ghost_print(hv, cls)
    cdef Ghost* e = ghost_set(g, hv)
    cdef uint32_t when
    cdef int i
    for i in range(GHOST_WAYS):
        if e[i].print == print:
            when = e[i].when
            memmove(e + i, e + i + 1, <size_t> (GHOST_WAYS - 1 - i) * sizeof(Ghost))
            e[GHOST_WAYS - 1].print = 0
            return now - when < items
        if e[i].print == 0:
            break
    return 0


cdef inline int ghosts_open(Ghosts* g, uint64_t most) noexcept nogil:
    cdef void* where = mmap(NULL, most * sizeof(Ghost), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if where == MAP_FAILED:
        return -1
    g.entry = <Ghost*> where
    g.most = most
    g.size = GHOSTS_LEAST
    return 0


cdef inline void ghosts_close(Ghosts* g) noexcept nogil:
    if g.entry != NULL:
        munmap(g.entry, g.most * sizeof(Ghost))
        g.entry = NULL
