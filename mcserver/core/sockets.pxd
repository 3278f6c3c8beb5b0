# Sockets: the system calls by which bytes come and go, declared once, and the bytes that a socket did not take.
#
# Must never know whose socket it is.

from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove, memset

cdef extern from "<sys/socket.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        void* msg_name
        unsigned int msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
    cdef struct sockaddr_storage:
        unsigned short ss_family
    ssize_t sendmsg(int fd, const msghdr* msg, int flags)
    ssize_t recvmsg(int fd, msghdr* msg, int flags)
    ssize_t recv(int fd, void* buf, size_t n, int flags)
    ssize_t send(int fd, const void* buf, size_t n, int flags)
    int shutdown(int fd, int how)
    enum: SHUT_RDWR
    enum: MSG_NOSIGNAL, MSG_DONTWAIT, MSG_PEEK, MSG_MORE


cdef inline ssize_t send_parts(int fd, iovec* part, int parts) noexcept nogil:
    # As sendmsg, without waiting.
    cdef msghdr m
    if parts == 1:
        return send(fd, part[0].iov_base, part[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
    memset(&m, 0, sizeof(msghdr))
    m.msg_iov = part
    m.msg_iovlen = <size_t> parts
    return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT)


cdef inline ssize_t receive_parts(int fd, iovec* part, int parts) noexcept nogil:
    # As recvmsg, without waiting.
    cdef msghdr m
    if parts == 1:
        return recv(fd, part[0].iov_base, part[0].iov_len, MSG_DONTWAIT)
    memset(&m, 0, sizeof(msghdr))
    m.msg_iov = part
    m.msg_iovlen = <size_t> parts
    return recvmsg(fd, &m, MSG_DONTWAIT)


cdef inline bint keep_bytes(char** buf, size_t* at, size_t* length, const char* p, size_t n) noexcept nogil:
    # n more bytes behind the `length` that wait in `buf` from `at` on. 0: out of memory.
    cdef char* grown
    if at[0]:
        memmove(buf[0], buf[0] + at[0], length[0])
        at[0] = 0
    grown = <char*> realloc(buf[0], length[0] + n)
    if grown == NULL:
        return 0
    buf[0] = grown
    memcpy(grown + length[0], p, n)
    length[0] += n
    return 1
