# Kept: what the next process needs to serve this one's memory (-e, --take-over): a record of the pages, the lists and the clock.
#
# Owns the record's layout and every check of it: nothing in a record, nor in the memory that it describes, is believed before it was
# looked at. Must never open, read or write a file. A record says where the lists end and what each page holds; all else (index, free
# chunks, sums) is made anew from the items, page by page, each page when its checksum has been found right.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from .text cimport KEY_MAX
from .memory cimport *
from .index cimport index_insert
from .store cimport *
from .rules cimport *
from .ghosts cimport GHOSTS_LEAST, Ghost
from .lists cimport *
from .expiry cimport due_add
from .items cimport *

cdef enum:
    KEPT_LAYOUT = 1             # of the record, of Item and of what fills a page: to be raised when one of them changes
    AHEAD = 8                   # chunks whose neighbours are fetched from memory before they are looked at
    WAITING = 16                # items whose buckets are fetched before they are linked

# The lists of one class: TEMP, HOT and the ring.
cdef struct KeptLists:
    uint32_t head[4]
    uint32_t tail[4]

cdef struct KeptPage:
    uint32_t cls                # 0: in the pool
    uint32_t fresh
    uint64_t sum                # of its chunks that were ever used

cdef struct KeptHead:
    uint32_t layout
    uint32_t head_size          # bytes of this, and what follows it
    uint32_t rules
    uint32_t pages              # entries of KeptPage, of pages 0 and up
    uint64_t ghosts             # entries of Ghost
    # what must be the same in the next process
    uint32_t shift
    uint32_t page_bits
    uint32_t classes
    uint32_t lists
    uint32_t use_cas
    uint32_t summed             # the pages have checksums
    uint64_t item_size_max
    uint32_t size[MAX_CLASSES]
    # what goes on
    KeptLists ends[MAX_CLASSES]
    uint32_t evicted[MAX_CLASSES]
    uint64_t items
    uint64_t cas
    uint64_t requests
    uint64_t epoch
    uint64_t flush_epoch
    uint64_t elapsed_ns         # the engine's clock
    uint64_t k0
    uint64_t k1
    uint32_t flush_at
    uint32_t flush_again
    uint32_t epoch_taken
    uint32_t unused

# How far the pages have been looked at.
cdef struct Found:
    uint64_t items
    uint64_t pieces             # that exist
    uint64_t linked_pieces      # that an item has
    uint64_t followed[MAX_CLASSES][4]   # items of a list that have one behind them, and one before them
    uint64_t preceded[MAX_CLASSES][4]
    int waiting
    uint32_t item[WAITING]      # to be linked
    uint64_t hash[WAITING]


cdef inline uint64_t sum_of(const char* p, size_t n, uint64_t seed) noexcept nogil:
    # Of n bytes, a multiple of 8. Any change of one word changes it; it is no defence against whoever means harm.
    cdef const uint64_t* w = <const uint64_t*> p
    cdef uint64_t a = seed, b = ~seed, c = seed + n, d = seed ^ <uint64_t> 0x9E3779B97F4A7C15
    cdef size_t words = n // 8, i = 0
    while i + 4 <= words:
        a = (a ^ w[i]) * <uint64_t> 0x9E3779B97F4A7C15
        b = (b ^ w[i + 1]) * <uint64_t> 0xC2B2AE3D27D4EB4F
        c = (c ^ w[i + 2]) * <uint64_t> 0x165667B19E3779F9
        d = (d ^ w[i + 3]) * <uint64_t> 0xD6E8FEB86659FD93
        a ^= a >> 29
        b ^= b >> 31
        c ^= c >> 27
        d ^= d >> 33
        i += 4
    while i < words:
        a = (a ^ w[i]) * <uint64_t> 0x9E3779B97F4A7C15
        a ^= a >> 29
        i += 1
    a = (a ^ b ^ b >> 32) * <uint64_t> 0xD6E8FEB86659FD93
    a = (a ^ c ^ c >> 32) * <uint64_t> 0xD6E8FEB86659FD93
    a = (a ^ d ^ d >> 32) * <uint64_t> 0xD6E8FEB86659FD93
    return a ^ a >> 32


cdef inline size_t used_of(Arena* a, KeptPage* k) noexcept nogil:
    return <size_t> k.fresh * a.cls[k.cls].size


# The record

cdef inline size_t kept_size(uint64_t rules, uint64_t pages, uint64_t ghosts) noexcept nogil:
    return sizeof(KeptHead) + rules * sizeof(Rule) + pages * sizeof(KeptPage) + ghosts * sizeof(Ghost)


cdef inline KeptPage* kept_pages(KeptHead* k) noexcept nogil:
    return <KeptPage*> (<char*> k + sizeof(KeptHead) + k.rules * sizeof(Rule))


cdef inline void kept_layout(Store* s, KeptHead* k) noexcept nogil:
    # What must be the same in both processes.
    cdef Arena* a = &s.arena
    cdef int i
    k.layout = KEPT_LAYOUT
    k.head_size = sizeof(KeptHead)
    k.shift = a.shift
    k.page_bits = a.page_bits
    k.classes = <uint32_t> a.classes
    k.lists = <uint32_t> a.lists
    k.use_cas = s.use_cas
    k.item_size_max = s.item_size_max
    for i in range(1, a.lists + 1):
        k.size[i] = a.cls[i].size


cdef inline void kept_rules(Rules* r, Rule* to) noexcept nogil:
    if r.count == 0:
        return
    memcpy(to, r.old.rule, r.old.count * sizeof(Rule))
    memcpy(to + r.old.count, r.young.rule, r.young.count * sizeof(Rule))
    memcpy(to + r.old.count + r.young.count, r.refresh, r.refreshes * sizeof(Rule))


cdef inline void kept_write(Store* s, KeptHead* k, bint sums) noexcept nogil:
    # The record of a store that nobody uses any more: no connection, no value on its way. k has kept_size() bytes, all zeros.
    cdef Arena* a = &s.arena
    cdef KeptPage* pages
    cdef uint32_t p
    cdef int i, seg
    kept_layout(s, k)
    k.rules = s.rules.count
    k.pages = a.high
    k.ghosts = s.ghosts.size
    k.summed = sums
    for i in range(1, a.lists + 1):
        k.evicted[i] = s.evicted[i]
        for seg in range(4):
            k.ends[i].head[seg] = s.lru[i][seg].head
            k.ends[i].tail[seg] = s.lru[i][seg].tail
    k.items = s.index.count
    k.cas = s.cas
    k.requests = s.requests
    k.epoch = s.epoch
    k.flush_epoch = s.flush_epoch
    k.elapsed_ns = s.elapsed_ns
    k.k0 = s.index.k0
    k.k1 = s.index.k1
    k.flush_at = s.flush_at
    k.flush_again = s.flush_again
    k.epoch_taken = s.epoch_taken
    kept_rules(&s.rules, <Rule*> (<char*> k + sizeof(KeptHead)))
    pages = kept_pages(k)
    for p in range(1, a.high):
        pages[p].cls = a.page[p].cls
        pages[p].fresh = a.page[p].fresh if pages[p].cls else 0
        if sums and pages[p].fresh:
            MEMORY_SHOW(a.base + (<size_t> p << a.page_bits), a.page_size)
            pages[p].sum = sum_of(a.base + (<size_t> p << a.page_bits), used_of(a, &pages[p]), k.k0 + p)
    memcpy(pages + k.pages, s.ghosts.entry, k.ghosts * sizeof(Ghost))


# Reading it

cdef inline const char* kept_fits(Store* s, KeptHead* k) noexcept nogil:
    # NULL, or how this store differs from the one that was kept.
    cdef KeptHead mine
    memset(&mine, 0, sizeof(KeptHead))
    kept_layout(s, &mine)
    if k.layout != mine.layout or k.head_size != mine.head_size:
        return b"it was kept by another version"
    if k.use_cas != mine.use_cas:
        return b"-C differs"
    if k.item_size_max != mine.item_size_max:
        return b"-I differs"
    if k.shift != mine.shift or k.page_bits != mine.page_bits:
        return b"-m differs too much"
    if k.classes != mine.classes or k.lists != mine.lists or memcmp(k.size, mine.size, sizeof(mine.size)) != 0:
        return b"the slab classes differ (-f, -n, -o slab_sizes, -o slab_chunk_max)"
    return NULL


cdef inline const char* kept_check(Store* s, KeptHead* k, size_t length) noexcept nogil:
    # NULL, or what is wrong with the record (length bytes). What it says of items is looked at later.
    cdef Arena* a = &s.arena
    cdef KeptPage* pages
    cdef Rule* rule
    cdef const char* differs
    cdef uint32_t p, i, refreshes = 0
    cdef uint64_t refreshed = 0
    if length < sizeof(KeptHead):
        return b"the record is too short"
    differs = kept_fits(s, k)
    if differs != NULL:
        return differs
    if k.rules > RULES_MOST or k.pages < 1 or k.ghosts < GHOSTS_LEAST or k.ghosts & (k.ghosts - 1) or k.ghosts > <uint64_t> 1 << 40:
        return b"the record makes no sense"
    if k.pages > a.pages_max + 1:
        return b"-m is too small for it"
    if length != kept_size(k.rules, k.pages, k.ghosts):
        return b"the record has another length than it says"
    if k.items >= s.index.reserved or k.items > (<uint64_t> k.pages << a.page_bits) // HEADER or k.flush_epoch > k.epoch \
            or k.elapsed_ns > <uint64_t> 1 << 57:
        return b"the record makes no sense"
    rule = <Rule*> (<char*> k + sizeof(KeptHead))
    for i in range(k.rules):
        if rule[i].length > RULE_PREFIX_MOST or rule[i].epoch > k.epoch or rule[i].refresh and rule[i].epoch < refreshed:
            return b"the record's flushes make no sense"
        if rule[i].refresh:
            refreshed = rule[i].epoch
            refreshes += 1
    if refreshes > REFRESHES_MOST:
        return b"the record's flushes make no sense"
    pages = kept_pages(k)
    for p in range(k.pages):
        if pages[p].cls > k.classes or pages[p].cls == 0 and pages[p].fresh \
                or pages[p].cls and (p == 0 or pages[p].fresh > a.cls[pages[p].cls].per_page):
            return b"the record's pages make no sense"
    return NULL


cdef inline bint is_chunk(Arena* a, KeptPage* pages, uint32_t count, uint32_t h) noexcept nogil:
    # Whether the handle is that of a chunk that was ever used.
    cdef uint32_t p = page_of(a, h), at = <uint32_t> ((<size_t> h << a.shift) & (a.page_size - 1)), size
    if p == 0 or p >= count or pages[p].cls == 0:
        return 0
    size = a.cls[pages[p].cls].size
    return at % size == 0 and at // size < pages[p].fresh


cdef inline bint same_list(Item* one, Item* other) noexcept nogil:
    return one.cls == other.cls and list_id(one.seg & SEG_MASK) == list_id(other.seg & SEG_MASK)


cdef inline bint neighbours_fit(Store* s, KeptHead* k, Found* f, uint32_t h, Item* it) noexcept nogil:
    # Whether the item stands in its list as the ends of the list and the item behind it say.
    cdef Arena* a = &s.arena
    cdef int list = list_id(it.seg & SEG_MASK)
    cdef KeptLists* ends = &k.ends[it.cls]
    cdef Item* behind
    if it.prev:
        f.preceded[it.cls][list] += 1
    elif ends.head[list] != h:
        return 0
    if it.next == 0:
        return ends.tail[list] == h
    if not is_chunk(a, kept_pages(k), k.pages, it.next):
        return 0
    f.followed[it.cls][list] += 1
    behind = item_at(a, it.next)
    return behind.state & S_LINKED != 0 and behind.prev == h and same_list(it, behind)


cdef inline bint pieces_fit(Store* s, KeptHead* k, Found* f, uint32_t h, Item* it) noexcept nogil:
    # Whether a large item's pieces are one chain, of as many bytes as its value has.
    cdef Arena* a = &s.arena
    cdef KeptPage* pages = kept_pages(k)
    cdef uint32_t piece = first_piece(it), before = h
    cdef uint64_t bytes = 0
    cdef Item* p
    while piece:
        if not is_chunk(a, pages, k.pages, piece):
            return 0
        p = item_at(a, piece)
        bytes += p.nbytes
        if not p.state & S_PIECE or p.prev != before or p.nbytes == 0 or bytes > it.nbytes \
                or p.nbytes > a.cls[pages[page_of(a, piece)].cls].size - HEADER or (p.h_next == 0) != (p.next == h):
            return 0
        f.linked_pieces += 1
        before = piece
        piece = p.h_next
    return bytes == it.nbytes and before == last_piece(it) and before != h


cdef inline bint item_fits(Store* s, KeptHead* k, Found* f, uint32_t h, Item* it, uint32_t size, uint32_t cls) noexcept nogil:
    if it.nkey == 0 or it.nkey > KEY_MAX or it.cls == 0 or it.cls > k.lists:
        return 0
    if it.state & S_LARGE:
        if it.cls < k.classes or <uint32_t> HEADER + it.nkey + LINKS > size or not pieces_fit(s, k, f, h, it):
            return 0
    elif it.cls != cls or <uint64_t> HEADER + it.nkey + it.nbytes > size:
        return 0
    return neighbours_fit(s, k, f, h, it)


cdef inline void link_one(Store* s, Found* f, int i) noexcept nogil:
    index_insert(&s.index, &s.arena, f.item[i], f.hash[i])


cdef inline void count_kept(Store* s, Found* f, uint32_t h, Item* it) noexcept nogil:
    # The item is one of this store's.
    cdef int seg = it.seg & SEG_MASK, i = f.waiting % WAITING
    cdef uint64_t size = size_of(s, it)
    it.refs = 0
    it.seg &= ~G_DUE
    s.lru[it.cls][seg].count += 1
    s.lru[it.cls][seg].bytes += size
    s.bytes += size
    if it.exptime:
        s.timed += 1
        if it.exptime <= s.due_sec:
            it.seg |= G_DUE
            s.overdue += 1
        else:
            due_add(s, it)
    count_size(s, it, 1)
    f.items += 1
    if f.waiting >= WAITING:
        link_one(s, f, i)
    f.item[i] = h
    f.hash[i] = hash_of(s, it)
    f.waiting += 1
    fetch_ahead(&s.index.bucket[f.hash[i] & (s.index.low - 1)])


cdef inline void chunk_is_free(Arena* a, Page* page, uint32_t h, Item* it, uint32_t size) noexcept nogil:
    it.state = 0
    it.h_next = page.free
    page.free = h
    MEMORY_HIDE(<char*> it + HEADER, size - HEADER)


cdef inline const char* kept_page(Store* s, KeptHead* k, Found* f, uint32_t p) noexcept nogil:
    # Takes one page over; NULL, or what is wrong with it.
    cdef Arena* a = &s.arena
    cdef KeptPage* was = &kept_pages(k)[p]
    cdef Page* page = &a.page[p]
    cdef SlabClass* c = &a.cls[was.cls]
    cdef uint32_t i, h
    cdef Item* it
    memset(page, 0, sizeof(Page))
    if was.cls == 0:
        page.next = a.pool
        a.pool = p
        a.pooled += 1
        return NULL
    if k.summed and was.fresh and sum_of(a.base + (<size_t> p << a.page_bits), used_of(a, was), k.k0 + p) != was.sum:
        return b"the memory is not what was kept"
    page.cls = <uint8_t> was.cls
    page.fresh = was.fresh
    for i in range(was.fresh):
        if i + AHEAD < was.fresh:
            it = item_at(a, chunk_in(a, p, i + AHEAD))
            if it.state & S_LINKED and it.next:
                h = it.next
                if page_of(a, h) < k.pages:
                    fetch_ahead(item_at(a, h))
        h = chunk_in(a, p, i)
        it = item_at(a, h)
        if it.state & S_LINKED:
            if not item_fits(s, k, f, h, it, c.size, was.cls):
                return b"an item makes no sense"
            count_kept(s, f, h, it)
            page.used += 1
        elif it.state & S_PIECE:
            it.refs = 0
            f.pieces += 1
            page.used += 1
        else:
            chunk_is_free(a, page, h, it, c.size)
    c.pages += 1
    c.used += page.used
    a.pages_used += 1
    if page.used == 0:
        c.empty += 1
    if page.free or page.fresh < c.per_page:
        room_add(a, p)
    return NULL


cdef inline void rules_resume(Store* s, Rule* rule, uint32_t count) noexcept nogil:
    # The next pass carries all of them out, but for what one table can't hold.
    cdef uint32_t i
    for i in range(count):
        if rule[i].refresh:
            refresh_add(&s.rules, rule[i].prefix, rule[i].length, rule[i].epoch, rule[i].came, rule[i].expires)
        elif not flush_resume(s, &s.rules.old, &rule[i]):
            flush_resume(s, &s.rules.young, &rule[i])


cdef inline bint flush_resume(Store* s, Flushes* f, Rule* rule) noexcept nogil:
    return flush_add(&s.rules, f, rule.prefix, rule.length, rule.epoch, rule.came)


cdef inline void kept_begin(Store* s, KeptHead* k, uint64_t away_ns) noexcept nogil:
    # The record was found right: the store, which is empty, becomes what that one was so much later. Its clock first.
    cdef int i, seg
    s.index.k0 = k.k0
    s.index.k1 = k.k1
    while s.index.size < k.items:               # no bucket is to be split while items are linked
        s.index.size *= 2
        s.index.low *= 2
    s.cas = k.cas
    s.requests = k.requests
    s.clock = <uint32_t> (s.requests >> TRAFFIC_GRAIN)
    s.epoch = k.epoch
    s.flush_epoch = k.flush_epoch
    s.epoch_taken = 1
    rules_resume(s, <Rule*> (<char*> k + sizeof(KeptHead)), k.rules)
    if not s.manual:
        s.start_ns = boot_clock()               # it may have been made long before
    s.skew_ns = <int64_t> (k.elapsed_ns + away_ns)
    s.elapsed_ns = k.elapsed_ns + away_ns
    s.tick = tick_of(s.elapsed_ns)
    s.sec = s.tick // TICKS
    s.due_sec = s.sec
    for i in range(1, s.arena.lists + 1):
        s.evicted[i] = k.evicted[i]
        for seg in range(4):
            s.lru[i][seg].head = k.ends[i].head[seg]
            s.lru[i][seg].tail = k.ends[i].tail[seg]
    s.arena.high = k.pages


cdef inline const char* kept_end(Store* s, KeptHead* k, Found* f) noexcept nogil:
    # All pages were taken over; NULL, or what doesn't fit together.
    cdef int i, seg
    cdef Lru* l
    cdef uint64_t most = s.ghosts.most, from_ = k.ghosts
    for i in range(f.waiting if f.waiting < WAITING else WAITING):
        link_one(s, f, i)
    if f.items != k.items or f.pieces != f.linked_pieces:
        return b"items are missing"
    for i in range(1, s.arena.lists + 1):
        for seg in range(4):
            l = &s.lru[i][seg]
            if f.followed[i][seg] != f.preceded[i][seg] or (l.head == 0) != (l.tail == 0):
                return b"a list makes no sense"
            if l.head and not (head_stands(s, k, i, seg, l.head) and head_stands(s, k, i, seg, l.tail)):
                return b"a list makes no sense"
    s.n.total_items = f.items
    if from_ <= most:                           # in a smaller memory they are forgotten
        s.ghosts.size = from_
        memcpy(s.ghosts.entry, kept_pages(k) + k.pages, from_ * sizeof(Ghost))
    s.flush_at = k.flush_at
    s.flush_again = k.flush_again
    return NULL


cdef inline bint head_stands(Store* s, KeptHead* k, int cls, int seg, uint32_t h) noexcept nogil:
    # Whether this end of a list is an item of it.
    cdef Item* it
    if not is_chunk(&s.arena, kept_pages(k), k.pages, h):
        return 0
    it = item_at(&s.arena, h)
    return it.state & S_LINKED != 0 and it.cls == cls and list_id(it.seg & SEG_MASK) == seg
