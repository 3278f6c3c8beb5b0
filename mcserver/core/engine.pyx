# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: embedsignature=True
"""The compiled core's Python face: Engine (one cache), Workers (its threads) and Session (one connection).

Owns the bridge between Python objects and the rooms below it (memory, index, items, commands, session, worker), which are C.
Must never know asyncio or ZooKeeper, nor what an administrative command means: those go to the session's owner. Every method
that touches the store takes the engine's lock for it, and makes no Python object meanwhile (lock.pxd).
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject, Py_DECREF, Py_INCREF
from libc.errno cimport errno, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset, strlen

from .memory cimport *
from .index cimport *
from .mrc cimport *
from .store cimport *
from .items cimport *
from .flush cimport *
from .room cimport *
from .lists cimport *
from .ghosts cimport *
from .evict cimport *
from .exchange cimport *
from .slices cimport *
from .uploads cimport *
from .walk cimport *
from .kept cimport *
from .text cimport *
from .values cimport *
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .binary cimport *
from .login cimport *
from .session cimport *
from .datagrams cimport *
from .pool cimport *
from .requests cimport *
from .worker cimport *
from .wire cimport *
from .mail cimport *
from .lock cimport *
from .journal cimport *
from .prefixes cimport *
from .rules cimport *

import itertools
import os
import time
from collections import namedtuple

ERROR = bytes(WIRE_ERROR)
OK = bytes(WIRE_OK)
END = bytes(WIRE_END)
BAD_FORMAT = bytes(WIRE_BAD_FORMAT)
BAD_EXPTIME = bytes(WIRE_BAD_EXPTIME)
MEMORY_LIMIT_LEAST = 2 << 20
MEMORY_LIMIT_MOST = (<uint64_t> 1 << (32 + MAX_SHIFT)) - PAGE_SIZE_MOST
READ_BUFFERS = 64 << 20     # bytes that all lines without an end may take together

ItemInfo = namedtuple("ItemInfo", "key exptime last_access cas fetched cls size flags binary")

cdef enum:
    WALK_SLICE = 2000           # chunks that a dump looks at before others get their turn
    DEAD_A_STEP = 256           # items that are freed before the clock is looked at
    MOVED_A_SLICE = 1024        # items that change lists before others get the lock
    TRIM_A_SLICE = 8            # pages that are given back to the system, each a system call
    OVERDUE_SHARE = 64          # a pass begins at once when more than one item in so many is dead
    SIZES_SLICE = 65536
    WATCHED_BYTES = 65536       # of lines for watchers that nobody has spelled yet

cdef tuple EVENT_NAMES = ("delete", "stale", "flush", "flush_later", "write", "login_failed")
cdef dict PROTOCOLS = {"auto-negotiate": PROTOCOL_AUTO, "ascii": PROTOCOL_ASCII, "binary": PROTOCOL_BINARY}
cdef dict LOGINS = {None: LOGIN_NONE, "ascii": LOGIN_ASCII, "sasl": LOGIN_SASL}
cdef tuple PHASES = ("conn_new_cmd", "conn_nread", "conn_swallow", "conn_mwrite", "conn_parse_cmd", "conn_mwrite", "conn_mwrite",
                     "conn_mwrite", "conn_mwrite", "conn_waiting", "conn_waiting", "conn_watch", "conn_closing")
cdef tuple REASONS = ("normal", "error", "idle_timeout", "shutdown", "binary", "text", "tls", "http", "resp",
                      "plain", "tls_handshake", "tls_slow", "tls_record")
cdef dict LOG_NAMES = {LOG_FETCH: "item_get", LOG_MUTATE: "item_store", LOG_EVICT: "eviction", LOG_DELETE: "deleted"}
cdef dict GATES = {None: GATE_OPEN, "miss": GATE_MISS, "error": GATE_ERROR, "serve": GATE_SERVE}
cdef tuple FOUND_NAMES = ("found", "not_found", "expired", "flushed")


cdef extern from "<sys/socket.h>" nogil:
    int accept4(int fd, void* address, void* length, int flags)
    enum: SOCK_NONBLOCK, SOCK_CLOEXEC

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
    enum: PR_SET_NO_NEW_PRIVS

cdef extern from "<sys/mman.h>" nogil:
    int mlockall(int flags)
    enum: MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT

cdef extern from "<semaphore.h>" nogil:
    int sem_init(sem_t* s, int shared, unsigned int value)
    int sem_wait(sem_t* s)
    int sem_destroy(sem_t* s)


cdef class Engine


def forbid_new_privileges():
    """Nothing that this process starts can get more rights than it has. Before the first thread; OSError if it can't be."""
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(errno, os.strerror(errno))


def lock_all_memory():
    """What this process uses, now and later, is never swapped; what is only reserved takes none by it. OSError if it can't be."""
    if mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        raise OSError(errno, os.strerror(errno))


include "binary_face.pxi"
include "session_object.pxi"
include "figures.pxi"
include "dumps.pxi"
include "tls_object.pxi"
include "kept.pxi"
include "workers.pxi"


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


cdef int set_prefixed(Store* s, Prefixed* list, prefixes) except -1:
    # Puts these texts in the place of those that were there.
    cdef char* old = list.texts
    cdef char* texts
    joined = b"".join([len(each).to_bytes(2, "little") + each for each in prefixes])
    texts = <char*> malloc(len(joined) + 1)
    if texts == NULL:
        raise MemoryError
    memcpy(texts, PyBytes_AS_STRING(joined), <size_t> len(joined))
    engine_lock(s)
    list.texts = texts
    list.length = <size_t> len(joined)
    engine_unlock(s)
    free(old)
    return 0


cdef Users* users_make(list users) except NULL:
    # Names and passwords as login.pxd compares them.
    cdef Users* u = users_new(<int> len(users), sum(len(name) + len(password) for name, password in users))
    cdef char* at
    cdef User* user
    cdef bytes name, password
    if u == NULL:
        raise MemoryError
    at = <char*> (u.user + len(users))
    for name, password in users:
        user = &u.user[u.count]
        user.name = at
        user.name_len = <size_t> len(name)
        memcpy(at, PyBytes_AS_STRING(name), user.name_len)
        at += user.name_len
        user.password = at
        user.password_len = <size_t> len(password)
        memcpy(at, PyBytes_AS_STRING(password), user.password_len)
        at += user.password_len
        u.count += 1
    return u


cdef class Engine:
    """One cache: its memory, its clock, its figures. See the architecture page for every argument and method.

    Sizes are in bytes, times in seconds. Raises ValueError, with what to change, for settings that can't work, and
    MemoryError when the system refuses the address space."""

    cdef Store s
    cdef Shared shared          # of sessions that are driven by hand; the workers' follow it
    cdef Box outbox             # ... and their letters
    cdef Walk walk_state
    cdef bint pumping
    cdef bint resumed           # it serves what another process kept
    cdef bint spelling
    cdef char* spelled          # where the journal's records go on that were taken and not spelled yet
    cdef char* to_spell         # ... and where they end
    cdef uint64_t untraced
    cdef bint opened
    cdef object log_callback
    cdef bytes prefix_delimiter
    cdef bytes version_reply
    cdef uint64_t read_before   # bytes, at the last `stats reset`
    cdef uint64_t written_before
    cdef public bint crawler_enabled
    cdef uint64_t next_walk
    cdef uint64_t next_hurry
    cdef uint32_t clock_at_walk
    cdef int _verbosity
    cdef object __weakref__

    def __cinit__(self, *, memory_limit=64 << 20, item_size_max=1 << 20, evictions=True, cas=True, growth_factor=1.25,
                  hash_seed=None,
                  chunk_size=48, slab_chunk_max=512 << 10, slab_sizes=None, segmented=True, hot_lru_pct=20,
                  warm_lru_pct=40, hot_max_factor=0.2, warm_max_factor=2.0, temporary_ttl=-1, hashpower_init=0,
                  requests_per_event=20, prefix_delimiter=b":", track_sizes=False, version=b"1.6.45",
                  manual_clock=False, flush_enabled=True, protocol="auto-negotiate", maintained=True, room_for="requests",
                  read_buffers=READ_BUFFERS, log_buffer=WATCHED_BYTES, reserve=None, memory_fd=-1):
        cdef Store* s = &self.s
        cdef int power
        import weakref
        if memory_limit < MEMORY_LIMIT_LEAST:
            raise ValueError("the memory limit must be at least 2 megabytes")
        if memory_limit > MEMORY_LIMIT_MOST:
            raise ValueError(f"the memory limit can be at most {MEMORY_LIMIT_MOST >> 20} megabytes")
        if not 1024 <= item_size_max <= min(memory_limit // 2, 1 << 30):
            raise ValueError("the item size limit must be at least 1024 bytes and at most half of the memory limit and 1g")
        if growth_factor <= 1:
            raise ValueError("the slab growth factor must be greater than 1")
        if chunk_size < 1 or chunk_size > 1 << 16:
            raise ValueError("the smallest slab chunk must be 1 to 65536 bytes")
        if not (1 <= hot_lru_pct <= 79 and 1 <= warm_lru_pct <= 79 and hot_lru_pct + warm_lru_pct <= 80):
            raise ValueError("hot_lru_pct and warm_lru_pct must be 1 to 79 and together at most 80")
        if slab_sizes and min(slab_sizes) < 1:
            raise ValueError("slab_sizes must be at least 1 byte each")
        if room_for not in ("requests", "bytes"):
            raise ValueError("room_for must be requests or bytes")
        if not 1024 <= slab_chunk_max <= PAGE_SIZE_MOST or PAGE_SIZE_MOST % slab_chunk_max:
            raise ValueError("slab_chunk_max must be 1 to 1024 kilobytes, and divide 1024 evenly")
        s.memory_limit = memory_limit
        s.item_size_max = item_size_max
        s.evictions = evictions
        s.use_cas = cas
        s.segmented = segmented
        s.maintained = maintained
        s.room_for_bytes = room_for == "bytes"
        s.uploads.next = &s.uploads
        s.uploads.prev = &s.uploads
        s.readers.next = &s.readers
        s.readers.prev = &s.readers
        pthread_mutex_init(&s.queue, NULL)
        self.opened = 1
        s.flush_enabled = flush_enabled
        if protocol not in PROTOCOLS:
            raise ValueError("protocol is auto-negotiate, ascii or binary")
        s.protocol = PROTOCOLS[protocol]
        s.slab_chunk_max = slab_chunk_max
        s.automove = 1
        s.attempt = 1
        s.hot_pct = hot_lru_pct
        s.warm_pct = warm_lru_pct
        s.hot_factor = hot_max_factor
        s.warm_factor = warm_max_factor
        s.temp_ttl = temporary_ttl
        s.cas = 1 if cas else 0
        s.manual = manual_clock
        s.start_ns = boot_clock()
        s.wall_start = <int64_t> time.time() - CLOCK_START
        s.owner = s
        s.log = note
        s.prefix = count_prefix
        s.turn = requests_per_event
        s.in_most = read_buffers
        self.prefix_delimiter = prefix_delimiter
        s.prefixes.delimiter = PyBytes_AS_STRING(self.prefix_delimiter)
        s.prefixes.ndelimiter = <size_t> len(prefix_delimiter)
        clock_set(s, s.start_ns)
        if reserve is None:
            reserve = 32 << 30      # so far the limit can be raised
        if arena_open(&s.arena, memory_limit, reserve, memory_fd) != 0:
            raise MemoryError(f"the system refuses {memory_limit >> 20} megabytes of address space: lower -m")
        self.make_classes(chunk_size, growth_factor, slab_chunk_max, slab_sizes)
        if ghosts_open(&s.ghosts, ghosts_for(memory_limit)) != 0:
            raise MemoryError("the system refuses address space: lower -m")
        s.arena.pages_limit = self.pages_for(memory_limit)
        power = hashpower_init or 16
        if index_open(&s.index, s.arena.reserved // 48, power) != 0:
            raise MemoryError("the system refuses address space for the hash table: lower -m")
        s.mrc = mrc_open(memory_limit, mrc_budget(memory_limit))
        if s.mrc == NULL:
            raise MemoryError
        s.mrc.by_bytes = s.room_for_bytes
        seed = hash_seed or os.urandom(16)
        s.index.k0 = int.from_bytes(seed[:8], "little")
        s.index.k1 = int.from_bytes(seed[8:], "little")
        rules_open(&s.rules, int.from_bytes(os.urandom(8), "little"))
        if track_sizes:
            s.size_count = <uint32_t*> calloc(item_size_max // 32 + 16, 4)
            if s.size_count == NULL:
                raise MemoryError
        if box_open(&self.outbox, 0) != 0 or shared_open(&self.shared, &self.outbox, NULL) != 0 \
                or journal_open(&s.journal, max(log_buffer, 4096)) != 0:
            raise MemoryError
        self.version_reply = b"VERSION " + version + b"\r\n"
        self.shared.version = PyBytes_AS_STRING(self.version_reply)
        self.shared.version_len = <size_t> len(self.version_reply)
        self.crawler_enabled = True

    cdef make_classes(self, chunk_size, growth_factor, slab_chunk_max, slab_sizes):
        cdef Arena* a = &self.s.arena
        cdef uint32_t unit = 1 << a.shift
        cdef int i
        largest = min(slab_chunk_max, PIECE_MOST, a.page_size // CHUNKS_LEAST)
        if not slab_sizes:
            first = (48 + chunk_size + unit - 1) // unit * unit
            arena_classes(a, first, growth_factor, largest)
            self.make_bands(growth_factor)
            return
        if len(slab_sizes) > MAX_CLASSES - 2 or list(slab_sizes) != sorted(set(slab_sizes)):
            raise ValueError("slab_sizes must be at most 62 sizes, each greater than the one before")
        a.classes = 0
        for size in slab_sizes:
            size = (48 + size + unit - 1) // unit * unit
            if size >= slab_chunk_max:
                raise ValueError("slab_sizes must be smaller than slab_chunk_max")
            if size >= largest or a.classes and size <= a.cls[a.classes].size:
                continue
            arena_add_class(a, size)
        arena_add_class(a, largest)
        self.make_bands(1.25)

    cdef make_bands(self, factor):
        cdef Arena* a = &self.s.arena
        arena_tails(a)
        most = self.s.item_size_max + HEADER
        ids = MAX_CLASSES - 1 - a.lists
        if ids > 0:
            factor = max(factor, (most / a.cls[a.classes].size) ** (1 / ids))
            arena_bands(a, factor, most)

    cdef uint32_t pages_for(self, uint64_t limit) noexcept:
        # Pages of a memory of so many bytes; a large table of ghosts is taken off.
        cdef uint64_t ghosts = ghosts_beyond(self.s.ghosts.most)
        return <uint32_t> ((limit - ghosts if limit > 2 * ghosts else limit // 2) >> self.s.arena.page_bits)

    def __dealloc__(self):
        arena_close(&self.s.arena)
        index_close(&self.s.index)
        ghosts_close(&self.s.ghosts)
        rules_close(&self.s.rules)
        free(self.s.size_count)
        free(self.s.mrc)
        free(self.s.told_prefixes.texts)
        free(self.s.locked_prefixes.texts)
        prefixes_clear(&self.s.prefixes)
        journal_close(&self.s.journal)
        shared_close(&self.shared)
        if self.opened:
            box_close(&self.outbox)
            pthread_mutex_destroy(&self.s.queue)
        users_free(self.s.users)

    # Time

    def now(self):
        """Seconds on the engine's clock."""
        cdef uint64_t elapsed
        engine_lock(&self.s)
        clock_update(&self.s)
        elapsed = self.s.elapsed_ns
        engine_unlock(&self.s)
        return elapsed / 1e9 + CLOCK_START

    def wall(self, double seconds):
        """The engine's second as unix time."""
        return seconds + self.s.wall_start

    def advance(self, double seconds):
        """Moves the clock (tests, and debugtime)."""
        engine_lock(&self.s)
        self.s.skew_ns += <int64_t> (seconds * 1e9)
        clock_set(&self.s, self.s.start_ns if self.s.manual else boot_clock())
        engine_unlock(&self.s)

    def set_wall(self, double unix_time):
        """It is this unix time now (tests): absolute times to live count from it. The engine's own clock goes on as it was."""
        engine_lock(&self.s)
        clock_update(&self.s)
        self.s.wall_start = <int64_t> unix_time - <int64_t> self.s.sec
        engine_unlock(&self.s)

    def pause_clock(self):
        engine_lock(&self.s)
        clock_update(&self.s)
        self.s.paused = 1
        engine_unlock(&self.s)

    def resume_clock(self):
        engine_lock(&self.s)
        self.s.paused = 0
        clock_update(&self.s)
        engine_unlock(&self.s)

    # Sessions

    cdef pump(self, Session session):
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
            self.spell(session.owner, session, 1, 0)

    cdef bint spell(self, owner, session, bint take, int most) except -1:
        # The journal's records, so many at most (0: all), to whoever observes and to the owner's trace: those that were taken from it
        # before, then (take) what is in it now. False: there are more.
        cdef Record* r
        if self.spelling:           # somebody who is told of a record caused more
            return 1
        self.spelling = 1
        if self.spelled == self.to_spell and take:
            self.take_journal()
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
                self.take_journal()
                take = 0
        if self.untraced and self.spelled == self.to_spell:
            owner.trace(None, b"-- %d commands and replies are not shown: they came too fast" % self.untraced)
            self.untraced = 0
        self.spelling = 0
        return self.spelled == self.to_spell and not take

    cdef void take_journal(self) noexcept:
        cdef size_t length = 0
        engine_lock(&self.s)
        self.spelled = journal_take(&self.s.journal, &length)
        self.untraced += self.s.untraced
        self.s.untraced = 0
        engine_unlock(&self.s)
        self.to_spell = self.spelled + length

    cdef void remove_shared(self, Pool* pool) noexcept:
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

    # Figures

    def stats(self):
        """Every figure of `stats` that the engine knows, by memcached's names (protocol page, 2.1)."""
        return general_figures(self)

    def item_stats(self):
        """`stats items`, by LRU class; classes without items are left out."""
        return list_figures(self)

    def slab_stats(self):
        """`stats slabs`: the classes that have or had a page, how many have one, and the bytes of all pages."""
        return slab_figures(self)

    def mrc_stats(self):
        """`stats mrc`: what the miniatures saw since the last reset, and `curve`, by factor of the memory: its bytes and the
        hit ratio (0 to 1) that they would have given; None below MRC_ENOUGH samples (memory curve page)."""
        cdef Store* s = &self.s
        cdef Mrc* m = s.mrc
        cdef ClassStats* c
        cdef int i
        cdef uint64_t hits = 0, gets, samples, keys, block
        cdef double stands_for, memory
        cdef double sampled[MINIS]
        cdef double ratios[MINIS]
        cdef double factors[MINIS]
        cdef double rate
        cdef bint enough
        engine_lock(s)
        gets = s.n.cmd_get + s.n.cmd_touch
        for i in range(MAX_CLASSES):
            c = &s.cls[i]
            hits += hits_of(c) + c.touch_hits
        hits -= s.n.vivified
        samples, keys, block, stands_for, memory, rate = m.samples, m.keys, m.block, m.gets, m.memory, mrc_rate(m)
        enough = samples >= MRC_ENOUGH and gets > 0
        for i in range(MINIS):
            ratios[i] = mrc_ratio(m, i, <double> hits, <double> gets) if enough else 0
            factors[i] = m.mini[i].factor
            sampled[i] = m.mini[i].hits
        engine_unlock(s)
        curve = {factors[i]: (<uint64_t> (memory * factors[i]), ratios[i] if enough else None) for i in range(MINIS)}
        return {"samples": samples, "sampling_rate": rate, "keys": keys, "memory": block, "gets": gets,
                "stands_for": stands_for, "sampled_hits": [sampled[i] for i in range(MINIS)], "curve": curve}

    def mrc_faults(self):
        """What is wrong with the miniatures' lists and sums, as text; empty when all is well. For tests: slow."""
        cdef const char* fault
        engine_lock(&self.s)
        fault = mrc_check(self.s.mrc)
        engine_unlock(&self.s)
        return "" if fault == NULL else (<bytes> fault).decode()

    def sizes(self):
        """Items by size in steps of 32 bytes: (size, count), in order; or None without track_sizes."""
        return None if self.s.size_count == NULL else self.each_size()

    def each_size(self):
        cdef uint64_t i, most = self.s.item_size_max // 32 + 16
        for i in range(most):
            if self.s.size_count[i]:
                yield i * 32, self.s.size_count[i]
            elif i and i % SIZES_SLICE == 0:
                yield i * 32, 0             # so that whoever asks can give up its turn

    def reset_stats(self):
        """`stats reset`: clears counters, keeps gauges."""
        cdef int i
        cdef Store* s = &self.s
        cdef Prefixes old
        cdef uint64_t read = 0, written = 0
        engine_lock(s)
        memset(&s.n, 0, sizeof(Counters))
        for i in range(MAX_CLASSES):
            memset(&s.cls[i], 0, sizeof(ClassStats))
        mrc_reset(s.mrc)
        set64(&s.in_refused, 0)
        s.journal.dropped = 0
        s.journal.written = 0
        old = s.prefixes
        s.prefixes.table = NULL
        s.prefixes.count = 0
        s.prefixes.left_out = 0
        s.prefixes.generation += 1
        traffic(self, &read, &written)
        self.read_before = read
        self.written_before = written
        engine_unlock(s)
        prefixes_clear(&old)

    def measure_lock(self):
        """From now on the lock's holders are timed, by their CPU time, which nothing beside them changes; for tests, as it costs
        two system calls each time."""
        engine_lock(&self.s)
        self.s.measured = 1
        self.s.held_ns = self.s.held_most = self.s.passed_most = 0
        hold_begins(&self.s)
        engine_unlock(&self.s)

    def lock_times(self):
        """Seconds of CPU time: the longest that the lock was held, the longest for which others held it while one thread waited,
        and all together."""
        cdef uint64_t most, passed, all
        engine_lock(&self.s)
        most, passed, all = self.s.held_most, self.s.passed_most, self.s.held_ns
        engine_unlock(&self.s)
        return most / 1e9, passed / 1e9, all / 1e9

    def prefix_stats(self):
        """Prefix, gets, hits, sets, deletes: each as it was counted when its part of the table was looked at."""
        return _prefixes(self)

    @property
    def prefixes_left_out(self):
        """Events of prefixes for which there was no room."""
        cdef uint64_t n
        engine_lock(&self.s)
        n = self.s.prefixes.left_out
        engine_unlock(&self.s)
        return n

    @property
    def detail(self):
        return bool(self.s.detail)

    @detail.setter
    def detail(self, on):
        cdef bint wanted = bool(on)
        engine_lock(&self.s)
        self.s.detail = wanted
        engine_unlock(&self.s)

    @property
    def verbosity(self):
        return self._verbosity

    @verbosity.setter
    def verbosity(self, int level):
        self._verbosity = level
        engine_lock(&self.s)
        self.s.trace = level > 1
        engine_unlock(&self.s)

    # Administration

    def require_login(self, kind, users=()):
        """Who connects from now on must log in first: `ascii` (-Y) or `sasl` (-S), as one of the users, pairs of name and
        password in bytes; None: nobody must. Connections that are there stay as they are; a new list counts for their next try."""
        cdef Users* old
        cdef Users* new
        cdef int login
        if kind not in LOGINS:
            raise ValueError("a login is ascii, sasl or None")
        login = LOGINS[kind]
        new = users_make(list(users))
        engine_lock(&self.s)
        old = self.s.users
        self.s.login = login
        self.s.users = new
        engine_unlock(&self.s)
        users_free(old)

    def flush_all(self, delay=0):
        """Everything stored so far is dead, at once or after `delay` (an exptime as flush_all takes it)."""
        cdef int64_t exptime = delay
        engine_lock(&self.s)
        clock_update(&self.s)
        flush_all(&self.s, exptime)
        engine_unlock(&self.s)

    def set_memory_limit(self, limit):
        """Changes -m; a lower limit is reached in slices by `maintain`. False if there is no address space for it."""
        if limit < MEMORY_LIMIT_LEAST or (limit >> self.s.arena.page_bits) > self.s.arena.pages_max:
            return False
        cdef uint64_t most = limit
        engine_lock(&self.s)
        self.s.memory_limit = most
        mrc_resize(self.s.mrc, most)
        self.s.arena.pages_limit = self.pages_for(most)
        engine_unlock(&self.s)
        return True

    def tune_lru(self, int hot_pct, int warm_pct, double hot_factor, double warm_factor):
        engine_lock(&self.s)
        self.s.hot_pct = hot_pct
        self.s.warm_pct = warm_pct
        self.s.hot_factor = hot_factor
        self.s.warm_factor = warm_factor
        engine_unlock(&self.s)

    def set_segmented(self, on):
        """`lru mode`: segmented, or one list for each class (flat), to which all items then move."""
        cdef Store* s = &self.s
        cdef bint wanted = bool(on)
        engine_lock(s)
        s.segmented = wanted
        if not wanted:
            self.flatten()
        engine_unlock(s)

    cdef void flatten(self) noexcept nogil:
        # Under the lock, which others get in between.
        cdef Store* s = &self.s
        cdef int i
        for i in range(1, s.arena.lists + 1):
            self.empty_list(i, TEMP)
            self.empty_list(i, HOT)
            self.forget_uses(i)

    cdef void empty_list(self, int cls, int seg) noexcept nogil:
        cdef Store* s = &self.s
        cdef uint32_t h, n = 0
        while s.lru[cls][seg].tail:
            h = s.lru[cls][seg].tail
            list_move(s, h, item_at(&s.arena, h), COLD)
            n += 1
            if n % MOVED_A_SLICE == 0:
                engine_unlock(s)
                engine_lock(s)

    cdef void forget_uses(self, int cls) noexcept nogil:
        # In a flat LRU nobody is counted as used.
        cdef Store* s = &self.s
        cdef uint32_t h = s.lru[cls][COLD].tail, before, n = 0
        cdef uint64_t size
        cdef Item* it
        while h:
            it = item_at(&s.arena, h)
            set_uses(it, 0)
            if it.seg & SEG_MASK == WARM:
                size = size_of(s, it)
                s.lru[cls][WARM].count -= 1
                s.lru[cls][WARM].bytes -= size
                s.lru[cls][COLD].count += 1
                s.lru[cls][COLD].bytes += size
                it.seg = <uint8_t> ((it.seg & ~SEG_MASK) | COLD)
            before = it.prev
            n += 1
            if n % MOVED_A_SLICE == 0:
                it.refs += 1
                engine_unlock(s)
                engine_lock(s)
                # Another thread may have taken it out of the list meanwhile: then from the end again, where all is done.
                before = it.prev if it.state & S_LINKED and it.cls == cls and list_id(it.seg & SEG_MASK) == COLD \
                    else s.lru[cls][COLD].tail
                item_release(s, h)
            h = before

    def set_temporary_ttl(self, seconds):
        cdef int64_t ttl = seconds
        engine_lock(&self.s)
        self.s.temp_ttl = ttl
        engine_unlock(&self.s)

    def reassign_page(self, int src, int dst):
        """`slabs reassign`: OK, BUSY, BADCLASS, NOSPARE or SAME."""
        cdef const char* answer
        engine_lock(&self.s)
        clock_update(&self.s)
        self.s.attempt += 1
        answer = reassign(&self.s, src, dst)
        engine_unlock(&self.s)
        return (<bytes> answer).decode()

    @property
    def automove(self):
        return self.s.automove

    @automove.setter
    def automove(self, int level):
        engine_lock(&self.s)
        self.s.automove = level
        engine_unlock(&self.s)

    def cachedump(self, int cls, int limit, int budget=400):
        """At most `limit` (0: all, up to 2 MiB of text) live items of a class, from the LRU's head: (key, length, expiry).

        In lists, each from at most `budget` items of the LRU. Items whose key came base64-encoded are left out, as by
        memcached. Should all of the last items looked at have moved between two lists, the rest of that LRU is missed."""
        return _dump_of_list(self, cls, limit, budget)

    def walk(self, classes=None, int budget=200):
        """Live items (of some LRU classes) page by page, in lists of at most `budget`; an empty list where few match.

        Items that are stored, or move, while it runs may be missed."""
        return _dump_of_pages(self, classes, budget)

    def crawl(self, classes=None, limit=0):
        """Starts a pass that frees dead items (`lru_crawler crawl`). False while one asked for is running."""
        cdef uint64_t mask = 0, most = limit
        cdef bint busy
        if classes is None:
            mask = <uint64_t> 0xFFFFFFFFFFFFFFFF
        else:
            for cls in classes:
                mask |= <uint64_t> 1 << <int> cls
        engine_lock(&self.s)
        busy = self.walk_state.running and self.walk_state.asked
        if not busy:
            walk_start(&self.s, &self.walk_state, mask, most, 1)
        engine_unlock(&self.s)
        return not busy

    @property
    def crawler_running(self):
        return bool(self.walk_state.running)

    @property
    def classes(self):
        """The largest class id, of slab classes and of the bands above them."""
        return self.s.arena.lists

    @property
    def memory_limit_most(self):
        """The largest limit that set_memory_limit takes, in bytes."""
        return <uint64_t> self.s.arena.pages_max << self.s.arena.page_bits

    def maintain(self, int budget_us=1000):
        """One slice of background work; returns the seconds after which it wants to be called again."""
        cdef uint64_t began = boot_clock(), limit = <uint64_t> budget_us * 1000
        cdef double rest
        while True:
            engine_lock(&self.s)
            rest = self.maintain_slice(limit if limit < SLICE_NS else SLICE_NS)
            engine_unlock(&self.s)
            if rest > 0.001 or boot_clock() - began >= limit:
                return rest

    cdef double maintain_slice(self, uint64_t limit) noexcept nogil:
        # Under the lock, for so many ns.
        cdef Store* s = &self.s
        cdef Walk* w = &self.walk_state
        cdef uint64_t began
        cdef int i
        cdef bint more = 0, full = 0
        clock_update(s)
        s.attempt += 1
        began = boot_clock()
        while s.arena.pages_used > s.arena.pages_limit:
            if not shrink_step(s):
                break
            if boot_clock() - began > limit:
                more = 1
                break
        if s.arena.pooled and s.arena.pages_used + s.arena.pooled > s.arena.pages_limit:
            more = more or arena_trim(&s.arena, TRIM_A_SLICE) == TRIM_A_SLICE
        while boot_clock() - began < limit and garbage_free(s, DEAD_A_STEP) == DEAD_A_STEP:
            pass
        while compact_step(s):
            if boot_clock() - began >= limit:
                more = 1
                break
        if s.maintained and boot_clock() - began < limit:
            s.n.juggles += 1
            for i in range(1, s.arena.lists + 1):
                while list_items(s, i) and free_dead_ends(s, i, DEAD_A_STEP) == DEAD_A_STEP:
                    if boot_clock() - began > limit:
                        full = 1
                        break
                if full:
                    break
            more = more or full
        more = more or s.garbage or s.mover.page
        if not w.running and s.rules.count:
            walk_start(s, w, <uint64_t> 0xFFFFFFFFFFFFFFFF, 0, 1)
        elif not w.running and self.crawler_enabled and s.sec >= self.next_hurry and s.overdue > s.index.count // OVERDUE_SHARE:
            self.next_hurry = s.sec + 2                 # many are dead, and who met them at the lists' ends met few
            walk_start(s, w, <uint64_t> 0xFFFFFFFFFFFFFFFF, 0, 1)
        elif not w.running and (self.crawler_enabled and s.sec >= self.next_walk and (s.timed or s.flush_epoch)
                                or s.clock - self.clock_at_walk > <uint32_t> (OLDEST // 2)):
            walk_start(s, w, <uint64_t> 0xFFFFFFFFFFFFFFFF, 0, 0)
        while w.running and boot_clock() - began < limit:
            if not walk_step(s, w, 256):
                self.next_walk = s.sec + 10
                self.clock_at_walk = s.clock
        if w.running:
            return 0.001 if w.asked or more or s.rules.count else 0.05
        return 0.001 if more or s.rules.count else 0.25

    # From one process to the next

    def keep(self, sums=True):
        """The record with which another process serves what lies in `memory_fd`. No connection may be open, and nothing may follow.

        sums: with checksums of the memory."""
        return record_of(self, sums)

    def layout(self):
        """What must be the same in an engine that is to resume this one's record, for `differs`."""
        cdef bytes layout = PyBytes_FromStringAndSize(NULL, sizeof(KeptHead))
        memset(PyBytes_AS_STRING(layout), 0, sizeof(KeptHead))
        kept_layout(&self.s, <KeptHead*> PyBytes_AS_STRING(layout))
        return layout

    def differs(self, bytes layout not None):
        """How this engine differs from one of that layout, whose record it then can't resume; "" if it doesn't."""
        cdef const char* how = b"it is of another version"
        if len(layout) == sizeof(KeptHead):
            how = kept_fits(&self.s, <KeptHead*> PyBytes_AS_STRING(layout))
        return "" if how == NULL else (<bytes> how).decode()

    def resume(self, bytes record not None, double away):
        """Serves what another engine kept in `memory_fd`, so many seconds later. Only of an engine that is new.

        Raises ValueError when the record, the memory or this engine's settings don't allow it: the engine is then of no use."""
        cdef KeptHead* k = <KeptHead*> PyBytes_AS_STRING(record)
        cdef size_t length = <size_t> len(record)
        cdef uint64_t away_ns = <uint64_t> (min(max(away, 0.0), 1e9) * 1e9)
        cdef const char* wrong
        cdef uint64_t file_size = os.fstat(self.s.arena.fd).st_size if self.s.arena.fd >= 0 else 0
        if self.s.index.count or self.s.arena.pages_used:
            raise ValueError("this engine has items already")
        with nogil:
            engine_lock(&self.s)
            wrong = take_over(self, k, length, file_size, away_ns)
            engine_unlock(&self.s)
        if wrong != NULL:
            raise ValueError((<bytes> wrong).decode())
        self.resumed = 1
        self.s.wall_start = <int64_t> time.time() - <int64_t> self.s.sec
        if not self.s.segmented:
            self.set_segmented(False)

    # Logs

    def observe(self, int mask, callback):
        """Calls callback(kind, fields) for the log events in the mask: 1 item_get, 2 item_store, 4 eviction, 8 deleted."""
        cdef int wanted = mask if callback is not None else 0
        self.log_callback = callback
        engine_lock(&self.s)
        self.s.log_mask = wanted
        engine_unlock(&self.s)

    # Coherence

    def delete(self, bytes key not None):
        """Removes a key, and holds plain stores of it off for a while if so configured. True if it was there."""
        cdef uint64_t hv
        cdef uint32_t h
        if not 1 <= len(key) <= KEY_MAX:
            return False
        hv = index_hash(&self.s.index, PyBytes_AS_STRING(key), <size_t> len(key))
        engine_lock(&self.s)
        clock_update(&self.s)
        hold_key(&self.s, hv)
        h = item_find(&self.s, PyBytes_AS_STRING(key), <size_t> PyBytes_GET_SIZE(key), hv)
        if h:
            item_unlink(&self.s, h, hv)
        curve_delete(&self.s, hv)
        engine_unlock(&self.s)
        return h != 0

    def mark_stale(self, bytes key not None, int ttl=-1):
        """Marks a key stale with a new cas (md I T); an empty item (a lease) is removed. True if it was there."""
        cdef uint64_t hv
        cdef uint32_t h
        cdef Item* it
        if not 1 <= len(key) <= KEY_MAX:
            return False
        hv = index_hash(&self.s.index, PyBytes_AS_STRING(key), <size_t> len(key))
        engine_lock(&self.s)
        clock_update(&self.s)
        hold_key(&self.s, hv)
        h = item_find(&self.s, PyBytes_AS_STRING(key), <size_t> PyBytes_GET_SIZE(key), hv)
        if h:
            it = item_at(&self.s.arena, h)
            if it.nbytes == 0:
                item_unlink(&self.s, h, hv)
                curve_delete(&self.s, hv)
            else:
                mark_item_stale(&self.s, it, <int64_t> expiry(&self.s, ttl) if ttl >= 0 else -1)
        engine_unlock(&self.s)
        return h != 0

    cdef void hold_everything(self) noexcept nogil:
        if self.s.hold_ms:
            self.s.hold_all = boot_ms(&self.s) + self.s.hold_ms

    def flush(self):
        """Forgets everything, leases included."""
        engine_lock(&self.s)
        clock_update(&self.s)
        flush_now(&self.s)
        self.hold_everything()
        engine_unlock(&self.s)

    def flush_prefix(self, bytes prefix not None):
        """Forgets the keys that begin with the prefix."""
        engine_lock(&self.s)
        clock_update(&self.s)
        flush_prefix(&self.s, PyBytes_AS_STRING(prefix), <size_t> PyBytes_GET_SIZE(prefix))
        self.hold_everything()
        engine_unlock(&self.s)

    def refresh_prefix(self, bytes prefix not None, int ttl=0):
        """Marks the keys that begin with the prefix stale, to live at most ttl seconds more (0: as they were)."""
        engine_lock(&self.s)
        clock_update(&self.s)
        refresh_prefix(&self.s, PyBytes_AS_STRING(prefix), <size_t> PyBytes_GET_SIZE(prefix), ttl)
        self.hold_everything()
        engine_unlock(&self.s)

    def set_gate(self, policy, fresh_until=0):
        """miss, error or serve: what to answer after fresh_until (CLOCK_BOOTTIME, ns); None: no gate."""
        gate = GATES.get(policy)
        if gate is None:
            raise ValueError("the gate's policy is miss, error, serve or None")
        cdef int wanted = gate
        cdef uint64_t until = fresh_until
        engine_lock(&self.s)
        self.s.gate_policy = wanted
        self.s.fresh_until = until
        engine_unlock(&self.s)

    @property
    def gate_closed(self):
        """True when the gate is set and its time is over."""
        cdef bint closed
        engine_lock(&self.s)
        clock_update(&self.s)
        closed = self.s.gate != GATE_OPEN
        engine_unlock(&self.s)
        return closed

    def hold_off(self, int milliseconds):
        """For so long after delete, mark_stale or flush above, plain stores of that key are refused. 0: off."""
        engine_lock(&self.s)
        self.s.hold_ms = milliseconds
        if self.resumed:                        # nobody knows any more what was deleted just before
            clock_update(&self.s)
            self.hold_everything()
        engine_unlock(&self.s)

    def broadcast(self, deletes, write_prefixes=()):
        """What sessions report to owner.events: deletes and flushes, and writes of keys under these prefixes."""
        cdef bint wanted = bool(deletes), writes = len(write_prefixes) > 0
        set_prefixed(&self.s, &self.s.told_prefixes, write_prefixes)
        engine_lock(&self.s)
        self.s.tell_deletes = wanted
        self.s.tell_writes = writes
        engine_unlock(&self.s)

    def lock_prefixes(self, prefixes):
        """Writes to keys under these prefixes wait for owner.lock."""
        cdef bint locks = len(prefixes) > 0
        set_prefixed(&self.s, &self.s.locked_prefixes, prefixes)
        engine_lock(&self.s)
        self.s.locks = locks
        engine_unlock(&self.s)
