# Dumps: the items and the prefixes of an engine, listed for administration (`stats cachedump`, `stats detail dump`, `lru_crawler
# metadump`). Included by engine.pyx.
#
# Owns how a long list is read piece by piece while items come, move and go. Under the lock it only copies, and never looks at more
# than a slice; what is spelled was copied.

cdef enum:
    WALK_SLICE = 2000           # chunks that a dump looks at before others get their turn
    SIZES_SLICE = 65536
    LIST_BYTES = 2 << 20        # of text that memcached makes of one list,
    LINE_BYTES = 60             # ... in which a line takes so many beside its key
    DUMP_ROOM = 65536           # bytes of copies in a slice
    DUMPED_MOST = 65000         # users of an item that a dump still holds on to; else to its neighbours alone (see pinned_full)
    KEPT_MOST = 8               # items that a cachedump holds on to while others have their turn

cdef struct Copied:             # of an item, with its key behind it, filled up to a multiple of 8
    uint64_t cas
    uint64_t size
    uint64_t nbytes
    int64_t exptime             # unix time; 0: none
    int64_t used
    uint32_t flags
    uint32_t nkey
    int cls
    uint8_t fetched
    uint8_t binary

cdef struct Copies:
    size_t n
    char room[DUMP_ROOM]

cdef struct Place:              # in a list, kept while others have their turn
    uint32_t held[KEPT_MOST]    # the last items looked at: nobody frees them, and one of them is still in the list
    int n
    int seg


cdef bint copy_item(Store* s, Item* it, Copies* out) noexcept nogil:
    # False: there is no room.
    cdef size_t need = sizeof(Copied) + padded(it.nkey)
    cdef Copied* c = <Copied*> (out.room + out.n)
    if out.n + need > DUMP_ROOM:
        return 0
    c.cas = it.cas
    c.size = size_of(s, it)
    c.nbytes = it.nbytes
    c.exptime = it.exptime + s.wall_start if it.exptime else 0
    c.used = it.time // TICKS + s.wall_start
    c.flags = it.flags
    c.nkey = it.nkey
    c.cls = it.cls
    c.fetched = it.state & S_FETCHED != 0
    c.binary = it.state & S_BINARY != 0
    memcpy(<char*> c + sizeof(Copied), key_of(it), it.nkey)
    out.n += need
    return 1


cdef bint is_alive(Store* s, Item* it) noexcept nogil:
    return epoch_of(s, it) >= s.flush_epoch and not (it.exptime and it.exptime <= s.sec)


cdef list spelled(Copies* out, bint whole):
    # whole: ItemInfo, else (key, length, expiry).
    cdef size_t at = 0
    cdef Copied* c
    found = []
    while at < out.n:
        c = <Copied*> (out.room + at)
        at += sizeof(Copied) + padded(c.nkey)
        key = PyBytes_FromStringAndSize(<char*> c + sizeof(Copied), <Py_ssize_t> c.nkey)
        if whole:
            found.append(ItemInfo(key, c.exptime or -1, c.used, c.cas, bool(c.fetched), c.cls, c.size, c.flags, bool(c.binary)))
        else:
            found.append((key, c.nbytes, c.exptime))
    return found


# One list

def _dump_of_list(Engine self, int cls, uint64_t limit, int budget):
    cdef Copies* out
    cdef Place place
    cdef size_t room = LIST_BYTES
    cdef uint64_t count = 0
    cdef bint more = 1
    if not 1 <= cls <= self.s.arena.lists:
        return
    out = <Copies*> malloc(sizeof(Copies))
    if out == NULL:
        raise MemoryError
    place.n = 0
    place.seg = COLD
    try:
        while more:
            more = list_slice(&self.s, cls, &place, out, budget, limit, &count, &room)
            found = spelled(out, 0)
            if found or more:
                yield found
    finally:
        engine_lock(&self.s)
        let_go(&self.s, &place, cls)
        engine_unlock(&self.s)
        free(out)


cdef bint list_slice(Store* s, int cls, Place* place, Copies* out, int budget, uint64_t limit, uint64_t* count,
                     size_t* room) noexcept nogil:
    # Goes on behind the item that was the last; false when the dump is over.
    cdef uint32_t h
    cdef Item* it
    cdef bint more = 1
    out.n = 0
    engine_lock(s)
    clock_update(s)
    h = let_go(s, place, cls)
    while more:
        if h == 0:
            more = next_list(s, cls, place, &h)
            continue
        it = item_at(&s.arena, h)
        if limit and count[0] >= limit:
            more = 0
        elif not (it.nbytes == 0 and it.seg & G_TOKEN or it.state & S_BINARY):
            if <size_t> it.nkey + LINE_BYTES > room[0]:
                more = 0
            else:
                room[0] -= it.nkey + LINE_BYTES
                if is_alive(s, it):
                    count[0] += 1
                    copy_item(s, it, out)
        budget -= 1
        if more and (budget == 0 or out.n + sizeof(Copied) + KEY_MAX + 8 > DUMP_ROOM):
            hold_some(s, place, h)
            break
        h = it.next
    engine_unlock(s)
    return more


cdef bint next_list(Store* s, int cls, Place* place, uint32_t* h) noexcept nogil:
    # The first item of this list (n: 0) or of the one after it: COLD, HOT, TEMP. False: there is none.
    if place.n >= 0:
        place.n = -1                        # this list was begun
        h[0] = s.lru[cls][place.seg].head
        return 1
    if place.seg == TEMP:
        return 0
    place.seg = HOT if place.seg == COLD else TEMP
    h[0] = s.lru[cls][place.seg].head
    return 1


cdef void hold_some(Store* s, Place* place, uint32_t h) noexcept nogil:
    # Holds on to an item and those before it in its list.
    cdef Item* it
    place.n = 0
    while h and place.n < KEPT_MOST:
        it = item_at(&s.arena, h)
        if it.refs < DUMPED_MOST:
            it.refs += 1
            place.held[place.n] = h
            place.n += 1
        h = it.prev


cdef uint32_t let_go(Store* s, Place* place, int cls) noexcept nogil:
    # The item behind the first that is still where it was, or 0.
    cdef uint32_t after = 0
    cdef bint found = 0
    cdef int i
    cdef Item* it
    for i in range(place.n):
        it = item_at(&s.arena, place.held[i])
        if not found and it.state & S_LINKED and it.cls == cls and list_id(it.seg & SEG_MASK) == place.seg:
            found = 1
            after = it.next
    for i in range(place.n):
        item_release(s, place.held[i])
    if place.n > 0:
        place.n = -1
    return after


# All pages

cdef uint64_t mask_of(classes) except? 0:
    # A bit for each of these classes; None: for all.
    cdef uint64_t mask = 0
    if classes is None:
        return ALL_CLASSES
    for cls in classes:
        mask |= <uint64_t> 1 << <int> cls
    return mask


def _dump_of_pages(Engine self, classes, int budget):
    cdef Copies* out = <Copies*> malloc(sizeof(Copies))
    cdef uint64_t mask
    cdef uint32_t page = 1, index = 0
    cdef bint more = 1
    if out == NULL:
        raise MemoryError
    try:
        mask = mask_of(classes)
        while more:
            more = pages_slice(&self.s, mask, &page, &index, budget, out)
            found = spelled(out, 1)
            if found or more:
                yield found
    finally:
        free(out)


cdef bint pages_slice(Store* s, uint64_t classes, uint32_t* page, uint32_t* index, int budget, Copies* out) noexcept nogil:
    cdef uint32_t looked = 0
    cdef Item* it
    cdef bint more
    out.n = 0
    engine_lock(s)
    clock_update(s)
    while page[0] < s.arena.high and looked < WALK_SLICE and budget:
        looked += 1
        if s.arena.page[page[0]].cls == 0 or index[0] >= s.arena.page[page[0]].fresh:
            page[0] += 1
            index[0] = 0
            continue
        it = item_at(&s.arena, chunk_in(&s.arena, page[0], index[0]))
        if it.state & S_LINKED and classes >> it.cls & 1 and is_alive(s, it):
            if not copy_item(s, it, out):
                break
            budget -= 1
        index[0] += 1
    more = page[0] < s.arena.high
    engine_unlock(s)
    return more


# Prefixes

def _prefixes(Engine self):
    cdef Copies* out = <Copies*> malloc(sizeof(Copies))
    cdef uint32_t place = 0
    cdef size_t at
    cdef Prefix* p
    if out == NULL:
        raise MemoryError
    try:
        while place < PREFIXES_MOST:
            prefixes_slice(&self.s, &place, out)
            at = 0
            while at < out.n:
                p = <Prefix*> (out.room + at)
                at += sizeof(Prefix) + padded(p.n)
                yield (PyBytes_FromStringAndSize(p.text, <Py_ssize_t> p.n), p.count[0], p.count[1], p.count[2], p.count[3])
    finally:
        free(out)


cdef void prefixes_slice(Store* s, uint32_t* place, Copies* out) noexcept nogil:
    # Those of some places of the table; a place that would not fit comes first in the next slice.
    cdef uint32_t looked = 0
    cdef size_t need, begun
    cdef Prefix* p
    out.n = 0
    engine_lock(s)
    if s.prefixes.table == NULL:
        place[0] = PREFIXES_MOST
    while place[0] < PREFIXES_MOST and looked < WALK_SLICE:
        looked += 1
        begun = out.n
        p = s.prefixes.table[place[0]]
        while p != NULL:
            need = sizeof(Prefix) + padded(p.n)
            if out.n + need > DUMP_ROOM:
                if begun == 0:              # so many in one place that they don't fit: those that do
                    break
                out.n = begun
                engine_unlock(s)
                return
            memcpy(out.room + out.n, p, sizeof(Prefix) + p.n)
            out.n += need
            p = p.next
        place[0] += 1
    engine_unlock(s)


# Sizes

def _sizes(Engine self):
    cdef uint64_t i, most = size_buckets(self.s.item_size_max)
    for i in range(most):
        if self.s.size_count[i]:
            yield i * SIZE_STEP, self.s.size_count[i]
        elif i and i % SIZES_SLICE == 0:
            yield i * SIZE_STEP, 0             # so that whoever asks can give up its turn
