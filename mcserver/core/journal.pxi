# The journal as Python sees it: what the store tells goes in, and comes out as events and as the lines of -vv. Included by
# engine.pyx.
#
# Owns the names of events and of their fields. Must never be spelled under the lock.

cdef dict LOG_NAMES = {LOG_FETCH: "item_get", LOG_MUTATE: "item_store", LOG_EVICT: "eviction", LOG_DELETE: "deleted"}
cdef tuple FOUND_NAMES = ("found", "not_found", "expired", "flushed")


cdef void note(void* owner, int kind, const char* key, size_t nkey, Item* it, const char* status, const char* cmd, int64_t ttl,
               uint64_t size, int cls) noexcept nogil:
    cdef Store* s = <Store*> owner
    cdef Record* r = journal_add(&s.journal, key, nkey)
    if r != NULL:
        r.kind = kind
        r.fd = s.log_fd
        r.cls = cls
        r.size = size
        r.ttl = ttl
        r.status = status
        r.cmd = cmd
        r.fetched = it != NULL and it.state & S_FETCHED != 0
        r.age = (s.tick - it.time) // TICKS if it != NULL else 0


cdef void count_prefix(void* owner, int op, const char* key, size_t nkey) noexcept nogil:
    prefix_count(&(<Store*> owner).prefixes, op, key, nkey)


cdef tuple item_event(Record* r):
    # The kind and the fields of a record of LOG_*.
    fields = {"key": PyBytes_FromStringAndSize(text_of(r), <Py_ssize_t> r.nkey), "clsid": r.cls, "size": r.size, "fd": r.fd}
    if r.kind == LOG_FETCH:
        fields["status"] = FOUND_NAMES[r.ttl]
    elif r.kind == LOG_MUTATE:
        fields["status"] = (<bytes> r.status).decode()
        fields["cmd"] = (<bytes> r.cmd).decode()
        fields["ttl"] = r.ttl
    elif r.kind == LOG_DELETE:
        fields["cmd"] = (<bytes> r.cmd).decode()
    else:
        fields["fetch"] = bool(r.fetched)
        fields["ttl"] = r.ttl
        fields["la"] = r.age
    return LOG_NAMES[r.kind], fields


cdef bint spell(Engine self, owner, session, bint take, int most) except -1:
    # The journal's records, so many at most (0: all), to whoever observes and to the owner's trace: those that were taken from it
    # before, then (take) what is in it now. False: there are more.
    cdef Record* r
    if self.spelling:           # somebody who is told of a record caused more
        return 1
    self.spelling = 1
    if self.spelled == self.to_spell and take:
        take_journal(self)
        take = 0
    while self.spelled < self.to_spell:
        r = <Record*> self.spelled
        self.spelled += r.length
        try:
            if r.kind & (J_COMMAND | J_REPLY):
                text = PyBytes_FromStringAndSize(text_of(r), <Py_ssize_t> r.nkey)
                if r.kind & J_BINARY:
                    text = header_text(text)
                owner.trace(session, (b">%d " if r.kind & J_REPLY else b"<%d ") % r.fd + text.rstrip(b"\r\n"))
            elif self.log_callback is not None:
                self.log_callback(*item_event(r))
        except Exception:
            report("log")
        most -= 1
        if most == 0:
            break
        if self.spelled == self.to_spell and take:
            take_journal(self)
            take = 0
    if self.untraced and self.spelled == self.to_spell:
        owner.trace(None, b"-- %d commands and replies are not shown: they came too fast" % self.untraced)
        self.untraced = 0
    self.spelling = 0
    return self.spelled == self.to_spell and not take


cdef void take_journal(Engine self) noexcept:
    cdef size_t length = 0
    engine_lock(&self.s)
    self.spelled = journal_take(&self.s.journal, &length)
    self.untraced += self.s.untraced
    self.s.untraced = 0
    engine_unlock(&self.s)
    self.to_spell = self.spelled + length
