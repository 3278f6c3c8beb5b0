/* One client connection: requests queue up in `out`, their replies are due in the order of `pieces`. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "wire.h"

#include <openssl/ssl.h>

struct connection {
    int fd, epoll, port;
    SSL *ssl;                     /* NULL: plain */
    size_t *starts;               /* UDP: where each unsent request's datagram begins; else NULL */
    uint32_t unsent, asked, answered;   /* UDP: datagrams in `out`, requests so far, and answers */
    uint8_t *out;                 /* requests not yet sent: [out_start, out_end) */
    size_t out_start, out_end, out_size;
    uint8_t *in;                  /* replies not yet checked: [0, in_end) */
    size_t in_end;
    struct piece *pieces;         /* a ring: what the server still owes */
    uint32_t first, owed, ring;
    bool waits_for_room;          /* EPOLLOUT is asked for */
    bool stamped;
    uint64_t came;                /* stamped: when the kernel had the last byte that was received */
};

/* Called for each piece that came (RIGHT) or was left out (MISSED). */
typedef void piece_done(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict);

enum tls { TLS_OFF, TLS_FULL /* every handshake */, TLS_RESUMED /* ... but the first resumes a session */ };
/* How connections are made from now on; the server's certificate is not verified. */
void connection_tls(enum tls how);

/* Connections are UDP's from now on: a request a datagram, and each answer must come in one datagram, in order. */
void connection_udp(void);
/* The line that every connection begins with, whose answer must be STORED: what -Y wants. */
void connection_login(const char *name_and_password);
/* The same where -S is: binary. */
void connection_sasl(const char *name_and_password);

/* Connects to 127.0.0.1 (non-blocking, Nagle off; with TLS after the handshake, which is waited for) and registers with `epoll`, the connection as the event's data. It can owe `pieces`
 * pieces and queue `out_size` bytes; more is an error. */
void connection_open(struct connection *connection, int epoll, int port, uint32_t pieces, size_t out_size);
void connection_close(struct connection *connection);
/* From now on the kernel says when it had an answer, on a plain connection of TCP: however late this process gets its processor. */
void connection_stamp(struct connection *connection);

/* Queue one request, to be sent by connection_send. */
void queue_get(struct connection *connection, uint32_t key, uint32_t length, bool may_miss, uint64_t due);
/* `lengths` of the values, one for each key. */
void queue_multiget(struct connection *connection, const uint32_t *keys, const uint32_t *lengths, unsigned count, bool may_miss);
void queue_meta_get(struct connection *connection, uint32_t key, uint32_t length, bool may_miss);
/* A get of a key that must not be there. */
void queue_absent(struct connection *connection, uint32_t key);
void queue_delete(struct connection *connection, uint32_t key);
void queue_touch(struct connection *connection, uint32_t key, bool may_miss);
/* A number is stored, without a reply; 1 is added to it. */
void queue_number(struct connection *connection, uint32_t key);
void queue_incr(struct connection *connection, uint32_t key);
void queue_ask(struct connection *connection, uint32_t key);
void queue_set(struct connection *connection, uint32_t key, uint32_t length, uint64_t due);
void queue_quiet_set(struct connection *connection, uint32_t key, uint32_t length);
void queue_binary_get(struct connection *connection, uint32_t key, uint32_t length, uint64_t due);
void queue_binary_set(struct connection *connection, uint32_t key, uint32_t length, uint64_t due);
void queue_nothing(struct connection *connection);

void connection_send(struct connection *connection);
/* Receives once and checks every whole reply. Dies of a wrong reply or a closed connection. */
void connection_receive(struct connection *connection, piece_done *done, void *context);
/* Waits up to `timeout` ms for events of connections of one epoll, then sends and receives. Dies when all is silent for 10 s
 * in a call with timeout -1; returns the number of events. */
int connections_serve(int epoll, int timeout, piece_done *done, void *context);

/* Prints "loadgen: ..." and exits with status 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* CLOCK_MONOTONIC, nanoseconds. */
uint64_t nanoseconds(void);

#endif
