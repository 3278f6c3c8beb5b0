# Lock: one for a Store and everything in it. The order in which it is held is the order of what happened.
#
# Owns who may touch a Store: whoever runs between engine_lock and engine_unlock. Nobody makes or frees a Python object, reads or
# writes a socket, or takes the GIL meanwhile; a thread that has the GIL may wait for it, since who holds it never needs the GIL.
#
# Who comes first gets it, and a thread that has just let it go comes sooner than one that must be woken, which is what costs least.
# But when somebody has waited for long it is handed to the first in the queue, and who comes goes to the queue's end: so others
# have it for LONG_WAIT_NS while one waits, and then once each.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from .mail cimport *
from .store cimport Store, Waiter, boot_clock, work_clock

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <linux/futex.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static inline int mc_take(uint32_t* lock)                   /* 1: it was free */
    {
        uint32_t free_ = 0;
        return __atomic_compare_exchange_n(lock, &free_, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    static inline void mc_let_go(uint32_t* lock) { __atomic_exchange_n(lock, 0, __ATOMIC_SEQ_CST); }
    static inline uint32_t mc_count(uint32_t* n, int32_t by) { return __atomic_add_fetch(n, (uint32_t) by, __ATOMIC_SEQ_CST); }
    static inline uint32_t mc_counted(const uint32_t* n) { return __atomic_load_n(n, __ATOMIC_SEQ_CST); }
    static inline void mc_futex(uint32_t* at, int what, uint32_t value)     /* errno stays */
    {
        int before = errno;
        syscall(SYS_futex, at, what | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
        errno = before;
    }
    """
    bint take "mc_take" (uint32_t* lock)
    void let_go_of "mc_let_go" (uint32_t* lock)
    uint32_t count_by "mc_count" (uint32_t* n, int by)
    uint32_t counted "mc_counted" (const uint32_t* n)
    void futex "mc_futex" (uint32_t* at, int what, uint32_t value)
    enum: FUTEX_WAIT, FUTEX_WAKE

cdef enum:
    LONG_WAIT_NS = 1000000      # somebody has waited for long
    SLICE_NS = 100000           # background work, dumps and long batches let others have it after so long

cdef enum Turn:
    TURN_WAIT
    TURN_TRY                    # it was let go; somebody may be quicker
    TURN_YOURS


cdef inline void hold_begins(Store* s) noexcept nogil:
    s.held_since = work_clock()


cdef inline void hold_ends(Store* s) noexcept nogil:
    # What is measured is this thread's CPU time: what the machine does meanwhile doesn't count.
    cdef uint64_t held = work_clock() - s.held_since
    set64(&s.held_ns, s.held_ns + held)
    if held > s.held_most:
        s.held_most = held


# The queue: under its mutex, which is held for a few instructions

cdef inline void queue_add(Store* s, Waiter* w) noexcept nogil:
    w.next = NULL
    if s.first == NULL:
        s.first = w
        set64(&s.first_since, w.since)
    else:
        s.last.next = w
    s.last = w
    count_by(&s.waiting, 1)


cdef inline void queue_remove(Store* s, Waiter* w) noexcept nogil:
    cdef Waiter* before = NULL
    cdef Waiter* at = s.first
    while at != w:
        before = at
        at = at.next
    if before == NULL:
        s.first = w.next
        if s.first != NULL:
            set64(&s.first_since, s.first.since)
    else:
        before.next = w.next
    if s.last == w:
        s.last = before
    count_by(&s.waiting, -1)


cdef inline bint try_queued(Store* s, Waiter* w) noexcept nogil:
    # True: it has the lock, and isn't in the queue any more.
    cdef bint has
    pthread_mutex_lock(&s.queue)
    has = w.turn == TURN_YOURS
    if not has:
        set32(&w.turn, TURN_WAIT)
        has = take(&s.taken)
        if has:
            queue_remove(s, w)
    pthread_mutex_unlock(&s.queue)
    return has


cdef inline bint is_overdue(Store* s) noexcept nogil:
    # The first in the queue has waited for long.
    return counted(&s.waiting) > 0 and <int64_t> (boot_clock() - get64(&s.first_since)) > LONG_WAIT_NS


cdef inline void wait_for_lock(Store* s) noexcept nogil:
    cdef Waiter w
    cdef uint64_t others = get64(&s.held_ns)
    cdef bint has
    w.since = boot_clock()
    w.turn = TURN_WAIT
    pthread_mutex_lock(&s.queue)
    queue_add(s, &w)
    has = s.first == &w and take(&s.taken)      # it may have been let go before anybody could see that one waits
    if has:
        queue_remove(s, &w)
    pthread_mutex_unlock(&s.queue)
    while not has:
        futex(&w.turn, FUTEX_WAIT, TURN_WAIT)
        if get32(&w.turn) == TURN_YOURS:
            break
        has = try_queued(s, &w)
    s.n.lock_waits += 1
    s.n.lock_wait_ns += boot_clock() - w.since
    if s.measured and s.held_ns - others > s.passed_most:
        s.passed_most = s.held_ns - others


cdef inline void wake_first(Store* s, bint has) noexcept nogil:
    # Whoever waits first tries to take it or, when that one is overdue and the caller has it, has it.
    cdef uint32_t* woken = NULL
    cdef Waiter* w
    pthread_mutex_lock(&s.queue)
    w = s.first
    if w != NULL and has and is_overdue(s):
        queue_remove(s, w)
        has = 0
        woken = &w.turn
        set32(&w.turn, TURN_YOURS)              # from here on it may be gone
    else:
        if has:
            let_go_of(&s.taken)
        if w != NULL and w.turn == TURN_WAIT:
            woken = &w.turn
            set32(&w.turn, TURN_TRY)
    pthread_mutex_unlock(&s.queue)
    if woken != NULL:
        futex(woken, FUTEX_WAKE, 1)


cdef inline void engine_lock(Store* s) noexcept nogil:
    if is_overdue(s) or not take(&s.taken):
        wait_for_lock(s)
    if s.measured:
        hold_begins(s)


cdef inline void engine_unlock(Store* s) noexcept nogil:
    if s.measured:
        hold_ends(s)
    if lock_is_wanted(s):
        wake_first(s, 1)
        return
    let_go_of(&s.taken)
    if lock_is_wanted(s):                       # since then
        wake_first(s, 0)


cdef inline bint lock_is_wanted(Store* s) noexcept nogil:
    return counted(&s.waiting) > 0
