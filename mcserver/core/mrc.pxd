# Memory curve: what hit ratio a quarter, half, twice and four times the memory would give (`stats mrc`).
#
# Owns the keys that a hash picks out, which five miniatures of the cache see (miniatures.pxd), and nothing else: no item, no list
# of the real cache is read or changed. Must never make a command wait: an unsampled request costs one compare.
#
# Source: miniature simulation (Waldspurger, Saemundsson, Ahmad, Park; USENIX ATC 2017) on spatially sampled keys
# (SHARDS; Waldspurger, Park, Garthwaite, Ahmad; FAST 2015). A key is sampled if its hash is below a threshold, so that it
# is sampled in all its requests or in none; with one key in a hundred, a cache of a hundredth of the size has the same
# hit ratio. When the table of keys is full the threshold falls, and the miniatures shrink with it. A key's size, its last
# use and its end are the same in all miniatures, so that they share one table; docs/memory-curve.md says what follows.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from .miniatures cimport *

cdef enum:
    OUTS_SHARE = 8              # when the table is full: the keys that are out go while they are more than 1 in so many
    CHECK_EVERY = 1024          # samples between looks at what they cost
    MRC_ENOUGH = 2000           # samples, for an answer
    FREE_SAMPLES = 1 << 16      # whatever they cost: some 20 ms, so that the first answers come soon
    FREE_RATE = 32              # one request in so many may be sampled, whatever its size, for 1 % of the CPU time;
    FREE_BYTES = 200000         # a value of so many bytes costs so much that each of its requests may


cdef extern from *:
    """
    #define OWN 0.7             /* of a miniature's error that is not its sample's: the part that other sizes don't share */
    """
    const double OWN


# The table of keys

cdef inline uint16_t mrc_find(Mrc* m, uint32_t hash) noexcept nogil:
    cdef uint16_t k = m.bucket[hash & m.mask]
    while k and m.key[k].hash != hash:
        k = m.key[k].chain
    return k


cdef inline void mrc_forget(Mrc* m, uint16_t k) noexcept nogil:
    # Leaves the table.
    cdef uint16_t* at = &m.bucket[m.key[k].hash & m.mask]
    mrc_leave_all(m, k)
    mrc_outs_take(m, k)
    while at[0] != k:
        at = &m.key[at[0]].chain
    at[0] = m.key[k].chain
    m.key[k].chain = m.free_slot
    m.key[k].size = 0
    m.free_slot = k
    m.keys -= 1


cdef inline void mrc_lower(Mrc* m, int level) noexcept nogil:
    # Samples fewer keys from now on, and forgets the others.
    cdef uint32_t k
    cdef int i
    cdef double before = mrc_rate(m), kept
    if level >= LEVELS:
        return
    m.level = level
    m.threshold = m.limit[level]
    kept = mrc_rate(m) / before
    for k in range(1, m.unused):
        if not m.key[k].size:
            continue
        if m.key[k].level <= level:
            mrc_forget(m, <uint16_t> k)
        else:                           # ages are counted in samples, and there are fewer now
            m.key[k].used = m.now - <uint32_t> ((m.now - m.key[k].used) * kept)
    mrc_scale(m)
    for i in range(MINIS):
        mrc_make_room(m, i, 0)


cdef inline uint16_t mrc_new(Mrc* m, uint32_t upper, uint32_t hash) noexcept nogil:
    # A slot for a key that is not in the table, among the outs; 0 if it is no longer sampled.
    cdef uint16_t k
    cdef int level
    while not m.free_slot and m.unused == m.slots:
        if m.outs * OUTS_SHARE > m.slots:
            mrc_forget(m, m.out_head)
        else:
            mrc_lower(m, m.level + 1)
            if upper >= m.threshold:
                return 0
    if m.free_slot:
        k = m.free_slot
        m.free_slot = m.key[k].chain
    else:
        k = <uint16_t> m.unused
        m.unused += 1
    memset(&m.key[k], 0, sizeof(MrcKey))
    level = m.level + 1
    while level < LEVELS and upper < m.limit[level]:
        level += 1
    m.key[k].level = <uint8_t> level
    m.key[k].hash = hash
    m.key[k].size = 1
    m.key[k].used = m.now
    m.key[k].chain = m.bucket[hash & m.mask]
    m.bucket[hash & m.mask] = k
    m.keys += 1
    mrc_outs_push(m, k)
    return k


cdef inline void mrc_sized(Mrc* m, uint16_t k, uint32_t size) noexcept nogil:
    # A key's size, which decides its band, changes.
    cdef MrcKey* e = &m.key[k]
    cdef int i, b = mrc_band(e.size), where
    cdef uint32_t was = e.size
    cdef bint other = mrc_band(size) != b
    if size == was:
        return
    for i in range(MINIS):
        where = e.state[i] & WHERE
        if where:
            m.mini[i].taken += <double> size - was
            if other:
                mrc_take(m, i, k)
                e.size = size
                mrc_push(m, i, k, where)
                e.size = was
        elif other:
            e.state[i] &= ~GHOST
    e.size = size
    for i in range(MINIS):
        mrc_make_room(m, i, 0)


cdef inline void mrc_bury(Mrc* m, uint32_t second) noexcept nogil:
    # Looks at one more key: the dead leave, as the crawler would see to it.
    cdef MrcKey* e
    m.hand = m.hand + 1 if m.hand + 1 < m.unused else 1
    e = &m.key[m.hand]
    if e.size and e.dies and e.dies <= second and not mrc_is_out(e):
        mrc_leave_all(m, <uint16_t> m.hand)


cdef inline void mrc_count_cost(Mrc* m, uint32_t size) noexcept nogil:
    # Lowers the rate when the requests are so cheap that sampling as many of them would cost more than 1 % of them.
    cdef double most
    cdef int level
    m.unchecked += 1
    m.all_samples += 1
    m.bytes += size
    if m.unchecked < CHECK_EVERY:
        return
    most = 1.0 / FREE_RATE + m.bytes / m.unchecked / FREE_BYTES
    m.unchecked = 0
    m.bytes = 0
    if m.all_samples < FREE_SAMPLES:
        return
    level = m.level
    while level < LEVELS - 1 and m.limit[level] > most * 4294967296.0:
        level += 1
    if level > m.level + 1:             # not for what the mean of a thousand happens to differ by
        mrc_lower(m, level)


cdef inline void mrc_touch(Mrc* m, uint16_t k) noexcept nogil:
    # From now on a flush has something to do with this key.
    if m.asked < TOUCHED_MOST:
        m.touched[m.asked] = k
    m.asked += m.asked <= TOUCHED_MOST


# What the cache tells. These are called for sampled keys only: ask mrc_samples first.

cdef inline bint mrc_samples(Mrc* m, uint64_t hv) noexcept nogil:
    return hv >> 32 < m.threshold


cdef inline void mrc_count(Mrc* m) noexcept nogil:
    # A get. By itself: one that every cache would have answered with a miss.
    m.samples += 1
    m.gets += 1 / mrc_rate(m)


cdef inline void mrc_get(Mrc* m, uint64_t hv, bint found, bint use, uint32_t size, uint32_t dies, uint32_t second) noexcept nogil:
    # A get of a key. `use`: it makes the item younger; size and dies are those of the item that was found.
    cdef double weight = 1 / mrc_rate(m)
    cdef uint16_t k = mrc_find(m, <uint32_t> hv)
    cdef MrcKey* e
    cdef int i
    m.now += 1
    mrc_count(m)
    mrc_bury(m, second)
    if not k:
        if found:
            k = mrc_new(m, <uint32_t> (hv >> 32), <uint32_t> hv)
        if not k:
            mrc_count_cost(m, 0)
            return
    e = &m.key[k]
    mrc_touch(m, k)
    if found:
        mrc_sized(m, k, size)
        e.dies = dies
    elif e.dies and e.dies <= second and not mrc_is_out(e):
        mrc_leave_all(m, k)
    for i in range(MINIS):
        if e.state[i] & WHERE:
            m.mini[i].hits += weight
            if use:
                mrc_use(m, i, k)
        elif found:                     # a cache of this size would have been filled now
            mrc_insert(m, i, k)
    if use:
        e.used = m.now
    if found:
        e.state[0] &= ~MISSED
    else:
        e.state[0] |= MISSED
    mrc_count_cost(m, size)


cdef inline void mrc_store(Mrc* m, uint64_t hv, uint32_t size, uint32_t dies, uint32_t second) noexcept nogil:
    # A store. After a miss it fills the caches that missed as well, and changes nothing in the others. Else it renews: the item
    # goes to the head of the list that it stands in.
    cdef uint16_t k = mrc_find(m, <uint32_t> hv)
    cdef MrcKey* e
    cdef int i, where
    if not k:
        k = mrc_new(m, <uint32_t> (hv >> 32), <uint32_t> hv)
        if not k:
            return
    e = &m.key[k]
    mrc_touch(m, k)
    if not e.state[0] & MISSED:
        m.now += 1
        mrc_bury(m, second)
    mrc_sized(m, k, size)
    e.dies = dies
    e.used = m.now
    for i in range(MINIS):
        where = e.state[i] & WHERE
        if not where:
            mrc_insert(m, i, k)
        elif not e.state[0] & MISSED:
            mrc_take(m, i, k)
            mrc_push(m, i, k, where)
    e.state[0] &= ~MISSED
    mrc_count_cost(m, size)


cdef inline void mrc_expiry(Mrc* m, uint64_t hv, uint32_t dies) noexcept nogil:
    cdef uint16_t k = mrc_find(m, <uint32_t> hv)
    if k:
        m.key[k].dies = dies


cdef inline void mrc_delete(Mrc* m, uint64_t hv) noexcept nogil:
    # Caches of other sizes may hold what this one does not.
    cdef uint16_t k = mrc_find(m, <uint32_t> hv)
    if k:
        mrc_leave_all(m, k)


cdef inline void mrc_resize(Mrc* m, uint64_t memory) noexcept nogil:
    # The cache's limit was changed.
    cdef int i
    m.memory = memory
    mrc_scale(m)
    for i in range(MINIS):
        mrc_make_room(m, i, 0)


cdef inline void mrc_flush(Mrc* m) noexcept nogil:
    # A walk over all keys, if many were asked for since the last flush: a flood of flushes costs no more than its requests.
    cdef uint32_t k, n = m.asked if m.asked <= TOUCHED_MOST else m.unused - 1, i
    for i in range(n):
        k = m.touched[i] if m.asked <= TOUCHED_MOST else i + 1
        if m.key[k].size:
            mrc_leave_all(m, <uint16_t> k)
    m.asked = 0


# What an operator reads

cdef inline void mrc_reset(Mrc* m) noexcept nogil:
    # Counts from now on. The miniatures keep what they hold, as the cache does.
    cdef int i
    m.samples = 0
    m.gets = 0
    for i in range(MINIS):
        m.mini[i].hits = 0


cdef inline double mrc_ratio(Mrc* m, int i, double hits, double gets) noexcept nogil:
    # The hit ratio, 0 to 1, with the memory of miniature i, when the real one had so many hits in so many gets.
    # Hot keys are in the sample or not, which moves the number of requests sampled: those too few or too many count as hits
    # (SHARDS-adj, FAST 2015, 3.4). What the miniature of the real size is wrong by is then taken from the others: all of it that
    # comes from the sample, which is the same for all, and little of what would be wrong if every key were sampled.
    cdef double real = hits / gets, mini = (m.mini[REAL].hits + gets - m.gets) / gets, share = 1 - OWN * mrc_rate(m)
    cdef double ratio = (m.mini[i].hits + gets - m.gets) / gets
    if i == REAL:
        return real
    if ratio < mini:
        ratio *= 1 + share * (real / mini - 1)
    elif mini < 1:
        ratio = 1 - (1 - ratio) * (1 + share * ((1 - real) / (1 - mini) - 1))
    else:
        ratio = real
    return 0 if ratio < 0 else 1 if ratio > 1 else ratio


cdef inline const char* mrc_check(Mrc* m) noexcept nogil:
    # What is inconsistent, or NULL. For tests.
    cdef int i, b, where
    cdef uint32_t k, n, resident, outs = 0, keys = 0
    cdef uint16_t at, before
    cdef double taken
    for k in range(1, m.unused):
        if m.key[k].size:
            keys += 1
            outs += mrc_is_out(&m.key[k])
            if mrc_find(m, m.key[k].hash) != k:
                return b"a key is not in its bucket"
            if m.key[k].level <= m.level:
                return b"a key is no longer sampled"
    if keys != m.keys or outs != m.outs:
        return b"the number of keys"
    n = 0
    at = m.out_head
    while at:
        n += 1
        if n > outs or not mrc_is_out(&m.key[at]):
            return b"the keys that are out"
        at = m.key[at].prev[1]
    if n != outs:
        return b"the number of keys that are out"
    for i in range(MINIS):
        taken = 0
        resident = 0
        for k in range(1, m.unused):
            if m.key[k].size and m.key[k].state[i] & WHERE:
                resident += 1
                taken += m.key[k].size
        if taken != m.mini[i].taken or taken > m.mini[i].capacity:
            return b"the bytes of a miniature"
        for b in range(BANDS):
            if (m.mini[i].band[b].n[FRESH] + m.mini[i].band[b].n[RING] > 0) != (m.mini[i].filled >> b & 1):
                return b"the bands that have items"
            for where in range(FRESH, RING + 1):
                n = 0
                before = 0
                at = m.mini[i].band[b].head[where]
                while at:
                    if n > keys or m.key[at].prev[i] != before or m.key[at].state[i] & WHERE != where:
                        return b"a list"
                    if mrc_band(m.key[at].size) != b:
                        return b"a key in the list of another size"
                    n += 1
                    before = at
                    at = m.key[at].next[i]
                if n != m.mini[i].band[b].n[where] or before != m.mini[i].band[b].tail[where]:
                    return b"the length of a list"
                resident -= n
        if resident:
            return b"a key in no list"
    return NULL
