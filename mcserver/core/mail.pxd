# Mail: what threads tell each other, and the few atomic words that they share. It knows nothing else.
#
# A box is a list under a mutex of its own, and an eventfd that is written only when its reader may be asleep. Whoever holds a
# box's mutex takes no other lock. A letter belongs to whoever took it out.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t* m, void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* m)
    int pthread_mutex_lock(pthread_mutex_t* m)
    int pthread_mutex_trylock(pthread_mutex_t* m)
    int pthread_mutex_unlock(pthread_mutex_t* m)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    enum: EFD_NONBLOCK, EFD_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    ssize_t read_fd "read" (int fd, void* buf, size_t n)
    ssize_t write_fd "write" (int fd, const void* buf, size_t n)
    int close_fd "close" (int fd)

cdef extern from * nogil:
    """
    static inline uint32_t mc_get32(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void mc_set32(uint32_t* p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uint32_t mc_add32(uint32_t* p, int32_t v) { return __atomic_add_fetch(p, (uint32_t) v, __ATOMIC_ACQ_REL); }
    static inline uint64_t mc_get64(const uint64_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void mc_set64(uint64_t* p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline uint64_t mc_add64(uint64_t* p, int64_t v) { return __atomic_add_fetch(p, (uint64_t) v, __ATOMIC_RELAXED); }
    static inline uint32_t mc_swap32(uint32_t* p, uint32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }
    static inline uint32_t mc_or32(uint32_t* p, uint32_t v) { return __atomic_fetch_or(p, v, __ATOMIC_ACQ_REL); }
    """
    uint32_t get32 "mc_get32" (const uint32_t* p)
    void set32 "mc_set32" (uint32_t* p, uint32_t v)
    uint32_t add32 "mc_add32" (uint32_t* p, int32_t v)      # all return the new value
    uint64_t get64 "mc_get64" (const uint64_t* p)
    void set64 "mc_set64" (uint64_t* p, uint64_t v)
    uint64_t add64 "mc_add64" (uint64_t* p, int64_t v)
    uint32_t swap32 "mc_swap32" (uint32_t* p, uint32_t v)       # these two return the old value
    uint32_t or32 "mc_or32" (uint32_t* p, uint32_t v)

cdef inline size_t padded(size_t n) noexcept nogil:
    # What so many bytes take where something else begins behind them.
    return (n + 7) & ~<size_t> 7


cdef struct Mail:
    Mail* next
    void* about                 # a connection
    int32_t kind
    int32_t a
    uint64_t b
    size_t n
    char data[8]                # n bytes

cdef struct Box:
    pthread_mutex_t mutex
    Mail* head
    Mail* tail
    int fd                      # -1: the reader never sleeps on it
    bint rung                   # the reader has been woken and has not looked yet
    bint lost                   # there was no memory for a letter that tells of a change


cdef inline int box_open(Box* box, bint with_fd) noexcept nogil:
    # 0, or -1 with errno.
    pthread_mutex_init(&box.mutex, NULL)
    box.head = NULL
    box.tail = NULL
    box.rung = 0
    box.lost = 0
    box.fd = -1
    if with_fd:
        box.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        return -1 if box.fd < 0 else 0
    return 0


cdef inline void ring_locked(Box* box) noexcept nogil:
    cdef uint64_t one = 1
    if not box.rung:
        box.rung = 1
        if box.fd >= 0:
            write_fd(box.fd, &one, 8)


cdef inline void box_ring(Box* box) noexcept nogil:
    # Wakes the reader, who has something else than letters to look at.
    pthread_mutex_lock(&box.mutex)
    ring_locked(box)
    pthread_mutex_unlock(&box.mutex)


cdef inline Mail* mail_new(int kind, void* about, size_t n) noexcept nogil:
    # NULL: out of memory.
    cdef Mail* m = <Mail*> malloc(sizeof(Mail) + n)
    if m != NULL:
        m.next = NULL
        m.about = about
        m.kind = kind
        m.a = 0
        m.b = 0
        m.n = n
    return m


cdef inline Mail* mail_with(int kind, void* about, const char* p, size_t n) noexcept nogil:
    cdef Mail* m = mail_new(kind, about, n)
    if m != NULL and n:
        memcpy(m.data, p, n)
    return m


cdef inline void box_post(Box* box, Mail* m) noexcept nogil:
    pthread_mutex_lock(&box.mutex)
    if box.tail == NULL:
        box.head = m
        box.tail = m
    else:
        box.tail.next = m
        box.tail = m
    ring_locked(box)
    pthread_mutex_unlock(&box.mutex)


cdef inline Mail* box_take(Box* box) noexcept nogil:
    # All letters, the oldest first. After this the reader is woken again.
    cdef Mail* all
    pthread_mutex_lock(&box.mutex)
    all = box.head
    box.head = NULL
    box.tail = NULL
    box.rung = 0
    pthread_mutex_unlock(&box.mutex)
    return all


cdef inline void box_lost(Box* box) noexcept nogil:
    # Tells that there was no memory for a letter.
    pthread_mutex_lock(&box.mutex)
    box.lost = 1
    ring_locked(box)
    pthread_mutex_unlock(&box.mutex)


cdef inline bint box_has_lost(Box* box) noexcept nogil:
    # Whether letters were lost since the last call.
    cdef bint lost
    pthread_mutex_lock(&box.mutex)
    lost = box.lost
    box.lost = 0
    pthread_mutex_unlock(&box.mutex)
    return lost


cdef inline void box_close(Box* box) noexcept nogil:
    cdef Mail* m = box_take(box)
    cdef Mail* after
    while m != NULL:
        after = m.next
        free(m)
        m = after
    if box.fd >= 0:
        close_fd(box.fd)
        box.fd = -1
    pthread_mutex_destroy(&box.mutex)
