# Store: the state of one cache: arena, index, LRU lists, settings, clock and counters.
#
# Owns the struct that every room above shares, and the clock. Must never touch a key or a client: behaviour is above.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from .memory cimport Arena, Item, MAX_CLASSES
from .index cimport Index
from .miniatures cimport Mrc
from .ghosts cimport Ghosts
from .mail cimport pthread_mutex_t
from .journal cimport Journal
from .prefixes cimport Prefixes
from .rules cimport Rules

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* out)
    enum: CLOCK_BOOTTIME, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID

cdef enum:
    TICKS = 16                  # of the engine's clock in a second
    TRAFFIC_GRAIN = 4           # bits: the clock of traffic moves once in 16 commands that look for a key
    DUE_SECONDS = 4096          # seconds ahead for which it is known how many items expire in each
    CLOCK_START = 2             # the engine's clock starts here, so that second 1 is always past
    RELATIVE_MOST = 2592000     # an exptime above 30 days is a date
    HOLD_BUCKETS = 4096

# Kinds of log events, a bit mask (see `watch`).
cdef enum:
    LOG_FETCH = 1
    LOG_MUTATE = 2
    LOG_EVICT = 4
    LOG_DELETE = 8

# What became of the last look-up (for logs).
cdef enum:
    FOUND = 0
    MISSING = 1
    EXPIRED = 2
    FLUSHED = 3

# The gate (coherence page): what a cache answers that can't prove that it is fresh.
cdef enum:
    GATE_OPEN = 0
    GATE_MISS = 1
    GATE_ERROR = 2
    GATE_SERVE = 3

# What a connection may speak (-B).
cdef enum:
    PROTOCOL_AUTO = 0           # its first byte says which
    PROTOCOL_ASCII = 1
    PROTOCOL_BINARY = 2

cdef struct Lru:
    uint32_t head
    uint32_t tail
    uint32_t count
    uint64_t bytes

cdef struct ClassStats:
    uint64_t hits_to[4]
    uint64_t cmd_set
    uint64_t delete_hits
    uint64_t incr_hits
    uint64_t decr_hits
    uint64_t cas_hits
    uint64_t cas_badval
    uint64_t touch_hits
    uint64_t evicted
    uint64_t evicted_nonzero
    uint64_t evicted_time       # seconds since the last evicted item was used
    uint64_t evicted_unfetched
    uint64_t evicted_active
    uint64_t outofmemory
    uint64_t reclaimed
    uint64_t expired_unfetched
    uint64_t crawler_reclaimed
    uint64_t crawler_checked
    uint64_t moves_to_cold
    uint64_t moves_to_warm
    uint64_t moves_within
    uint64_t direct_reclaims
    uint64_t pages_given        # to other classes, and taken from them
    uint64_t pages_taken

cdef struct Counters:
    uint64_t cmd_get
    uint64_t cmd_flush
    uint64_t cmd_touch
    uint64_t cmd_meta
    uint64_t get_misses
    uint64_t get_expired
    uint64_t get_flushed
    uint64_t delete_misses
    uint64_t incr_misses
    uint64_t decr_misses
    uint64_t cas_misses
    uint64_t touch_misses
    uint64_t too_large
    uint64_t no_memory
    uint64_t total_items
    uint64_t yields
    uint64_t page_moves         # pages that changed class
    uint64_t rescues            # items that moved to another chunk because their page left the class
    uint64_t rescued_pieces     # ... and pieces
    uint64_t busy_pages         # pages that couldn't leave because a client was using an item in them
    uint64_t crawls
    uint64_t juggles
    uint64_t readers_dropped
    uint64_t vivified           # of the gets that are counted as hits: mg made the item
    uint64_t auth_cmds          # logins tried
    uint64_t auth_errors        # ... that failed
    uint64_t uploads_refused    # stores that were refused in the middle, see uploads.pxd
    uint64_t lock_waits         # times that a thread had to wait for the lock, and how long
    uint64_t lock_wait_ns

ctypedef void (*log_hook)(void* owner, int kind, const char* key, size_t nkey, Item* it, const char* status, const char* cmd,
                         int64_t ttl, uint64_t size, int cls) noexcept nogil
ctypedef void (*prefix_hook)(void* owner, int op, const char* key, size_t nkey) noexcept nogil

# Texts one after the other, each with its length (2 bytes) before it.
cdef struct Prefixed:
    char* texts
    size_t length

# What a class's next page of victims is worth, as it was when it was last looked at (exchange.pxd).
cdef struct Ready:
    double value                # the inverse of the worth of a byte: larger gives a page sooner
    double age                  # requests; an eighth of it later it is looked at again
    uint32_t at                 # on the clock of traffic
    uint32_t gone               # Store.gone then
    bint known

# Uses of items, and how many there should have been by the items' ages (fading.pxd).
cdef struct Uses:
    uint32_t seen
    int grown                   # the octave of ages from which they count; 0: nothing has left yet, so none do
    uint64_t expected

# What was asked of a class lately (exchange.pxd).
cdef struct Recent:
    uint32_t hits
    uint32_t stores
    uint32_t idle               # sixteenths of the memory that were stored since it was found to be hardly used
    uint32_t spell              # how long it was idle when what it had kept was used again
    uint32_t came               # keys that were not there when they were stored
    uint32_t wanted             # of them: used while new, or stored again soon after they had left
    Uses uses

# A page on its way from one class to another (slices.pxd).
cdef struct Mover:
    uint32_t page               # 0: none
    uint32_t index              # of the chunk that is next
    int source
    int taker                   # 0: the pool
    bint tidy                   # nobody asked for it: nothing leaves the cache for it, and it stops when its class wants memory
    int passes

# A value that is on its way in (uploads.pxd). Part of a connection.
cdef struct Upload:
    Upload* next
    Upload* prev
    uint64_t held               # bytes of its chunks
    uint64_t moved_ms           # when data last came, on the boot clock
    void* conn
    void (*refuse)(void* conn) noexcept nogil
    bint busy                   # data is being written into it, without the lock

# A large value that is on its way out (uploads.pxd). Part of a connection.
cdef struct Reader:
    Reader* next
    Reader* prev
    void* conn
    void (*drop)(void* conn) noexcept nogil
    bint busy                   # data of it is being sent, without the lock
    bint stuck                  # the client takes no more

# Who may log in (login.pxd).
cdef struct User:
    const char* name
    size_t name_len
    const char* password
    size_t password_len

cdef struct Users:
    int count
    User* user

# A thread that waits for the engine's lock.
cdef struct Waiter:
    Waiter* next
    uint64_t since
    uint32_t turn               # lock.pxd's Turn; atomic

cdef struct Store:
    # who may touch all that follows (lock.pxd)
    uint32_t taken              # 1: somebody may; atomic, as the next two
    uint32_t waiting            # threads that wait for it
    uint64_t first_since        # when the first of them began to
    Waiter* first               # in the order in which they came; under `queue`, which is held for a few instructions
    Waiter* last
    pthread_mutex_t queue
    bint measured               # how long it is held, in the holders' CPU time, for tests; all 0 until then
    uint64_t held_since         # where the holder's clock stood
    uint64_t held_ns            # by all; atomic
    uint64_t held_most          # at once
    uint64_t passed_most        # by others, while one waited
    void* current               # the connection whose command runs
    Arena arena
    Index index
    Lru lru[MAX_CLASSES][4]
    ClassStats cls[MAX_CLASSES]
    Counters n
    uint64_t bytes              # by memcached's size rule
    uint64_t timed              # items that have an exptime
    uint64_t cas                # the last cas unique given
    # settings
    uint64_t memory_limit
    uint64_t item_size_max
    uint64_t slab_chunk_max     # memcached keeps larger items in pieces; ours are smaller (memory.pxd)
    bint evictions
    bint use_cas
    bint segmented
    bint flush_enabled
    int protocol                # what may be spoken: PROTOCOL_*
    int login                   # whether a connection must log in first: LOGIN_* of login.pxd
    Users* users
    int turn                    # -R: commands after which a connection may have to give up its turn
    bint automove
    int hot_pct
    int warm_pct
    double hot_factor
    double warm_factor
    int64_t temp_ttl            # negative: off
    # clock
    bint manual
    bint paused
    uint64_t start_ns           # CLOCK_BOOTTIME when the engine was made
    int64_t skew_ns             # what debugtime or a test added
    uint64_t boot_ns            # the last reading, without skew
    uint64_t elapsed_ns
    uint32_t sec
    uint32_t tick
    int64_t wall_start          # unix time of second 0 of the engine's clock
    # flushes
    uint64_t epoch              # flushes (of all, or of a prefix) seen; items keep the last 16 bits of it
    uint64_t flush_epoch        # items of an older epoch are dead
    bint epoch_taken            # an item may have the present epoch
    bint costly                 # a command took long: whether others wait is looked at before the next one
    uint32_t sweep_page         # where the renumbering of items goes on
    uint32_t sweep_index
    uint32_t flush_at           # second of the delayed flush's first stage; 0 none
    uint32_t flush_again
    Rules rules
    # coherence
    int gate_policy
    uint64_t fresh_until        # CLOCK_BOOTTIME ns
    int gate                    # this batch's GATE_*
    uint32_t hold_ms
    uint64_t hold_all           # ms on the boot clock
    uint64_t hold[HOLD_BUCKETS]
    # who leaves
    uint64_t requests           # commands that looked for a key
    uint32_t clock              # requests >> TRAFFIC_GRAIN
    Ghosts ghosts
    bint room_later             # the last chunk was refused only because making room takes more slices
    bint room_for_bytes         # pages follow hits by bytes, not by requests
    bint maintained             # dead items at the lists' ends are freed in the background
    int credit[MAX_CLASSES]     # evictions from the own class before the classes are compared again
    uint32_t gone[MAX_CLASSES]  # items that left the class's lists, for whatever reason
    uint32_t evicted[MAX_CLASSES]   # evictions, which `stats reset` does not clear
    Ready ready[MAX_CLASSES]
    Mover mover
    uint32_t attempt            # number of the last search for a chunk
    uint32_t tried[MAX_CLASSES] # the attempt at which a class last had no page that could leave
    uint32_t stuck[MAX_CLASSES] # the attempt at which a list last had nobody who could leave
    Recent recent[MAX_CLASSES]
    Uses uses                   # of all classes
    uint64_t recent_bytes       # stored since it was last judged
    uint32_t garbage            # pieces of large values that are gone, as one chain: freed in slices
    Upload uploads              # the list's ends
    Upload* filling             # the one that asks for memory
    Reader readers              # the list's ends
    uint64_t unfinished         # bytes of chunks that they hold
    # who expires when
    uint32_t due[DUE_SECONDS]
    uint32_t due_sec            # up to this second what is due was counted
    uint64_t overdue            # items that have expired and are still there
    # what sessions report (see conn.pxd)
    bint tell_deletes
    bint tell_writes
    bint locks
    Prefixed told_prefixes      # keys whose writes are told, and whose writes wait for a lock
    Prefixed locked_prefixes
    # requests without an end, of all connections; atomic
    uint64_t in_kept            # bytes that they take
    uint64_t in_most
    uint64_t in_refused         # connections that were closed because of it
    # what is shown of all this
    Journal journal
    Prefixes prefixes
    void* owner                 # what the hooks are called with: this store
    int log_mask
    bint detail
    int last_found
    int log_fd                  # whose command runs, for logs
    bint trace                  # commands and replies go to the journal
    uint64_t untraced           # those for which it had no room, since it was spelled last
    log_hook log
    prefix_hook prefix
    uint32_t* size_count        # items by steps of size, with track_sizes
    Mrc* mrc                    # miniatures of this cache, for `stats mrc`


cdef inline uint64_t boot_clock() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_BOOTTIME, &t)
    return <uint64_t> t.tv_sec * 1000000000 + <uint64_t> t.tv_nsec


cdef inline uint64_t work_clock() noexcept nogil:
    # CPU time of this thread, in ns. A system call: only for measuring.
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return <uint64_t> t.tv_sec * 1000000000 + <uint64_t> t.tv_nsec


cdef inline uint32_t expiry(Store* s, int64_t exptime) noexcept nogil:
    # The protocol's exptime as a second of the engine's clock: 0 never, 1 already past.
    cdef int64_t at
    if exptime == 0:
        return 0
    if exptime < 0:
        return 1
    if exptime > RELATIVE_MOST:
        at = exptime - s.wall_start
        return 1 if at <= CLOCK_START else <uint32_t> at
    return s.sec + <uint32_t> exptime


cdef inline uint64_t boot_ms(Store* s) noexcept nogil:
    # Milliseconds, as of the last look, of a clock that nobody pauses or moves; of one that is driven by hand, its own.
    return (s.elapsed_ns if s.manual else s.boot_ns) // 1000000


cdef inline uint32_t tick_of(uint64_t elapsed_ns) noexcept nogil:
    # The engine's clock so long after it began.
    return <uint32_t> (elapsed_ns // (1000000000 // TICKS)) + CLOCK_START * TICKS


cdef inline int64_t ttl_left(Store* s, Item* it) noexcept nogil:
    # Seconds to live; -1 for ever.
    if it.exptime == 0:
        return -1
    return <int64_t> it.exptime - s.sec


cdef inline int64_t shown_ttl(Store* s, Item* it) noexcept nogil:
    # As memcached shows it, whose seconds have no sign: what is past is a large number, and only what lives for ever is -1.
    cdef int64_t left = ttl_left(s, it)
    return <uint32_t> left if it.exptime else left


cdef inline uint64_t printed_size(Store* s, size_t nkey, uint32_t flags, uint64_t nbytes) noexcept nogil:
    # An item's size by memcached's rule (protocol page, 1.3), whatever our header takes.
    return 48 + nkey + 1 + (4 if flags else 0) + nbytes + 2 + (8 if s.use_cas else 0)


cdef inline uint64_t new_cas(Store* s) noexcept nogil:
    if not s.use_cas:
        return 0
    s.cas += 1
    return s.cas


cdef inline uint64_t chosen_cas(Store* s, bint chosen, uint64_t cas) noexcept nogil:
    # The unique that was asked for, 0 too, else the next one.
    return cas if chosen and s.use_cas else new_cas(s)
