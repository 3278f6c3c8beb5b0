# Telling: what the owner of a connection must hear of, and what waits meanwhile for its answer.
#
# Owns the events of a batch, the replies that they hold, the lock that a write waits for, and the letters that say so. Must never
# send anything to a client, nor decide what a fleet is told: tables that Python fills do (store.pxd).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy
from .store cimport Prefixed
from .uploads cimport reader_end
from .sockets cimport SHUT_RDWR, shutdown
from .journal cimport *
from .lock cimport *
from .mail cimport *
from .packets cimport BINARY_HEADER, BIN_TEMPORARY, OPAQUE_AT, as_words, header_write
from .conn cimport *
from .sending cimport *

# Events: what a cluster must hear of. One look at the key, one call, and the reply's place.

cdef enum:
    EV_DELETE = 0
    EV_STALE = 1
    EV_FLUSH = 2
    EV_FLUSH_LATER = 3
    EV_WRITE = 4
    EV_LOGIN_FAILED = 5


cdef inline void event(Conn* c, int kind, const char* key, size_t nkey, int64_t ttl) noexcept nogil:
    # Before its reply is written.
    cdef bint told = c.store.tell_writes if kind == EV_WRITE else c.store.tell_deletes
    if told and not c.granted:
        note_event(c, kind, key, nkey, ttl)


cdef inline void note_event(Conn* c, int kind, const char* key, size_t nkey, int64_t ttl) noexcept nogil:
    cdef Shared* sh = c.shared
    cdef size_t need = sizeof(EventHead) + padded(nkey)
    cdef EventHead* e
    cdef char* grown
    if sh.events_len + need > sh.events_cap:
        grown = <char*> realloc(sh.events, 2 * (sh.events_cap + need))
        if grown == NULL:
            box_lost(sh.owner)              # the owner has to tell that everything may have changed
            return
        sh.events = grown
        sh.events_cap = 2 * (sh.events_cap + need)
    e = <EventHead*> (sh.events + sh.events_len)
    e.kind = kind
    e.position = -1
    e.ttl = ttl
    e.nkey = nkey
    memcpy(<char*> e + sizeof(EventHead), key, nkey)
    sh.event_at = sh.events_len
    sh.events_len += need
    c.event_pending = 1


cdef inline void event_has_reply(Conn* c, size_t start, size_t end) noexcept nogil:
    # The reply that stands for the last event; start == end: there is none.
    cdef EventHead* e = <EventHead*> (c.shared.events + c.shared.event_at)
    if end > start:
        e.position = <int32_t> c.replies
        e.start = start
        e.end = end


cdef inline Hold* hold_of(Conn* c, size_t first, int spans) noexcept nogil:
    # The output from `first` on, and where in it the replies of the batch's events are. NULL: out of memory.
    cdef Shared* sh = c.shared
    cdef size_t n = sh.out_len - first, at = 0
    cdef Hold* h = <Hold*> malloc(sizeof(Hold) + <size_t> spans * sizeof(Span) + n)
    cdef EventHead* e
    if h == NULL:
        return NULL
    h.n = n
    h.spans = 0
    h.span = <Span*> (<char*> h + sizeof(Hold))
    h.out = <char*> (h.span + spans)
    memcpy(h.out, sh.out + first, n)
    while at < sh.events_len:
        e = <EventHead*> (sh.events + at)
        at += sizeof(EventHead) + padded(e.nkey)
        if e.position >= 0:
            h.span[h.spans].position = e.position
            h.span[h.spans].start = e.start - first
            h.span[h.spans].end = e.end - first
            h.spans += 1
    return h


cdef inline void tell_events(Conn* c) noexcept nogil:
    # Under the lock, so that the owner hears of them in the order in which they happened. From the first reply that stands for
    # one on, the output waits.
    cdef Shared* sh = c.shared
    cdef size_t at = 0, first = 0
    cdef int spans = 0
    cdef EventHead* e
    while at < sh.events_len:
        e = <EventHead*> (sh.events + at)
        at += sizeof(EventHead) + padded(e.nkey)
        if e.position >= 0:
            if spans == 0:
                first = e.start
            spans += 1
    if spans and c.phase != P_CLOSED:
        c.hold = hold_of(c, first, spans)
        sh.out_len = first
        if c.hold == NULL:                  # what isn't confirmed isn't answered
            c.phase = P_CLOSED
        else:
            c.held = 1
            c.held_big = c.big
            if c.big:
                reader_end(&c.reader)
            c.big = 0
    c.has_events = 0
    if sh.events_len:
        write_to_owner(c, M_EVENTS, c.held, sh.events, sh.events_len)
    sh.events_len = 0


cdef inline bint keep_error(Conn* c, const char* reply, const char* text, size_t n) noexcept nogil:
    # An error of the text protocol in the place of a reply that was held. 0: out of memory.
    cdef char head[BINARY_HEADER]
    if not c.binary:
        return keep(c, text, n)
    as_words(&text, &n)
    header_write(head, <uint8_t> reply[1], reply + OPAQUE_AT, BIN_TEMPORARY, 0, 0, <uint32_t> n, 0)
    return keep(c, head, BINARY_HEADER) and keep(c, text, n)


cdef inline bint release_hold(Conn* c, Mail* m) noexcept nogil:
    # The held replies become output, but for those in whose place the letter has an error (in their order). 0: out of memory.
    cdef Hold* h = c.hold
    cdef size_t at = 0, read = 0
    cdef int i
    cdef ErrorHead* e
    cdef bint good = 1
    cdef uint64_t before, began = answer_at(c) if c.datagram != NULL else 0
    for i in range(h.spans):
        while read < m.n and (<ErrorHead*> (m.data + read)).position < h.span[i].position:
            read += sizeof(ErrorHead) + padded(<size_t> (<ErrorHead*> (m.data + read)).n)
        if read >= m.n:
            break
        e = <ErrorHead*> (m.data + read)
        if e.position == h.span[i].position:
            good = good and keep(c, h.out + at, h.span[i].start - at)
            before = c.out_len
            good = good and keep_error(c, h.out + h.span[i].start, <char*> e + sizeof(ErrorHead), <size_t> e.n)
            at = h.span[i].end
            if good and c.datagram != NULL:
                before = began + before + (at - h.span[i].start)        # where what follows began
                replies_move(c, before, <int64_t> (answer_at(c) - before))
    good = good and keep(c, h.out + at, h.n - at)
    free(h)
    c.hold = NULL
    c.held = 0
    return good


cdef inline bint has_prefix(Prefixed* list, const char* key, size_t nkey) noexcept nogil:
    # Whether the key begins with one of the texts.
    cdef size_t at = 0, n
    while at < list.length:
        n = <uint8_t> list.texts[at] | <size_t> (<uint8_t> list.texts[at + 1]) << 8
        at += 2
        if n <= nkey and memcmp(list.texts + at, key, n) == 0:
            return 1
        at += n
    return 0


cdef inline void write_event(Conn* c, const char* key, size_t nkey) noexcept nogil:
    if c.store.tell_writes and has_prefix(&c.store.told_prefixes, key, nkey):
        event(c, EV_WRITE, key, nkey, -1)


cdef enum Lock:
    LOCK_FREE                   # the write may take effect
    LOCK_LOST                   # ... must not: c.refusal says why
    LOCK_WAITS                  # ... not yet


cdef inline Lock lock_stops(Conn* c, const char* key, size_t nkey) noexcept nogil:
    if not c.store.locks or c.granted or not has_prefix(&c.store.locked_prefixes, key, nkey):
        return LOCK_FREE
    if c.refusal_len:
        return LOCK_LOST
    c.phase = P_LOCKED
    c.mail = mail_with(M_LOCK, c, key, nkey)
    if c.mail == NULL:
        c.phase = P_CLOSED
    return LOCK_WAITS


cdef inline void ask_for_lock(Conn* c) noexcept nogil:
    # The write that waits is asked for as soon as nothing else keeps its connection: when the lock is there, it takes effect at once.
    if c.phase == P_LOCKED and c.mail != NULL and not (c.blocked or c.held):
        c.known = 1
        box_post(c.shared.owner, c.mail)
        c.mail = NULL


# The end

cdef inline int why_closed(Conn* c) noexcept nogil:
    return WHY_NORMAL if c.of_datagram else WHY_SHUTDOWN + c.wrong if c.wrong else WHY_NORMAL if c.ended and c.why == WHY_ERROR else c.why


cdef inline void tell_closed(Conn* c) noexcept nogil:
    # It is in no list any more. The owner gives its memory back, so this letter must not be lost: if there is no memory now, later,
    # and the client hears of its end meanwhile.
    cdef Mail* m = mail_new(M_CLOSED, c, 0)
    if m == NULL:
        if not c.of_datagram:
            shutdown(c.fd, SHUT_RDWR)
        c.next = c.shared.untold
        c.shared.untold = c
        return
    m.a = why_closed(c)
    c.known = 1
    box_post(c.shared.owner, m)


cdef inline void tell_untold(Shared* sh) noexcept nogil:
    cdef Conn* c = sh.untold
    cdef Conn* after
    sh.untold = NULL
    while c != NULL:
        after = c.next
        tell_closed(c)
        c = after


cdef inline bint ask_owner(Conn* c, const char* line, size_t n) noexcept nogil:
    # A cold command's line, whose reply comes by letter; it is posted when what stands before it is sent. 0: out of memory.
    cdef Mail* m = mail_with(M_COLD, c, line, n) if c.datagram == NULL or not c.datagram.crowded else NULL
    if m == NULL:
        return 0
    if c.binary:
        m.a = c.opcode << 8 | 2
        m.b = c.opaque
    else:
        m.a = c.noreply
        m.b = c.shared.out_len + c.out_len + (1 if c.big else 0)
    c.then_watch = 0
    c.mail = m
    c.phase = P_COLD
    return 1


# What -vv shows

cdef inline void trace(Conn* c, int kind, const char* p, size_t n) noexcept nogil:
    cdef Record* r = journal_add(&c.store.journal, p, n if n < SHOWN_MOST else SHOWN_MOST)
    if r == NULL:
        c.store.untraced += 1
    else:
        r.kind = kind | (J_BINARY if c.binary else 0)
        r.fd = c.fd
