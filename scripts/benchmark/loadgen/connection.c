/* One client connection: see connection.h. The only place with send and recv. */
#define _GNU_SOURCE   /* sendmmsg */
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IN_SIZE = 2 << 20, SILENCE = 10000 /* ms */, FRAME = 8 /* bytes before a request or answer by UDP */, BURST = 64 };

static enum tls tls;
static bool udp;
static const char *login, *sasl;
static SSL_CTX *context;
static SSL_SESSION *session;   /* the last one that a server gave */
static int asked;              /* the port that was sent to last */

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect to port %d: %s", port, strerror(errno));
    if (!udp && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) die("setsockopt: %s", strerror(errno));
    return fd;
}

void connection_udp(void) { udp = true; }

void connection_login(const char *name_and_password) { login = name_and_password; }

void connection_sasl(const char *name_and_password) { sasl = name_and_password; }

/* On a socket that waits. */
static void log_in(int fd) {
    char line[512], answer[9] = "";
    int n = snprintf(line, sizeof line, "set auth 0 0 %zu\r\n%s\r\n", strlen(login), login);
    if (n >= (int)sizeof line || send(fd, line, (size_t)n, MSG_NOSIGNAL) != n) die("can't log in");
    if (recv(fd, answer, 8, MSG_WAITALL) != 8 || strcmp(answer, "STORED\r\n")) die("the server refuses the login: %s", answer);
}

/* Likewise, in the binary protocol. */
static void log_in_by_sasl(int fd) {
    uint8_t request[512], answer[WIRE_SASL_ANSWER];
    if (strlen(sasl) > sizeof request - WIRE_OVERHEAD) die("can't log in");
    size_t n = wire_sasl(request, sasl);
    if (send(fd, request, n, MSG_NOSIGNAL) != (ssize_t)n) die("can't log in");
    if (recv(fd, answer, sizeof answer, MSG_WAITALL) != sizeof answer || !wire_sasl_took(answer)) die("the server refuses the login");
}

void connection_tls(enum tls how) {
    tls = how;
    if (tls == TLS_OFF) return;
    context = SSL_CTX_new(TLS_client_method());
    if (!context) die("no memory");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

/* The handshake, on a socket that waits. */
static SSL *shake_hands(int fd) {
    SSL *ssl = SSL_new(context);
    if (!ssl || !SSL_set_fd(ssl, fd)) die("no memory");
    if (tls == TLS_RESUMED && session && !SSL_set_session(ssl, session)) die("SSL_set_session");
    if (SSL_connect(ssl) != 1) die("no TLS with the server");
    if (tls == TLS_RESUMED && session && !SSL_session_reused(ssl)) die("the server doesn't resume sessions");
    return ssl;
}

void connection_open(struct connection *c, int epoll, int port, uint32_t pieces, size_t out_size) {
    memset(c, 0, sizeof *c);
    c->fd = connect_to(port);
    if (tls != TLS_OFF) c->ssl = shake_hands(c->fd);
    if (login) log_in(c->fd);
    if (sasl) log_in_by_sasl(c->fd);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) die("fcntl: %s", strerror(errno));
    c->epoll = epoll;
    c->port = port;
    for (c->ring = 1; c->ring < pieces;) c->ring *= 2;
    c->out_size = out_size;
    c->out = malloc(out_size);
    c->in = malloc(IN_SIZE);
    c->pieces = malloc(c->ring * sizeof *c->pieces);
    if (udp) c->starts = malloc((c->ring + 1) * sizeof *c->starts);
    if (!c->out || !c->in || !c->pieces || (udp && !c->starts)) die("no memory");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

void connection_stamp(struct connection *c) {
    int on = 1;
    if (c->ssl || c->starts || setsockopt(c->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on)) die("no stamps on such a connection");
    c->stamped = true;
}

void connection_close(struct connection *c) {
    if (c->ssl) {
        if (tls == TLS_RESUMED) {
            SSL_SESSION_free(session);
            session = SSL_get1_session(c->ssl);
        }
        SSL_set_quiet_shutdown(c->ssl, 1);
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
    }
    close(c->fd);
    free(c->out);
    free(c->in);
    free(c->pieces);
    free(c->starts);
}

static void owe(struct connection *c, struct piece piece) {
    if (c->owed == c->ring) die("%u replies are outstanding on a connection: the server is far behind", c->owed);
    c->pieces[(c->first + c->owed++) & (c->ring - 1)] = piece;
}

/* A request of its own, which WIRE_OVERHEAD has room for: its number, and that it is one of one. */
static void begin_datagram(struct connection *c) {
    uint8_t frame[FRAME] = {(uint8_t)(c->asked >> 8), (uint8_t)c->asked, 0, 0, 0, 1, 0, 0};
    if (c->unsent == c->ring) die("%u requests are unsent on a connection: the server is far behind", c->unsent);
    c->starts[c->unsent++] = c->out_end;
    c->asked++;
    memcpy(c->out + c->out_end, frame, FRAME);
    c->out_end += FRAME;
}

static uint8_t *room(struct connection *c, size_t n) {
    if (c->out_start == c->out_end) c->out_start = c->out_end = 0;
    if (c->out_end + n > c->out_size) die("%zu bytes are unsent on a connection: the server is far behind", c->out_end - c->out_start);
    if (c->starts) begin_datagram(c);
    return c->out + c->out_end;
}

void queue_get(struct connection *c, uint32_t key, uint32_t length, bool may_miss, uint64_t due) {
    c->out_end += wire_get(room(c, WIRE_OVERHEAD), &key, 1);
    owe(c, (struct piece){PIECE_VALUE, .may_miss = may_miss, .key = key, .length = length, .due = due});
    owe(c, (struct piece){PIECE_END, .last = true, .due = due});
}

void queue_multiget(struct connection *c, const uint32_t *keys, const uint32_t *lengths, unsigned count, bool may_miss) {
    c->out_end += wire_get(room(c, WIRE_OVERHEAD + count * (KEY_MAX + 1)), keys, count);
    for (unsigned i = 0; i < count; i++)
        owe(c, (struct piece){PIECE_VALUE, .may_miss = may_miss, .key = keys[i], .length = lengths[i]});
    owe(c, (struct piece){PIECE_END, .last = true});
}

void queue_meta_get(struct connection *c, uint32_t key, uint32_t length, bool may_miss) {
    c->out_end += wire_meta_get(room(c, WIRE_OVERHEAD), key);
    owe(c, (struct piece){PIECE_META, .may_miss = may_miss, .last = true, .key = key, .length = length});
}

void queue_absent(struct connection *c, uint32_t key) {
    c->out_end += wire_get(room(c, WIRE_OVERHEAD), &key, 1);
    owe(c, (struct piece){PIECE_END, .last = true, .key = key});
}

void queue_delete(struct connection *c, uint32_t key) {
    c->out_end += wire_delete(room(c, WIRE_OVERHEAD), key);
    owe(c, (struct piece){PIECE_DELETED, .last = true, .key = key});
}

void queue_touch(struct connection *c, uint32_t key, bool may_miss) {
    c->out_end += wire_touch(room(c, WIRE_OVERHEAD), key);
    owe(c, (struct piece){PIECE_TOUCHED, .may_miss = may_miss, .last = true, .key = key});
}

void queue_number(struct connection *c, uint32_t key) { c->out_end += wire_number(room(c, WIRE_OVERHEAD), key); }

void queue_incr(struct connection *c, uint32_t key) {
    c->out_end += wire_incr(room(c, WIRE_OVERHEAD), key);
    owe(c, (struct piece){PIECE_NUMBER, .last = true, .key = key});
}

void queue_ask(struct connection *c, uint32_t key) {
    c->out_end += wire_ask(room(c, WIRE_OVERHEAD), key);
    owe(c, (struct piece){PIECE_HELD, .last = true, .key = key});
}

void queue_set(struct connection *c, uint32_t key, uint32_t length, uint64_t due) {
    c->out_end += wire_set(room(c, WIRE_OVERHEAD + length), key, length, false);
    owe(c, (struct piece){PIECE_STORED, .last = true, .key = key, .length = length, .due = due});
}

void queue_quiet_set(struct connection *c, uint32_t key, uint32_t length) {
    c->out_end += wire_set(room(c, WIRE_OVERHEAD + length), key, length, true);
}

void queue_binary_get(struct connection *c, uint32_t key, uint32_t length, uint64_t due) {
    c->out_end += wire_binary_get(room(c, WIRE_OVERHEAD), key);
    owe(c, (struct piece){PIECE_BINARY_VALUE, .last = true, .key = key, .length = length, .due = due});
}

void queue_binary_set(struct connection *c, uint32_t key, uint32_t length, uint64_t due) {
    c->out_end += wire_binary_set(room(c, WIRE_OVERHEAD + length), key, length);
    owe(c, (struct piece){PIECE_BINARY_STORED, .last = true, .key = key, .length = length, .due = due});
}

void queue_nothing(struct connection *c) {
    c->out_end += wire_nothing(room(c, WIRE_OVERHEAD));
    owe(c, (struct piece){PIECE_NOTHING, .last = true});
}

static void wait_for_room(struct connection *c, bool wanted) {
    if (c->waits_for_room == wanted) return;
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
    c->waits_for_room = wanted;
}

/* As send and recv, with errno. */
static ssize_t outcome(struct connection *c, int n) {
    if (n > 0) return n;
    switch (SSL_get_error(c->ssl, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: errno = EPROTO; return -1;
    }
}

static ssize_t put(struct connection *c, const uint8_t *from, size_t n) {
    if (!c->ssl) return send(c->fd, from, n, MSG_NOSIGNAL);
    return outcome(c, SSL_write(c->ssl, from, (int)n));
}

/* The next answer, which must be the next request's and whole. */
static ssize_t take_datagram(struct connection *c, uint8_t *to, size_t n) {
    uint8_t frame[FRAME];
    struct iovec parts[2] = {{frame, FRAME}, {to, n}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t got = recvmsg(c->fd, &message, 0);
    if (got < 0) return got;
    if (got <= FRAME || frame[0] != (uint8_t)(c->answered >> 8) || frame[1] != (uint8_t)c->answered || frame[4] || frame[5] != 1)
        die("wrong reply: a datagram that is not the answer to the oldest request");
    c->answered++;
    return got - FRAME;
}

/* One recv, and when its last byte came. */
static ssize_t take_stamped(struct connection *c, uint8_t *to, size_t n) {
    union { struct cmsghdr first; char room[256]; } control;
    struct iovec part = {to, n};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(c->fd, &message, 0);
    struct timespec stamp, wall;
    static bool ever;   /* the kernel begins to stamp a moment after it was asked to */
    bool found = false;
    if (got <= 0) return got;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_TIMESTAMPNS) continue;
        memcpy(&stamp, CMSG_DATA(head), sizeof stamp);
        found = ever = true;
    }
    if (!found && ever) die("the kernel doesn't say when an answer came");
    clock_gettime(CLOCK_REALTIME, &wall);
    if (!found) stamp = wall;
    c->came = nanoseconds() - (uint64_t)((wall.tv_sec - stamp.tv_sec) * 1000000000L + wall.tv_nsec - stamp.tv_nsec);
    return got;
}

/* One recv; with TLS, every record that is there. */
static ssize_t take(struct connection *c, uint8_t *to, size_t n) {
    if (c->starts) return take_datagram(c, to, n);
    if (c->stamped) return take_stamped(c, to, n);
    if (!c->ssl) return recv(c->fd, to, n, 0);
    size_t got = 0;
    while (got < n) {
        ssize_t more = outcome(c, SSL_read(c->ssl, to + got, (int)(n - got)));
        if (more <= 0) return got ? (ssize_t)got : more;
        got += (size_t)more;
    }
    return (ssize_t)got;
}

/* All datagrams, as many in a system call as it takes. */
static void send_datagrams(struct connection *c) {
    for (uint32_t at = 0; at < c->unsent;) {
        struct mmsghdr messages[BURST] = {0};
        struct iovec parts[BURST];
        uint32_t n = 0;
        for (; n < BURST && at + n < c->unsent; n++) {
            size_t end = at + n + 1 < c->unsent ? c->starts[at + n + 1] : c->out_end;
            parts[n] = (struct iovec){c->out + c->starts[at + n], end - c->starts[at + n]};
            messages[n].msg_hdr = (struct msghdr){.msg_iov = &parts[n], .msg_iovlen = 1};
        }
        int sent = sendmmsg(c->fd, messages, n, 0);
        if (sent < 0 && errno != EINTR) die("send: %s", strerror(errno));
        if (sent > 0) at += (uint32_t)sent;
    }
    c->unsent = 0;
    c->out_start = c->out_end = 0;
}

void connection_send(struct connection *c) {
    asked = c->port;
    if (c->starts) {
        send_datagrams(c);
        return;
    }
    while (c->out_start < c->out_end) {
        ssize_t n = put(c, c->out + c->out_start, c->out_end - c->out_start);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) {
            wait_for_room(c, true);
            return;
        }
        if (n < 0) die("send: %s", strerror(errno));
        c->out_start += (size_t)n;
    }
    wait_for_room(c, false);
}

static _Noreturn void die_of_reply(const struct piece *piece, const uint8_t *in, size_t n) {
    static const char *names[] = {"VALUE", "END", "STORED", "VA", "MN", "a binary value", "a binary success", "HD or EN",
                                  "DELETED or NOT_FOUND", "TOUCHED", "a number"};
    char shown[81];
    uint8_t key[KEY_MAX];
    if (n > sizeof shown - 1) n = sizeof shown - 1;
    for (size_t i = 0; i < n; i++) shown[i] = in[i] >= ' ' && in[i] < 127 ? (char)in[i] : '.';
    shown[n] = 0;
    int length = (int)wire_key(key, piece->key);
    die("wrong reply: expected %s (key %.*s, %u bytes), got \"%s\"", names[piece->kind], length, (char *)key, piece->length, shown);
}

void connection_receive(struct connection *c, piece_done *done, void *context) {
    ssize_t n = take(c, c->in + c->in_end, IN_SIZE - c->in_end);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) die("recv: %s", strerror(errno));
    if (n == 0) die("the server closed a connection");
    c->in_end += (size_t)n;
    size_t at = 0, used;
    while (at < c->in_end) {
        if (!c->owed) die("wrong reply: %zu bytes that no request asked for", c->in_end - at);
        struct piece piece = c->pieces[c->first & (c->ring - 1)];
        enum verdict verdict = wire_check(&piece, c->in + at, c->in_end - at, &used);
        if (verdict == INCOMPLETE) break;
        if (verdict == WRONG) die_of_reply(&piece, c->in + at, c->in_end - at);
        c->first++, c->owed--;
        at += used;
        done(context, c, &piece, verdict);
    }
    memmove(c->in, c->in + at, c->in_end -= at);
}

int connections_serve(int epoll, int timeout, piece_done *done, void *context) {
    struct epoll_event events[16];
    int n = epoll_wait(epoll, events, 16, timeout < 0 ? SILENCE : timeout);
    if (n < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
    if (n == 0 && timeout < 0) die("the server at port %d said nothing for %d seconds", asked, SILENCE / 1000);
    for (int i = 0; i < n; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) connection_send(connection);
        if (events[i].events & ~(uint32_t)EPOLLOUT) connection_receive(connection, done, context);
    }
    return n;
}
