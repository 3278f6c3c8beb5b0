# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: embedsignature=True
"""The compiled core's Python face: Engine (one cache), Workers (its threads) and Session (one connection).

Owns the bridge between Python objects and the rooms below it (memory, index, items, commands, session, worker), which are C.
Must never know asyncio or ZooKeeper, nor what an administrative command means: those go to the session's owner. Every method
that touches the store takes the engine's lock for it, and makes no Python object meanwhile (lock.pxd).
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.errno cimport errno, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, ERANGE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from .memory cimport *
from .index cimport *
from .miniatures cimport *
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
from .flatten cimport *
from .upkeep cimport *
from .remote cimport *
from .kept cimport *
from .text cimport *
from .values cimport *
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .packets cimport *
from .binary cimport *
from .login cimport *
from .session cimport *
from .reading cimport *
from .letters cimport *
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
TOO_MANY = bytes(WIRE_TOO_MANY)
NOT_CONFIRMED = bytes(WIRE_NOT_CONFIRMED)
READ_BUFFERS = 64 << 20     # bytes that all lines without an end may take together

ItemInfo = namedtuple("ItemInfo", "key exptime last_access cas fetched cls size flags binary")

cdef enum:
    VERBOSITY_MOST = 2
    WATCHED_BYTES = 65536       # of lines for watchers that nobody has spelled yet

cdef dict LOGINS = {None: LOGIN_NONE, "ascii": LOGIN_ASCII, "sasl": LOGIN_SASL}
cdef dict GATES = {None: GATE_OPEN, "miss": GATE_MISS, "error": GATE_ERROR, "serve": GATE_SERVE}


cdef class Engine


include "system.pxi"
include "opening.pxi"
include "texts.pxi"
include "numbers.pxi"
include "journal.pxi"
include "binary_face.pxi"
include "session_object.pxi"
include "figures.pxi"
include "dumps.pxi"
include "tls_object.pxi"
include "kept.pxi"
include "workers.pxi"


cdef class Engine:
    """One cache: its memory, its clock, its figures. See the architecture page for every argument and method.

    Sizes are in bytes, times in seconds. Raises ValueError, with what to change, for settings that can't work, and
    MemoryError when the system refuses the address space."""

    cdef Store s
    cdef Shared shared          # of sessions that are driven by hand; the workers' follow it
    cdef Box outbox             # ... and their letters
    cdef Upkeep upkeep
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
    cdef int _verbosity
    cdef object __weakref__

    def __cinit__(self, *, memory_limit=64 << 20, item_size_max=1 << 20, evictions=True, cas=True, growth_factor=1.25,
                  hash_seed=None,
                  chunk_size=48, slab_chunk_max=512 << 10, slab_sizes=None, segmented=True, hot_lru_pct=20,
                  warm_lru_pct=40, hot_max_factor=0.2, warm_max_factor=2.0, temporary_ttl=-1, hashpower_init=0,
                  requests_per_event=20, prefix_delimiter=b":", track_sizes=False, version=b"1.6.45",
                  manual_clock=False, flush_enabled=True, protocol="auto-negotiate", maintained=True, room_for="requests",
                  read_buffers=READ_BUFFERS, log_buffer=WATCHED_BYTES, reserve=None, memory_fd=-1, like=None):
        cdef Store* s = &self.s
        check_sizes(memory_limit, item_size_max, chunk_size, growth_factor, slab_sizes, slab_chunk_max)
        check_policy(protocol, room_for, hot_lru_pct, warm_lru_pct)
        s.memory_limit = memory_limit
        s.item_size_max = item_size_max
        s.evictions = evictions
        s.use_cas = cas
        s.segmented = segmented
        s.maintained = maintained
        s.room_for_bytes = room_for == "bytes"
        lists_begin(s)
        pthread_mutex_init(&s.queue, NULL)
        box_open(&self.outbox, 0)
        self.opened = 1         # before whatever may be refused: a box that was not opened has no descriptor to close
        s.flush_enabled = flush_enabled
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
        open_arena(s, RESERVED if reserve is None else reserve, memory_fd, page_bits_like(like, memory_limit))
        make_classes(s, chunk_size, growth_factor, slab_sizes)
        open_tables(s, hashpower_init or HASHPOWER, hash_seed or os.urandom(16))
        if track_sizes:
            s.size_count = <uint32_t*> calloc(size_buckets(item_size_max), sizeof(uint32_t))
            if s.size_count == NULL:
                raise MemoryError
        if shared_open(&self.shared, &self.outbox, NULL) != 0 or journal_open(&s.journal, max(log_buffer, 4096)) != 0:
            raise MemoryError
        self.version_reply = b"VERSION " + version + b"\r\n"
        self.shared.version = PyBytes_AS_STRING(self.version_reply)
        self.shared.version_len = <size_t> len(self.version_reply)
        self.crawler_enabled = True

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
        """Its clock stands from now on (debugtime p)."""
        engine_lock(&self.s)
        clock_update(&self.s)
        self.s.paused = 1
        engine_unlock(&self.s)

    def resume_clock(self):
        """Its clock goes on, as if it had never stood."""
        engine_lock(&self.s)
        self.s.paused = 0
        clock_update(&self.s)
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
        return curve_figures(self)

    def mrc_faults(self):
        """What is wrong with the miniatures' lists and sums, as text; empty when all is well. For tests: slow."""
        cdef const char* fault
        engine_lock(&self.s)
        fault = mrc_check(self.s.mrc)
        engine_unlock(&self.s)
        return "" if fault == NULL else (<bytes> fault).decode()

    def sizes(self):
        """Items by size in steps of 32 bytes: (size, count), in order; or None without track_sizes."""
        return None if self.s.size_count == NULL else _sizes(self)

    def reset_stats(self):
        """`stats reset`: clears counters, keeps gauges."""
        figures_reset(self)

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
        """Whether gets, hits, sets and deletes are counted by prefix (`stats detail on`, -D)."""
        return bool(self.s.detail)

    @detail.setter
    def detail(self, on):
        cdef bint wanted = bool(on)
        engine_lock(&self.s)
        self.s.detail = wanted
        engine_unlock(&self.s)

    @property
    def verbosity(self):
        """The number of -v, from 0; above 1 every command and reply is traced."""
        return self._verbosity

    @verbosity.setter
    def verbosity(self, level):
        self._verbosity = min(level, VERBOSITY_MOST)
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
        self.s.arena.pages_limit = pages_for(&self.s, most)
        engine_unlock(&self.s)
        return True

    def tune_lru(self, int hot_pct, int warm_pct, double hot_factor, double warm_factor):
        """`lru tune`: hot_pct, 1 to 79, is half of what new items have; the others are only shown."""
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
            flatten(s)
        engine_unlock(s)

    def set_temporary_ttl(self, seconds):
        """Items with at most so many seconds to live are kept apart from now on; below 0: none are."""
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
        """slab_automove: 0 pages stay in their class, 1 they follow the worth of what is in them, 2 at once."""
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
        cdef uint64_t mask = mask_of(classes), most = limit
        cdef bint busy
        engine_lock(&self.s)
        busy = self.upkeep.walk.running and self.upkeep.walk.asked
        if not busy:
            walk_start(&self.s, &self.upkeep.walk, mask, most, 1)
        engine_unlock(&self.s)
        return not busy

    @property
    def crawler_running(self):
        """A pass over the items has begun and has not ended."""
        return bool(self.upkeep.walk.running)

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
            rest = upkeep_slice(&self.s, &self.upkeep, self.crawler_enabled, limit if limit < SLICE_NS else SLICE_NS)
            engine_unlock(&self.s)
            if rest > AT_ONCE or boot_clock() - began >= limit:
                return rest

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

    def peek(self, bytes key not None):
        """The value that a get would give, without being one: nothing is counted, used, logged or won. None: it is not there.

        For tests: the lock is held while the value is copied, whatever its size."""
        cdef Store* s = &self.s
        cdef size_t n = <size_t> len(key), length = 0
        cdef uint32_t h = 0
        cdef char* copy = NULL
        if not 1 <= n <= KEY_MAX:
            return None
        engine_lock(s)
        clock_update(s)
        if s.gate != GATE_MISS and s.gate != GATE_ERROR:
            h = index_find(&s.index, &s.arena, PyBytes_AS_STRING(key), n, index_hash(&s.index, PyBytes_AS_STRING(key), n))
        if h and fate(s, item_at(&s.arena, h)) != FOUND:
            h = 0
        if h:
            length = item_at(&s.arena, h).nbytes
            copy = <char*> malloc(length + 1)
            if copy != NULL:
                value_read(s, item_at(&s.arena, h), copy)
        engine_unlock(s)
        if h == 0:
            return None
        if copy == NULL:
            raise MemoryError
        try:
            return PyBytes_FromStringAndSize(copy, <Py_ssize_t> length)
        finally:
            free(copy)

    # Coherence

    def delete(self, bytes key not None):
        """Removes a key, and holds plain stores of it off for a while if so configured. True if it was there."""
        return 1 <= len(key) <= KEY_MAX and remote_delete(&self.s, PyBytes_AS_STRING(key), <size_t> len(key))

    def mark_stale(self, bytes key not None, int ttl=-1):
        """Marks a key stale with a new cas (md I T); an empty item (a lease) is removed. True if it was there."""
        return 1 <= len(key) <= KEY_MAX and remote_stale(&self.s, PyBytes_AS_STRING(key), <size_t> len(key), ttl)

    def flush(self):
        """Forgets everything, leases included."""
        remote_flush(&self.s)

    def flush_prefix(self, bytes prefix not None):
        """Forgets the keys that begin with the prefix."""
        remote_rule(&self.s, PyBytes_AS_STRING(prefix), <size_t> len(prefix), 0, 0)

    def refresh_prefix(self, bytes prefix not None, int ttl=0):
        """Marks the keys that begin with the prefix stale, to live at most ttl seconds more (0: as they were)."""
        remote_rule(&self.s, PyBytes_AS_STRING(prefix), <size_t> len(prefix), 1, ttl)

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
            hold_everything(&self.s)
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
