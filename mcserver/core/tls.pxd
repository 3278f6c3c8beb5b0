# TLS: how bytes get from a connection's socket, and to it, when they are encrypted. OpenSSL does the work, on the worker's thread.
#
# Owns the SSL object of a connection and what passes between it and the socket. OpenSSL never touches the socket itself: one recv
# fills the thread's buffer, every record in it is decrypted into where the plain bytes belong, and everything that a batch
# sends is encrypted into the thread's other buffer, which one send empties. So a batch costs as many system calls as without TLS,
# and a connection keeps only what the socket did not take. (With kernel TLS the socket is OpenSSL's for the handshake, and what the
# kernel does after it.)
# Must never hold the engine's lock, parse, or know what a command is. Nothing here waits.

from libc.errno cimport errno, EAGAIN, ECONNRESET, EINTR, EPROTO
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from .mail cimport add64
from .sockets cimport *

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    int SSL_CTX_up_ref(SSL_CTX* ctx)
    void SSL_CTX_free(SSL_CTX* ctx)
    SSL* SSL_new(SSL_CTX* ctx)
    void SSL_free(SSL* ssl)
    int SSL_set_fd(SSL* ssl, int fd)
    void SSL_set_bio(SSL* ssl, BIO* read, BIO* write)
    void SSL_set0_rbio(SSL* ssl, BIO* bio)
    void SSL_set0_wbio(SSL* ssl, BIO* bio)
    BIO* SSL_get_rbio(const SSL* ssl)
    BIO* SSL_get_wbio(const SSL* ssl)
    int SSL_session_reused(const SSL* ssl)
    void SSL_set_verify(SSL* ssl, int mode, void* callback)
    int SSL_set_session_id_context(SSL* ssl, const unsigned char* name, unsigned int n)
    int SSL_accept(SSL* ssl)
    int SSL_read_ex(SSL* ssl, void* buf, size_t n, size_t* done)
    int SSL_write_ex(SSL* ssl, const void* buf, size_t n, size_t* done)
    int SSL_shutdown(SSL* ssl)
    void SSL_set_quiet_shutdown(SSL* ssl, int quiet)
    int SSL_pending(const SSL* ssl)
    int SSL_has_pending(const SSL* ssl)
    int SSL_get_error(const SSL* ssl, int result)
    void SSL_set_msg_callback(SSL* ssl, void (*tell)(int, int, int, const void*, size_t, SSL*, void*) noexcept nogil)
    long SSL_set_msg_callback_arg(SSL* ssl, void* arg)
    enum: SSL3_RT_HANDSHAKE, SSL3_MT_KEY_UPDATE
    enum: SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN, SSL_ERROR_SYSCALL
    enum: SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    int BIO_get_ktls_send(BIO* bio)
    int BIO_get_ktls_recv(BIO* bio)
    BIO* BIO_new(const BIO_METHOD* method)
    void BIO_set_data(BIO* bio, void* data)
    void* BIO_get_data(BIO* bio)
    void BIO_set_init(BIO* bio, int on)
    int BIO_up_ref(BIO* bio)
    int BIO_free(BIO* bio)
    void BIO_set_retry_read(BIO* bio)
    void BIO_clear_retry_flags(BIO* bio)
    BIO_METHOD* BIO_meth_new(int kind, const char* name)
    int BIO_meth_set_read_ex(BIO_METHOD* method, int (*read)(BIO*, char*, size_t, size_t*) noexcept nogil)
    int BIO_meth_set_write_ex(BIO_METHOD* method, int (*write)(BIO*, const char*, size_t, size_t*) noexcept nogil)
    int BIO_meth_set_ctrl(BIO_METHOD* method, long (*ctrl)(BIO*, int, long, void*) noexcept nogil)
    int BIO_get_new_index()
    enum: BIO_CTRL_FLUSH, BIO_TYPE_SOURCE_SINK

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
    unsigned long ERR_peek_last_error()
    const char* ERR_reason_error_string(unsigned long error)

cdef enum:
    TLS_IN = 65536              # bytes of one recv
    TLS_RECORD = 16384          # the most plain bytes of a record
    TLS_ROUND = 1024            # ... and what they have besides, at most, also in smaller records
    TLS_OUT_LEAST = 65536       # of a thread's buffer for what is sent
    TLS_KEPT = 20480            # what OpenSSL holds for a handshake or a record that is not complete
    TLS_HELLO = 0x16            # the first byte of whoever speaks TLS
    TLS_UPDATES_MOST = 32       # new keys for what a client sends, in one recv: each costs as much as some hundred bytes of a value
    TLS_SPEAKS_PLAIN = -3       # what tls_receive answers when it is another: what came stands in room.inbuf

# What a listener asks of its clients.
cdef enum Security:
    TLS_OFF
    TLS_ON                      # as ssl_verify_mode says
    TLS_BASIC                   # btls: no certificate
    TLS_MUTUAL                  # mtls: a certificate that is checked

cdef struct TlsCounts:          # atomic
    uint64_t handshake_errors
    uint64_t proto_errors
    uint64_t new_sessions

# What all connections of a thread share.
cdef struct TlsRoom:
    char* inbuf
    size_t in_at
    size_t in_len
    char* out
    size_t out_len
    size_t out_size

cdef struct Tls:
    SSL_CTX* ctx                # what it is made from, until it says its first word
    SSL* ssl
    TlsRoom* room
    TlsCounts* counts
    const BIO_METHOD* method
    uint8_t security
    uint8_t shaking             # the handshake isn't over
    uint8_t over                # the client has said that nothing more comes
    uint8_t gone                # ... or has left without a word: nobody hears a goodbye
    uint8_t failed              # ... or can't be understood: nothing can be sent to it, either
    uint8_t kernel_out          # the kernel encrypts what is sent
    uint8_t kernel_in           # ... the socket is OpenSSL's to read from
    uint8_t counted             # by the engine: it holds something unfinished
    uint8_t waited              # ... by its worker: a handshake that has a time limit
    uint8_t updates             # new keys since the last recv
    uint8_t fresh               # what is kept was not offered to the socket: it goes with what is sent next
    int error                   # errno of the last read
    const char* why             # what went wrong, in OpenSSL's words
    char* kept                  # encrypted, and not taken by the socket
    size_t kept_at
    size_t kept_len


# Between OpenSSL and the thread's buffers

cdef inline int tls_bio_read(BIO* b, char* p, size_t n, size_t* done) noexcept nogil:
    cdef Tls* t = <Tls*> BIO_get_data(b)
    cdef TlsRoom* room = t.room
    BIO_clear_retry_flags(b)
    if n > room.in_len - room.in_at:
        n = room.in_len - room.in_at
    if t.updates > TLS_UPDATES_MOST:
        n = 0                   # OpenSSL reads on and on while there is no value among what came
    done[0] = n
    if n == 0:
        if t.updates <= TLS_UPDATES_MOST:
            BIO_set_retry_read(b)
        return 0
    memcpy(p, room.inbuf + room.in_at, n)
    room.in_at += n
    return 1


cdef inline int tls_bio_write(BIO* b, const char* p, size_t n, size_t* done) noexcept nogil:
    cdef TlsRoom* room = (<Tls*> BIO_get_data(b)).room
    BIO_clear_retry_flags(b)
    if n > room.out_size - room.out_len:
        done[0] = 0
        return 0
    memcpy(room.out + room.out_len, p, n)
    room.out_len += n
    done[0] = n
    return 1


cdef inline long tls_bio_ctrl(BIO* b, int what, long n, void* p) noexcept nogil:
    return 1 if what == BIO_CTRL_FLUSH else 0


cdef inline BIO_METHOD* tls_method() noexcept nogil:
    # NULL: out of memory. It stays for the life of the process.
    cdef BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"mcserver")
    if m != NULL:
        BIO_meth_set_read_ex(m, tls_bio_read)
        BIO_meth_set_write_ex(m, tls_bio_write)
        BIO_meth_set_ctrl(m, tls_bio_ctrl)
    return m


# Beginning and ending

cdef inline Tls* tls_new(SSL_CTX* ctx, bint kernel, const BIO_METHOD* method, TlsRoom* room, TlsCounts* counts,
                         int security) noexcept nogil:
    # NULL: out of memory. Cheap: what a handshake needs is made when it begins. kernel: ssl_kernel_tls.
    cdef Tls* t = <Tls*> calloc(1, sizeof(Tls))
    if t == NULL:
        return NULL
    SSL_CTX_up_ref(ctx)
    t.ctx = ctx
    t.method = method
    t.room = room
    t.counts = counts
    t.security = <uint8_t> security
    t.shaking = 1
    t.kernel_in = kernel
    return t


cdef inline bint tls_room(TlsRoom* room) noexcept nogil:
    # Makes the thread's buffers at the first use. 0: out of memory.
    if room.inbuf == NULL:
        room.inbuf = <char*> malloc(TLS_IN)
    if room.out == NULL:
        room.out = <char*> malloc(room.out_size)
    return room.inbuf != NULL and room.out != NULL


cdef inline void tls_room_free(TlsRoom* room) noexcept nogil:
    free(room.inbuf)
    free(room.out)
    room.inbuf = NULL
    room.out = NULL


cdef inline void tls_hears(int sent, int version, int kind, const void* p, size_t n, SSL* ssl, void* arg) noexcept nogil:
    # Counts the client's new keys.
    cdef Tls* t = <Tls*> arg
    if kind == SSL3_RT_HANDSHAKE and not sent and n and (<const uint8_t*> p)[0] == SSL3_MT_KEY_UPDATE and t.updates <= TLS_UPDATES_MOST:
        t.updates += 1


cdef inline BIO* tls_bio(Tls* t) noexcept nogil:
    cdef BIO* b = BIO_new(t.method)
    if b != NULL:
        BIO_set_data(b, t)
        BIO_set_init(b, 1)
    return b


cdef inline bint tls_begin(Tls* t, int fd) noexcept nogil:
    # The client has said something. 0: out of memory.
    cdef BIO* b
    t.ssl = SSL_new(t.ctx)
    SSL_CTX_free(t.ctx)
    t.ctx = NULL
    if t.ssl == NULL:
        return 0
    if t.security == TLS_BASIC:
        SSL_set_verify(t.ssl, SSL_VERIFY_NONE, NULL)
    elif t.security == TLS_MUTUAL:
        SSL_set_verify(t.ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL)
    # A session that began without a certificate must not be resumed where one is wanted.
    SSL_set_session_id_context(t.ssl, &t.security, 1)
    if t.kernel_in:
        return SSL_set_fd(t.ssl, fd) == 1
    b = tls_bio(t)
    if b == NULL:
        return 0
    SSL_set_bio(t.ssl, b, b)
    return 1


cdef inline bint tls_settle_kernel(Tls* t) noexcept nogil:
    # After a handshake on the socket itself: what the kernel doesn't do goes by our buffers. 0: out of memory.
    cdef BIO* b
    t.kernel_out = BIO_get_ktls_send(SSL_get_wbio(t.ssl)) > 0
    t.kernel_in = BIO_get_ktls_recv(SSL_get_rbio(t.ssl)) > 0 or SSL_has_pending(t.ssl)      # a record that it has begun to read
    if not t.kernel_out:
        b = tls_bio(t)
        if b == NULL:
            return 0
        SSL_set0_wbio(t.ssl, b)
    if not t.kernel_in:
        b = tls_bio(t)
        if b == NULL:
            return 0
        SSL_set0_rbio(t.ssl, b)
    return 1


cdef inline void tls_free(Tls* t) noexcept nogil:
    SSL_free(t.ssl)
    SSL_CTX_free(t.ctx)
    free(t.kept)
    free(t)


cdef inline void tls_gather(Tls* t) noexcept nogil:
    # Begins what is to be sent.
    cdef TlsRoom* room = t.room
    room.out_len = 0
    if t.fresh:
        t.fresh = 0
        room.out_len = t.kept_len
        memcpy(room.out, t.kept + t.kept_at, t.kept_len)
        free(t.kept)
        t.kept = NULL
        t.kept_at = 0
        t.kept_len = 0


cdef inline void tls_close(Tls* t, int fd) noexcept nogil:
    # Says goodbye, if the socket takes it, and forgets everything.
    if t.ssl != NULL and not t.shaking and not t.failed and (t.kept_len == 0 or t.fresh):
        ERR_clear_error()
        tls_gather(t)
        SSL_set_quiet_shutdown(t.ssl, t.gone)
        SSL_shutdown(t.ssl)
        if t.room.out_len:
            send(fd, t.room.out, t.room.out_len, MSG_NOSIGNAL | MSG_DONTWAIT)
            t.room.out_len = 0
    tls_free(t)


# Sending

cdef inline int tls_flush(Tls* t, int fd) noexcept nogil:
    # Sends what the socket did not take before. 1: all of it; 0: the client takes no more now; -1: it is gone.
    cdef ssize_t n
    t.fresh = 0
    while t.kept_len:
        n = send(fd, t.kept + t.kept_at, t.kept_len, MSG_NOSIGNAL | MSG_DONTWAIT)
        if n < 0:
            return 0 if errno == EAGAIN or errno == EINTR else -1
        t.kept_at += <size_t> n
        t.kept_len -= <size_t> n
    free(t.kept)
    t.kept = NULL
    t.kept_at = 0
    return 1


cdef inline bint tls_out(Tls* t, int fd) noexcept nogil:
    # Sends what OpenSSL has written; what the socket does not take is kept. 0: the client is gone.
    cdef TlsRoom* room = t.room
    cdef ssize_t n = 0
    cdef size_t length = room.out_len
    room.out_len = 0
    if length == 0:
        return 1
    if t.kept_len == 0:
        n = send(fd, room.out, length, MSG_NOSIGNAL | MSG_DONTWAIT)
        if n < 0:
            if errno != EAGAIN and errno != EINTR:
                return 0
            n = 0
    return <size_t> n == length \
        or keep_bytes(&t.kept, &t.kept_at, &t.kept_len, room.out + n, length - <size_t> n)


cdef inline ssize_t tls_transmit(Tls* t, int fd, iovec* part, int parts) noexcept nogil:
    # Plain bytes taken, which may wait here, encrypted (kept_len). 0: the client takes none now; -1: it is gone.
    cdef TlsRoom* room = t.room
    cdef size_t at, n, done
    cdef ssize_t total = 0
    cdef int i, r
    if t.kept_len and not t.fresh:
        r = tls_flush(t, fd)
        if r <= 0:
            return r
    if t.failed:
        return -1
    tls_gather(t)
    for i in range(parts):
        at = 0
        while at < part[i].iov_len:
            n = part[i].iov_len - at
            if n > TLS_RECORD:
                n = TLS_RECORD
            if room.out_len + n + TLS_ROUND > room.out_size:
                return total if tls_out(t, fd) else -1
            ERR_clear_error()
            if not SSL_write_ex(t.ssl, <char*> part[i].iov_base + at, n, &done):
                t.failed = 1
                return -1
            at += done
            total += <ssize_t> done
    return total if tls_out(t, fd) else -1


# Receiving

cdef inline void tls_fail(Tls* t) noexcept nogil:
    t.failed = 1
    t.over = 1
    add64(&t.counts.handshake_errors if t.shaking else &t.counts.proto_errors, 1)
    t.why = "too many new keys at once"
    if t.updates <= TLS_UPDATES_MOST:
        t.why = ERR_reason_error_string(ERR_peek_last_error())


cdef inline bint tls_shake(Tls* t, int fd) noexcept nogil:
    # The handshake goes on with what has come. False: it needs more, or has failed.
    cdef int r
    if t.ssl == NULL and not tls_begin(t, fd):
        t.failed = 1
        return 0
    ERR_clear_error()
    r = SSL_accept(t.ssl)
    if r == 1:
        t.shaking = 0
        SSL_set_msg_callback(t.ssl, tls_hears)
        SSL_set_msg_callback_arg(t.ssl, t)
        if not SSL_session_reused(t.ssl):
            add64(&t.counts.new_sessions, 1)
        if t.kernel_in and not tls_settle_kernel(t):
            t.failed = 1
        return not t.failed
    r = SSL_get_error(t.ssl, r)
    if t.kernel_in and r == SSL_ERROR_SYSCALL:
        t.failed = 1                        # it has gone: nothing was wrong with what it sent
        t.gone = 1
    elif r != SSL_ERROR_WANT_READ and r != SSL_ERROR_WANT_WRITE:
        tls_fail(t)
    return 0


cdef inline ssize_t tls_records(Tls* t, iovec* part, int parts, size_t room) noexcept nogil:
    # Decrypts every complete record; returns how many plain bytes there were.
    cdef size_t at, done
    cdef ssize_t total = 0
    cdef int i, r
    for i in range(parts):
        at = 0
        while at < part[i].iov_len:
            if room < TLS_RECORD and t.kernel_in and SSL_pending(t.ssl) == 0:
                return total            # the next one may not fit; it stays in the socket
            if total and not t.kernel_in and t.room.in_at == t.room.in_len and not SSL_has_pending(t.ssl):
                return total
            ERR_clear_error()
            r = SSL_read_ex(t.ssl, <char*> part[i].iov_base + at, part[i].iov_len - at, &done)
            if r == 1:
                at += done
                room -= done
                total += <ssize_t> done
                continue
            r = SSL_get_error(t.ssl, r)
            if r == SSL_ERROR_ZERO_RETURN:
                t.over = 1
            elif r != SSL_ERROR_WANT_READ and r != SSL_ERROR_WANT_WRITE:
                tls_fail(t)
            return total
    return total


cdef inline ssize_t tls_receive(Tls* t, int fd, iovec* part, int parts) noexcept nogil:
    # One recv, and all that it completes. Returns as recv does, with t.error (EPROTO: t.why), or TLS_SPEAKS_PLAIN. The parts have
    # room for two records or more.
    cdef TlsRoom* room = t.room
    cdef size_t space = 0
    cdef ssize_t n
    cdef int i
    cdef bint kernel = t.kernel_in
    for i in range(parts):
        space += part[i].iov_len
    t.error = EPROTO if t.why != NULL else ECONNRESET
    if not tls_room(room) or t.failed:
        return -1
    if kernel and t.shaking:
        n = recv(fd, room.inbuf, TLS_IN, MSG_DONTWAIT | MSG_PEEK)
        if n <= 0:
            t.error = errno
            return n
        room.in_len = <size_t> n
    elif not kernel:
        # A record that is nearly complete may be in OpenSSL's hands: what comes now must fit in addition to it.
        n = recv(fd, room.inbuf, TLS_IN if space > TLS_IN + TLS_RECORD else space - TLS_RECORD, MSG_DONTWAIT)
        if n <= 0:
            t.error = errno
            t.gone = n < 0 and errno != EAGAIN and errno != EINTR
            return n
        room.in_at = 0
        room.in_len = <size_t> n
    if t.ssl == NULL and <uint8_t> room.inbuf[0] != TLS_HELLO:
        if kernel:
            recv(fd, room.inbuf, room.in_len, MSG_DONTWAIT)     # what is closed unread takes the answer with it
        return TLS_SPEAKS_PLAIN
    room.out_len = 0
    t.updates = 0
    n = 0
    if (not t.shaking or tls_shake(t, fd)) and t.kernel_in == kernel:     # else what follows is ours to read, at the next turn
        n = tls_records(t, part, parts, space)
    if kernel and t.failed:
        recv(fd, room.inbuf, TLS_IN, MSG_DONTWAIT)              # as above: of the alert
    if n > 0 and room.out_len and t.kept_len == 0 and keep_bytes(&t.kept, &t.kept_at, &t.kept_len, room.out, room.out_len):
        t.fresh = 1                         # a session's ticket, mostly: the reply comes at once
        room.out_len = 0
    if not tls_out(t, fd):
        if n == 0 and not t.failed:         # it has gone: nothing was wrong with what it sent
            t.failed = 1
            t.error = ECONNRESET
            return -1
        t.failed = 1
    if n == 0 and t.over and not t.failed:
        return 0
    if n == 0:
        t.error = ECONNRESET if t.gone else EPROTO if t.failed else EAGAIN
        return -1
    return n
