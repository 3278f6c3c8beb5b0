# Figures: what `stats`, `stats items` and `stats slabs` show of an engine. Included by engine.pyx.
#
# Owns the names under which figures go out: memcached's where it has them. Must never change what it counts. What is spelled is a
# copy: the lock is held for the copying only.

cdef struct Worth:              # of a class: what only a look at its items can tell
    double ready
    uint64_t age[4]             # seconds since the last use of the item at the end of each list


cdef Store* copied(Engine self, Worth* worth) except NULL:
    # The store as it is now, without what its pointers point at. To be freed. worth: of MAX_CLASSES, or NULL.
    cdef Store* s = &self.s
    cdef Store* copy = <Store*> malloc(sizeof(Store))
    cdef int i, seg
    cdef uint32_t h
    if copy == NULL:
        raise MemoryError
    engine_lock(s)
    clock_update(s)
    memcpy(copy, s, sizeof(Store))
    if worth != NULL:
        for i in range(1, s.arena.lists + 1):
            if list_items(s, i) == 0:
                continue
            worth[i].ready = readiness(s, i)
            for seg in range(4):
                h = s.lru[i][list_id(seg)].tail
                worth[i].age[seg] = (s.tick - item_at(&s.arena, h).time) // TICKS if h else 0
    engine_unlock(s)
    return copy


cdef void traffic(Engine self, uint64_t* read, uint64_t* written) noexcept:
    # Bytes that all connections have received and sent.
    cdef Shared* sh = &self.shared
    while sh != NULL:
        read[0] += get64(&sh.bytes_read)
        written[0] += get64(&sh.bytes_written)
        sh = sh.next


cdef dict general_figures(Engine self):
    cdef Store* s = copied(self, NULL)
    try:
        return spelled_general(self, s)
    finally:
        free(s)


cdef dict spelled_general(Engine self, Store* s):
    cdef Counters* n = &s.n
    cdef ClassStats t
    cdef ClassStats* c
    cdef int i, seg
    cdef uint64_t hits = 0, read = 0, written = 0
    traffic(self, &read, &written)
    memset(&t, 0, sizeof(t))
    for i in range(MAX_CLASSES):
        c = &s.cls[i]
        for seg in range(4):
            hits += c.hits_to[seg]
        t.cmd_set += c.cmd_set
        t.delete_hits += c.delete_hits
        t.incr_hits += c.incr_hits
        t.decr_hits += c.decr_hits
        t.cas_hits += c.cas_hits
        t.cas_badval += c.cas_badval
        t.touch_hits += c.touch_hits
        t.evicted += c.evicted
        t.evicted_unfetched += c.evicted_unfetched
        t.evicted_active += c.evicted_active
        t.reclaimed += c.reclaimed
        t.expired_unfetched += c.expired_unfetched
        t.crawler_reclaimed += c.crawler_reclaimed
        t.crawler_checked += c.crawler_checked
        t.moves_to_cold += c.moves_to_cold
        t.moves_to_warm += c.moves_to_warm
        t.moves_within += c.moves_within
        t.direct_reclaims += c.direct_reclaims
    return {
        "cmd_get": n.cmd_get, "cmd_set": t.cmd_set, "cmd_flush": n.cmd_flush, "cmd_touch": n.cmd_touch,
        "cmd_meta": n.cmd_meta, "get_hits": hits, "get_misses": n.get_misses, "get_expired": n.get_expired,
        "get_flushed": n.get_flushed, "delete_misses": n.delete_misses, "delete_hits": t.delete_hits,
        "incr_misses": n.incr_misses, "incr_hits": t.incr_hits, "decr_misses": n.decr_misses,
        "decr_hits": t.decr_hits, "cas_misses": n.cas_misses, "cas_hits": t.cas_hits, "cas_badval": t.cas_badval,
        "touch_hits": t.touch_hits, "touch_misses": n.touch_misses, "store_too_large": n.too_large,
        "store_no_memory": n.no_memory, "auth_cmds": n.auth_cmds, "auth_errors": n.auth_errors,
        "bytes_read": read - self.read_before,
        "bytes_written": written - self.written_before,
        "limit_maxbytes": s.memory_limit, "conn_yields": n.yields,
        "hash_power_level": power_of(s.index.size),
        "hash_bytes": s.index.size * 4, "hash_is_expanding": 1 if s.index.size & (s.index.size - 1) else 0,
        "slab_reassign_rescues": n.rescues, "slab_reassign_chunk_rescues": n.rescued_pieces,
        "slab_reassign_inline_reclaim": 0, "slab_reassign_busy_items": n.busy_pages,
        "slab_reassign_busy_deletes": 0, "slab_reassign_running": 1 if s.mover.page else 0,
        "slabs_moved": n.page_moves,
        "lru_crawler_running": 1 if self.upkeep.walk.running else 0, "lru_crawler_starts": n.crawls,
        "lru_maintainer_juggles": n.juggles, "bytes": s.bytes, "curr_items": s.index.count,
        "total_items": n.total_items, "slab_global_page_pool": s.arena.pooled,
        "expired_unfetched": t.expired_unfetched, "evicted_unfetched": t.evicted_unfetched,
        "evicted_active": t.evicted_active, "evictions": t.evicted, "reclaimed": t.reclaimed,
        "crawler_reclaimed": t.crawler_reclaimed, "crawler_items_checked": t.crawler_checked,
        "moves_to_cold": t.moves_to_cold, "moves_to_warm": t.moves_to_warm, "moves_within_lru": t.moves_within,
        "direct_reclaims": t.direct_reclaims, "slow_readers_dropped": n.readers_dropped,
        "unfinished_bytes": s.unfinished, "unfinished_limit": unfinished_most(s),
        "unfinished_refused": n.uploads_refused,
        "ghost_bytes": s.ghosts.size * sizeof(Ghost),
        "read_buf_bytes": s.in_kept, "read_buf_oom": s.in_refused,
        "lock_waits": n.lock_waits, "lock_wait_us": n.lock_wait_ns // 1000,
        "journal_dropped": s.journal.dropped,
    }


cdef uint64_t hits_of(ClassStats* c) noexcept nogil:
    return c.hits_to[0] + c.hits_to[1] + c.hits_to[2] + c.hits_to[3]


cdef dict list_figures(Engine self):
    cdef Worth worth[MAX_CLASSES]
    cdef Store* s = copied(self, worth)
    try:
        return spelled_lists(s, worth)
    finally:
        free(s)


cdef dict spelled_lists(Store* s, Worth* worth):
    cdef ClassStats* c
    cdef Lru* l
    cdef int i
    cdef uint64_t hits = 0
    result = {}
    for i in range(MAX_CLASSES):
        hits += hits_of(&s.cls[i])
    for i in range(1, s.arena.lists + 1):
        l = &s.lru[i][0]
        c = &s.cls[i]
        number = list_items(s, i)
        if number == 0:
            continue
        ready = worth[i].ready
        oldest_seg = COLD if l[COLD].tail else HOT if l[HOT].tail else TEMP
        result[i] = {
            "number": number, "number_hot": l[HOT].count, "number_warm": l[WARM].count,
            "number_cold": l[COLD].count, "number_temp": l[TEMP].count, "age_hot": worth[i].age[HOT],
            "age_warm": worth[i].age[WARM], "age": worth[i].age[oldest_seg],
            "mem_requested": l[HOT].bytes + l[WARM].bytes + l[COLD].bytes + l[TEMP].bytes,
            "evicted": c.evicted, "evicted_nonzero": c.evicted_nonzero, "evicted_time": c.evicted_time,
            "outofmemory": c.outofmemory, "tailrepairs": 0, "reclaimed": c.reclaimed,
            "expired_unfetched": c.expired_unfetched, "evicted_unfetched": c.evicted_unfetched,
            "evicted_active": c.evicted_active, "crawler_reclaimed": c.crawler_reclaimed,
            "crawler_items_checked": c.crawler_checked, "lrutail_reflocked": 0,
            "moves_to_cold": c.moves_to_cold, "moves_to_warm": c.moves_to_warm,
            "moves_within_lru": c.moves_within, "direct_reclaims": c.direct_reclaims,
            "hits_to_hot": c.hits_to[HOT], "hits_to_warm": c.hits_to[WARM], "hits_to_cold": c.hits_to[COLD],
            "hits_to_temp": c.hits_to[TEMP],
            "page_worth": s.arena.page_size / ready if ready else 0.0,
            "hits_share": 100 * hits_of(c) / hits if hits else 0.0,
            "new_worth": worth_of_new(s.recent[i].came, s.recent[i].wanted), "use_ratio": use_ratio_of(s, i),
        }
    return result


cdef tuple slab_figures(Engine self):
    cdef Store* s = copied(self, NULL)
    try:
        return spelled_slabs(s)
    finally:
        free(s)


cdef tuple spelled_slabs(Store* s):
    cdef SlabClass* k
    cdef ClassStats* c
    cdef int i
    cdef uint64_t active = 0
    result = {}
    for i in range(1, s.arena.lists + 1):
        k = &s.arena.cls[i]
        c = &s.cls[i]
        if k.pages == 0 and c.cmd_set == 0:
            continue
        if k.pages:
            active += 1
        total = k.pages * k.per_page
        result[i] = {
            "chunk_size": k.size, "chunks_per_page": k.per_page, "total_pages": k.pages, "total_chunks": total,
            "used_chunks": k.used, "free_chunks": total - k.used, "free_chunks_end": 0,
            "get_hits": hits_of(c), "cmd_set": c.cmd_set,
            "delete_hits": c.delete_hits, "incr_hits": c.incr_hits, "decr_hits": c.decr_hits,
            "cas_hits": c.cas_hits, "cas_badval": c.cas_badval, "touch_hits": c.touch_hits,
            "pages_given": c.pages_given, "pages_taken": c.pages_taken,
        }
    pages = max(s.arena.pages_used, min(s.arena.pages_used + s.arena.pooled, s.arena.pages_limit))
    return result, active, pages << s.arena.page_bits


cdef dict curve_figures(Engine self):
    cdef Store* s = &self.s
    cdef Mrc* m = s.mrc
    cdef ClassStats* c
    cdef int i
    cdef uint64_t hits = 0, gets, samples, keys, block
    cdef double stands_for, memory
    cdef double sampled[MINIS]
    cdef double ratios[MINIS]
    cdef double factors[MINIS]
    cdef double rate
    cdef bint enough
    engine_lock(s)
    gets = s.n.cmd_get + s.n.cmd_touch
    for i in range(MAX_CLASSES):
        c = &s.cls[i]
        hits += hits_of(c) + c.touch_hits
    hits -= s.n.vivified
    samples, keys, block, stands_for, memory, rate = m.samples, m.keys, m.block, m.gets, m.memory, mrc_rate(m)
    enough = samples >= MRC_ENOUGH and gets > 0
    for i in range(MINIS):
        ratios[i] = mrc_ratio(m, i, <double> hits, <double> gets) if enough else 0
        factors[i] = m.mini[i].factor
        sampled[i] = m.mini[i].hits
    engine_unlock(s)
    curve = {factors[i]: (<uint64_t> (memory * factors[i]), ratios[i] if enough else None) for i in range(MINIS)}
    return {"samples": samples, "sampling_rate": rate, "keys": keys, "memory": block, "gets": gets,
            "stands_for": stands_for, "sampled_hits": [sampled[i] for i in range(MINIS)], "curve": curve}


cdef int figures_reset(Engine self) except -1:
    cdef int i
    cdef Store* s = &self.s
    cdef Prefixes old
    cdef uint64_t read = 0, written = 0
    engine_lock(s)
    memset(&s.n, 0, sizeof(Counters))
    for i in range(MAX_CLASSES):
        memset(&s.cls[i], 0, sizeof(ClassStats))
    mrc_reset(s.mrc)
    set64(&s.in_refused, 0)
    s.journal.dropped = 0
    s.journal.written = 0
    old = s.prefixes
    s.prefixes.table = NULL
    s.prefixes.count = 0
    s.prefixes.left_out = 0
    s.prefixes.generation += 1
    traffic(self, &read, &written)
    self.read_before = read
    self.written_before = written
    engine_unlock(s)
    prefixes_clear(&old)
    return 0


cdef int power_of(uint64_t n):
    cdef int p = 0
    while n > 1:
        n >>= 1
        p += 1
    return p
