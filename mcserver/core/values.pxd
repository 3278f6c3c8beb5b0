# Values: allocating items, filling and reading them, and the rules of storing.
#
# Owns what set, add, replace, append, prepend and cas mean (protocol page, 1.3). Must never know how a request or a
# reply is spelled. A value that fits no chunk lies in pieces; nobody above needs to know.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from .memory cimport *
from .store cimport *
from .items cimport *
from .room cimport obtain_chunk

cdef enum:
    A_TOO_LARGE = 1
    A_NO_MEMORY = 2

cdef enum Mode:
    M_SET
    M_ADD
    M_REPLACE
    M_APPEND
    M_PREPEND
    M_CAS

cdef enum Status:
    R_STORED
    R_NOT_STORED
    R_EXISTS
    R_NOT_FOUND

# How a store is to be done, beyond the mode. cas_given: compare; explicit: the new cas unique (0: the next one).
cdef struct How:
    bint cas_given
    uint64_t cas
    uint64_t explicit
    bint invalidate             # a lower cas than the item's stores, and leaves the item stale
    bint vivify                 # append and prepend create what is missing


cdef inline bint value_pieces(Store* s, uint32_t h, Item* it, uint64_t nbytes) noexcept nogil:
    # Gives a large item its pieces, all of the largest class but the last.
    cdef Arena* a = &s.arena
    cdef uint32_t most = a.cls[a.classes].size - HEADER, n, piece, last = 0
    cdef int cls, lru_class
    cdef Item* p
    set_first_piece(it, 0)
    while nbytes:
        n = most if nbytes > most else <uint32_t> nbytes
        cls = arena_class(a, HEADER + n)
        lru_class = a.classes
        if cls != a.classes and s.lru[cls][COLD].count + s.lru[cls][HOT].count:
            lru_class = cls
        piece = obtain_chunk(s, cls, lru_class)
        if piece == 0:
            return 0
        p = item_at(a, piece)
        p.h_next = 0
        p.next = h
        p.nbytes = n
        chunk_needs(a, piece, HEADER + n)
        p.refs = 0
        p.nkey = 0
        p.state = S_USED | S_PIECE
        if last:
            item_at(a, last).h_next = piece
        else:
            set_first_piece(it, piece)
        last = piece
        nbytes -= n
    return 1


cdef inline uint32_t item_alloc(Store* s, const char* key, size_t nkey, uint32_t flags, uint32_t expires,
                                uint64_t nbytes, int* error) noexcept nogil:
    # An unlinked item with refs 1 and an unfilled value. 0 with error A_TOO_LARGE or A_NO_MEMORY.
    cdef Arena* a = &s.arena
    cdef uint64_t need = HEADER + nkey + nbytes
    cdef int cls, lru_class
    cdef uint32_t h
    cdef Item* it
    cdef bint large = 0
    if printed_size(s, nkey, flags, nbytes) > s.item_size_max:
        error[0] = A_TOO_LARGE
        return 0
    cls = arena_class(a, need)
    lru_class = cls
    if cls == 0:
        large = 1
        cls = arena_class(a, HEADER + nkey + 4)
        lru_class = a.classes
        h = obtain_chunk(s, cls, cls)
    else:
        h = obtain_chunk(s, cls, cls)
    if h == 0:
        s.cls[lru_class].outofmemory += 1
        error[0] = A_NO_MEMORY
        return 0
    s.allocated += need
    s.last_alloc[lru_class] = s.allocated
    it = item_at(a, h)
    chunk_needs(a, h, HEADER + nkey + 4 if large else need)
    it.exptime = expires
    it.nbytes = <uint32_t> nbytes
    it.cas = 0
    it.flags = flags
    it.refs = 1
    it.nkey = <uint8_t> nkey
    it.cls = <uint8_t> lru_class
    it.seg = 0
    memcpy(key_of(it), key, nkey)
    if large:
        it.state = S_USED | S_LARGE
        if not value_pieces(s, h, it, nbytes):
            s.cls[lru_class].outofmemory += 1
            error[0] = A_NO_MEMORY
            it.refs = 0
            item_free(s, h)
            return 0
    return h


cdef inline char* value_span(Store* s, Item* it, uint64_t offset, uint64_t* length) noexcept nogil:
    # The longest contiguous stretch of the value that begins at offset.
    cdef Item* p
    if not it.state & S_LARGE:
        length[0] = it.nbytes - offset
        return value_of(it) + offset
    p = item_at(&s.arena, first_piece(it))
    while offset >= p.nbytes and p.h_next:
        offset -= p.nbytes
        p = item_at(&s.arena, p.h_next)
    length[0] = p.nbytes - offset
    return <char*> p + HEADER + offset


cdef inline void value_fill(Store* s, Item* it, uint64_t offset, const char* source, uint64_t n) noexcept nogil:
    cdef uint64_t length
    cdef char* at
    while n:
        at = value_span(s, it, offset, &length)
        if length > n:
            length = n
        memcpy(at, source, length)
        offset += length
        source += length
        n -= length


cdef inline void value_copy(Store* s, Item* to, uint64_t offset, Item* source) noexcept nogil:
    # All of source's value into another item's, at offset.
    cdef uint64_t done = 0, length
    cdef char* at
    while done < source.nbytes:
        at = value_span(s, source, done, &length)
        value_fill(s, to, offset + done, at, length)
        done += length


cdef inline void item_replace(Store* s, uint32_t old, uint32_t new, uint64_t hv) noexcept nogil:
    # Links `new` (and lets go of it) in the place of `old`, if there is one.
    if old:
        item_unlink(s, old, hv)
    item_link(s, new, hv)
    item_release(s, new)


cdef inline uint32_t joined(Store* s, uint32_t old, uint32_t new, bint after) noexcept nogil:
    # A new item of the old one's value and the new one's. Takes over nothing; 0 when it doesn't fit.
    cdef Item* a = item_at(&s.arena, old)
    cdef Item* b = item_at(&s.arena, new)
    cdef Item* it
    cdef int error
    cdef uint32_t h
    a.refs += 1                 # must survive the allocation
    h = item_alloc(s, key_of(a), a.nkey, a.flags, a.exptime, <uint64_t> a.nbytes + b.nbytes, &error)
    if h:
        it = item_at(&s.arena, h)
        value_copy(s, it, 0 if after else b.nbytes, a)
        value_copy(s, it, a.nbytes if after else 0, b)
    return h


cdef inline Status store_item(Store* s, uint32_t h, uint64_t hv, Mode mode, How* how, uint32_t* stored) noexcept nogil:
    # Stores the filled item h by the rules of the mode and lets go of it. `stored` is the item that is now linked, or 0.
    cdef Item* it = item_at(&s.arena, h)
    cdef uint32_t old = item_find(s, key_of(it), it.nkey, hv)
    cdef Item* was = item_at(&s.arena, old) if old else NULL
    cdef uint32_t new
    cdef bint match = old and how.cas_given and how.cas and how.cas == was.cas
    stored[0] = 0
    if mode == M_CAS:
        if not old:
            s.n.cas_misses += 1
            item_release(s, h)
            return R_NOT_FOUND
        if match:
            s.cls[was.cls].cas_hits += 1
        elif how.invalidate and how.cas and how.cas < was.cas:
            s.cls[was.cls].cas_hits += 1
            it.exptime = was.exptime
            it.state |= S_STALE
            it.seg |= was.seg & G_TOKEN
        else:
            s.cls[was.cls].cas_badval += 1
            item_release(s, h)
            return R_EXISTS
    elif mode == M_ADD and old:
        item_update(s, old, was)
        item_release(s, h)
        return R_NOT_STORED
    elif mode == M_REPLACE and not old:
        item_release(s, h)
        return R_NOT_STORED
    elif mode == M_APPEND or mode == M_PREPEND:
        if old:
            if how.cas_given and how.cas and s.use_cas and not match:        # 0 compares nothing
                item_release(s, h)
                return R_EXISTS
            new = joined(s, old, h, mode == M_APPEND)
            item_release(s, h)
            if not new:
                item_release(s, old)
                return R_NOT_STORED
            was.refs -= 1
            h = new
            it = item_at(&s.arena, h)
        elif not how.vivify:
            item_release(s, h)
            return R_NOT_STORED
    it.cas = how.explicit if how.explicit and s.use_cas else new_cas(s)
    item_replace(s, old, h, hv)
    stored[0] = h
    return R_STORED

