# Figures: what `stats`, `stats items` and `stats slabs` show of an engine. Included by engine.pyx.
#
# Owns the names under which figures go out: memcached's where it has them. Must never change what it counts.

cdef dict general_figures(Engine self):
    cdef Store* s = &self.s
    cdef Counters* n = &s.n
    cdef ClassStats t
    cdef ClassStats* c
    cdef int i, seg
    cdef uint64_t hits = 0
    clock_update(s)
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
        "store_no_memory": n.no_memory, "auth_cmds": n.auth_cmds, "auth_errors": n.auth_errors, "bytes_read": n.bytes_read, "bytes_written": n.bytes_written,
        "limit_maxbytes": s.memory_limit, "conn_yields": n.yields,
        "hash_power_level": power_of(s.index.size),
        "hash_bytes": s.index.size * 4, "hash_is_expanding": 1 if s.index.size & (s.index.size - 1) else 0,
        "slab_reassign_rescues": n.rescues, "slab_reassign_chunk_rescues": n.rescued_pieces,
        "slab_reassign_inline_reclaim": 0, "slab_reassign_busy_items": n.busy_pages,
        "slab_reassign_busy_deletes": 0, "slab_reassign_running": 1 if s.mover.page else 0,
        "slabs_moved": n.page_moves,
        "lru_crawler_running": 1 if self.walk_state.running else 0, "lru_crawler_starts": n.crawls,
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
        "read_buf_bytes": self.shared.in_kept, "read_buf_oom": self.shared.in_refused,
    }


cdef uint64_t hits_of(Engine self, int cls):
    cdef ClassStats* c = &self.s.cls[cls]
    return c.hits_to[0] + c.hits_to[1] + c.hits_to[2] + c.hits_to[3]


cdef uint64_t tail_age(Engine self, int cls, int seg):
    # Seconds since the last use of the item at the end of a list; of one in the ring for WARM and COLD.
    cdef uint32_t h = self.s.lru[cls][list_id(seg)].tail
    return (self.s.tick - item_at(&self.s.arena, h).time) // TICKS if h else 0


cdef dict list_figures(Engine self):
    cdef Store* s = &self.s
    cdef ClassStats* c
    cdef Lru* l
    cdef int i
    result = {}
    clock_update(s)
    hits = sum(hits_of(self, i) for i in range(MAX_CLASSES))
    for i in range(1, s.arena.lists + 1):
        l = &s.lru[i][0]
        c = &s.cls[i]
        number = list_items(s, i)
        if number == 0:
            continue
        ready = readiness(s, i)
        oldest_seg = COLD if l[COLD].tail else HOT if l[HOT].tail else TEMP
        result[i] = {
            "number": number, "number_hot": l[HOT].count, "number_warm": l[WARM].count,
            "number_cold": l[COLD].count, "number_temp": l[TEMP].count, "age_hot": tail_age(self, i, HOT),
            "age_warm": tail_age(self, i, WARM), "age": tail_age(self, i, oldest_seg),
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
            "hits_share": 100 * hits_of(self, i) / hits if hits else 0.0,
        }
    return result


cdef tuple slab_figures(Engine self):
    cdef Store* s = &self.s
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
            "get_hits": hits_of(self, i), "cmd_set": c.cmd_set,
            "delete_hits": c.delete_hits, "incr_hits": c.incr_hits, "decr_hits": c.decr_hits,
            "cas_hits": c.cas_hits, "cas_badval": c.cas_badval, "touch_hits": c.touch_hits,
            "pages_given": c.pages_given, "pages_taken": c.pages_taken,
        }
    pages = max(s.arena.pages_used, min(s.arena.pages_used + s.arena.pooled, s.arena.pages_limit))
    return result, active, pages << s.arena.page_bits


cdef int power_of(uint64_t n):
    cdef int p = 0
    while n > 1:
        n >>= 1
        p += 1
    return p
