# The Session object: one connection as Python sees it. Included by engine.pyx.
#
# Owns the letters between a connection and its owner, and what the owner still owes it. Must never parse: what the bytes mean is
# session.pxd's. A worker's connection has a Session only since Python has to do with it; one that is driven by hand has no thread.

cdef enum:
    LETTER_MOST = OUT_ROOM - 1024   # bytes of a reply in one letter
    OF_A_WORKER = -2                # in the place of a descriptor

cdef extern from "<semaphore.h>" nogil:
    int sem_init(sem_t* s, int shared, unsigned int value)
    int sem_wait(sem_t* s)
    int sem_destroy(sem_t* s)

cdef tuple EVENT_NAMES = ("delete", "stale", "flush", "flush_later", "write", "login_failed")
cdef tuple PHASES = ("conn_new_cmd", "conn_nread", "conn_swallow", "conn_mwrite", "conn_parse_cmd", "conn_mwrite", "conn_mwrite",
                     "conn_mwrite", "conn_mwrite", "conn_waiting", "conn_waiting", "conn_watch", "conn_closing")
cdef tuple REASONS = ("normal", "error", "idle_timeout", "shutdown", "binary", "text", "tls", "http", "resp",
                      "plain", "tls_handshake", "tls_slow", "tls_record")
cdef bytes INTERNAL = bytes(WIRE_INTERNAL)


cdef report(what):
    try:
        import logging
        logging.getLogger("mcserver").exception("internal error: %s", what)
    except MemoryError:
        pass    # what is to be done then is more than the line of a log


@cython.no_gc_clear      # it needs its engine to the end
cdef class Session:
    """One connection: bytes in, bytes out.

    Made here, it is driven by hand: with a file descriptor its owner calls `readable` and `writable`, and closes the
    descriptor when it is told `closed`; with fd=-1 use `feed`. `Workers` make the others. Only the owner's thread may call.
    """

    cdef Conn* c                # NULL: a worker's connection that is gone
    cdef Conn* made             # by hand: the same, and freed with this object
    cdef readonly Engine engine
    cdef object owner
    cdef public object data
    cdef object stream          # the pieces of a long reply
    cdef object pending         # the event that the reply of a cold command stands for
    cdef object kept            # that reply, while it is held
    cdef bint silent            # ... to a command with noreply
    cdef bint watches
    cdef bint pushing
    cdef bint gone_told
    cdef bint turn_asked        # owner.later was called, and `proceed` has not come yet
    cdef bint wants_piece
    cdef readonly bytes why     # once it is closed: the reason in OpenSSL's words, or b""
    cdef uint64_t before        # bytes of replies before the cold command that runs
    cdef bint in_command

    def __cinit__(self, Engine engine not None, owner, int fd=-1):
        self.engine = engine
        self.owner = owner
        if fd == OF_A_WORKER:   # session_for
            return
        self.made = <Conn*> calloc(1, sizeof(Conn))
        if self.made == NULL:
            raise MemoryError
        self.c = self.made
        conn_init(self.c, &engine.s, &engine.shared, fd)
        self.c.self = <PyObject*> self
        engine_lock(&engine.s)
        self.c.last = engine.s.sec
        self.c.stranger = engine.s.login != LOGIN_NONE
        engine_unlock(&engine.s)

    def __dealloc__(self):
        if self.made == NULL:
            return
        forget_letters(&self.engine.outbox, self.made)
        engine_lock(&self.engine.s)
        conn_free(self.made)
        engine_unlock(&self.engine.s)
        free(self.made)

    # What the owner sees

    @property
    def fd(self):
        """The socket's file descriptor, or -1."""
        return self.c.fd if self.c != NULL else -1

    @property
    def datagram(self):
        """Whether it is one request that came by UDP; `fd` is then the socket's."""
        return self.c != NULL and self.c.of_datagram

    @property
    def state(self):
        """What it is doing, in memcached's words (`stats conns`)."""
        return state_name(shown_of(self.c)) if self.c != NULL else "conn_closed"

    @property
    def closed(self):
        """Nothing more will be read, run or sent."""
        return self.c == NULL or self.gone_told or (self.made != NULL and self.c.phase == P_CLOSED)

    @property
    def last_command(self):
        """Second of the engine's clock at which input last came."""
        return float(get32(&self.c.last)) if self.c != NULL else 0.0

    @property
    def unsent(self):
        """Bytes of replies that the socket has not taken; for a cold command that runs, of those before its own."""
        cdef uint64_t n
        if self.in_command or self.made == NULL:
            return self.before
        n = self.c.out_len + (self.c.hold.n if self.c.hold != NULL else 0)
        if self.c.big:
            n += self.c.big_len - self.c.big_done
        return n

    @property
    def resps_waiting(self):
        """Replies that wait to be sent (`stats conns`)."""
        return shown_of(self.c) >> 10 if self.c != NULL else 0

    # What the loop calls, when it is driven by hand

    def readable(self):
        """The socket has input: reads once, runs what is complete, sends the replies."""
        if self.turn_asked:
            return
        readable(self.c)
        self.after()

    def writable(self):
        """The socket takes output again."""
        resume(self.c)
        self.after()

    def proceed(self):
        """Goes on after a turn that was cut short (`owner.later`)."""
        self.turn_asked = 0
        if self.wants_piece:
            self.wants_piece = 0
            self.next_piece()
        if self.made != NULL:
            if self.c.yielded:
                resume(self.c)
            self.after()

    cdef later(self):
        if not self.turn_asked:
            self.turn_asked = 1
            self.owner.later(self)

    cdef after(self):
        # By hand: after anything ran.
        pump(self.engine, self)
        self.settle()

    cdef settle(self):
        cdef bint read, write
        if self.c.phase == P_CLOSED:
            self.finish()
            return
        if self.c.yielded and not stopped(self.c):      # else whoever ends the stop goes on
            self.later()
        read = not stopped(self.c)
        write = self.c.blocked
        if read != self.c.reading or write != self.c.writing:
            self.c.reading = read
            self.c.writing = write
            if self.c.fd >= 0:
                self.owner.interest(self, read, write)

    cdef finish(self):
        cdef Conn* c = self.c
        if self.gone_told:
            return
        self.gone_told = True
        self.stream = None
        self.kept = None
        sink = self.take_sink()
        engine_lock(c.store)
        conn_free(c)
        engine_unlock(c.store)
        if sink:
            c.sink_room = <uint64_t> -1
            sink_write(c, PyBytes_AS_STRING(sink), <size_t> PyBytes_GET_SIZE(sink))
        self.owner.closed(self, REASONS[why_closed(c)])

    # Without a socket

    cdef bytes take_sink(self):
        cdef bytes out = PyBytes_FromStringAndSize(self.c.sink, <Py_ssize_t> self.c.sink_len)
        self.c.sink_len = 0
        return out

    def feed(self, data):
        """Takes input and returns all that can be answered now. Only without a socket."""
        cdef const unsigned char[::1] view = data
        cdef size_t n = <size_t> view.shape[0], at = 0, step, used, have
        cdef Conn* c = self.c
        cdef char* buf
        if c == NULL or c.fd >= 0:
            raise ValueError("feed is for sessions without a socket")
        while at < n and c.phase != P_CLOSED:
            step = n - at
            if step > IN_SIZE:
                step = IN_SIZE
            have = c.in_len
            buf = <char*> malloc(have + step)
            if buf == NULL:
                raise MemoryError
            if have:
                memcpy(buf, c.in_buf, have)
            memcpy(buf + have, &view[at], step)
            add64(&c.shared.bytes_read, <int64_t> step)
            at += step
            have += step
            used = 0
            if not stopped(c) and not c.yielded:
                used = run(c, buf, have)
            if not stash(c, buf + used, have - used):
                gone(c)
            free(buf)
            self.after()
        return self.take_sink()

    def limit(self, n):
        """The client takes n bytes more (None: any number). Only without a socket."""
        self.c.sink_room = <uint64_t> -1 if n is None else n
        if self.c.blocked and self.c.sink_room:
            self.writable()

    def drain(self):
        """What became sendable since. Only without a socket."""
        return self.take_sink()

    # Letters to the connection

    cdef send_letter(self, Mail* m):
        if m == NULL:
            raise MemoryError
        if self.c == NULL or self.gone_told:
            mail_done(m)
        elif self.made == NULL:
            box_post(self.c.shared.box, m)
        else:
            take_mail(self.c, m)

    cdef write(self, int kind, int a, bytes text):
        cdef Mail* m
        if self.c != NULL:
            m = mail_with(kind, self.c, PyBytes_AS_STRING(text), <size_t> PyBytes_GET_SIZE(text))
            if m != NULL:
                m.a = a
            self.send_letter(m)

    def close(self, str reason="normal"):
        """Drops what is unsent and tells the owner; nothing happens when it is closed already.

        reason: normal, error, idle_timeout or shutdown."""
        self.write(W_CLOSE, REASONS.index(reason), b"")
        if self.made != NULL:
            self.after()

    def quit(self, str reason="normal"):
        """Closes as soon as everything is sent. Within owner.command: its reply is the last, and nothing behind it runs.

        reason: as of `close`."""
        self.write(W_QUIT, REASONS.index(reason), b"")
        if self.made != NULL:
            self.after()

    def push(self, bytes data not None):
        """Sends bytes that no command asked for. Returns how many were taken: all, or none while others wait."""
        if self.c == NULL or self.gone_told or self.pushing or not data:
            return 0
        if self.made != NULL and (self.c.out_len or self.c.blocked or self.c.held):
            return 0
        self.pushing = 1
        self.write(W_PUSH, 0, data)
        if self.made != NULL:
            self.after()
        return len(data)

    def watch(self):
        """Within owner.command: after its reply the input is ignored, and the owner pushes lines."""
        self.watches = 1

    def event(self, str kind not None, bytes key not None=b"", int ttl=-1):
        """Within owner.command: its reply stands for this event, which owner.events hears and may hold."""
        self.pending = (kind, key, ttl)

    def release(self, errors=None):
        """Lets held replies go; errors maps an event's position to the reply that takes its place."""
        if self.kept is not None:
            reply = self.kept
            self.kept = None
            if errors and 0 in errors:
                reply = with_end(errors[0])
            self.answer(reply)
        else:
            self.write(W_RELEASE, 0, errors_text(errors or {}))
        if self.made != NULL:
            self.after()

    def grant(self):
        """The locked write that waits takes effect, before this returns."""
        cdef Mail* m
        cdef sem_t done
        cdef bint waits = self.made == NULL
        if self.c == NULL or self.gone_told:
            return
        m = mail_new(W_GRANT, self.c, 0)
        if m != NULL and waits:
            sem_init(&done, 0, 0)
            m.b = <uint64_t> <size_t> &done
        self.send_letter(m)
        if waits:
            with nogil:
                while sem_wait(&done) != 0:     # a signal came
                    pass
            sem_destroy(&done)
        else:
            self.after()

    def refuse(self, bytes reply not None):
        """The locked write that waits is answered so, and has no effect."""
        self.write(W_REFUSE, 0, with_end(reply))
        if self.made != NULL:
            self.after()

    # Letters from the connection

    cdef take(self, Mail* m):
        if self.gone_told:
            return
        if m.kind == M_COLD:
            self.take_command(PyBytes_FromStringAndSize(m.data, <Py_ssize_t> m.n), m)
        elif m.kind == M_EVENTS:
            self.take_events(m)
        elif m.kind == M_LOCK:
            self.owner.lock(self, PyBytes_FromStringAndSize(m.data, <Py_ssize_t> m.n))
        elif m.kind == M_MORE:
            self.wants_piece = 1
            self.later()
        elif m.kind == M_SENT:
            self.pushing = 0
        elif m.kind == M_POKED and self.made != NULL:
            self.c.yielded = 1
            resume_if_dropped(self.c)
        elif m.kind == M_CLOSED:
            self.why = self.c.why_text if self.c.why_text != NULL else b""
            self.gone_told = True
            self.stream = None
            self.kept = None
            self.owner.closed(self, REASONS[m.a])

    cdef take_command(self, bytes line, Mail* m):
        cdef bint silent = m.a == 1
        self.pending = None
        self.watches = 0
        self.before = 0 if m.a & 2 else m.b
        self.in_command = 1
        try:
            reply = self.owner.command(self, line)
        except Exception:
            report("command %r" % line[:64])
            self.pending = None
            reply = INTERNAL
        self.in_command = 0
        self.before = 0
        if m.a & 2 and reply is not None:
            reply = stat_packets(m.a >> 8, <uint32_t> m.b, line, reply)
        if self.pending is None or self.gone_told:
            self.answer(reply)
            return
        kind, key, ttl = self.pending
        position = -1 if silent or not reply else 0
        self.kept = reply
        try:
            hold = self.owner.events(self, [(kind, key, position, ttl)])
        except Exception:
            report("events")    # whoever gets a reply must be able to rely on it
            hold = False
            if position == 0 and self.kept is not None:
                self.kept = with_end(NOT_CONFIRMED)
        if self.kept is not None and (position < 0 or not hold):
            reply = self.kept
            self.kept = None
            self.answer(reply)

    cdef take_events(self, Mail* m):
        cdef size_t at = 0
        cdef EventHead* e
        events = []
        while at < m.n:
            e = <EventHead*> (m.data + at)
            at += sizeof(EventHead) + padded(e.nkey)
            events.append((EVENT_NAMES[e.kind],
                           PyBytes_FromStringAndSize(<char*> e + sizeof(EventHead), <Py_ssize_t> e.nkey), e.position, e.ttl))
        try:
            hold = self.owner.events(self, events)
        except Exception:
            report("events")
            if m.a:
                self.write(W_RELEASE, 0, errors_text({position: NOT_CONFIRMED for _, _, position, _ in events if position >= 0}))
            return
        if m.a and not hold:
            self.write(W_RELEASE, 0, b"")

    cdef answer(self, reply):
        if reply is None:
            self.write(W_REPLY, A_UNKNOWN, b"")
        elif isinstance(reply, bytes) and len(reply) <= LETTER_MOST:
            self.write(W_REPLY, A_WATCH if self.watches else A_DONE, reply)
        else:
            self.stream = iter((reply,)) if isinstance(reply, bytes) else iter(reply)
            self.next_piece()

    cdef next_piece(self):
        if self.gone_told or self.stream is None:
            return
        try:
            piece = next(self.stream, None)
        except Exception:       # half a reply can't be mended: what follows would be taken for the rest of it
            report("stream")
            self.stream = None
            self.close("error")
            return
        if piece is None:
            self.stream = None
            self.write(W_REPLY, A_DONE, b"")
            return
        if len(piece) > LETTER_MOST:
            self.stream = itertools.chain((piece[LETTER_MOST:],), self.stream)
            piece = piece[:LETTER_MOST]
        self.write(W_PIECE, 0, piece)


cdef pump(Engine self, Session session):
    # The letters of sessions that are driven by hand, until there are none.
    cdef Mail* m
    cdef Mail* after
    cdef Session about
    if self.pumping:
        return
    self.pumping = 1
    try:
        while True:
            m = box_take(&self.outbox)
            if m == NULL:
                break
            while m != NULL:
                after = m.next
                about = <Session> (<Conn*> m.about).self
                try:
                    about.take(m)
                finally:
                    free(m)
                    m = after
                about.settle()
    finally:
        self.pumping = 0
    if self.s.journal.length:
        spell(self, session.owner, session, 1, 0)


cdef Session session_for(Engine engine, owner, Conn* c):
    # The object of a worker's connection.
    cdef Session self = Session.__new__(Session, engine, owner, OF_A_WORKER)
    self.c = c
    c.self = <PyObject*> self
    return self


cdef str state_name(uint32_t shown):
    cdef int phase = <int> (shown & 0xFF)
    if shown >> 8 & 1:
        return "conn_mwrite"
    if phase == P_LINE:
        return "conn_read" if shown >> 9 & 1 else "conn_new_cmd"
    return PHASES[phase]


cdef bytes with_end(bytes text):
    return text.rstrip(b"\r\n") + b"\r\n"


cdef bytes errors_text(errors):
    # As conn.pxd's ErrorHead, in the order of the positions.
    parts = []
    for position in sorted(errors):
        text = with_end(errors[position])
        parts.append(position.to_bytes(8, "little", signed=True) + len(text).to_bytes(8, "little")
                     + text + bytes((8 - len(text) % 8) % 8))
    return b"".join(parts)


cdef void resume_if_dropped(Conn* c) noexcept nogil:
    # Another connection took away what this one was sending: it is closed now, and not at its next turn.
    enter(c)
    leave(c)


cdef void forget_letters(Box* box, Conn* c) noexcept nogil:
    cdef Mail* m = box_take(box)
    cdef Mail* after
    while m != NULL:
        after = m.next
        m.next = NULL
        if m.about == c:
            free(m)
        else:
            box_post(box, m)
        m = after
