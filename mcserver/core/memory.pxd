# Memory: one mapping in pages of 1 MiB, cut into chunks by slab class.
#
# Owns the arena, its pages and its classes: who has which page, which chunks are free. Must never know what a key,
# a client or a command is; who is evicted to make room is decided in items.pxd.
#
# A handle is 32 bits: the chunk's offset in the arena >> shift. Page 0 is never used, so handle 0 is "none".
# The limit holds by construction: pages are only handed out while pages_used < pages_limit.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    enum: PROT_READ, PROT_WRITE, PROT_NONE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_DONTNEED, MADV_HUGEPAGE
    void* MAP_FAILED

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
    PAGE_BITS = 20
    PAGE_SIZE = 1 << 20
    MAX_CLASSES = 64            # ids 1 to 63, as memcached counts them
    HEADER = 44                 # bytes of Item before the key
    MIN_SHIFT = 3
    MAX_SHIFT = 6

# What stands in Item.state. A free chunk's state is 0.
cdef enum:
    S_USED = 1                  # allocated: an item, linked or being filled, or a piece of a large value
    S_LINKED = 2                # in the index and in an LRU
    S_PIECE = 4                 # a piece of a large value; `next` is its owner, `h_next` the following piece
    S_LARGE = 8                 # its value lies in pieces; the first piece's handle follows the key
    S_FETCHED = 16              # hit since it was stored
    S_ACTIVE = 32               # hit twice
    S_BINARY = 64               # its key came base64-encoded
    S_STALE = 128

# Item.seg: the LRU in the low bits, and one more mark.
cdef enum:
    HOT = 0
    WARM = 1
    COLD = 2
    TEMP = 3
    SEG_MASK = 3
    G_TOKEN = 4                 # a client was told that it won the right to refresh this item

cdef struct Item:              # 44 bytes; the key follows at once
    uint32_t h_next             # next item in the index bucket; next free chunk; next piece
    uint32_t next               # LRU neighbours (towards the tail, towards the head)
    uint32_t prev
    uint32_t time               # last access, in ticks of 1/16 s
    uint32_t exptime            # second of expiry on the engine's clock; 0 never
    uint32_t nbytes             # length of the value (of this piece, in a piece)
    uint64_t cas
    uint32_t flags              # client flags
    uint16_t epoch              # flushes seen when it was stored
    uint16_t refs               # who still needs this memory though it be unlinked
    uint8_t nkey
    uint8_t cls                 # LRU class: the slab class, or the largest one for a large value
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

cdef struct SlabClass:
    uint32_t size               # bytes of a chunk
    uint32_t per_page
    uint32_t pages
    uint32_t used
    uint32_t room               # first page with a free chunk
    uint32_t empty              # pages with no chunk in use

cdef struct Arena:
    char* base                  # page 1 begins on a boundary of HUGE_PAGE
    void* mapped
    size_t reserved             # bytes of address space, from `mapped` on
    uint32_t shift
    uint32_t pages_max
    uint32_t pages_limit
    uint32_t pages_used
    uint32_t high               # pages from here on were never touched
    uint32_t pool               # pages given back, as a list
    uint32_t pooled
    Page* page
    int classes                 # the largest class id
    SlabClass cls[MAX_CLASSES]


cdef inline Item* item_at(Arena* a, uint32_t h) noexcept nogil:
    return <Item*> (a.base + (<size_t> h << a.shift))


cdef inline uint32_t page_of(Arena* a, uint32_t h) noexcept nogil:
    return <uint32_t> ((<size_t> h << a.shift) >> PAGE_BITS)


cdef inline uint32_t chunk_in(Arena* a, uint32_t page, uint32_t index) noexcept nogil:
    return <uint32_t> ((((<size_t> page) << PAGE_BITS) + <size_t> index * a.cls[a.page[page].cls].size) >> a.shift)


cdef inline int arena_class(Arena* a, size_t size) noexcept nogil:
    # The smallest class whose chunks hold `size` bytes; 0 if none does.
    cdef int low = 1, high = a.classes, mid
    if size > a.cls[high].size:
        return 0
    while low < high:
        mid = (low + high) >> 1
        if a.cls[mid].size >= size:
            high = mid
        else:
            low = mid + 1
    return low


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


cdef inline bint page_give(Arena* a, int cls) noexcept nogil:
    # Hands one unused page to a class; 0 when the limit is reached.
    cdef uint32_t p
    cdef Page* page
    if a.pages_used >= a.pages_limit:
        return 0
    if a.pool:
        p = a.pool
        a.pool = a.page[p].next
        a.pooled -= 1
    elif a.high <= a.pages_max:
        p = a.high
        a.high += 1
    else:
        return 0
    page = &a.page[p]
    memset(page, 0, sizeof(Page))
    MEMORY_SHOW(a.base + (<size_t> p << PAGE_BITS), PAGE_SIZE)
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
        if c.pages > 1:
            page_return(a, p)


cdef inline bint empty_page_reclaim(Arena* a) noexcept nogil:
    # A class may keep one page without items; when memory is short the pool takes it.
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
            madvise(a.base + (<size_t> p << PAGE_BITS), PAGE_SIZE, MADV_DONTNEED)
            a.page[p].fresh = 0
            done += 1
        p = a.page[p].next
    return done


cdef inline void arena_classes(Arena* a, uint32_t first, double factor, uint32_t largest) noexcept nogil:
    # Sizes from `first` on, each `factor` times the one before, the last one `largest` (as memcached computes them).
    cdef uint32_t unit = <uint32_t> 1 << a.shift
    cdef double size = first
    cdef int i = 0
    cdef uint32_t s
    while i < MAX_CLASSES - 2:
        s = (<uint32_t> size + unit - 1) & ~(unit - 1)
        if s > largest / factor:
            break
        if i and s <= a.cls[i].size:
            s = a.cls[i].size + unit
        i += 1
        a.cls[i].size = s
        a.cls[i].per_page = PAGE_SIZE // s
        size = s * factor
    i += 1
    a.cls[i].size = largest
    a.cls[i].per_page = PAGE_SIZE // largest
    a.classes = i


cdef inline int arena_open(Arena* a, uint64_t limit, uint64_t reserve) noexcept nogil:
    # Reserves address space for `reserve` bytes or, if the system refuses, for `limit`. 0 on success, -1 on failure.
    cdef void* where
    a.shift = MIN_SHIFT
    while a.shift < MAX_SHIFT and limit + PAGE_SIZE > <uint64_t> 1 << (32 + a.shift):
        a.shift += 1
    if limit + PAGE_SIZE > <uint64_t> 1 << (32 + a.shift):
        return -1
    if reserve + PAGE_SIZE > <uint64_t> 1 << (32 + a.shift):
        reserve = (<uint64_t> 1 << (32 + a.shift)) - PAGE_SIZE
    if reserve < limit:
        reserve = limit
    while True:
        a.reserved = reserve + PAGE_SIZE + HUGE_PAGE
        where = mmap(NULL, a.reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if where != MAP_FAILED:
            break
        if reserve <= limit:
            return -1
        reserve = limit
    a.mapped = where
    a.base = <char*> ((<size_t> where + PAGE_SIZE + HUGE_PAGE - 1) & ~<size_t> (HUGE_PAGE - 1)) - PAGE_SIZE
    madvise(a.base + PAGE_SIZE, reserve, MADV_HUGEPAGE)     # fewer TLB misses; if it is refused, nothing is lost
    a.pages_max = <uint32_t> (reserve >> PAGE_BITS)
    a.pages_limit = <uint32_t> (limit >> PAGE_BITS)
    a.high = 1
    a.page = <Page*> calloc(a.pages_max + 2, sizeof(Page))
    if a.page == NULL:
        munmap(a.mapped, a.reserved)
        a.base = NULL
        return -1
    return 0


cdef inline void arena_close(Arena* a) noexcept nogil:
    if a.base != NULL:
        MEMORY_SHOW(a.base, <size_t> a.high << PAGE_BITS)
        munmap(a.mapped, a.reserved)
        a.base = NULL
    free(a.page)
    a.page = NULL
