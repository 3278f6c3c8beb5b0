# The Session object: one connection as Python sees it, and the hooks by which the rooms below reach its owner.
# Included by engine.pyx. Must never parse: what the bytes mean is session.pxd's.

cdef class Session:
    """One connection: bytes in, bytes out.

    With a file descriptor it receives and sends by itself when the owner's loop calls `readable` and `writable`; the
    owner closes the descriptor when it is told `closed`. With fd=-1 use `feed`. Not thread-safe.
    """

    cdef Conn c
    cdef readonly Engine engine
    cdef object owner
    cdef public object data
    cdef object stream
    cdef list events            # of this batch: (kind, key, position, ttl)
    cdef tuple pending
    cdef list spans             # (position, start, end) of the replies that stand for events, within `held`
    cdef bytes held
    cdef dict failed            # the owner could not tell events: the errors that take the place of their replies
    cdef object lock_key
    cdef object refusal
    cdef bint gone_told
    cdef bint keeps             # an item that nobody can evict: it stands in engine.pinned
    cdef bint turn_asked        # owner.later was called, and `proceed` has not come yet
    cdef bint watched           # by a Poller, which then holds a reference
    cdef str reason

    def __cinit__(self, Engine engine not None, owner, int fd=-1):
        self.engine = engine
        self.owner = owner
        self.c.store = &engine.s
        self.c.shared = &engine.shared
        self.c.self = <PyObject*> self
        self.c.fd = fd
        self.c.phase = P_LINE
        self.c.reading = 1
        self.c.sink_room = <uint64_t> -1
        self.c.last = engine.s.sec
        self.c.stranger = engine.s.login != LOGIN_NONE
        self.reason = "error"

    def __dealloc__(self):
        if self.engine is not None and self.engine.s.arena.base != NULL:
            conn_free(&self.c)
        else:
            self.c.item = 0
            self.c.big = 0
            self.c.held_big = 0
            self.c.up.next = NULL
            self.c.in_cap = 0
            conn_free(&self.c)

    # What the owner sees

    @property
    def fd(self):
        """The socket's file descriptor, or -1."""
        return self.c.fd

    @property
    def state(self):
        """What it is doing, in memcached's words (`stats conns`)."""
        if self.c.blocked:
            return "conn_mwrite"
        if self.c.phase == P_LINE:
            return "conn_read" if self.c.in_len else "conn_new_cmd"
        return PHASES[self.c.phase]

    @property
    def closed(self):
        return self.c.phase == P_CLOSED

    @property
    def last_command(self):
        """Second of the engine's clock at which input last came."""
        return float(self.c.last)

    @property
    def unsent(self):
        """Bytes of replies that the socket has not taken, those of the running batch included."""
        cdef uint64_t n = self.c.out_len + self.c.shared.out_len
        if self.held is not None:
            n += <uint64_t> len(self.held)
        if self.c.big:
            n += self.c.big_len - self.c.big_done
        return n

    @property
    def resps_waiting(self):
        return (1 if self.c.out_len else 0) + (1 if self.c.big else 0) + (len(self.spans) if self.held else 0)

    # What the loop calls

    def readable(self):
        """The socket has input: reads once, runs what is complete, sends the replies."""
        self.can_read()

    cdef can_read(self):
        readable(&self.c, self.engine.turn)
        self.c.last = self.engine.s.sec
        if self.c.phase != P_LINE or self.c.blocked or self.c.held or self.c.yielded or self.keeps or not self.c.reading:
            self.settle()

    def writable(self):
        """The socket takes output again."""
        self.can_write()

    cdef can_write(self):
        resume(&self.c, self.engine.turn)
        self.settle()

    def proceed(self):
        """Goes on after a turn that was cut short (`owner.later`)."""
        self.turn_asked = 0
        if self.failed is not None:
            errors = self.failed
            self.failed = None
            self.release(errors)
        elif self.c.yielded:
            resume(&self.c, self.engine.turn)
            self.settle()

    cdef settle(self):
        # After anything ran: tells the owner what changed.
        cdef bint read, write
        if self.c.phase == P_CLOSED:
            self.finish()
            return
        if self.c.phase == P_LOCKED and self.lock_key is not None:
            key = self.lock_key
            self.lock_key = None
            self.owner.lock(self, key)
            if self.c.phase == P_CLOSED:
                return
        if self.c.blocked and self.c.big:
            self.keeps = 1
            self.engine.pinned[id(self)] = self     # in the order in which they began
        elif self.keeps:
            self.keeps = 0
            self.engine.pinned.pop(id(self), None)
        if self.c.yielded and not self.turn_asked and not stopped(&self.c):     # else whoever ends the stop goes on
            self.turn_asked = 1
            self.owner.later(self)
        read = not stopped(&self.c)
        write = self.c.blocked
        if read != self.c.reading or write != self.c.writing:
            self.c.reading = read
            self.c.writing = write
            if self.c.fd >= 0:
                self.owner.interest(self, read, write)

    cdef finish(self):
        if self.gone_told or self.c.running:    # a command that closes its own session: run() still needs its buffers
            return
        self.gone_told = True
        self.engine.pinned.pop(id(self), None)
        self.stream = None
        sink = None
        if self.c.sink_len:
            sink = self.take_sink()
        conn_free(&self.c)
        if sink is not None:
            sink_write_all(&self.c, sink)
        self.owner.closed(self, WRONG_DOORS[self.c.wrong] if self.c.wrong else "normal" if self.c.ended else self.reason)

    def close(self, str reason="normal"):
        """Drops what is unsent and tells the owner; nothing happens when it is closed already.

        reason: normal, error, idle_timeout or shutdown."""
        if self.c.phase != P_CLOSED or not self.gone_told:
            self.reason = reason
            self.c.phase = P_CLOSED
            self.finish()

    def quit(self):
        """Closes as soon as everything is sent."""
        self.reason = "normal"
        self.c.quitting = QUIT_ASKED
        if not (self.c.blocked or self.c.held or self.c.phase == P_LOCKED):
            self.close()

    # Without a socket

    cdef bytes take_sink(self):
        cdef bytes out = PyBytes_FromStringAndSize(self.c.sink, <Py_ssize_t> self.c.sink_len)
        self.c.sink_len = 0
        return out

    def feed(self, data):
        """Takes input and returns all that can be answered now. Only without a socket."""
        cdef const unsigned char[::1] view = data
        cdef size_t n = <size_t> view.shape[0], at = 0, step, used, have
        cdef char* buf
        if self.c.fd >= 0:
            raise ValueError("feed is for sessions without a socket")
        self.c.last = self.engine.s.sec
        while at < n and self.c.phase != P_CLOSED:
            step = n - at
            if step > IN_SIZE:
                step = IN_SIZE
            have = self.c.in_len
            buf = <char*> malloc(have + step)
            if buf == NULL:
                raise MemoryError
            if have:
                memcpy(buf, self.c.in_buf, have)
            memcpy(buf + have, &view[at], step)
            self.engine.s.n.bytes_read += step
            at += step
            have += step
            used = 0
            if not stopped(&self.c) and not self.c.yielded:
                used = run(&self.c, buf, have, self.engine.turn)
            stash(&self.c, buf + used, have - used)
            free(buf)
            if self.c.phase != P_LINE or self.c.blocked or self.c.held or self.c.yielded or self.keeps or not self.c.reading:
                self.settle()
        return self.take_sink()

    def limit(self, n):
        """The client takes n bytes more (None: any number). Only without a socket."""
        self.c.sink_room = <uint64_t> -1 if n is None else n
        if self.c.blocked and self.c.sink_room:
            self.writable()

    def drain(self):
        """What became sendable since. Only without a socket."""
        return self.take_sink()

    # Beyond replies

    def push(self, data):
        """Sends bytes that no command asked for. Returns how many were taken: all, or none while others wait."""
        cdef const unsigned char[::1] view = data
        cdef int r
        if self.c.phase == P_CLOSED or view.shape[0] == 0 or self.c.out_len or self.c.big or self.c.held:
            return 0
        r = send_now(&self.c, <const char*> &view[0], <size_t> view.shape[0])
        if r < 0:
            gone(&self.c)
        self.c.blocked = r == 0
        self.settle()
        return view.shape[0]

    def watch(self):
        """From now on the input is ignored; the owner pushes lines."""
        self.c.phase = P_WATCH

    def event(self, str kind not None, bytes key not None=b"", int ttl=-1):
        """Within owner.command: its reply stands for this event, which owner.events hears and may hold."""
        self.pending = (kind, key, ttl)
        self.c.event_pending = 1

    def release(self, errors=None):
        """Lets held replies go; errors maps an event's position to the reply that takes its place."""
        cdef bytes out = self.held
        cdef list parts
        cdef size_t at = 0
        if not self.c.held:
            return
        if errors:
            parts = []
            for position, start, end in self.spans:
                if position in errors:
                    parts.append(out[at:start])
                    parts.append(error_reply(&self.c, out[start:end], errors[position]))
                    at = end
            parts.append(out[at:])
            out = b"".join(parts)
        self.held = None
        self.spans = None
        self.c.held = 0
        if not keep(&self.c, PyBytes_AS_STRING(out), <size_t> PyBytes_GET_SIZE(out)):
            gone(&self.c)
        self.c.big = self.c.held_big
        self.c.held_big = 0
        resume(&self.c, self.engine.turn)
        self.settle()

    def grant(self):
        """The locked write that waits may take effect."""
        if self.c.phase == P_LOCKED:
            self.c.granted = 1
            self.go_on()

    def refuse(self, bytes reply not None):
        """The locked write that waits is answered so, and has no effect."""
        if self.c.phase == P_LOCKED:
            self.refusal = reply.rstrip(b"\r\n") + b"\r\n"
            self.c.refusal = PyBytes_AS_STRING(self.refusal)
            self.c.refusal_len = <size_t> PyBytes_GET_SIZE(self.refusal)
            self.go_on()

    cdef go_on(self):
        self.lock_key = None
        self.c.phase = P_READY if self.c.item else P_LINE
        resume(&self.c, self.engine.turn)
        self.settle()


cdef int sink_write_all(Conn* c, bytes data):
    c.sink_room = <uint64_t> -1
    return <int> sink_write(c, PyBytes_AS_STRING(data), <size_t> PyBytes_GET_SIZE(data))


# The session's hooks

cdef bytes NOT_TOLD = b"SERVER_ERROR invalidation not confirmed"

cdef void session_event(Conn* c, int kind, const char* key, size_t nkey, int64_t ttl) noexcept with gil:
    cdef Session self = <Session> c.self
    self.pending = (kind, PyBytes_FromStringAndSize(key, <Py_ssize_t> nkey), ttl)


cdef void session_span(Conn* c, size_t start, size_t end) noexcept with gil:
    cdef Session self = <Session> c.self
    if self.events is None:
        self.events = []
    if self.spans is None:
        self.spans = []
    position = -1
    if end > start:
        position = c.replies
        self.spans.append((position, start, end))
    kind, key, ttl = self.pending
    self.events.append((kind if isinstance(kind, str) else EVENT_NAMES[kind], key, position, ttl))


cdef bint session_flush(Conn* c) noexcept with gil:
    cdef Session self = <Session> c.self
    cdef size_t first
    events = self.events
    spans = self.spans
    self.events = None
    self.spans = None
    c.has_events = 0
    if not events:
        return 0
    try:
        hold = self.owner.events(self, events)
    except Exception:
        report("events")        # whoever gets a reply must be able to rely on it: errors, at the next turn
        hold = bool(spans)
        if hold:
            self.failed = dict.fromkeys([position for position, _, _ in spans], NOT_TOLD)
            self.owner.later(self)
    if not hold or not spans:
        return 0
    first = spans[0][1]
    self.held = PyBytes_FromStringAndSize(c.shared.out + first, <Py_ssize_t> (c.shared.out_len - first))
    self.spans = [(position, start - first, end - first) for position, start, end in spans]
    c.shared.out_len = first
    c.held_big = c.big
    c.big = 0
    c.held = 1
    return 1


cdef void session_refused(Conn* c) noexcept with gil:
    cdef Session self = <Session> c.self
    c.yielded = 1
    if not self.turn_asked:
        self.turn_asked = 1
        self.owner.later(self)


cdef bint session_wants(Conn* c, const char* key, size_t nkey) noexcept with gil:
    cdef Session self = <Session> c.self
    return PyBytes_FromStringAndSize(key, <Py_ssize_t> nkey).startswith(self.engine.write_prefixes)


cdef bint session_locked(Conn* c, const char* key, size_t nkey) noexcept with gil:
    cdef Session self = <Session> c.self
    return PyBytes_FromStringAndSize(key, <Py_ssize_t> nkey).startswith(self.engine.locked_prefixes)


cdef void session_lock(Conn* c, const char* key, size_t nkey) noexcept with gil:
    cdef Session self = <Session> c.self
    self.lock_key = PyBytes_FromStringAndSize(key, <Py_ssize_t> nkey)


cdef void session_trace(Conn* c, bint reply, const char* p, size_t n) noexcept with gil:
    cdef Session self = <Session> c.self
    try:
        text = PyBytes_FromStringAndSize(p, <Py_ssize_t> (n if n < 1024 else 1024))
        if c.binary:
            text = header_text(text)
        self.owner.trace(self, (b">%d " if reply else b"<%d ") % c.fd + text.rstrip(b"\r\n"))
    except Exception:
        report("trace")


cdef int session_cold(Conn* c, const char* line, size_t n) noexcept with gil:
    cdef Session self = <Session> c.self
    cdef bytes text = PyBytes_FromStringAndSize(line, <Py_ssize_t> n)
    try:
        if text.split(b" ", 1)[0] == b"version":
            reply = self.engine.version_reply
        else:
            reply = self.owner.command(self, text)
    except Exception:
        report("command %r" % text[:64])
        reply = b"SERVER_ERROR internal error\r\n"
    if reply is None:
        return COLD_UNKNOWN
    if c.binary and reply is not self.engine.version_reply:
        reply = stat_packets(c, text, reply)
    if not isinstance(reply, bytes):
        self.stream = iter(reply)
        return COLD_STREAM
    if len(reply) > OUT_ROOM - 1024:
        self.stream = iter([reply[i:i + BIG] for i in range(0, len(reply), BIG)])
        return COLD_STREAM
    put(c, PyBytes_AS_STRING(reply), <size_t> PyBytes_GET_SIZE(reply))
    return COLD_DONE


cdef bint session_stream(Conn* c) noexcept with gil:
    cdef Session self = <Session> c.self
    try:
        piece = next(self.stream, None)
        if piece is None or self.stream is None:
            self.stream = None
            return 0
        if not c.noreply:
            put(c, PyBytes_AS_STRING(piece), min(<size_t> PyBytes_GET_SIZE(piece), <size_t> (OUT_ROOM - 1024)))
        return 1
    except Exception:
        report("stream")
        self.stream = None
        return 0


cdef report(what):
    import logging
    logging.getLogger("mcserver").exception("internal error: %s", what)


cdef void set_hooks(Shared* sh) noexcept:
    sh.on_flush = session_flush
    sh.on_cold = session_cold
    sh.on_stream = session_stream
    sh.on_trace = session_trace
    sh.on_lock = session_lock
    sh.on_span = session_span
    sh.on_event = session_event
    sh.wants_event = session_wants
    sh.is_locked = session_locked
    sh.on_refused = session_refused
