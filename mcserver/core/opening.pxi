# Opening: what an engine's settings allow, the memory that it takes, and the slab classes. Included by engine.pyx.
#
# Owns the limits of settings and the words in which one, or the system, is refused. Must never be lenient: whatever it lets
# pass has to work.

MEMORY_LIMIT_LEAST = 2 << 20
MEMORY_LIMIT_MOST = (<uint64_t> 1 << (32 + MAX_SHIFT)) - PAGE_SIZE_MOST

cdef enum:
    HASHPOWER = 16              # of the index at its start

cdef object RESERVED = 32 << 30         # bytes of address space: so far the limit of a running engine can be raised
cdef dict PROTOCOLS = {"auto-negotiate": PROTOCOL_AUTO, "ascii": PROTOCOL_ASCII, "binary": PROTOCOL_BINARY}


cdef int check_sizes(memory_limit, item_size_max, chunk_size, growth_factor, slab_sizes, slab_chunk_max) except -1:
    # Raises ValueError. In bytes, but for the growth factor.
    if memory_limit < MEMORY_LIMIT_LEAST:
        raise ValueError("the memory limit must be at least 2 megabytes")
    if memory_limit > MEMORY_LIMIT_MOST:
        raise ValueError(f"the memory limit can be at most {MEMORY_LIMIT_MOST >> 20} megabytes")
    if not 1024 <= item_size_max <= min(memory_limit // 2, 1 << 30):
        raise ValueError("the item size limit must be at least 1024 bytes and at most half of the memory limit and 1g")
    if growth_factor <= 1:
        raise ValueError("the slab growth factor must be greater than 1")
    if chunk_size < 1:
        raise ValueError("the smallest slab chunk must be at least 1 byte")
    if slab_sizes and min(slab_sizes) < HEADER:
        raise ValueError(f"slab_sizes must be at least {HEADER} bytes each, which an item's header takes")
    if not 1024 <= slab_chunk_max <= PAGE_SIZE_MOST or PAGE_SIZE_MOST % slab_chunk_max:
        raise ValueError("slab_chunk_max must be 1 to 1024 kilobytes, and divide 1024 evenly")
    return 0


cdef int check_policy(protocol, room_for, hot_lru_pct, warm_lru_pct) except -1:
    # Raises ValueError.
    if not (1 <= hot_lru_pct <= 79 and 1 <= warm_lru_pct <= 79 and hot_lru_pct + warm_lru_pct <= 80):
        raise ValueError("hot_lru_pct and warm_lru_pct must be 1 to 79 and together at most 80")
    if room_for not in ("requests", "bytes"):
        raise ValueError("room_for must be requests or bytes")
    if protocol not in PROTOCOLS:
        raise ValueError("protocol is auto-negotiate, ascii or binary")
    return 0


cdef void lists_begin(Store* s) noexcept:
    # Of values on their way in and out: none.
    s.uploads.next = &s.uploads
    s.uploads.prev = &s.uploads
    s.readers.next = &s.readers
    s.readers.prev = &s.readers


cdef int open_arena(Store* s, reserve, int memory_fd, uint32_t page_bits) except -1:
    # The address space of the items. Raises MemoryError.
    if arena_open(&s.arena, s.memory_limit, reserve, memory_fd, page_bits) != 0:
        raise MemoryError(f"the system refuses {s.memory_limit >> 20} megabytes of address space: lower -m")
    return 0


cdef int open_tables(Store* s, int power, bytes seed) except -1:
    # What is kept beside the items, when their classes are made. Raises MemoryError.
    if ghosts_open(&s.ghosts, ghosts_for(s.memory_limit)) != 0:
        raise MemoryError("the system refuses address space: lower -m")
    s.arena.pages_limit = pages_for(s, s.memory_limit)
    if index_open(&s.index, s.arena.reserved // HEADER, power) != 0:
        raise MemoryError("the system refuses address space for the hash table: lower -m")
    s.mrc = mrc_open(s.memory_limit, mrc_budget(s.memory_limit))
    if s.mrc == NULL:
        raise MemoryError
    s.mrc.by_bytes = s.room_for_bytes
    s.index.k0 = int.from_bytes(seed[:8], "little")
    s.index.k1 = int.from_bytes(seed[8:], "little")
    rules_open(&s.rules, int.from_bytes(os.urandom(8), "little"))
    return 0


cdef int make_classes(Store* s, chunk_size, growth_factor, slab_sizes) except -1:
    # Classes that grow by a factor from the smallest chunk on, or those of the sizes. Raises ValueError for other sizes than
    # can be.
    cdef Arena* a = &s.arena
    cdef uint32_t unit = 1 << a.shift
    cdef object slab_chunk_max = s.slab_chunk_max
    largest = min(slab_chunk_max, PIECE_MOST, a.page_size // CHUNKS_LEAST)
    if not slab_sizes:
        first = min((HEADER + chunk_size + unit - 1) // unit * unit, largest)
        arena_classes(a, first, growth_factor, largest)
        make_bands(s, growth_factor)
        return 0
    if len(slab_sizes) > MAX_CLASSES - 2 or list(slab_sizes) != sorted(set(slab_sizes)):
        raise ValueError("slab_sizes must be at most 62 sizes, each greater than the one before")
    a.classes = 0
    for size in slab_sizes:
        size = (size + unit - 1) // unit * unit         # of a whole chunk, the item's header included
        if size > slab_chunk_max:
            raise ValueError("slab_sizes can be at most slab_chunk_max")
        if size >= largest or a.classes and size <= a.cls[a.classes].size:
            continue
        arena_add_class(a, size)
    arena_add_class(a, largest)
    make_bands(s, 1.25)
    return 0


cdef int make_bands(Store* s, factor) except -1:
    # Of the sizes above the largest class.
    cdef Arena* a = &s.arena
    arena_tails(a)
    most = s.item_size_max + HEADER
    ids = MAX_CLASSES - 1 - a.lists
    if ids > 0:
        factor = max(factor, (most / a.cls[a.classes].size) ** (1 / ids))
        arena_bands(a, factor, most)
    return 0


cdef uint32_t pages_for(Store* s, uint64_t limit) noexcept:
    # Pages of a memory of so many bytes; a large table of ghosts is taken off.
    cdef uint64_t ghosts = ghosts_beyond(s.ghosts.most)
    return <uint32_t> ((limit - ghosts if limit > 2 * ghosts else limit // 2) >> s.arena.page_bits)
