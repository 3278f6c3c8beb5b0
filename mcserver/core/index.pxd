# Index: from key to item, a hash table that grows by one bucket at a time (linear hashing, Litwin 1980).
#
# Owns the bucket array and the keyed hash (SipHash-1-3 under a random key, so that chosen keys can't collide). Must
# never change an item but for its `h_next`. No insert splits more than two buckets, so nobody waits for a rehash; the
# array's address space is reserved at the start and grows in place.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from .memory cimport Arena, Item, item_at, HEADER, mmap, munmap, madvise, MADV_HUGEPAGE, PROT_READ, PROT_WRITE, \
    MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_FAILED

cdef enum:
    SMALL = 4 << 20             # bytes of buckets that are not worth huge pages

cdef struct Index:
    uint32_t* bucket
    uint64_t reserved           # buckets there is address space for
    uint64_t size               # buckets in use
    uint64_t low                # the power of two at or below size
    uint64_t count              # items
    uint64_t k0
    uint64_t k1


cdef inline uint64_t rotl(uint64_t x, int b) noexcept nogil:
    return (x << b) | (x >> (64 - b))


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]; v[1] = rotl(v[1], 13); v[1] ^= v[0]; v[0] = rotl(v[0], 32)
    v[2] += v[3]; v[3] = rotl(v[3], 16); v[3] ^= v[2]
    v[0] += v[3]; v[3] = rotl(v[3], 21); v[3] ^= v[0]
    v[2] += v[1]; v[1] = rotl(v[1], 17); v[1] ^= v[2]; v[2] = rotl(v[2], 32)


cdef inline uint64_t siphash13(uint64_t k0, uint64_t k1, const char* key, size_t n) noexcept nogil:
    # Aumasson and Bernstein's SipHash with one compression and three finalisation rounds.
    cdef uint64_t v[4]
    cdef uint64_t m
    cdef const char* end = key + n
    cdef size_t left = n & 7
    v[0] = k0 ^ <uint64_t> 0x736f6d6570736575
    v[1] = k1 ^ <uint64_t> 0x646f72616e646f6d
    v[2] = k0 ^ <uint64_t> 0x6c7967656e657261
    v[3] = k1 ^ <uint64_t> 0x7465646279746573
    while end - key >= 8:
        memcpy(&m, key, 8)
        v[3] ^= m
        sip_round(v)
        v[0] ^= m
        key += 8
    m = 0
    if left and n > 8:                      # its last bytes, with some that were read before shifted out
        memcpy(&m, end - 8, 8)
        m >>= 64 - 8 * left
    elif left:
        memcpy(&m, key, left)
    m |= (<uint64_t> n) << 56
    v[3] ^= m
    sip_round(v)
    v[0] ^= m
    v[2] ^= 0xff
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline uint64_t index_hash(Index* ix, const char* key, size_t n) noexcept nogil:
    return siphash13(ix.k0, ix.k1, key, n)


cdef inline uint64_t index_bucket(Index* ix, uint64_t hv) noexcept nogil:
    cdef uint64_t b = hv & (2 * ix.low - 1)
    if b >= ix.size:
        b &= ix.low - 1
    return b


cdef inline bint same_bytes(const char* a, const char* b, size_t n) noexcept nogil:
    # As memcmp, without a call: eight at a time, the last eight once more in part.
    cdef uint64_t x, y
    cdef size_t i = 0
    if n < 8:
        return memcmp(a, b, n) == 0
    while i + 8 < n:
        memcpy(&x, a + i, 8)
        memcpy(&y, b + i, 8)
        if x != y:
            return 0
        i += 8
    memcpy(&x, a + n - 8, 8)
    memcpy(&y, b + n - 8, 8)
    return x == y


cdef inline uint32_t index_find(Index* ix, Arena* a, const char* key, size_t n, uint64_t hv) noexcept nogil:
    cdef uint32_t h = ix.bucket[index_bucket(ix, hv)]
    cdef Item* it
    while h:
        it = item_at(a, h)
        if it.nkey == n and same_bytes(<char*> it + HEADER, key, n):
            return h
        h = it.h_next
    return 0


cdef inline void index_split(Index* ix, Arena* a) noexcept nogil:
    # Splits the bucket that is next in turn into itself and one new bucket at the end of the array.
    cdef uint64_t source, other, hv
    cdef uint32_t h, following
    cdef Item* it
    if ix.size >= ix.reserved:
        return
    if ix.size == 2 * ix.low:
        ix.low *= 2
    source = ix.size - ix.low
    other = ix.size
    ix.size += 1
    h = ix.bucket[source]
    ix.bucket[source] = 0
    ix.bucket[other] = 0
    while h:
        it = item_at(a, h)
        following = it.h_next
        hv = index_hash(ix, <char*> it + HEADER, it.nkey)
        if hv & ix.low:
            it.h_next = ix.bucket[other]
            ix.bucket[other] = h
        else:
            it.h_next = ix.bucket[source]
            ix.bucket[source] = h
        h = following


cdef inline void index_insert(Index* ix, Arena* a, uint32_t h, uint64_t hv) noexcept nogil:
    cdef uint64_t b
    ix.count += 1
    if ix.count > ix.size:
        index_split(ix, a)
        index_split(ix, a)
    b = index_bucket(ix, hv)
    item_at(a, h).h_next = ix.bucket[b]
    ix.bucket[b] = h


cdef inline bint index_swap(Index* ix, Arena* a, uint32_t old, uint32_t new, uint64_t hv) noexcept nogil:
    # Puts `new` where `old` stood in its bucket; with new == 0 `old` is taken out.
    cdef uint32_t* link = &ix.bucket[index_bucket(ix, hv)]
    while link[0]:
        if link[0] == old:
            if new:
                item_at(a, new).h_next = item_at(a, old).h_next
                link[0] = new
            else:
                link[0] = item_at(a, old).h_next
                ix.count -= 1
            return 1
        link = &item_at(a, link[0]).h_next
    return 0


cdef inline int index_open(Index* ix, uint64_t most, int power) noexcept nogil:
    # Room for `most` buckets (address space only), 2**power of them in use at the start.
    cdef void* where
    cdef uint64_t start = <uint64_t> 1 << power
    if most < start:
        most = start
    where = mmap(NULL, most * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if where == MAP_FAILED:
        return -1
    ix.bucket = <uint32_t*> where
    if most * sizeof(uint32_t) > SMALL:                     # huge pages beyond the first 4 MiB, where they no longer weigh
        madvise(<char*> where + SMALL, most * sizeof(uint32_t) - SMALL, MADV_HUGEPAGE)
    ix.reserved = most
    ix.size = start
    ix.low = start
    ix.count = 0
    return 0


cdef inline void index_close(Index* ix) noexcept nogil:
    if ix.bucket != NULL:
        munmap(ix.bucket, ix.reserved * sizeof(uint32_t))
        ix.bucket = NULL
