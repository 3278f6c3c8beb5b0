# Miniatures: five small caches under the real one's policy, of a quarter to four times its size, for the memory curve (mrc.pxd).
#
# Owns their lists and who leaves them. They hold keys and sizes, no values. Must never know which requests there are, nor look at
# an item: what is sampled, and when, mrc.pxd says.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from .fading cimport *
from .memory cimport page_bits_for

cdef extern from *:
    int first_bit "__builtin_ctzll"(unsigned long long) noexcept nogil
    int bits_in "__builtin_popcountll"(unsigned long long) noexcept nogil

cdef enum:
    MINIS = 5
    REAL = 2                    # the miniature that is as large as the cache
    BANDS = 64                  # lists by size, four for each doubling
    SMALLEST = 5                # bits of the size where they begin; the last has all that is above 2 MiB
    OUT = 0                     # where a key is in a miniature
    FRESH = 1                   # in the FIFO of what is new
    RING = 2                    # in the CLOCK ring of what proved itself
    WHERE = 3
    USES = 12                   # two bits: uses left
    ONE_USE = 4
    GHOST = 16                  # it left; `next` is the band's count of evictions then
    MISSED = 128                # (of state[0]) the last get missed: the store that follows fills the cache
    WASTE_MOST = 3              # half a page for each of them that is filled stands empty, but not more than one part in so many
    FRESH_SHARE = 10            # one in so many of a band's items is new
    LOOKED_LEAST = 8            # sampled items: they stand for more than LOOKED, where few keys are sampled
    OLDER = 8                   # what was found of a list's victims holds until they are an eighth older
    SLOTS_MOST = 65000          # numbers of keys have 16 bits
    LEVELS = 200                # of the sampling rate, each 0.9 of the one before
    TICKS_MOST = 1 << 30        # of sixteen requests: ages are no longer than that
    TOUCHED_MOST = 256          # keys asked for since the last flush that the next one finds without a walk over all

cdef struct MrcKey:
    uint32_t hash
    uint32_t used               # the sample it was last used in
    uint32_t size               # bytes of memory it takes
    uint32_t dies               # second of the engine's clock; 0 never
    uint16_t chain              # the next key of the bucket, or free slot
    uint16_t next[MINIS]        # 0 ends a list; prev[0] and prev[1] link the keys that are out of all miniatures
    uint16_t prev[MINIS]
    uint8_t state[MINIS]
    uint8_t level               # the level at which it is no longer sampled

cdef struct MrcBand:
    uint16_t head[3]            # of FRESH and RING
    uint16_t tail[3]
    uint16_t n[3]
    uint16_t evictions
    uint8_t grown               # the octave of ages from which uses count
    uint16_t left               # what was found of its next victims, `ready`, holds while its evictions are so many,
    uint32_t at                 # for `lasts` samples from this one on
    uint32_t lasts
    double ready
    float came                  # new keys, and those of them that were used or came back, each counted as one over the rate
    float wanted
    float uses                  # ... of items, and how many their ages said
    float expected

cdef struct MrcMini:
    double factor               # of the real cache's memory
    double capacity             # bytes
    double page                 # bytes
    uint64_t paged              # a bit for each band whose items lie in pages of their own, and not in pieces
    double taken
    double hits                 # each counted as one over the rate at which it was sampled
    int grown
    double uses                 # of all bands' items
    double expected
    uint64_t filled             # a bit for each band that has items
    MrcBand band[BANDS]

cdef struct Mrc:
    uint64_t threshold          # of the hash's upper half; 0: off
    uint64_t limit[LEVELS]      # the threshold of each level
    int level
    uint64_t memory             # of the real cache
    bint by_bytes               # a byte is worth as much in a large item as in a small one (-o room_for=bytes)
    uint64_t block              # bytes that all this takes
    uint32_t slots
    uint32_t mask               # buckets - 1
    uint32_t keys               # in the table
    uint32_t unused             # slots from here on were never used
    uint16_t free_slot
    uint16_t out_head           # keys out of all miniatures, the longest first
    uint16_t out_tail
    uint32_t outs
    uint32_t now                # samples so far, the miniatures' clock
    uint32_t hand               # where the search for the dead goes on
    uint64_t samples            # gets sampled since the last reset
    double gets                 # what they stand for
    double bytes                # of the values sampled since the last look at the costs
    uint32_t unchecked          # samples since then
    uint64_t all_samples        # since the start
    uint32_t asked              # keys asked for since the last flush, each as often as it was: nothing else is in a miniature
    uint16_t touched[TOUCHED_MOST]  # the first of them
    MrcMini mini[MINIS]
    MrcKey* key
    uint16_t* bucket


cdef inline double mrc_rate(Mrc* m) noexcept nogil:
    return m.threshold / 4294967296.0


cdef inline uint8_t mrc_band(uint32_t size) noexcept nogil:
    # Four bands for each doubling of the size: as fine as the cache's classes are.
    cdef int top = octave_of(size | 1 << SMALLEST) - 1
    cdef int b = 4 * (top - SMALLEST) + (size >> (top - 2) & 3)
    return <uint8_t> (b if b < BANDS else BANDS - 1)


cdef inline void mrc_scale(Mrc* m) noexcept nogil:
    cdef int i
    cdef double memory
    cdef uint32_t page
    for i in range(MINIS):
        memory = m.mini[i].factor * <double> m.memory
        m.mini[i].capacity = memory * mrc_rate(m)
        page = <uint32_t> 1 << page_bits_for(<uint64_t> memory)
        m.mini[i].page = page * mrc_rate(m)
        m.mini[i].paged = (<uint64_t> 1 << mrc_band(page // 8 if page // 8 < 16384 else 16384)) - 1


cdef inline uint64_t mrc_budget(uint64_t memory) noexcept nogil:
    # 0.2 % of the cache's memory, but at least 128 KiB.
    cdef uint64_t share = memory // 500
    return share if share > 1 << 17 else 1 << 17


cdef inline Mrc* mrc_open(uint64_t memory, uint64_t budget) noexcept nogil:
    # Miniatures of a cache of `memory` bytes in at most `budget` bytes (at least 32 KiB); NULL when there is no memory.
    cdef uint64_t slots = (budget - sizeof(Mrc)) // (sizeof(MrcKey) + 2), buckets = 256
    cdef Mrc* m
    cdef int i
    if slots > SLOTS_MOST:
        slots = SLOTS_MOST
    while buckets * 2 <= slots:
        buckets *= 2
    m = <Mrc*> calloc(1, sizeof(Mrc) + slots * sizeof(MrcKey) + buckets * 2)
    if m == NULL:
        return NULL
    m.block = sizeof(Mrc) + slots * sizeof(MrcKey) + buckets * 2
    m.key = <MrcKey*> (<char*> m + sizeof(Mrc))
    m.bucket = <uint16_t*> (m.key + slots)
    m.slots = <uint32_t> slots
    m.mask = <uint32_t> buckets - 1
    m.unused = 1
    m.memory = memory
    m.limit[0] = <uint64_t> 1 << 32
    for i in range(1, LEVELS):
        m.limit[i] = m.limit[i - 1] - m.limit[i - 1] // 10
    m.threshold = m.limit[0]
    for i in range(MINIS):
        m.mini[i].factor = 0.25 * (1 << i)
    mrc_scale(m)
    return m


# Lists

cdef inline void mrc_push(Mrc* m, int i, uint16_t k, int where) noexcept nogil:
    cdef MrcKey* e = &m.key[k]
    cdef int b = mrc_band(e.size)
    cdef MrcBand* q = &m.mini[i].band[b]
    e.state[i] = (e.state[i] & ~(WHERE | GHOST)) | <uint8_t> where
    e.prev[i] = 0
    e.next[i] = q.head[where]
    if q.head[where]:
        m.key[q.head[where]].prev[i] = k
    else:
        q.tail[where] = k
    q.head[where] = k
    q.n[where] += 1
    m.mini[i].filled |= <uint64_t> 1 << b


cdef inline void mrc_take(Mrc* m, int i, uint16_t k) noexcept nogil:
    cdef MrcKey* e = &m.key[k]
    cdef int where = e.state[i] & WHERE, b = mrc_band(e.size)
    cdef MrcBand* q = &m.mini[i].band[b]
    if e.prev[i]:
        m.key[e.prev[i]].next[i] = e.next[i]
    else:
        q.head[where] = e.next[i]
    if e.next[i]:
        m.key[e.next[i]].prev[i] = e.prev[i]
    else:
        q.tail[where] = e.prev[i]
    q.n[where] -= 1
    e.state[i] &= ~WHERE
    if not q.n[FRESH] and not q.n[RING]:
        m.mini[i].filled &= ~(<uint64_t> 1 << b)


# Keys that are out of all miniatures, remembered for their ghosts while there is room

cdef inline bint mrc_is_out(MrcKey* e) noexcept nogil:
    return not ((e.state[0] | e.state[1] | e.state[2] | e.state[3] | e.state[4]) & WHERE)


cdef inline void mrc_outs_push(Mrc* m, uint16_t k) noexcept nogil:
    m.key[k].prev[0] = m.out_tail
    m.key[k].prev[1] = 0
    if m.out_tail:
        m.key[m.out_tail].prev[1] = k
    else:
        m.out_head = k
    m.out_tail = k
    m.outs += 1


cdef inline void mrc_outs_take(Mrc* m, uint16_t k) noexcept nogil:
    cdef MrcKey* e = &m.key[k]
    if e.prev[0]:
        m.key[e.prev[0]].prev[1] = e.prev[1]
    else:
        m.out_head = e.prev[1]
    if e.prev[1]:
        m.key[e.prev[1]].prev[0] = e.prev[0]
    else:
        m.out_tail = e.prev[0]
    m.outs -= 1


cdef inline void mrc_count_uses(Mrc* m, int i, MrcKey* e, double seen, double since) noexcept nogil:
    # Of an item since its last use, `since` samples ago.
    cdef MrcMini* c = &m.mini[i]
    cdef MrcBand* q = &c.band[mrc_band(e.size)]
    cdef double each = 1 / mrc_rate(m), ticks = since * each / 16, expected, most
    cdef int octave = octave_of(<uint32_t> (ticks if ticks < TICKS_MOST else TICKS_MOST)), grown = q.grown if q.grown else c.grown
    if not seen:
        q.grown = <uint8_t> grown_at(octave)
        c.grown = q.grown
    if grown == 0 or octave < grown:
        return
    expected = expected_uses(octave, grown) * each
    most = (<double> (q.n[FRESH] + q.n[RING])) * (1 << EXPECTED_BITS) * each
    q.uses += <float> (seen * each)
    q.expected += <float> expected
    if q.expected > EXPECTED_MOST and q.expected > most:
        q.uses /= 2
        q.expected /= 2
    c.uses += seen * each
    c.expected += expected
    if c.expected > 8 * EXPECTED_MOST:
        c.uses /= 2
        c.expected /= 2


cdef inline void mrc_leave(Mrc* m, int i, uint16_t k, bint ghost) noexcept nogil:
    # Out of one miniature.
    cdef MrcKey* e = &m.key[k]
    cdef MrcBand* q = &m.mini[i].band[mrc_band(e.size)]
    mrc_take(m, i, k)
    m.mini[i].taken -= e.size
    e.state[i] &= ~USES
    if ghost:
        q.evictions += 1
        e.state[i] |= GHOST
        e.next[i] = q.evictions
    if mrc_is_out(e):
        mrc_outs_push(m, k)


cdef inline void mrc_leave_all(Mrc* m, uint16_t k) noexcept nogil:
    cdef int i
    for i in range(MINIS):
        if m.key[k].state[i] & WHERE:
            mrc_leave(m, i, k, 0)
        m.key[k].state[i] = 0


# Eviction: within a band, and which band

cdef inline bint is_fresh(MrcBand* q) noexcept nogil:
    # Whether the band's next victim is its oldest new item.
    return q.n[FRESH] and (q.n[FRESH] * FRESH_SHARE >= q.n[FRESH] + q.n[RING] or not q.n[RING])


cdef inline void mrc_evict(Mrc* m, int i, int b) noexcept nogil:
    cdef MrcBand* q = &m.mini[i].band[b]
    cdef MrcKey* e
    cdef uint16_t k
    cdef bint fresh
    while 1:
        fresh = is_fresh(q)
        k = q.tail[FRESH] if fresh else q.tail[RING]
        e = &m.key[k]
        if not e.state[i] & USES:
            mrc_count_uses(m, i, e, 0, m.now - e.used)
            mrc_leave(m, i, k, 1)
            return
        mrc_take(m, i, k)
        if fresh:
            e.state[i] &= ~USES
        else:
            e.state[i] -= ONE_USE
        mrc_push(m, i, k, RING)


cdef inline double mrc_worth_at_end(Mrc* m, int i, uint16_t tail, double want, double has, bint* used) noexcept nogil:
    # As the cache's (exchange.pxd): the mean worth of the `want` items of a list of `has` that leave first, those that were used
    # passed over, unless all were, which `used` tells.
    cdef uint16_t k = tail
    cdef int n = 0, passed = 0, looked = <int> (LOOKED * mrc_rate(m))
    cdef double worth = 0, of_passed = 0, each
    if looked < LOOKED_LEAST:
        looked = LOOKED_LEAST
    while k and n < SAMPLE and n < want and n + passed < looked:
        each = 1 / aged(m.now - m.key[k].used + 1)
        if m.key[k].state[i] & USES:
            of_passed += each
            passed += 1
        else:
            worth += each
            n += 1
        k = m.key[k].prev[i]
    used[0] = n == 0
    return mean_worth(n, worth, passed, of_passed, want, has)


cdef inline double mrc_worth(Mrc* m, int i, MrcBand* q, double page) noexcept nogil:
    # Of the `page` items of a band that would leave first, on average, and without their size.
    cdef double fresh = q.n[FRESH], ring = q.n[RING], worth = 0
    cdef double from_fresh = new_that_leave(fresh, ring, page, 1.0 / FRESH_SHARE)
    cdef bint used
    if from_fresh > 0:
        worth = from_fresh * mrc_worth_at_end(m, i, q.tail[FRESH], from_fresh, fresh, &used)
        if not used:
            worth *= worth_of_new(q.came, q.wanted)
    if page > from_fresh:
        worth += (page - from_fresh) * mrc_worth_at_end(m, i, q.tail[RING], page - from_fresh, ring, &used)
    return worth / page


cdef inline double mrc_readiness(Mrc* m, int i, MrcBand* q) noexcept nogil:
    # How little a byte of the band's next page of victims is worth: worth is 1 / (age ^ FADES x size), less if it is still new, and
    # by how often the band's items are used for their ages. Not looked at again before one has left or the last is an eighth older.
    cdef MrcMini* c = &m.mini[i]
    cdef MrcKey* e
    cdef double items, page
    if m.now - q.at < q.lasts and q.evictions == q.left:
        return q.ready
    e = &m.key[q.tail[FRESH] if is_fresh(q) else q.tail[RING]]
    items = <double> q.n[FRESH] + q.n[RING]
    page = c.page / e.size
    page = 1 if page < 1 else items if page > items else page
    q.ready = 1 / (mrc_worth(m, i, q, page) * use_ratio(q.uses, q.expected, c.uses, c.expected))
    if not m.by_bytes:
        q.ready *= e.size
    q.at = m.now
    q.lasts = (m.now - e.used) // OLDER + 1
    q.left = q.evictions
    return q.ready


cdef inline int mrc_giver(Mrc* m, int i, int taker) noexcept nogil:
    # The band whose next victims are worth least for their bytes. The one that needs the room, if there is one (-1), evicts its own as
    # long as they aren't worth MARGIN times as much; all bands that lie in pieces are one.
    cdef MrcMini* c = &m.mini[i]
    cdef uint64_t left = c.filled, own = 0
    cdef double r, most = 0, most_own = 0
    cdef int b, best = 0, best_own = 0
    if taker >= 0:
        own = <uint64_t> 1 << taker if c.paged >> taker & 1 else ~c.paged
    while left:
        b = first_bit(left)
        left &= left - 1
        r = mrc_readiness(m, i, &c.band[b])
        if r > most:
            most = r
            best = b
        if own >> b & 1 and r > most_own:
            most_own = r
            best_own = b
    return best if most > MARGIN * most_own else best_own


cdef inline double mrc_room(MrcMini* c) noexcept nogil:
    # Bytes for items: what its pages would hold.
    cdef double waste = bits_in(c.filled & c.paged) * c.page / 2, most = c.capacity / WASTE_MOST
    return c.capacity - (waste if waste < most else most)


cdef inline void mrc_make_room(Mrc* m, int i, uint32_t size) noexcept nogil:
    cdef MrcMini* c = &m.mini[i]
    cdef int taker = mrc_band(size) if size else -1
    while c.taken + size > mrc_room(c) and c.filled:
        mrc_evict(m, i, mrc_giver(m, i, taker))


cdef inline void mrc_use(Mrc* m, int i, uint16_t k) noexcept nogil:
    cdef MrcKey* e = &m.key[k]
    mrc_count_uses(m, i, e, 1, m.now - e.used)
    if e.state[i] & WHERE == FRESH and not e.state[i] & USES:
        m.mini[i].band[mrc_band(e.size)].wanted += 1 / mrc_rate(m)
    if e.state[i] & USES != USES:
        e.state[i] += ONE_USE


cdef inline void mrc_insert(Mrc* m, int i, uint16_t k) noexcept nogil:
    cdef MrcKey* e = &m.key[k]
    cdef MrcBand* q = &m.mini[i].band[mrc_band(e.size)]
    cdef bint back
    if e.size > m.mini[i].capacity:
        return
    if mrc_is_out(e):
        mrc_outs_take(m, k)
        e.state[i] |= FRESH             # so that it is not put among them while room is made
        mrc_make_room(m, i, e.size)
        e.state[i] &= ~WHERE
    else:
        mrc_make_room(m, i, e.size)
    back = e.state[i] & GHOST and <uint16_t> (q.evictions - e.next[i]) < q.n[FRESH] + q.n[RING]
    q.came += 1 / mrc_rate(m)
    if back:
        q.wanted += 1 / mrc_rate(m)
        q.uses += 1 / mrc_rate(m)
        m.mini[i].uses += 1 / mrc_rate(m)
    if q.came > LEARNT and q.came * mrc_rate(m) > q.n[FRESH] + q.n[RING]:
        q.came /= 2
        q.wanted /= 2
    mrc_push(m, i, k, RING if back else FRESH)
    m.mini[i].taken += e.size
