/* Filling a server and asking what it kept. */
#include "loadgen.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

enum { PROBE_EVERY = 1000000 /* ns */ };

struct fill {
    const struct options *options;
    uint64_t next, end;       /* keys not yet set: [next, end) */
    struct connection prober;
    uint64_t probe_due, probe_sent, longest_stall;     /* nanoseconds */
    uint64_t probes;
};

/* `depth` sets without replies, then a command that has one; binary: with replies. */
static void send_batch(struct fill *fill, struct connection *connection) {
    if (fill->next == fill->end) return;
    for (uint32_t i = 0; i < fill->options->depth && fill->next < fill->end; i++) {
        uint32_t key = (uint32_t)fill->next++;
        if (fill->options->binary) queue_binary_set(connection, key, value_length(fill->options, key), 0);
        else queue_quiet_set(connection, key, value_length(fill->options, key));
    }
    if (!fill->options->binary) queue_nothing(connection);
    connection_send(connection);
}

static void done(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    struct fill *fill = context;
    (void)verdict;
    if (connection != &fill->prober) {
        if (!connection->owed) send_batch(fill, connection);
        return;
    }
    if (!piece->last) return;
    uint64_t stall = nanoseconds() - fill->probe_sent;
    if (stall > fill->longest_stall) fill->longest_stall = stall;
    fill->probes++;
}

static void probe(struct fill *fill, uint64_t now) {
    if (fill->prober.owed || now < fill->probe_due) return;
    fill->probe_sent = now;
    fill->probe_due = now + PROBE_EVERY;
    queue_get(&fill->prober, fill->options->first, value_length(fill->options, fill->options->first), true, 0);
    connection_send(&fill->prober);
}

void run_fill(const struct options *options) {
    struct fill fill = {.options = options, .next = options->first, .end = (uint64_t)options->first + options->keys};
    struct connection *connections = calloc(options->connections, sizeof *connections);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (options->probe) connection_open(&fill.prober, epoll, options->port, 2, WIRE_OVERHEAD);
    uint64_t start = nanoseconds();
    for (uint32_t i = 0; i < options->connections; i++) {
        connection_open(&connections[i], epoll, options->port, options->binary ? options->depth : 1,
                        (size_t)(options->depth + 1) * (WIRE_OVERHEAD + options->value_max));
        send_batch(&fill, &connections[i]);
    }
    for (bool busy = true; busy;) {
        if (options->probe) probe(&fill, nanoseconds());
        connections_serve(epoll, -1, done, &fill);
        busy = fill.prober.owed;
        for (uint32_t i = 0; i < options->connections; i++) busy |= connections[i].owed;
    }
    printf("{\"sets\": %u, \"elapsed_ns\": %lu, \"probes\": %lu, \"longest_stall_ns\": %lu}\n", options->keys, nanoseconds() - start,
           fill.probes, fill.longest_stall);
    for (uint32_t i = 0; i < options->connections; i++) connection_close(&connections[i]);
    if (options->probe) connection_close(&fill.prober);
    free(connections);
}

static void count_hit(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    uint64_t *hits = context;
    (void)connection;
    *hits += piece->kind == PIECE_VALUE && verdict == RIGHT;
}

void run_count(const struct options *options) {
    struct connection connection;
    uint32_t keys[MULTIGET_KEYS], lengths[MULTIGET_KEYS];
    uint64_t gets = 0, hits = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    connection_open(&connection, epoll, options->port, MULTIGET_KEYS + 1, WIRE_OVERHEAD + MULTIGET_KEYS * (KEY_MAX + 1));
    for (uint64_t next = 0; next < options->keys;) {
        unsigned n = 0;
        for (; n < MULTIGET_KEYS && next < options->keys; n++, next += options->stride) {
            keys[n] = options->first + (uint32_t)next;
            lengths[n] = value_length(options, keys[n]);
        }
        queue_multiget(&connection, keys, lengths, n, true);
        connection_send(&connection);
        while (connection.owed) connections_serve(epoll, -1, count_hit, &hits);
        gets += n;
    }
    printf("{\"gets\": %lu, \"hits\": %lu}\n", gets, hits);
    connection_close(&connection);
}
