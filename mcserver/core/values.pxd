# Values: allocating items, filling and reading them, and the rules of storing.
#
# Owns what set, add, replace, append, prepend and cas mean (protocol page, 1.3). Must never know how a request or a
# reply is spelled. A value that fits no chunk lies in a chain of pieces; it grows at either end without being copied, and
# nobody who reads or fills it ever starts again from the first piece.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset
from .memory cimport *
from .store cimport *
from .items cimport *
from .room cimport obtain_chunk
from .slices cimport piece_replace
from .exchange cimport count_store

cdef enum:
    A_TOO_LARGE = 1
    A_NO_MEMORY = 2
    A_LATER = 3                 # making room goes on in the next slice
    SLICES_PATIENT = 1 << 20

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

cdef enum:
    PIECES_AHEAD = 3            # of a chain that is walked: fetched into the cache before they are needed

# How far a value has been filled.
cdef struct Fill:
    uint64_t done
    uint32_t in_piece           # bytes of the last piece; only of a large item

# How a store is to be done, beyond the mode. cas_given: compare; explicit: the new cas unique (0: the next one).
cdef struct How:
    bint cas_given
    uint64_t cas
    uint64_t explicit
    bint invalidate             # a lower cas than the item's stores, and leaves the item stale
    bint vivify                 # append and prepend create what is missing


cdef inline uint32_t piece_most(Store* s) noexcept nogil:
    # Bytes of a value that the largest piece takes.
    return s.arena.cls[s.arena.classes].size - HEADER


cdef inline uint32_t piece_of_class(Store* s, int cls, uint64_t n, int patience, int* error) noexcept nogil:
    cdef Arena* a = &s.arena
    cdef uint32_t take = a.cls[cls].size - HEADER, h = obtain_chunk(s, cls, patience)
    cdef Item* p
    if take > n:
        take = <uint32_t> n
    if h == 0:
        error[0] = A_LATER if s.room_later else A_NO_MEMORY
        return 0
    p = item_at(a, h)
    chunk_needs(a, h, HEADER + take)
    p.nbytes = take
    p.refs = 0
    p.nkey = 0
    p.state = S_USED | S_PIECE
    return h


cdef inline uint32_t piece_alloc(Store* s, uint64_t n, int patience, int* error) noexcept nogil:
    # A piece without a chain for the first of n bytes; its nbytes is what it will take. 0 with error A_NO_MEMORY or A_LATER.
    return piece_of_class(s, arena_piece_class(&s.arena, n), n, patience, error)


cdef inline uint32_t chunk_size(Store* s, uint32_t h) noexcept nogil:
    return s.arena.cls[s.arena.page[page_of(&s.arena, h)].cls].size


cdef inline void note_ahead(Arena* a, uint32_t item, uint32_t before, uint32_t piece) noexcept nogil:
    # The piece that lies PIECES_AHEAD before this one is told where it is.
    cdef int i
    for i in range(PIECES_AHEAD - 1):
        if before == 0 or before == item:
            return
        before = item_at(a, before).prev
    if before and before != item:
        item_at(a, before).time = piece


cdef inline void chain_behind(Store* s, uint32_t item, uint32_t first, uint32_t last) noexcept nogil:
    # A chain of pieces becomes the end of a large item's.
    cdef Arena* a = &s.arena
    cdef Item* it = item_at(a, item)
    cdef uint32_t before = last_piece(it)
    note_ahead(a, item, before, first)
    item_at(a, first).prev = before if before else item
    item_at(a, last).h_next = 0
    item_at(a, last).next = item
    if before:
        item_at(a, before).h_next = first
        item_at(a, before).next = 0
    else:
        set_first_piece(it, first)
    set_last_piece(it, last)


cdef inline void chain_before(Store* s, uint32_t item, uint32_t first, uint32_t last) noexcept nogil:
    # A chain of pieces becomes the beginning of a large item's, which has some already.
    cdef Arena* a = &s.arena
    cdef Item* it = item_at(a, item)
    cdef uint32_t after = first_piece(it)
    item_at(a, first).prev = item
    item_at(a, last).h_next = after
    item_at(a, last).next = 0
    item_at(a, after).prev = last
    set_first_piece(it, first)


cdef inline uint32_t item_alloc(Store* s, const char* key, size_t nkey, uint32_t flags, uint32_t expires,
                                uint64_t nbytes, int* error) noexcept nogil:
    # An unlinked item with refs 1 and an unfilled value, of a large one only the first piece. 0 with error A_TOO_LARGE or
    # A_NO_MEMORY.
    cdef Arena* a = &s.arena
    cdef uint64_t need = HEADER + nkey + nbytes
    cdef int cls
    cdef uint32_t h, piece
    cdef Item* it
    cdef bint large = 0
    if printed_size(s, nkey, flags, nbytes) > s.item_size_max:
        error[0] = A_TOO_LARGE
        return 0
    error[0] = A_NO_MEMORY
    cls = arena_class(a, need)
    if cls == 0:
        large = 1
        need = HEADER + nkey + LINKS
        cls = arena_class(a, need)
    h = obtain_chunk(s, cls, SLICES_PATIENT)
    if large:
        cls = arena_band(a, HEADER + nkey + nbytes)
    if h == 0:
        s.cls[cls].outofmemory += 1
        return 0
    it = item_at(a, h)
    chunk_needs(a, h, need)
    it.exptime = expires
    it.nbytes = <uint32_t> nbytes
    it.cas = 0
    it.flags = flags
    it.refs = 1
    it.nkey = <uint8_t> nkey
    it.cls = <uint8_t> cls
    it.seg = 0
    count_store(s, cls, HEADER + nkey + nbytes)
    memcpy(key_of(it), key, nkey)
    if large:
        it.state = S_USED | S_LARGE
        set_first_piece(it, 0)
        set_last_piece(it, 0)
        piece = piece_alloc(s, nbytes, SLICES_PATIENT, error)
        if piece == 0:
            s.cls[cls].outofmemory += 1
            it.refs = 0
            item_free(s, h)
            return 0
        chain_behind(s, h, piece, piece)
    return h


cdef inline char* fill_at(Store* s, uint32_t h, Fill* f, int patience, uint64_t* length, int* error) noexcept nogil:
    # Where the value goes on, and how much fits there; takes another piece when it must. NULL with error A_NO_MEMORY or A_LATER.
    cdef Item* it = item_at(&s.arena, h)
    cdef Item* p
    cdef uint32_t piece
    if not it.state & S_LARGE:
        length[0] = it.nbytes - f.done
        return value_of(it) + f.done
    p = item_at(&s.arena, last_piece(it))
    if f.in_piece == p.nbytes:
        piece = piece_alloc(s, it.nbytes - f.done, patience, error)
        if piece == 0:
            return NULL
        chain_behind(s, h, piece, piece)
        f.in_piece = 0
        p = item_at(&s.arena, piece)
    length[0] = p.nbytes - f.in_piece
    return <char*> p + HEADER + f.in_piece


cdef inline void fill_done(Fill* f, uint64_t n) noexcept nogil:
    # n bytes, of one stretch, are there.
    f.done += n
    f.in_piece += <uint32_t> n


cdef inline bint value_fill(Store* s, uint32_t h, Fill* f, const char* source, uint64_t n, int patience, int* error) noexcept nogil:
    # Puts n bytes more into the value, as far as it goes: 0 with error A_NO_MEMORY or A_LATER.
    cdef uint64_t length
    cdef char* at
    while n:
        at = fill_at(s, h, f, patience, &length, error)
        if at == NULL:
            return 0
        if length > n:
            length = n
        memcpy(at, source, length)
        fill_done(f, length)
        source += length
        n -= length
    return 1


cdef inline void value_read(Store* s, Item* it, char* to) noexcept nogil:
    # The whole value.
    cdef uint32_t h
    cdef Item* p
    cdef uint64_t left = it.nbytes, n
    if not it.state & S_LARGE:
        memcpy(to, value_of(it), left)
        return
    h = first_piece(it)
    while left:
        p = item_at(&s.arena, h)
        n = p.nbytes if p.nbytes < left else left
        memcpy(to, <char*> p + HEADER, n)
        to += n
        left -= n
        h = p.h_next


cdef inline uint64_t value_begin(Store* s, Item* it, char* to, uint64_t most) noexcept nogil:
    # The value's first bytes, at most so many; returns how many.
    cdef uint32_t h
    cdef Item* p
    cdef uint64_t done = 0, n
    if most > it.nbytes:
        most = it.nbytes
    if not it.state & S_LARGE:
        memcpy(to, value_of(it), most)
        return most
    h = first_piece(it)
    while done < most:
        p = item_at(&s.arena, h)
        n = p.nbytes if p.nbytes < most - done else most - done
        memcpy(to + done, <char*> p + HEADER, n)
        done += n
        h = p.h_next
    return most


cdef inline bint value_is_read(Store* s, Item* it) noexcept nogil:
    # Whether somebody is sending it, or a piece of it that an older value had, so that no byte of it may change.
    cdef uint32_t h
    if it.refs or not it.state & S_LARGE:
        return it.refs != 0
    h = first_piece(it)
    while h:
        if item_at(&s.arena, h).refs:
            return 1
        h = item_at(&s.arena, h).h_next
    return 0


cdef inline void value_pad(Store* s, Item* it, const char* text, uint64_t n) noexcept nogil:
    # Becomes this text, and blanks up to the length that it has; nobody may be reading it.
    cdef uint32_t h
    cdef Item* p
    cdef uint64_t left = it.nbytes, here, own
    cdef char* at
    h = first_piece(it) if it.state & S_LARGE else 0
    while left:
        here = left
        at = value_of(it)
        if h:
            p = item_at(&s.arena, h)
            here = p.nbytes if p.nbytes < left else left
            at = <char*> p + HEADER
            h = p.h_next
        own = n if n < here else here
        memcpy(at, text, own)
        memset(at + own, c' ', here - own)
        text += own
        n -= own
        left -= here


cdef inline uint32_t piece_wider(Store* s, uint32_t h, uint32_t more, bint front, int* error) noexcept nogil:
    # The first or last piece of a pinned item, with room for `more` bytes at that end: itself, or a copy in its place. 0 when
    # it would be too large, somebody who reads from it would be disturbed, or there is no memory.
    cdef Arena* a = &s.arena
    cdef uint32_t has = item_at(a, h).nbytes, want = has + more, new
    if front and item_at(a, h).refs:
        return 0
    if want <= chunk_size(s, h) - HEADER:
        MEMORY_SHOW(<char*> item_at(a, h) + HEADER, want)
        return h
    if want > piece_most(s) or item_at(a, h).refs:
        return 0
    item_at(a, h).refs += 1             # stays where it is meanwhile
    new = piece_of_class(s, arena_class(a, HEADER + (want if 2 * has < want or 2 * has > piece_most(s) else 2 * has)), want,
                         SLICES_PATIENT, error)
    item_at(a, h).refs -= 1
    return piece_replace(s, h, new) if new else 0


cdef inline bint grow_by_bytes(Store* s, uint32_t item, const char* more, uint32_t n, bint front, int* error) noexcept nogil:
    # A few bytes (no more than a piece) at either end of a pinned large item. 0: out of memory, and nothing has changed.
    cdef Item* it = item_at(&s.arena, item)
    cdef Item* p
    cdef uint32_t h
    h = piece_wider(s, first_piece(it) if front else last_piece(it), n, front, error)
    if h:
        p = item_at(&s.arena, h)
        if front:
            memmove(<char*> p + HEADER + n, <char*> p + HEADER, p.nbytes)
        memcpy(<char*> p + HEADER + (0 if front else p.nbytes), more, n)
        p.nbytes += n
        return 1
    h = piece_of_class(s, arena_class(&s.arena, HEADER + n), n, SLICES_PATIENT, error)     # one piece for all of them
    if h == 0:
        return 0
    memcpy(<char*> item_at(&s.arena, h) + HEADER, more, n)
    if front:
        chain_before(s, item, h, h)
    else:
        chain_behind(s, item, h, h)
    return 1


cdef inline bint grow(Store* s, uint32_t item, uint32_t extra, bint front, int* error) noexcept nogil:
    # The value of `extra` becomes the beginning or the end of a large item's, whose nbytes the caller changes; both are pinned.
    # Pieces only change hands; what lies in one chunk is copied. 0: out of memory, and nothing has changed.
    cdef Item* more = item_at(&s.arena, extra)
    cdef uint32_t n = more.nbytes
    if not more.state & S_LARGE:
        if n and not grow_by_bytes(s, item, value_of(more), n, front, error):
            return 0
    elif front:
        chain_before(s, item, first_piece(more), last_piece(more))
    else:
        chain_behind(s, item, first_piece(more), last_piece(more))
    if more.state & S_LARGE:
        set_first_piece(more, 0)
        set_last_piece(more, 0)
        more.nbytes = 0
    return 1


cdef inline bint extend_in_place(Store* s, uint32_t old, uint32_t extra, bint after, int* error) noexcept nogil:
    # append or prepend to a large linked item. Who is reading it goes on to read what it was. 0: out of memory, or it was
    # unlinked meanwhile: a set of its key, on its way in, was refused to make room.
    cdef Item* it = item_at(&s.arena, old)
    cdef uint32_t n = item_at(&s.arena, extra).nbytes
    cdef bint grown
    it.refs += 1                # must survive the allocation
    grown = grow(s, old, extra, not after, error) and it.state & S_LINKED
    if grown:
        list_remove(s, old, it)
        count_out(s, it)
        it.nbytes += n
        it.cls = <uint8_t> arena_band(&s.arena, HEADER + it.nkey + <uint64_t> it.nbytes)
        it.state &= ~(S_FETCHED | S_STALE | S_BINARY)
        it.seg &= ~G_TOKEN
        renumber(s, it)
        s.n.total_items += 1
        item_touch(s, it)
        list_push(s, old, it, it.seg & SEG_MASK)
        count_in(s, it)
    item_release(s, old)
    return grown


cdef inline uint32_t joined(Store* s, uint32_t old, uint32_t new, bint after) noexcept nogil:
    # A new item of the old one's value, which lies in one chunk, and the new one's; 0 when it doesn't fit. The caller lets go
    # of `new` in any case, and of `old`, which is pinned.
    cdef Item* a = item_at(&s.arena, old)
    cdef Item* b = item_at(&s.arena, new)
    cdef Fill f
    cdef int error
    cdef uint32_t h
    a.refs += 1                 # must survive the allocation
    if b.state & S_LARGE:
        if printed_size(s, a.nkey, a.flags, <uint64_t> a.nbytes + b.nbytes) > s.item_size_max \
                or not grow_by_bytes(s, new, value_of(a), a.nbytes, after, &error):
            return 0
        b.nbytes += a.nbytes
        b.cls = <uint8_t> arena_band(&s.arena, HEADER + b.nkey + <uint64_t> b.nbytes)
        b.flags = a.flags
        b.exptime = a.exptime
        b.state &= ~S_BINARY
        b.refs += 1
        return new
    h = item_alloc(s, key_of(a), a.nkey, a.flags, a.exptime, <uint64_t> a.nbytes + b.nbytes, &error)
    if h:
        f.done = 0
        f.in_piece = 0
        if not value_fill(s, h, &f, value_of(a if after else b), a.nbytes if after else b.nbytes, SLICES_PATIENT, &error) \
                or not value_fill(s, h, &f, value_of(b if after else a), b.nbytes if after else a.nbytes, SLICES_PATIENT, &error):
            item_release(s, h)
            return 0
    return h


cdef inline Status store_item(Store* s, uint32_t h, uint64_t hv, Mode mode, How* how, uint32_t* stored) noexcept nogil:
    # Stores the filled item h by the rules of the mode and lets go of it. `stored` is the item that is now linked, or 0.
    cdef Item* it = item_at(&s.arena, h)
    cdef uint32_t old = item_find(s, key_of(it), it.nkey, hv)
    cdef Item* was = item_at(&s.arena, old) if old else NULL
    cdef uint32_t new
    cdef int error = 0
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
            if was.state & S_LARGE:
                if printed_size(s, was.nkey, was.flags, <uint64_t> was.nbytes + it.nbytes) > s.item_size_max \
                        or not extend_in_place(s, old, h, mode == M_APPEND, &error):
                    item_release(s, h)
                    return R_NOT_STORED
                was.cas = how.explicit if how.explicit and s.use_cas else new_cas(s)
                item_release(s, h)
                stored[0] = old
                return R_STORED
            new = joined(s, old, h, mode == M_APPEND)
            item_release(s, h)
            if new and not was.state & S_LINKED:        # see extend_in_place
                item_release(s, new)
                new = 0
            item_release(s, old)
            if not new:
                return R_NOT_STORED
            h = new
            it = item_at(&s.arena, h)
        elif not how.vivify:
            item_release(s, h)
            return R_NOT_STORED
    it.cas = how.explicit if how.explicit and s.use_cas else new_cas(s)
    item_replace(s, old, h, hv)
    stored[0] = h
    return R_STORED

