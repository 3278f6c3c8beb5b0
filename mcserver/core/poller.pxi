# The Poller: one epoll for all sessions, which an event loop watches as a single descriptor.
#
# Owns who waits for what. Must never read or write: the sessions do. One call of the loop serves every connection that
# is ready, so the loop's own cost is paid once a turn and not once a connection. Included by engine.pyx.

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int most, int timeout)
    enum: EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD

cdef extern from "<unistd.h>" nogil:
    int close_fd "close" (int fd)

cdef enum:
    EVENTS_A_TURN = 256         # connections served before the loop's other work gets its turn


cdef class Poller:
    """Level-triggered. A session with neither interest is not watched: its end would wake the loop again and again."""

    cdef int fd
    cdef list left              # sessions removed while events of this turn may still point at them
    cdef epoll_event ready[EVENTS_A_TURN]

    def __cinit__(self):
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.left = []

    def __dealloc__(self):
        self.close()

    def fileno(self):
        """What the loop is to watch; `turn` is to be called when it can be read."""
        return self.fd

    def close(self):
        if self.fd >= 0:
            close_fd(self.fd)
            self.fd = -1

    def interest(self, Session session not None, bint read, bint write):
        """From now on waits for these; both False: for nothing. Raises OSError when the system has no room for it."""
        cdef epoll_event e
        cdef int op = EPOLL_CTL_ADD
        if not read and not write:
            self.remove(session)
            return
        if session.watched:
            op = EPOLL_CTL_MOD
        e.events = (EPOLLIN if read else 0) | (EPOLLOUT if write else 0)
        e.data.ptr = <void*> session
        if epoll_ctl(self.fd, op, session.c.fd, &e) != 0:
            raise OSError(errno, os.strerror(errno))
        if not session.watched:
            session.watched = 1
            Py_INCREF(session)      # until it is removed

    def remove(self, Session session not None):
        """To be called before the descriptor is closed."""
        cdef epoll_event e
        if session.watched:
            session.watched = 0
            epoll_ctl(self.fd, EPOLL_CTL_DEL, session.c.fd, &e)
            self.left.append(session)
            Py_DECREF(session)

    def turn(self):
        """Serves those that are ready. An error or the other end's leaving shows when the session reads or writes."""
        cdef int n, i
        cdef Session session
        if self.left:
            self.left.clear()
        n = epoll_wait(self.fd, self.ready, EVENTS_A_TURN, 0)
        for i in range(n):
            session = <Session> self.ready[i].data.ptr
            if session.c.phase == P_CLOSED:     # by one that was served before it
                continue
            if self.ready[i].events & EPOLLOUT or session.c.blocked:
                session.can_write()
            else:
                session.can_read()
