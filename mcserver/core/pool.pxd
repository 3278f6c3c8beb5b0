# Pool: what a worker has, and what all of them share.
#
# Owns the lists of a worker's connections and what its epoll waits for. Must never read, run or send anything.

from libc.stdint cimport uint32_t, uint64_t
from .mail cimport *
from .pulse cimport *
from .store cimport Store
from .tls cimport TlsCounts
from .conn cimport *

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int most, int timeout)
    enum: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD

cdef extern from * nogil:
    """
    #include <pthread.h>
    #include <signal.h>
    /* The signals are the main thread's. top -H and /proc/PID/task/TID/comm show the name, which is memcached's, too. */
    static int mc_thread(pthread_t* thread, void* (*main)(void*), void* arg) {
        sigset_t all, old;
        int error;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        error = pthread_create(thread, NULL, main, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (error == 0)
            pthread_setname_np(*thread, "mc-worker");
        return error;
    }
    """
    ctypedef unsigned long pthread_t
    int mc_thread(pthread_t* thread, void* (*main)(void*) noexcept nogil, void* arg)
    int pthread_join(pthread_t thread, void** result)

cdef enum:
    WORKERS_MOST = 64
    READY_MOST = 128            # connections served before letters are looked at
    DOORS_MOST = 64             # UDP sockets

cdef struct Worker

# What all workers share, and what Python sees of them.
cdef struct Pool:
    Store* store
    Box outbox                  # letters to Python
    int count
    Worker* worker[WORKERS_MOST]
    uint32_t clients            # atomic, as what follows
    uint32_t resting            # the listeners want to hear when a connection has gone
    uint32_t ending             # ... or when the last one has
    uint32_t tell_closed        # Python wants to hear of every end
    uint32_t gone               # a connection that nobody had to hear of has closed
    uint32_t idle_seconds       # 0: nobody is idle too long
    uint64_t idle_kicks
    uint32_t shake_seconds      # how long a handshake of TLS may take; 0: there is no TLS
    TlsCounts tls
    uint64_t unwatched          # connections that epoll refused
    uint64_t datagrams          # that came, and those of them that nobody answers
    uint64_t datagrams_bad

# What all of a worker's connections are asked for: bits, since a letter may find no memory.
cdef enum:
    TO_DRAIN = 1                # no more commands from anybody
    TO_FINISH = 2               # close those that have nothing to send, and the others as soon as they have sent it
    TO_EXIT = 4

cdef struct Worker:
    Shared shared
    Pool* pool
    Box box
    int epfd
    Pulse pulse
    pthread_t thread
    bint started
    bint draining
    bint exiting
    uint32_t asked              # atomic: TO_...
    pthread_mutex_t list_mutex
    Conn ends                   # of the list of all, under list_mutex
    Conn turns                  # ... of those that have given up their turn
    uint64_t next_sweep
    uint32_t shaking            # atomic: its connections whose handshake has a time limit
    int doors
    Conn* door[DOORS_MOST]      # UDP sockets
    char* datagram              # room for DATAGRAMS_A_TURN of them
    uint32_t alone              # turns in a row in which one came
    Conn waiting                # the ends of the list of requests by datagram that wait for something
    uint32_t waits
    Conn* spare                 # for the next request by datagram
    epoll_event ready[READY_MOST]


# The list of all connections, and that of those whose turn comes again

cdef inline void conns_link(Conn* list, Conn* c) noexcept nogil:
    # At its end. The list of all needs list_mutex, as for conns_unlink.
    c.next = list
    c.prev = list.prev
    list.prev.next = c
    list.prev = c


cdef inline void conns_unlink(Conn* c) noexcept nogil:
    c.prev.next = c.next
    c.next.prev = c.prev
    c.next = NULL


cdef inline void conns_remove(Worker* w, Conn* c) noexcept nogil:
    pthread_mutex_lock(&w.list_mutex)
    conns_unlink(c)
    pthread_mutex_unlock(&w.list_mutex)


cdef inline void turn_add(Worker* w, Conn* c) noexcept nogil:
    if c.turn_next == NULL:
        c.turn_next = &w.turns
        c.turn_prev = w.turns.turn_prev
        w.turns.turn_prev.turn_next = c
        w.turns.turn_prev = c


cdef inline void turn_remove(Conn* c) noexcept nogil:
    if c.turn_next != NULL:
        c.turn_prev.turn_next = c.turn_next
        c.turn_next.turn_prev = c.turn_prev
        c.turn_next = NULL


# What it waits for

cdef inline bint punished(Conn* c) noexcept nogil:
    # It waits for the answer to a login that failed.
    return c.stranger and c.held and c.phase != P_CLOSED


cdef inline bint interest(Worker* w, Conn* c, bint read, bint write) noexcept nogil:
    # One with neither is not watched: its end would wake the thread again and again; but for one whose login failed, which ends
    # with its client. False: the system refuses.
    cdef epoll_event e
    cdef int op
    c.reading = read
    c.writing = write
    if not read and not write and not punished(c):
        if c.watched:
            c.watched = 0
            epoll_ctl(w.epfd, EPOLL_CTL_DEL, c.fd, &e)
        return 1
    e.events = (EPOLLIN if read else 0) | (EPOLLOUT if write else 0) | (EPOLLRDHUP if punished(c) else 0)
    e.data.ptr = c
    op = EPOLL_CTL_MOD if c.watched else EPOLL_CTL_ADD
    c.watched = 1
    if epoll_ctl(w.epfd, op, c.fd, &e) == 0:
        return 1
    c.watched = op == EPOLL_CTL_MOD
    return 0


cdef inline void not_poked(Worker* w, Conn* c) noexcept nogil:
    # Out of the list of those with a note.
    cdef Conn** at = &c.shared.poked
    pthread_mutex_lock(&w.box.mutex)
    if c.poked:
        while at[0] != c:
            at = &at[0].poked_next
        at[0] = c.poked_next
        c.poked = 0
    pthread_mutex_unlock(&w.box.mutex)


cdef inline void refused(Pool* pool) noexcept nogil:
    # epoll has no room: nobody would ever hear of this connection again, so it is closed.
    add64(&pool.unwatched, 1)
    one_has_gone(pool)


cdef inline void one_has_gone(Pool* pool) noexcept nogil:
    # Tells Python without a letter: there may be no memory for one.
    set32(&pool.gone, 1)
    box_ring(&pool.outbox)
