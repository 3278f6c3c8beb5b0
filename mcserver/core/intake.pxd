# Intake: how a value's bytes get into its item, and what a value that is not complete may hold.
#
# Owns the item of a store from its command line to its last byte. Must never parse, nor decide what the store means. Memory is
# taken as the bytes arrive: the chunk of a small value or the first piece of a large one at the command line, each piece after
# it when the one before is full. A store that can't be completed for want of memory is answered so, and the rest is skipped.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from .memory cimport *
from .store cimport Store, boot_ms
from .items cimport item_find, item_release, item_unlink, key_of, last_piece
from .uploads cimport *
from .room cimport ONE_STEP
from .values cimport *
from .conn cimport *
from .sending cimport *
from .telling cimport *

cdef enum:
    SLICES_A_TURN = 8           # of making room; then the others have their turn
    TURNS_MOST = 64             # for one piece; then the search goes to its end at once, since each turn begins it anew
    AHEAD_MOST = 14
    FAST_READ = 32768           # bytes of a value in one read: more will come as fast


cdef inline void data_begins(Conn* c, uint32_t h) noexcept nogil:
    # The command line is read; `h` is to be filled.
    c.item = h
    c.fill.done = 0
    c.fill.in_piece = 0
    c.ahead = AHEAD_MOST if c.brief else 0
    c.searches = 0
    c.brief = item_at(&c.store.arena, h).nbytes > IN_SIZE - BRIEF and c.tls == NULL
    c.phase = P_DATA


cdef inline int block_end(Conn* c) noexcept nogil:
    # Bytes that stand behind a value: CR LF in the text protocols.
    return 0 if c.binary else 2


cdef inline void data_ends(Conn* c) noexcept nogil:
    # All of it is there, or never will be.
    upload_end(c.store, &c.up)


cdef inline uint64_t held_by(Conn* c) noexcept nogil:
    # Bytes of the chunks of the item that is being filled.
    cdef Store* s = c.store
    cdef Item* it = item_at(&s.arena, c.item)
    cdef uint64_t n = chunk_size(s, c.item)
    if it.state & S_LARGE:
        n += c.fill.done - c.fill.in_piece + chunk_size(s, last_piece(it))
    return n


cdef inline void intake_refuse(Conn* c) noexcept nogil:
    # The value that is on its way is given up; the client is told as soon as it can be. What stood under the key goes, too, as
    # when there is no memory at the command line.
    cdef Store* s = c.store
    cdef Item* it = item_at(&s.arena, c.item)
    cdef uint32_t old
    data_ends(c)
    s.n.no_memory += 1
    s.cls[it.cls].outofmemory += 1
    c.swallow = it.nbytes - c.fill.done + block_end(c)
    c.refused = 1
    if c.drops:
        old = item_find(s, key_of(it), it.nkey, c.hash)
        if old:
            item_unlink(s, old, c.hash)
        curve_delete(s, c.hash)
    item_release(s, c.item)
    c.item = 0
    if s.current == c:
        c.phase = P_SWALLOW
    else:
        poke(c, F_REFUSED)


cdef inline void refuse_conn(void* conn) noexcept nogil:
    intake_refuse(<Conn*> conn)


cdef inline void intake_note(Conn* c) noexcept nogil:
    # The batch is over and the value isn't complete: from now on what it holds is counted.
    if not uploading(&c.up):
        c.up.conn = c
        c.up.refuse = refuse_conn
        upload_begin(c.store, &c.up)
    upload_hold(c.store, &c.up, held_by(c) - c.up.held)
    c.up.moved_ms = boot_ms(c.store)
    if not upload_fits(c.store, &c.up, 0):
        intake_refuse(c)


cdef inline char* intake_room(Conn* c, uint64_t* length, int* error) noexcept nogil:
    # Where the value goes on, taking a piece if it must. NULL with error A_LATER or A_NO_MEMORY.
    cdef Store* s = c.store
    cdef Item* it = item_at(&s.arena, c.item)
    cdef char* at
    if it.state & S_LARGE and uploading(&c.up) and c.fill.in_piece == item_at(&s.arena, last_piece(it)).nbytes \
            and not upload_fits(s, &c.up, piece_most(s)):
        error[0] = A_NO_MEMORY
        return NULL
    s.filling = &c.up
    at = fill_at(s, c.item, &c.fill, SLICES_A_TURN if c.searches < TURNS_MOST else SLICES_PATIENT, length, error)
    s.filling = NULL
    c.searches = 0 if at != NULL else c.searches + 1
    return at


cdef inline size_t intake_copy(Conn* c, const char* p, size_t n) noexcept nogil:
    # Takes n bytes of the value from a buffer, as far as there is room for them; returns how many. With fewer the connection
    # has given up its turn, or the store.
    cdef uint64_t length
    cdef size_t done = 0
    cdef int error = 0
    cdef char* at
    while done < n:
        at = intake_room(c, &length, &error)
        if at == NULL:
            if error == A_LATER:
                c.yielded = 1
            else:
                intake_refuse(c)
            break
        if length > n - done:
            length = n - done
        memcpy(at, p + done, length)
        fill_done(&c.fill, length)
        done += length
    if done >= FAST_READ:
        c.ahead = AHEAD_MOST
    return done


cdef inline void pin_filled(Conn* c, int by) noexcept nogil:
    cdef Item* it = item_at(&c.store.arena, c.item)
    if it.state & S_LARGE:
        it = item_at(&c.store.arena, last_piece(it))
        it.refs = <uint16_t> (it.refs + by)


cdef inline ssize_t intake_receive(Conn* c) noexcept nogil:
    # Reads a value straight into its item, and what follows into the shared buffer, without the lock. Returns what receive returns,
    # less what went into the item; -2 when there is no room now (see intake_copy).
    cdef Store* s = c.store
    cdef iovec part[AHEAD_MOST + 2]
    cdef uint32_t spare[AHEAD_MOST]
    cdef uint64_t length, left, room = 0
    cdef int parts = 1, spares = 0, i, error = 0
    cdef ssize_t n
    cdef char* at = intake_room(c, &length, &error)
    if at == NULL:
        if error == A_LATER:
            c.yielded = 1
        else:
            intake_refuse(c)
        return -2
    part[0].iov_base = at
    part[0].iov_len = length
    room = length
    pin_filled(c, 1)            # making room must not move what is about to be written to
    left = item_at(&s.arena, c.item).nbytes - c.fill.done - length
    while left and spares < c.ahead:
        spare[spares] = piece_alloc(s, left, ONE_STEP, &error)
        if spare[spares] == 0:
            break
        item_at(&s.arena, spare[spares]).refs = 1
        part[parts].iov_base = <char*> item_at(&s.arena, spare[spares]) + HEADER
        part[parts].iov_len = item_at(&s.arena, spare[spares]).nbytes
        left -= part[parts].iov_len
        room += part[parts].iov_len
        spares += 1
        parts += 1
    part[parts].iov_base = c.shared.inbuf
    part[parts].iov_len = BRIEF if c.brief else IN_SIZE
    c.up.busy = 1
    leave(c)
    n = receive(c, part, parts + 1)
    enter(c)
    c.up.busy = 0
    pin_filled(c, -1)
    i = intake_keep(c, part, spare, spares, n)
    while i < spares:
        item_at(&s.arena, spare[i]).refs = 0
        chunk_give_back(&s.arena, spare[i])
        i += 1
    if n <= 0:
        return n
    add64(&c.shared.bytes_read, n)
    c.ahead = 0 if <uint64_t> n < room else AHEAD_MOST if 2 * c.ahead >= AHEAD_MOST else 2 * c.ahead + 1
    return n - <ssize_t> room if <uint64_t> n > room else 0


cdef inline int intake_keep(Conn* c, iovec* part, uint32_t* spare, int spares, ssize_t n) noexcept nogil:
    # Of n bytes that were read, those of the value: chains the spare pieces that got some. Returns how many did.
    cdef uint64_t left = <uint64_t> n if n > 0 else 0, take
    cdef int used = 0
    take = part[0].iov_len if part[0].iov_len < left else left
    fill_done(&c.fill, take)
    left -= take
    while left and used < spares:
        take = part[used + 1].iov_len if part[used + 1].iov_len < left else left
        item_at(&c.store.arena, spare[used]).refs = 0
        chain_behind(c.store, c.item, spare[used], spare[used])
        c.fill.in_piece = 0
        fill_done(&c.fill, take)
        left -= take
        used += 1
    return used
