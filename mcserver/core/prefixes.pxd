# Prefixes: gets, hits, sets and deletes for each key prefix, while `stats detail` is on.
#
# Owns a table of at most PREFIXES_MOST prefixes; what comes for others is counted as left out. Must never look at an item.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

cdef enum:
    PREFIXES_MOST = 65536       # as memcached

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t n, const void* needle, size_t m)

cdef struct Prefix:
    Prefix* next                # with the same place in the table
    uint64_t count[4]           # gets, hits, sets, deletes
    uint32_t n
    char text[4]                # n bytes

cdef struct Prefixes:
    Prefix** table              # of PREFIXES_MOST places, made at the first prefix
    uint32_t count
    uint64_t left_out
    const char* delimiter
    size_t ndelimiter
    uint64_t generation         # rises when all are forgotten


cdef inline uint32_t prefix_place(const char* p, size_t n) noexcept nogil:
    cdef uint64_t h = 14695981039346656037ULL
    cdef size_t i
    for i in range(n):
        h = (h ^ <unsigned char> p[i]) * 1099511628211ULL
    return <uint32_t> (h >> 32) % PREFIXES_MOST


cdef inline void prefix_count(Prefixes* t, int op, const char* key, size_t nkey) noexcept nogil:
    cdef const char* end = <const char*> memmem(key, nkey, t.delimiter, t.ndelimiter)
    cdef size_t n
    cdef uint32_t place
    cdef Prefix* p
    if end == NULL or end == key:
        return
    n = <size_t> (end - key)
    if t.table == NULL:
        t.table = <Prefix**> calloc(PREFIXES_MOST, sizeof(Prefix*))
        if t.table == NULL:
            t.left_out += 1
            return
    place = prefix_place(key, n)
    p = t.table[place]
    while p != NULL and not (p.n == n and memcmp(p.text, key, n) == 0):
        p = p.next
    if p == NULL:
        p = <Prefix*> calloc(1, sizeof(Prefix) + n) if t.count < PREFIXES_MOST else NULL
        if p == NULL:
            t.left_out += 1
            return
        p.n = <uint32_t> n
        memcpy(p.text, key, n)
        p.next = t.table[place]
        t.table[place] = p
        t.count += 1
    p.count[op] += 1


cdef inline void prefixes_clear(Prefixes* t) noexcept nogil:
    cdef int i
    cdef Prefix* p
    if t.table != NULL:
        for i in range(PREFIXES_MOST):
            while t.table[i] != NULL:
                p = t.table[i]
                t.table[i] = p.next
                free(p)
    free(t.table)
    t.table = NULL
    t.count = 0
    t.left_out = 0
    t.generation += 1
