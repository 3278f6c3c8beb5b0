# The Workers object: the threads that serve an engine, as Python sees them. Included by engine.pyx.
#
# Owns the threads, the box of letters to Python, which an event loop watches as a single descriptor, and the accepting of
# connections. Must never serve one itself.

cdef extern from "<sys/socket.h>" nogil:
    int accept4(int fd, void* address, void* length, int flags)
    enum: AF_UNIX, SOCK_NONBLOCK, SOCK_CLOEXEC

cdef enum:
    ACCEPTS_A_TURN = 64         # connections accepted before the loop's other work gets its turn
    LETTERS_A_TURN = 200
    LETTERS_NS = 500000         # ... or after so long
    RECORDS_A_TURN = 50         # of the journal that are spelled: about as long

cdef struct Seen:               # of one connection, for `stats conns`
    bint there
    uint32_t shown
    uint32_t last

cdef struct SeenAll:            # by descriptor
    Seen* at
    int room


cdef bint seen_fits(SeenAll* all, int fd) noexcept nogil:
    # False: out of memory.
    cdef int room = all.room
    cdef Seen* at
    if fd < room:
        return 1
    while room <= fd:
        room = 2 * room if room else 1024
    at = <Seen*> realloc(all.at, <size_t> room * sizeof(Seen))
    if at == NULL:
        return 0
    memset(at + all.room, 0, <size_t> (room - all.room) * sizeof(Seen))
    all.at = at
    all.room = room
    return 1


cdef bint see_all(Worker* w, SeenAll* all) noexcept nogil:
    # The connections of one worker. False: out of memory.
    cdef Conn* c
    cdef bint fits = 1
    pthread_mutex_lock(&w.list_mutex)
    c = w.ends.next
    while c != &w.ends and fits:
        fits = seen_fits(all, c.fd)
        if fits and c.fd >= 0:
            all.at[c.fd].there = 1
            all.at[c.fd].shown = get32(&c.shown)
            all.at[c.fd].last = get32(&c.last)
        c = c.next
    pthread_mutex_unlock(&w.list_mutex)
    return fits


def _sockets(Workers self, int budget):
    cdef SeenAll all
    cdef Worker* w
    cdef int i, d
    doors = {}
    all.at = NULL
    all.room = 0
    try:
        for i in range(self.pool.count):
            w = self.pool.worker[i]
            for d in range(w.doors):
                doors[w.door[d].fd] = get32(&w.door[d].last)
                if not seen_fits(&all, w.door[d].fd):
                    raise MemoryError
            if not see_all(w, &all):
                raise MemoryError
            yield []
        found = []
        for i in range(all.room):
            if i in doors:
                found.append((i, "conn_read", 0, doors[i]))
            elif all.at[i].there:
                found.append((i, state_name(all.at[i].shown), all.at[i].shown >> 10, all.at[i].last))
            if len(found) == budget:
                yield found
                found = []
        yield found
    finally:
        free(all.at)


cdef int spoken(Engine engine, protocol) except -1:
    # What a socket's connections may speak. Raises KeyError for a name that is none.
    return engine.s.protocol if protocol is None else PROTOCOLS[protocol]


@cython.no_gc_clear      # it needs its engine to the end
cdef class Workers:
    """N threads that serve connections to an engine without the GIL; see the architecture page.

    owner hears, on the thread that calls `turn`, what sessions tell (Session), and besides `gone()`: a connection that it had
    not heard of has closed, while it wanted to know (`resting` or `ending`); `unknown_change()`: a change could not be told
    for want of memory; and from `admit`, `accepted(listener, reason, descriptors)`."""

    cdef Pool pool
    cdef readonly Engine engine
    cdef object owner
    cdef set sessions           # of connections that Python has heard of
    cdef int next               # the worker that gets the next connection
    cdef bint running
    cdef readonly uint64_t accepted     # connections
    cdef readonly uint32_t most_clients # ... that were open at a time
    cdef Mail* left             # letters taken and not looked at yet
    cdef TlsRules tls           # of new connections; None: all are plain

    def __cinit__(self, Engine engine not None, owner, int threads=4):
        cdef int i
        cdef Worker* w
        if not 1 <= threads <= WORKERS_MOST:
            raise ValueError(f"the number of threads must be 1 to {WORKERS_MOST}")
        self.engine = engine
        self.owner = owner
        self.sessions = set()
        self.pool.store = &engine.s
        if box_open(&self.pool.outbox, 1) != 0:
            raise OSError(errno, os.strerror(errno))
        for i in range(threads):
            w = worker_new(&self.pool)
            if w == NULL:
                raise OSError(errno, os.strerror(errno))
            w.shared.version = engine.shared.version
            w.shared.version_len = engine.shared.version_len
            self.pool.worker[i] = w
            self.pool.count = i + 1

    def start(self):
        """Starts the threads. Raises OSError when the system refuses."""
        cdef int i, error
        engine_lock(&self.engine.s)
        self.engine.s.journal.reader = &self.pool.outbox
        for i in range(self.pool.count):
            self.pool.worker[i].shared.next = self.engine.shared.next
            self.engine.shared.next = &self.pool.worker[i].shared
        engine_unlock(&self.engine.s)
        self.running = 1
        for i in range(self.pool.count):
            error = mc_thread(&self.pool.worker[i].thread, worker_main, self.pool.worker[i])
            if error:
                raise OSError(error, os.strerror(error))
            self.pool.worker[i].started = 1

    def fileno(self):
        """What the loop is to watch; `turn` is to be called when it can be read."""
        return self.pool.outbox.fd

    @property
    def threads(self):
        """How many there are, 1 to 64."""
        return self.pool.count

    @property
    def clients(self):
        """Open connections."""
        return get32(&self.pool.clients)

    @property
    def idle_kicks(self):
        """Connections that were closed for -o idle_timeout."""
        return get64(&self.pool.idle_kicks)

    @property
    def unwatched(self):
        """Connections that the system refused to watch, which were closed."""
        return get64(&self.pool.unwatched)

    def set_idle_timeout(self, uint32_t seconds):
        """Connections that wait for a command for longer are closed, but those by a Unix socket. 0: never."""
        set32(&self.pool.idle_seconds, seconds)
        self.ask_all(0)

    def set_tls(self, TlsRules rules not None, uint32_t handshake_seconds):
        """New connections of the listeners that want TLS are made so. Its first call comes before the workers start.

        handshake_seconds: how long a client has for the handshake, from 1."""
        cdef int i
        for i in range(self.pool.count):
            if self.tls is None:
                self.pool.worker[i].shared.tls.out_size = max(8 * rules.write_size, <size_t> TLS_OUT_LEAST)
        self.tls = rules
        set32(&self.pool.shake_seconds, handshake_seconds)

    def tls_figures(self):
        """Handshakes that failed, connections that failed later, and sessions that a client may resume."""
        cdef TlsCounts* n = &self.pool.tls
        return get64(&n.handshake_errors), get64(&n.proto_errors), get64(&n.new_sessions)

    def tell_closed(self, on):
        """Whether the owner wants to hear of the end of every connection."""
        set32(&self.pool.tell_closed, bool(on))

    def rest(self, on):
        """Whether the owner wants to hear `gone` at each end, since it waits to accept."""
        set32(&self.pool.resting, bool(on))

    # Accepting

    def accept(self, int listener, uint32_t most, list opened=None, int security=TLS_OFF, protocol=None):
        """Accepts what waits, up to 64, while fewer than `most` are open.

        Returns why it ended: 0 nobody waits, EAGAIN there may be more, -1 there are as many as `most`, else the errno of what is
        missing. `opened` gets the descriptors. security: 0 plain, 1 TLS, 2 TLS without client certificates, 3 TLS with them.
        protocol: what is spoken there, by the engine's names; None: what the engine was told."""
        cdef int i, fd
        cdef sockaddr_storage peer
        cdef unsigned int size
        for i in range(ACCEPTS_A_TURN):
            if get32(&self.pool.clients) >= most:
                return -1
            size = sizeof(peer)
            fd = accept4(listener, <void*> &peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == EAGAIN:
                    return 0
                if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                    return errno
                continue                # the client has gone again
            self.accepted += self.open(fd, security, protocol, peer.ss_family == AF_UNIX)
            if get32(&self.pool.clients) > self.most_clients:
                self.most_clients = get32(&self.pool.clients)
            if opened is not None:
                opened.append(fd)
        return EAGAIN

    def admit(self, int listener, uint32_t most, int security=TLS_OFF, protocol=None):
        """`accept`, for an event loop to call. Python code runs only where the owner has to do with it: it wants to hear of every end,
        or of everything (-vv), or there is no room. Then it hears `accepted`, with what `accept` answers and the descriptors."""
        told = get32(&self.pool.tell_closed) or self.engine.verbosity > 1
        opened = [] if told else None
        reason = self.accept(listener, most, opened, security, protocol)
        if told or reason != 0 and reason != EAGAIN:
            self.owner.accepted(listener, reason, opened or [])

    def open(self, int fd, int security=TLS_OFF, protocol=None, bint local=False):
        """Serves a connected, non-blocking socket, whose descriptor is the worker's from now on. False: it had to be closed.

        local: it is a Unix socket, which may be idle."""
        cdef Worker* w = self.pool.worker[self.next]
        cdef Tls* tls = NULL
        cdef int speaks = spoken(self.engine, protocol)
        self.next = (self.next + 1) % self.pool.count
        if security:
            tls = tls_new(self.tls.ctx, self.tls.kernel, tls_way, &w.shared.tls, &self.pool.tls, security)
        if security and tls == NULL or not conn_open(w, fd, tls, <uint8_t> speaks, local):
            if tls != NULL:
                tls_free(tls)
            close_fd(fd)
            refused(&self.pool)
            return False
        return True

    def answer_datagrams(self, int fd, int port, bint unbounded, protocol=None):
        """Serves a bound, non-blocking UDP socket, whose descriptor stays the caller's; before `start`.

        port: its own. unbounded: it is reached from this machine alone, so that answers may be of any length. protocol: as in `accept`.
        Returns the descriptors, one a worker. Raises OSError."""
        cdef int i, own, speaks = spoken(self.engine, protocol)
        opened = []
        for i in range(self.pool.count):
            own = os.dup(fd)
            if not door_open(self.pool.worker[i], own, <uint16_t> ((port & 0xFF) << 8 | port >> 8), unbounded,
                             <uint8_t> speaks):
                os.close(own)
                raise OSError(ENOMEM, os.strerror(ENOMEM))
            opened.append(own)
        return opened

    @property
    def datagrams(self):
        """How many came, and how many of them were no requests and were not answered."""
        return get64(&self.pool.datagrams), get64(&self.pool.datagrams_bad)

    # Letters

    def turn(self):
        """Reads the letters; some, so that the loop's other work gets its turn. Spells the journal."""
        cdef uint64_t rung
        cdef Mail* m
        cdef int n = 0
        cdef bint taken = 0, failed, unheard = 0
        cdef uint64_t began = boot_clock()
        read_fd(self.pool.outbox.fd, &rung, 8)
        if not spell(self.engine, self.owner, None, 0, RECORDS_A_TURN):
            come_back(&self.pool.outbox)
            return
        if self.left == NULL:
            taken = 1
            self.left = box_take(&self.pool.outbox)
            if not spell(self.engine, self.owner, None, 1, RECORDS_A_TURN):      # what was written before these letters
                come_back(&self.pool.outbox)
                return
        while self.left != NULL and n < LETTERS_A_TURN and boot_clock() - began < LETTERS_NS:
            m = self.left
            self.left = m.next
            n += 1
            failed = 0
            try:
                self.take(m)
            except Exception:
                failed = 1
                report("letter")
            finally:
                if m.kind == M_CLOSED:
                    self.forgotten(m)
                elif failed:
                    unheard |= m.kind == M_EVENTS
                    self.dismissed(m)
                else:
                    free(m)
        if self.left != NULL or not taken:      # who wrote to a box that wasn't looked into has rung, and does not ring again
            come_back(&self.pool.outbox)
        if swap32(&self.pool.gone, 0):
            self.owner.gone()
        if box_has_lost(&self.pool.outbox) or unheard:
            self.owner.unknown_change()

    cdef take(self, Mail* m):
        cdef Conn* c = <Conn*> m.about
        cdef Session session
        if c.self == NULL:
            session = session_for(self.engine, self.owner, c)
            self.sessions.add(session)
        else:
            session = <Session> c.self
        try:
            session.take(m)
        finally:
            if m.kind == M_CLOSED:
                session.gone_told = True
                session.c = NULL
                self.sessions.discard(session)

    cdef forgotten(self, Mail* m):
        # The connection's memory is its worker's. The letter goes back, so that this needs none.
        m.kind = W_FREE
        m.next = NULL
        box_post(&(<Worker*> (<Conn*> m.about).worker).box, m)

    cdef dismissed(self, Mail* m):
        # Its connection waits for an answer that it won't get. The letter goes back as the connection's end: this needs no memory.
        m.kind = W_CLOSE
        m.a = REASONS.index("error")
        m.next = NULL
        box_post(&(<Worker*> (<Conn*> m.about).worker).box, m)

    # What `stats conns` shows

    def sockets(self, int budget=50):
        """(descriptor, state, replies that wait, second of the engine's clock at which a command last came) of each connection.

        In lists, each of at most `budget`, by descriptor; empty ones come first, while they are looked for."""
        return _sockets(self, budget)

    # Ending

    cdef ask_all(self, uint32_t what):
        # TO_...; 0: that they look at what has changed in the pool.
        cdef int i
        for i in range(self.pool.count):
            or32(&self.pool.worker[i].asked, what)
            box_ring(&self.pool.worker[i].box)

    def stop_reading(self):
        """No further command is taken from anyone; replies still go out."""
        self.ask_all(TO_DRAIN)

    def finish(self):
        """Closes what has nothing to send, and the others as soon as they have sent it. `gone` comes when the last has closed."""
        set32(&self.pool.ending, 1)
        self.ask_all(TO_FINISH)

    def close(self):
        """Closes every connection and ends the threads. Nothing can be opened afterwards."""
        cdef int i
        cdef Worker* w
        if self.running:
            self.running = 0
            self.ask_all(TO_EXIT)
            for i in range(self.pool.count):
                w = self.pool.worker[i]
                if w.started:
                    with nogil:
                        pthread_join(w.thread, NULL)
            while self.left != NULL or self.pool.outbox.head != NULL:
                self.turn()
            workers_ended(self.engine, &self.pool)
            for i in range(self.pool.count):
                worker_free(self.pool.worker[i])
            self.pool.count = 0
            box_close(&self.pool.outbox)

    def __dealloc__(self):
        if self.engine is not None:
            if self.running:
                self.close()
            else:
                while self.pool.count:
                    self.pool.count -= 1
                    worker_free(self.pool.worker[self.pool.count])
                if self.pool.outbox.fd >= 0:
                    box_close(&self.pool.outbox)


cdef void come_back(Box* box) noexcept nogil:
    # The reader's next turn comes, whoever rings. `rung` is the writers' and stays as it is.
    cdef uint64_t one = 1
    write_fd(box.fd, &one, 8)


cdef void workers_ended(Engine self, Pool* pool) noexcept:
    # These threads have ended: what they counted stays.
    cdef Shared* at = &self.shared
    cdef int i
    engine_lock(&self.s)
    self.s.journal.reader = NULL
    while at.next != NULL:
        for i in range(pool.count):
            if at.next == &pool.worker[i].shared:
                add64(&self.shared.bytes_read, <int64_t> at.next.bytes_read)
                add64(&self.shared.bytes_written, <int64_t> at.next.bytes_written)
                at.next = at.next.next
                break
        else:
            at = at.next
    engine_unlock(&self.s)
