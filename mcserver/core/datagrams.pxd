# Datagrams: how an answer goes out over UDP, with memcached's header of 8 bytes: the request's id, number, how many, and 0.
#
# Owns the cutting of an answer into replies, of a reply into datagrams, and the bound on what an unproved sender may be sent: a
# reply never goes out if the answer would be more than FACTOR times as long as the request, unless the socket is reached from this
# machine alone. Must never wait: what the system does not take is lost, as datagrams are.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset, strlen
from .mail cimport add64
from .packets cimport BINARY_HEADER, BIN_TOO_LARGE, OPAQUE_AT, as_words, header_write
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .wire cimport *

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <netinet/in.h>
    /* The port in an address, as it is sent; 0 for another family. */
    static inline uint16_t mc_port(const struct sockaddr_storage* a) {
        if (a->ss_family == AF_INET) return ((const struct sockaddr_in*) a)->sin_port;
        if (a->ss_family == AF_INET6) return ((const struct sockaddr_in6*) a)->sin6_port;
        return 0;
    }
    """
    uint16_t mc_port(const sockaddr_storage* a)

cdef extern from "<sys/socket.h>" nogil:
    cdef struct sockaddr:
        pass
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int sendmmsg(int fd, mmsghdr* messages, unsigned int n, int flags)
    int recvmmsg(int fd, mmsghdr* messages, unsigned int n, int flags, void* timeout)
    ssize_t sendto(int fd, const void* buf, size_t n, int flags, const sockaddr* to, unsigned int to_size)
    ssize_t recvfrom(int fd, void* buf, size_t n, int flags, sockaddr* by, unsigned int* by_size)

cdef enum:
    DATAGRAM_HEADER = 8
    DATAGRAM_BODY = 1392        # bytes of an answer in one, as memcached cuts it
    FACTOR = 10                 # an answer's length over its request's, headers included
    SENDS = 32                  # datagrams in a system call
    REFUSAL_MOST = 128          # bytes of what is said in the place of a reply: a header and WIRE_DATAGRAM_LONG


cdef inline void put_number(uint8_t* to, uint32_t n) noexcept nogil:
    to[0] = <uint8_t> (n >> 8)
    to[1] = <uint8_t> n


cdef inline void send_reply(Conn* c, const char* p, size_t n) noexcept nogil:
    # One reply; one without a body if it is empty. Most fit into one datagram: to copy it behind its header costs less than to have
    # the system put the two together.
    cdef Datagram* d = c.datagram
    cdef uint8_t whole[DATAGRAM_HEADER + DATAGRAM_BODY]
    cdef ssize_t sent
    d.answered = 1
    if n > DATAGRAM_BODY:
        send_long(c, p, n)
        return
    memset(whole, 0, DATAGRAM_HEADER)
    memcpy(whole, d.id, 2)
    whole[5] = n != 0
    if n:
        memcpy(whole + DATAGRAM_HEADER, p, n)
    sent = sendto(c.fd, whole, DATAGRAM_HEADER + n, MSG_NOSIGNAL | MSG_DONTWAIT, <sockaddr*> &d.peer, d.peer_size)
    if sent > 0:
        add64(&c.shared.bytes_written, <int64_t> sent)


cdef inline void send_long(Conn* c, const char* p, size_t n) noexcept nogil:
    # One reply, in as many datagrams as it needs.
    cdef Datagram* d = c.datagram
    cdef mmsghdr m[SENDS]
    cdef iovec part[SENDS][2]
    cdef uint8_t head[SENDS][DATAGRAM_HEADER]
    cdef uint32_t total = <uint32_t> ((n + DATAGRAM_BODY - 1) // DATAGRAM_BODY), number = 0
    cdef int filled = 0, i, sent
    cdef size_t body
    while True:
        body = n if n < DATAGRAM_BODY else DATAGRAM_BODY
        memset(head[filled], 0, DATAGRAM_HEADER)
        memcpy(head[filled], d.id, 2)
        put_number(head[filled] + 2, number)
        put_number(head[filled] + 4, total)
        part[filled][0].iov_base = head[filled]
        part[filled][0].iov_len = DATAGRAM_HEADER
        part[filled][1].iov_base = <void*> p
        part[filled][1].iov_len = body
        memset(&m[filled], 0, sizeof(mmsghdr))
        m[filled].msg_hdr.msg_name = &d.peer
        m[filled].msg_hdr.msg_namelen = d.peer_size
        m[filled].msg_hdr.msg_iov = part[filled]
        m[filled].msg_hdr.msg_iovlen = 2
        filled += 1
        number += 1
        p += body
        n -= body
        if filled == SENDS or n == 0:
            i = 0
            while i < filled:
                sent = sendmmsg(c.fd, m + i, <unsigned int> (filled - i), MSG_NOSIGNAL | MSG_DONTWAIT)
                if sent <= 0:
                    return
                while sent:
                    add64(&c.shared.bytes_written, <int64_t> m[i].msg_len)
                    sent -= 1
                    i += 1
            filled = 0
        if n == 0:
            return


cdef inline bint affordable(Conn* c, size_t n) noexcept nogil:
    # Whether a reply of so many bytes may go out; then it is paid for.
    cdef Datagram* d = c.datagram
    cdef uint64_t cost = n + DATAGRAM_HEADER * ((n + DATAGRAM_BODY - 1) // DATAGRAM_BODY if n else 1)
    if c.unbounded:
        return 1
    if cost > d.budget:
        return 0
    d.budget -= cost
    return 1


cdef inline void send_refusal(Conn* c, const char* reply, size_t n) noexcept nogil:
    # In the place of a reply (its first n bytes) that may not be sent.
    cdef char refusal[REFUSAL_MOST]
    cdef const char* text = WIRE_DATAGRAM_LONG
    cdef size_t length = strlen(text), head = 0
    cdef bint known = n >= BINARY_HEADER
    if c.binary:
        head = BINARY_HEADER
        as_words(&text, &length)
        header_write(refusal, <uint8_t> reply[1] if known else 0, reply + OPAQUE_AT if known else NULL, BIN_TOO_LARGE, 0, 0,
                     <uint32_t> length, 0)
    memcpy(refusal + head, text, length)
    if affordable(c, head + length):
        send_reply(c, refusal, head + length)
    c.datagram.budget = 0


cdef inline void answer_datagram(Conn* c, bint all) noexcept nogil:
    # Outside of the lock. Sends the replies that are complete; `all`: that is all of them.
    cdef Datagram* d = c.datagram
    cdef uint32_t i = 0, left
    cdef uint64_t begin, end, have = d.gone + c.sink_len
    cdef const char* p
    if not all and c.sink_len < BIG:
        return
    while i < d.replies:
        begin = d.start[i]
        if i + 1 == d.replies and not all:
            break
        end = d.start[i + 1] if i + 1 < d.replies else have
        p = c.sink + (begin - d.gone)
        if d.lost and (end >= have or i + 1 == d.replies):
            send_refusal(c, p, <size_t> (have - begin) if have > begin else 0)
            return
        if end > have:
            break
        elif end == begin:
            if not d.answered and affordable(c, 0):
                send_reply(c, NULL, 0)
        elif affordable(c, <size_t> (end - begin)):
            send_reply(c, p, <size_t> (end - begin))
        elif d.budget:
            send_refusal(c, p, <size_t> (end - begin))
        i += 1
    if all or i == 0:
        return
    begin = d.start[i]
    memmove(c.sink, c.sink + (begin - d.gone), <size_t> (have - begin))
    c.sink_len = <size_t> (have - begin)
    d.gone = begin
    left = d.replies - i
    memmove(d.start, d.start + i, left * sizeof(uint64_t))
    d.replies = left
