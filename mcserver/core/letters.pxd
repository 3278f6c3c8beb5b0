# Letters: what a connection's owner has decided, and what the session does then.
#
# Owns that a letter which comes too late is thrown away, and that whoever waits for one to take effect is told. Must never wait.

from libc.stdlib cimport free
from .memory cimport *
from .uploads cimport *
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .session cimport *
from .reading cimport resume

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_post(sem_t* s)


cdef inline void mail_done(Mail* m) noexcept nogil:
    # Whoever waits for a letter to have had its effect is told.
    if m != NULL:
        if m.kind == W_GRANT and m.b:
            sem_post(<sem_t*> <size_t> m.b)
        free(m)


cdef inline void take_push(Conn* c, Mail* m) noexcept nogil:
    cdef int r
    if c.out_len == 0 and not c.blocked and not c.held:
        r = send_now(c, m.data, m.n, 0)
        if r < 0:
            gone(c)
            return
        c.blocked = r == 0
    elif not keep(c, m.data, m.n):
        gone(c)
        return
    if c.blocked or c.out_len:
        c.pushing = 1
    else:
        write_to_owner(c, M_SENT, 0, NULL, 0)


cdef inline void take_mail(Conn* c, Mail* m) noexcept nogil:
    # Does what a letter asks for; one that comes too late is thrown away.
    if c.phase == P_CLOSED:
        pass
    elif m.kind == W_REPLY or m.kind == W_PIECE:
        if (c.phase == P_COLD or c.phase == P_STREAM) and c.mail == NULL:
            c.mail = m
            c.then_watch = m.kind == W_REPLY and m.a == A_WATCH
            c.phase = P_ANSWER if m.kind == W_REPLY else P_PIECE
            resume(c)
            return
    elif m.kind == W_RELEASE:
        if c.held:
            if not release_hold(c, m):
                gone(c)
            enter(c)
            if c.held_big:
                c.big = c.held_big
                c.held_big = 0
                reader_begin(c.store, &c.reader)
            leave(c)
            resume(c)
    elif m.kind == W_GRANT or m.kind == W_REFUSE:
        if c.phase == P_LOCKED and c.mail == NULL:
            c.phase = P_READY if c.item else P_LINE
            if m.kind == W_GRANT:
                c.granted = 1
                resume(c)
            else:
                c.mail = m
                c.refusal = m.data
                c.refusal_len = m.n
                resume(c)
                return
    elif m.kind == W_PUSH:
        take_push(c, m)
    elif m.kind == W_QUIT:
        c.why = <Why> m.a
        c.quitting = QUIT_ASKED
        if not stopped(c):
            gone(c)
    elif m.kind == W_CLOSE:
        c.why = <Why> m.a
        gone(c)
    mail_done(m)
