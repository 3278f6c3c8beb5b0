# Dumps: the items of an engine, listed for administration (`stats cachedump`, `lru_crawler metadump`). Included by engine.pyx.
#
# Owns how a long list is read piece by piece while items come, move and go. Must never look at more than its budget between two
# pieces.

def _dump_of_list(Engine self, int cls, int limit, int budget):
    cdef Store* s = &self.s
    cdef uint32_t h
    cdef Item* it
    cdef int seg, looked = 0
    cdef size_t room = 2 << 20, count = 0
    cdef list kept = []         # the last items looked at: nobody frees them, and one of them is still in the list
    found = []
    clock_update(s)
    if not 1 <= cls <= s.arena.lists:
        return
    for seg in (COLD, HOT, TEMP):
        h = s.lru[cls][seg].head
        while h and (limit == 0 or count < <size_t> limit):
            it = item_at(&s.arena, h)
            if not (it.nbytes == 0 and it.seg & G_TOKEN or it.state & S_BINARY):
                if <size_t> it.nkey + 60 > room:
                    yield found
                    return
                room -= it.nkey + 60
                if epoch_of(s, it) >= s.flush_epoch and not (it.exptime and it.exptime <= s.sec):
                    count += 1
                    found.append((PyBytes_FromStringAndSize(key_of(it), it.nkey), it.nbytes,
                                  it.exptime + s.wall_start if it.exptime else 0))
            looked += 1
            if looked == budget:
                looked = 0
                pin_some(self, kept, h)
                try:
                    yield found
                finally:
                    h = unpin(self, kept, cls, seg)
                found = []
                if h == 0:
                    break
            h = item_at(&s.arena, h).next
    yield found


cdef pin_some(Engine self, list kept, uint32_t h):
    # Holds on to an item and those before it in its LRU.
    cdef Item* it
    while h and len(kept) < KEPT_MOST:
        it = item_at(&self.s.arena, h)
        it.refs += 1
        kept.append(h)
        h = it.prev


cdef uint32_t unpin(Engine self, list kept, int cls, int seg):
    # Lets them go; the first that is still where it was, or 0.
    cdef uint32_t h, place = 0
    cdef Item* it
    for handle in kept:
        h = handle
        it = item_at(&self.s.arena, h)
        if place == 0 and it.state & S_LINKED and it.cls == cls and list_id(it.seg & SEG_MASK) == seg:
            place = h
        item_release(&self.s, h)
    kept.clear()
    return place


cdef object describe(Engine self, Item* it):
    cdef Store* s = &self.s
    return ItemInfo(PyBytes_FromStringAndSize(key_of(it), it.nkey), it.exptime + s.wall_start if it.exptime else -1,
                    it.time // TICKS + s.wall_start, it.cas, bool(it.state & S_FETCHED), it.cls, size_of(s, it),
                    it.flags, bool(it.state & S_BINARY))


def _dump_of_pages(Engine self, classes, int budget):
    cdef Store* s = &self.s
    cdef uint32_t page = 1, index = 0, looked = 0
    cdef Item* it
    found = []
    while page < s.arena.high:
        looked += 1
        if looked == WALK_SLICE:
            looked = 0
            yield found
            found = []
            continue
        if s.arena.page[page].cls == 0 or index >= s.arena.page[page].fresh:
            page += 1
            index = 0
            continue
        it = item_at(&s.arena, chunk_in(&s.arena, page, index))
        index += 1
        if it.state & S_LINKED and (classes is None or it.cls in classes) and epoch_of(s, it) >= s.flush_epoch \
                and not (it.exptime and it.exptime <= s.sec):
            found.append(describe(self, it))
            if len(found) >= budget:
                yield found
                found = []
    if found:
        yield found
