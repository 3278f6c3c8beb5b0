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


cdef spell(Engine self, owner, session):
    # The journal: to whoever observes, and to the owner's trace.
    cdef size_t length = 0, at = 0
    cdef char* records
    cdef Record* r
    if self.spelling:           # somebody who is told of a record caused more
        return
    self.spelling = 1
    engine_lock(&self.s)
    records = journal_take(&self.s.journal, &length)
    engine_unlock(&self.s)
    while at < length:
        r = <Record*> (records + at)
        at += r.length
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
    self.spelling = 0
