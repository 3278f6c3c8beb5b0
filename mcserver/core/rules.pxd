# Rules: prefix flushes and refreshes that have not been carried out on every item yet.
#
# Owns which of them concern a key. Flushes lie in tables by their prefix, so that a key costs a look-up for each length that there
# is, however many there are; refreshes, which are few, in a list in the order in which they came. A pass over all items carries out
# the flushes that came before it (old); those that come meanwhile (young) are the next one's. Must never look at an item or a clock.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset
from .memory cimport mmap, munmap, madvise, MADV_DONTNEED, PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, \
    MAP_FAILED

cdef enum:
    FLUSHES_MOST = 65536        # of different prefixes, in one table
    REFRESHES_MOST = 1024
    RULES_MOST = 2 * FLUSHES_MOST + REFRESHES_MOST
    RULE_PREFIX_MOST = 250
    RULES_A_CHUNK = 16          # lengths and refreshes that cost as much as to look at one chunk more
    FEW_FLUSHES = 1024          # the memory of more is given back

cdef extern from * nogil:
    """
    /* A polynomial over the bytes so far, modulo 2^61 - 1, at a point that nobody outside knows. */
    static inline uint64_t mc_poly(uint64_t h, uint64_t point, unsigned char byte)
    {
        __uint128_t m = (__uint128_t) h * point + byte + 1;
        uint64_t r = (uint64_t) (m & 0x1fffffffffffffffULL) + (uint64_t) (m >> 61);
        return r >= 0x1fffffffffffffffULL ? r - 0x1fffffffffffffffULL : r;
    }
    """
    uint64_t poly "mc_poly" (uint64_t h, uint64_t point, unsigned char byte)

# It applies to items of an older epoch.
cdef struct Rule:
    uint8_t length
    uint8_t refresh
    uint64_t epoch
    uint32_t came               # the second of the engine's clock at which it came
    uint32_t expires            # what a refresh leaves the items to live, on the engine's clock; 0: as they were
    char prefix[256]

# Address space for as many as there may be; what is used is resident.
cdef struct Flushes:
    Rule* rule                  # [count]
    uint32_t* first             # by hash: 1 + the number of a rule, or 0
    uint32_t* next              # the next one with the same place
    uint32_t count
    uint32_t kinds              # different lengths, in order
    uint8_t length[256]

cdef struct Rules:
    uint32_t count              # of all
    char* block                 # their address space; NULL before the first of them
    uint64_t point              # of the hash, below 2^61 - 1
    Flushes old
    Flushes young
    uint32_t refreshes
    Rule* refresh


cdef inline size_t flushes_size() noexcept nogil:
    return FLUSHES_MOST * (sizeof(Rule) + 2 * sizeof(uint32_t))


cdef inline size_t rules_size() noexcept nogil:
    return 2 * flushes_size() + REFRESHES_MOST * sizeof(Rule)


cdef inline void rules_open(Rules* r, uint64_t secret) noexcept nogil:
    memset(r, 0, sizeof(Rules))
    r.point = secret % ((<uint64_t> 1 << 61) - 1)


cdef inline bint rules_reserve(Rules* r) noexcept nogil:
    # Before the first of them. False: the system refuses address space.
    cdef char* m
    if r.block != NULL:
        return 1
    m = <char*> mmap(NULL, rules_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if m == <char*> MAP_FAILED:
        return 0
    r.block = m
    flushes_at(&r.old, m)
    flushes_at(&r.young, m + flushes_size())
    r.refresh = <Rule*> (m + 2 * flushes_size())
    return 1


cdef inline void flushes_at(Flushes* f, char* m) noexcept nogil:
    f.rule = <Rule*> m
    f.first = <uint32_t*> (m + FLUSHES_MOST * sizeof(Rule))
    f.next = f.first + FLUSHES_MOST


cdef inline void rules_close(Rules* r) noexcept nogil:
    if r.block != NULL:
        munmap(r.block, rules_size())


cdef inline uint64_t prefix_hash(Rules* r, const char* prefix, size_t n) noexcept nogil:
    cdef uint64_t h = 0
    cdef size_t i
    for i in range(n):
        h = poly(h, r.point, <unsigned char> prefix[i])
    return h


cdef inline Rule* flush_of(Flushes* f, uint64_t h, const char* prefix, size_t n) noexcept nogil:
    # The flush of this prefix, whose hash is h, or NULL.
    cdef uint32_t i = f.first[h % FLUSHES_MOST]
    while i:
        if f.rule[i - 1].length == n and memcmp(f.rule[i - 1].prefix, prefix, n) == 0:
            return &f.rule[i - 1]
        i = f.next[i - 1]
    return NULL


cdef inline void length_add(Flushes* f, uint8_t n) noexcept nogil:
    cdef uint32_t i = 0
    while i < f.kinds and f.length[i] < n:
        i += 1
    if i < f.kinds and f.length[i] == n:
        return
    memmove(f.length + i + 1, f.length + i, f.kinds - i)
    f.length[i] = n
    f.kinds += 1


cdef inline void flushes_forget(Rules* r, Flushes* f) noexcept nogil:
    cdef uint32_t i
    if f.count > FEW_FLUSHES:
        memset(f.first, 0, FLUSHES_MOST * sizeof(uint32_t))
        madvise(f.rule, FLUSHES_MOST * sizeof(Rule), MADV_DONTNEED)
    else:
        for i in range(f.count):
            f.first[prefix_hash(r, f.rule[i].prefix, f.rule[i].length) % FLUSHES_MOST] = 0
    r.count -= f.count
    f.count = 0
    f.kinds = 0


cdef inline bint flush_add(Rules* r, Flushes* f, const char* prefix, size_t n, uint64_t epoch, uint32_t came) noexcept nogil:
    # A flush of a prefix that is there already takes its place. False: there is no room.
    cdef uint64_t h = prefix_hash(r, prefix, n)
    cdef Rule* rule
    if not rules_reserve(r):
        return 0
    rule = flush_of(f, h, prefix, n)
    if rule == NULL:
        if f.count == FLUSHES_MOST:
            return 0
        rule = &f.rule[f.count]
        rule.length = <uint8_t> n
        rule.refresh = 0
        rule.expires = 0
        memcpy(rule.prefix, prefix, n)
        f.next[f.count] = f.first[h % FLUSHES_MOST]
        f.count += 1
        f.first[h % FLUSHES_MOST] = f.count
        length_add(f, <uint8_t> n)
        r.count += 1
    rule.epoch = epoch
    rule.came = came
    return 1


cdef inline bint refresh_add(Rules* r, const char* prefix, size_t n, uint64_t epoch, uint32_t came, uint32_t expires) noexcept nogil:
    # False: there is no room.
    cdef Rule* rule
    if not rules_reserve(r) or r.refreshes == REFRESHES_MOST:
        return 0
    rule = &r.refresh[r.refreshes]
    rule.length = <uint8_t> n
    rule.refresh = 1
    rule.epoch = epoch
    rule.came = came
    rule.expires = expires
    memcpy(rule.prefix, prefix, n)
    r.refreshes += 1
    r.count += 1
    return 1


cdef inline void refreshes_covered(Rules* r, const char* prefix, size_t n) noexcept nogil:
    # A flush of this prefix came: what was to be refreshed under it goes anyway.
    cdef uint32_t i, kept = 0
    for i in range(r.refreshes):
        if r.refresh[i].length >= n and memcmp(r.refresh[i].prefix, prefix, n) == 0:
            continue
        if kept != i:
            r.refresh[kept] = r.refresh[i]
        kept += 1
    r.count -= r.refreshes - kept
    r.refreshes = kept


cdef inline uint64_t newest_flush(Rules* r, Flushes* f, const char* key, size_t nkey) noexcept nogil:
    # The epoch of the last flush of a prefix of the key, or 0.
    cdef uint64_t h = 0, newest = 0
    cdef size_t at = 0
    cdef uint32_t i
    cdef Rule* rule
    for i in range(f.kinds):
        if f.length[i] > nkey:
            break
        while at < f.length[i]:
            h = poly(h, r.point, <unsigned char> key[at])
            at += 1
        rule = flush_of(f, h, key, at)
        if rule != NULL and rule.epoch > newest:
            newest = rule.epoch
    return newest


cdef inline bint is_flushed(Rules* r, const char* key, size_t nkey, uint64_t epoch) noexcept nogil:
    # Whether a prefix of the key was flushed after this epoch.
    return r.old.count and newest_flush(r, &r.old, key, nkey) > epoch \
        or r.young.count and newest_flush(r, &r.young, key, nkey) > epoch


cdef inline uint32_t rules_cost(Rules* r) noexcept nogil:
    # What they add to looking at an item, in chunks.
    return (r.old.kinds + r.young.kinds + r.refreshes) // RULES_A_CHUNK


cdef inline void rules_clear(Rules* r) noexcept nogil:
    if r.count:
        flushes_forget(r, &r.old)
        flushes_forget(r, &r.young)
        r.refreshes = 0
        r.count = 0


cdef inline void pass_begins(Rules* r) noexcept nogil:
    # Over everything. When a pass was cut short, its flushes are this one's.
    cdef Flushes f
    if r.old.count == 0:
        f = r.old
        r.old = r.young
        r.young = f


cdef inline void pass_ends(Rules* r, uint64_t epoch) noexcept nogil:
    # It began at this epoch.
    cdef uint32_t done = 0
    if r.count == 0:
        return
    flushes_forget(r, &r.old)
    while done < r.refreshes and r.refresh[done].epoch <= epoch:
        done += 1
    memmove(r.refresh, r.refresh + done, (r.refreshes - done) * sizeof(Rule))
    r.refreshes -= done
    r.count -= done
