# Memory: one mapping in pages, each cut into chunks of one slab class.
#
# Owns the arena, its pages and its classes: who has which page, which chunks are free. Must never know what a key,
# a client or a command is; who is evicted to make room is decided in room.pxd.
#
# A handle is 32 bits: the chunk's offset in the arena >> shift. Page 0 is never used, so handle 0 is "none".
# The limit holds by construction: pages are only handed out while pages_used < pages_limit.
#
# Slab classes have the ids 1 to `classes`; the chunks of the last one are also the pieces that larger values lie in. Ids
# from there to `lists` are bands: they have no chunks, only a list each of the large items of about one size.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from *:
    void fetch_ahead "__builtin_prefetch"(const void*) noexcept nogil

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    enum: PROT_READ, PROT_WRITE, PROT_NONE, MAP_PRIVATE, MAP_SHARED, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE
    enum: MADV_DONTNEED, MADV_HUGEPAGE
    void* MAP_FAILED

cdef extern from "<fcntl.h>" nogil:
    int fallocate(int fd, int mode, long offset, long length)

cdef extern from "<unistd.h>" nogil:
    int close_file "close"(int fd)

# Under AddressSanitizer (scripts/asan) a free chunk's bytes behind its header, and those of a chunk that its item does not
# need, may not be touched. Otherwise these do nothing.
cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #include <sanitizer/asan_interface.h>
    #define MEMORY_HIDE(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
    #define MEMORY_SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
    #else
    #define MEMORY_HIDE(p, n) ((void) 0)
    #define MEMORY_SHOW(p, n) ((void) 0)
    #endif
    """
    void MEMORY_HIDE(void* p, size_t n) nogil
    void MEMORY_SHOW(void* p, size_t n) nogil

cdef enum:
    HUGE_PAGE = 1 << 21
    PAGE_BITS_MOST = 20         # pages of 1 MiB from -m 256 on,
    PAGE_BITS_LEAST = 16        # ... and of 64 KiB for -m 16 and less
    PAGE_SIZE_MOST = 1 << 20
    PAGES_WANTED = 256          # of less memory
    PIECE_MOST = 16384          # bytes of the largest chunk: what does not fit lies in pieces of this size
    CHUNKS_LEAST = 8            # of the largest size in a page: small pages have smaller pieces
    MAX_CLASSES = 64            # ids 1 to 63, as memcached counts them
    CLASSES_MOST = 50           # of them slab classes that follow from -n and -f; the others are left for bands
    HEADER = 48                 # bytes of Item before the key
    TAILS = 2                   # slab classes for what is left of a large value behind its last whole piece
    TAIL_PIECES = 3             # of one of them before the next larger one is taken
    LINKS = 8                   # bytes behind the key of a large item: the handles of its first and last piece
    HOLE = 3                    # fallocate's mode: PUNCH_HOLE and KEEP_SIZE, whose headers differ
    MADV_DONTNEED_LOCKED = 24   # Linux 5.18; newer than some headers
    MIN_SHIFT = 3
    MAX_SHIFT = 6

# What stands in Item.state. A free chunk's state is 0.
cdef enum:
    S_USED = 1                  # allocated: an item, linked or being filled, or a piece of a large value
    S_LINKED = 2                # in the index and in an LRU
    S_PIECE = 4                 # a piece of a large value: see `next` and `prev`
    S_LARGE = 8                 # its value lies in pieces; their first and last handle follow the key
    S_FETCHED = 16              # hit since it was stored
    S_BINARY = 64               # its key came base64-encoded
    S_STALE = 128

# Item.seg: the list in the low bits (see lists.pxd), how often it was used, and marks.
cdef enum:
    HOT = 0                     # new
    WARM = 1                    # in the ring, used since it last passed the ring's end
    COLD = 2                    # in the ring, not used since
    TEMP = 3                    # about to expire
    SEG_MASK = 3
    G_TOKEN = 4                 # a client was told that it won the right to refresh this item
    G_USE = 8                   # uses since, 0 to 3, in two bits
    G_USES = 24
    G_DUE = 32                  # counted among those that expire (see expiry.pxd)

cdef struct Item:              # 48 bytes; the key follows at once
    uint32_t h_next             # next item in the index bucket; next free chunk; next piece
    uint32_t next               # list neighbours (towards the tail, towards the head). Of a piece: `prev` is the piece before
    uint32_t prev               # it, or the item if it is the first; `next` of the last one is the item, else 0
    uint32_t time               # last access, in ticks of 1/16 s; of a piece: a hint where one lies that comes a little later
    uint32_t used               # the same on the clock of traffic (Store.clock)
    uint32_t exptime            # second of expiry on the engine's clock; 0 never
    uint32_t nbytes             # length of the value (of this piece, in a piece)
    uint32_t flags              # client flags
    uint64_t cas
    uint16_t epoch              # flushes seen when it was stored
    uint16_t refs               # who still needs this memory though it be unlinked
    uint8_t nkey
    uint8_t cls                 # the list's class: the slab class, or a band for a large value
    uint8_t state
    uint8_t seg

cdef struct Page:
    uint32_t free               # first free chunk
    uint32_t fresh              # chunks at this index and above were never handed out
    uint32_t used
    uint32_t next               # neighbours among its class's pages with room, or in the pool
    uint32_t prev
    uint8_t cls                 # 0: in the pool
    uint8_t has_room
    uint8_t leaving             # being emptied: its chunks are not handed out again
    uint32_t tried              # the attempt (Store.attempt) at which it last could not be emptied

cdef struct SlabClass:
    uint32_t size               # bytes of a chunk
    uint32_t per_page
    uint32_t pages
    uint32_t used
    uint32_t room               # first page with a free chunk
    uint32_t empty              # pages with no chunk in use

cdef struct Arena:
    char* base                  # page 1 begins on a boundary of HUGE_PAGE
    int fd                      # a file whose memory the pages are: page 1 lies at HUGE_PAGE in it; -1: none
    void* mapped
    size_t reserved             # bytes of address space, from `mapped` on
    uint32_t shift
    uint32_t page_bits
    uint32_t page_size
    uint32_t pages_max
    uint32_t pages_limit
    uint32_t pages_used
    uint32_t high               # pages from here on were never touched
    uint32_t pool               # pages given back, as a list
    uint32_t pooled
    Page* page
    int classes                 # the largest slab class id
    int lists                   # the largest band's; `classes` if there is none
    int tail[TAILS]             # about a quarter and a sixteenth of a piece; the piece's own class where there is none
    SlabClass cls[MAX_CLASSES]


cdef inline Item* item_at(Arena* a, uint32_t h) noexcept nogil:
    return <Item*> (a.base + (<size_t> h << a.shift))


cdef inline uint32_t page_of(Arena* a, uint32_t h) noexcept nogil:
    return <uint32_t> ((<size_t> h << a.shift) >> a.page_bits)


cdef inline uint32_t chunk_in(Arena* a, uint32_t page, uint32_t index) noexcept nogil:
    return <uint32_t> ((((<size_t> page) << a.page_bits) + <size_t> index * a.cls[a.page[page].cls].size) >> a.shift)


cdef inline int first_that_holds(Arena* a, size_t size, int low, int high) noexcept nogil:
    # Of the ids low to high, whose sizes grow, the first of at least `size`; high if none is.
    cdef int mid
    while low < high:
        mid = (low + high) >> 1
        if a.cls[mid].size >= size:
            high = mid
        else:
            low = mid + 1
    return low


cdef inline int arena_class(Arena* a, size_t size) noexcept nogil:
    # The smallest class whose chunks hold `size` bytes; 0 if none does.
    return first_that_holds(a, size, 1, a.classes) if size <= a.cls[a.classes].size else 0


cdef inline int arena_piece_class(Arena* a, uint64_t n) noexcept nogil:
    # The class for the next piece of a value of which n bytes are left: few classes, so that few pages lie half empty.
    cdef int i, cls = a.classes
    for i in range(TAILS):
        if n > <uint64_t> TAIL_PIECES * (a.cls[a.tail[i]].size - HEADER):
            break
        cls = a.tail[i]
    return cls


cdef inline int arena_band(Arena* a, size_t size) noexcept nogil:
    # The band of a large item of so many bytes; the last one takes all that are larger.
    return first_that_holds(a, size, a.classes if a.classes == a.lists else a.classes + 1, a.lists)


cdef inline void room_add(Arena* a, uint32_t p) noexcept nogil:
    cdef Page* page = &a.page[p]
    cdef SlabClass* c = &a.cls[page.cls]
    page.has_room = 1
    page.prev = 0
    page.next = c.room
    if c.room:
        a.page[c.room].prev = p
    c.room = p


cdef inline void room_remove(Arena* a, uint32_t p) noexcept nogil:
    cdef Page* page = &a.page[p]
    if not page.has_room:
        return
    page.has_room = 0
    if page.prev:
        a.page[page.prev].next = page.next
    else:
        a.cls[page.cls].room = page.next
    if page.next:
        a.page[page.next].prev = page.prev


cdef inline long file_offset(Arena* a, uint32_t p) noexcept nogil:
    return <long> ((<size_t> (p - 1) << a.page_bits) + HUGE_PAGE)


cdef inline bint page_give(Arena* a, int cls) noexcept nogil:
    # Hands one unused page to a class; 0 when the limit is reached.
    cdef uint32_t p
    cdef Page* page
    if a.pages_used >= a.pages_limit:
        return 0
    p = a.pool if a.pool else a.high
    if p > a.pages_max:
        return 0
    if a.fd >= 0 and fallocate(a.fd, 0, file_offset(a, p), a.page_size) != 0:
        return 0                        # the file's system is full: better no memory than a SIGBUS
    page = &a.page[p]
    if a.pool:
        a.pool = page.next
        a.pooled -= 1
    else:
        a.high += 1
    memset(page, 0, sizeof(Page))
    MEMORY_SHOW(a.base + (<size_t> p << a.page_bits), a.page_size)
    page.cls = <uint8_t> cls
    a.pages_used += 1
    a.cls[cls].pages += 1
    a.cls[cls].empty += 1
    room_add(a, p)
    return 1


cdef inline void page_return(Arena* a, uint32_t p) noexcept nogil:
    # An empty page goes from its class back to the pool.
    cdef Page* page = &a.page[p]
    room_remove(a, p)
    a.cls[page.cls].pages -= 1
    a.cls[page.cls].empty -= 1
    a.pages_used -= 1
    page.cls = 0
    page.next = a.pool
    a.pool = p
    a.pooled += 1


cdef inline uint32_t chunk_take(Arena* a, int cls) noexcept nogil:
    # A free chunk of the class, marked S_USED; 0 when the class has none and no page is left.
    cdef SlabClass* c = &a.cls[cls]
    cdef Page* page
    cdef Item* it
    cdef uint32_t h
    if not c.room and not page_give(a, cls):
        return 0
    page = &a.page[c.room]
    if page.free:
        h = page.free
        it = item_at(a, h)
        page.free = it.h_next
    else:
        h = chunk_in(a, c.room, page.fresh)
        it = item_at(a, h)
        page.fresh += 1
    if page.used == 0:
        c.empty -= 1
    page.used += 1
    c.used += 1
    if not page.free and page.fresh == c.per_page:
        room_remove(a, c.room)
    it.state = S_USED
    MEMORY_SHOW(<char*> it + HEADER, c.size - HEADER)
    return h


cdef inline void chunk_needs(Arena* a, uint32_t h, size_t n) noexcept nogil:
    # Of this chunk only the first n bytes will be used.
    cdef uint32_t size = a.cls[a.page[page_of(a, h)].cls].size
    if n < size:
        MEMORY_HIDE(<char*> item_at(a, h) + n, size - n)


cdef inline void chunk_give_back(Arena* a, uint32_t h) noexcept nogil:
    cdef uint32_t p = page_of(a, h)
    cdef Page* page = &a.page[p]
    cdef SlabClass* c = &a.cls[page.cls]
    cdef Item* it = item_at(a, h)
    it.state = 0
    MEMORY_HIDE(<char*> it + HEADER, c.size - HEADER)
    page.used -= 1
    c.used -= 1
    if page.leaving:
        if page.used == 0:
            c.empty += 1
        return
    it.h_next = page.free
    page.free = h
    if not page.has_room:
        room_add(a, p)
    if page.used == 0:
        c.empty += 1


cdef inline bint empty_page_reclaim(Arena* a) noexcept nogil:
    # A class keeps its empty pages; when memory is short the pool takes one.
    cdef int i
    cdef uint32_t p
    for i in range(1, a.classes + 1):
        if a.cls[i].empty:
            p = a.cls[i].room
            while p:
                if a.page[p].used == 0:
                    page_return(a, p)
                    return 1
                p = a.page[p].next
    return 0


cdef inline uint32_t arena_trim(Arena* a, uint32_t most) noexcept nogil:
    # Gives up to `most` pooled pages' memory back to the system; returns how many. They stay usable.
    cdef uint32_t p = a.pool, done = 0
    while p and done < most:
        if a.page[p].fresh:
            if a.fd >= 0:
                fallocate(a.fd, HOLE, file_offset(a, p), a.page_size)
            elif madvise(a.base + (<size_t> p << a.page_bits), a.page_size, MADV_DONTNEED) != 0:
                madvise(a.base + (<size_t> p << a.page_bits), a.page_size, MADV_DONTNEED_LOCKED)    # of locked memory (-k)
            a.page[p].fresh = 0
            done += 1
        p = a.page[p].next
    return done


cdef inline void arena_add_class(Arena* a, uint32_t size) noexcept nogil:
    a.classes += 1
    a.cls[a.classes].size = size
    a.cls[a.classes].per_page = a.page_size // size
    a.lists = a.classes


cdef inline void arena_classes(Arena* a, uint32_t first, double factor, uint32_t largest) noexcept nogil:
    # Sizes from `first` on, each `factor` times the one before (as memcached computes them), the last one `largest`.
    cdef uint32_t unit = <uint32_t> 1 << a.shift
    cdef double size = first
    cdef uint32_t s
    a.classes = 0
    while a.classes < CLASSES_MOST - 1:
        s = (<uint32_t> size + unit - 1) & ~(unit - 1)
        if a.classes and s <= a.cls[a.classes].size:
            s = a.cls[a.classes].size + unit
        if s >= largest:
            break
        arena_add_class(a, s)
        size = s * factor
    arena_add_class(a, largest)


cdef inline void arena_bands(Arena* a, double factor, uint64_t most) noexcept nogil:
    # Lists for items of up to `most` bytes that lie in pieces: sizes as the classes would go on, wider where ids are short.
    cdef double size = a.cls[a.classes].size
    while a.lists < MAX_CLASSES - 1 and size < most:
        size *= factor
        a.lists += 1
        a.cls[a.lists].size = <uint32_t> size if size < 4294967295.0 else <uint32_t> 0xFFFFFFFF
        a.cls[a.lists].per_page = 0


cdef inline void arena_tails(Arena* a) noexcept nogil:
    # Which classes the ends of large values lie in.
    cdef int i
    cdef uint32_t size = a.cls[a.classes].size
    for i in range(TAILS):
        size //= 4
        a.tail[i] = a.classes
        if size >= 8 * HEADER:
            a.tail[i] = arena_class(a, size)


cdef inline uint32_t page_bits_for(uint64_t limit) noexcept nogil:
    # Pages fit the memory: a 256th of it, but 64 KiB at least and 1 MiB at most. Each class has one that is half empty.
    cdef uint32_t bits = PAGE_BITS_MOST
    while bits > PAGE_BITS_LEAST and limit < <uint64_t> PAGES_WANTED << bits:
        bits -= 1
    return bits


cdef inline int arena_open(Arena* a, uint64_t limit, uint64_t reserve, int fd, uint32_t page_bits) noexcept nogil:
    # Reserves address space for `reserve` bytes or, if the system refuses, for `limit`; of a file, which is the arena's from then
    # on, if fd >= 0. 0 on success, -1 on failure.
    cdef void* where
    cdef uint64_t page_size
    a.fd = -1
    a.page_bits = page_bits
    a.page_size = <uint32_t> 1 << a.page_bits
    page_size = a.page_size
    a.shift = MIN_SHIFT
    while a.shift < MAX_SHIFT and limit + page_size > <uint64_t> 1 << (32 + a.shift):
        a.shift += 1
    if limit + page_size > <uint64_t> 1 << (32 + a.shift):
        return -1
    if reserve + page_size > <uint64_t> 1 << (32 + a.shift):
        reserve = (<uint64_t> 1 << (32 + a.shift)) - page_size
    if reserve < limit:
        reserve = limit
    while True:
        a.reserved = reserve + page_size + HUGE_PAGE
        where = mmap(NULL, a.reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if where != MAP_FAILED:
            break
        if reserve <= limit:
            return -1
        reserve = limit
    a.mapped = where
    a.base = <char*> ((<size_t> where + page_size + HUGE_PAGE - 1) & ~<size_t> (HUGE_PAGE - 1)) - page_size
    if fd >= 0 and mmap(a.base + page_size, reserve, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
                        HUGE_PAGE) == MAP_FAILED:
        munmap(a.mapped, a.reserved)
        a.base = NULL
        return -1
    madvise(a.base + page_size, reserve, MADV_HUGEPAGE)     # fewer TLB misses; if it is refused, nothing is lost
    a.pages_max = <uint32_t> (reserve >> a.page_bits)
    a.pages_limit = <uint32_t> (limit >> a.page_bits)
    a.high = 1
    a.page = <Page*> calloc(a.pages_max + 2, sizeof(Page))
    if a.page == NULL:
        munmap(a.mapped, a.reserved)
        a.base = NULL
        return -1
    a.fd = fd
    return 0


cdef inline void arena_close(Arena* a) noexcept nogil:
    if a.base != NULL:
        MEMORY_SHOW(a.base, <size_t> a.high << a.page_bits)
        munmap(a.mapped, a.reserved)
        if a.fd >= 0:
            close_file(a.fd)
        a.base = NULL
    free(a.page)
    a.page = NULL
