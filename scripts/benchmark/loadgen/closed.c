/* The closed loop: how much CPU time an operation costs the server. */
#include "loadgen.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { NUMBERS = 1u << 30, ABSENT = 1u << 31 };   /* bits of the keys that are not among those of the values */

struct closed {
    const struct options *options;
    uint64_t random, turn;
    uint64_t requests;
};

static uint32_t any_key(struct closed *loop) { return loop->options->first + random_below(&loop->random, loop->options->keys); }

static void queue_any_multiget(struct closed *loop, struct connection *connection) {
    uint32_t keys[MULTIGET_KEYS], lengths[MULTIGET_KEYS];
    for (unsigned i = 0; i < MULTIGET_KEYS; i++) {
        keys[i] = any_key(loop);
        lengths[i] = value_length(loop->options, keys[i]);
    }
    queue_multiget(connection, keys, lengths, MULTIGET_KEYS, false);
}

/* The verb of one request; `misses` percent of the gets ask for what is not there. */
static enum workload any_verb(struct closed *loop) {
    static const struct { uint32_t percent; enum workload verb; } all[] = {
        {50, WORKLOAD_GET}, {15, WORKLOAD_SET}, {10, WORKLOAD_META}, {10, WORKLOAD_ABSENT}, {5, WORKLOAD_TOUCH}, {5, WORKLOAD_INCR},
        {5, WORKLOAD_DELETE},
    };
    uint32_t dice;
    switch (loop->options->workload) {
    case WORKLOAD_MIX: return random_below(&loop->random, 10) ? WORKLOAD_GET : WORKLOAD_SET;
    case WORKLOAD_DELETE: return loop->turn++ & 1 ? WORKLOAD_DELETE : WORKLOAD_SET;
    case WORKLOAD_GET:
        return loop->options->misses && random_below(&loop->random, 100) < loop->options->misses ? WORKLOAD_ABSENT : WORKLOAD_GET;
    case WORKLOAD_ALL:
        dice = random_below(&loop->random, 100);
        for (size_t i = 0;; dice -= all[i++].percent)
            if (dice < all[i].percent) return all[i].verb;
    default: return loop->options->workload;
    }
}

static void queue_any(struct closed *loop, struct connection *connection) {
    const struct options *options = loop->options;
    bool may_miss = options->workload == WORKLOAD_ALL;   /* others delete meanwhile */
    uint32_t key = any_key(loop), length = value_length(options, key);
    switch (any_verb(loop)) {
    case WORKLOAD_SET: queue_set(connection, key, length, 0); break;
    case WORKLOAD_META: queue_meta_get(connection, key, length, may_miss); break;
    case WORKLOAD_MULTIGET: queue_any_multiget(loop, connection); break;
    case WORKLOAD_BINARY_GET: queue_binary_get(connection, key, length); break;
    case WORKLOAD_BINARY_SET: queue_binary_set(connection, key, length); break;
    case WORKLOAD_TOUCH: queue_touch(connection, key, may_miss); break;
    case WORKLOAD_DELETE: queue_delete(connection, key); break;
    case WORKLOAD_INCR: queue_incr(connection, key ^ NUMBERS); break;
    case WORKLOAD_ABSENT: queue_absent(connection, key ^ ABSENT); break;
    default: queue_get(connection, key, length, may_miss, 0);
    }
}

static void answered(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    (void)context, (void)connection, (void)piece, (void)verdict;
}

/* What `incr` wants. */
static void store_numbers(const struct options *options, struct connection *connection, int epoll, struct closed *loop) {
    for (uint32_t i = 0; i < options->keys; i++) queue_number(connection, (options->first + i) ^ NUMBERS);
    queue_nothing(connection);
    connection_send(connection);
    while (connection->owed) connections_serve(epoll, -1, answered, loop);
}

static void send_batch(struct closed *loop, struct connection *connection) {
    for (uint32_t i = 0; i < loop->options->depth; i++) queue_any(loop, connection);
    connection_send(connection);
}

static void done(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    struct closed *loop = context;
    (void)verdict;
    loop->requests += piece->last;
    if (!connection->owed) send_batch(loop, connection);
}

static void run_for(struct closed *loop, int epoll, double seconds) {
    uint64_t end = nanoseconds() + (uint64_t)(seconds * 1e9);
    while (nanoseconds() < end) connections_serve(epoll, -1, done, loop);
}

void run_closed(const struct options *options) {
    struct closed loop = {.options = options, .random = options->seed};
    bool multiget = options->workload == WORKLOAD_MULTIGET;
    uint32_t pieces = options->depth * (multiget ? MULTIGET_KEYS + 1 : 2);
    size_t request = WIRE_OVERHEAD + (multiget ? MULTIGET_KEYS * (KEY_MAX + 1) : options->value_max);
    struct connection *connections = calloc(options->connections, sizeof *connections);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (options->workload == WORKLOAD_INCR || options->workload == WORKLOAD_ALL) {
        struct connection first;
        connection_open(&first, epoll, options->port, 1, (size_t)options->keys * WIRE_OVERHEAD + WIRE_OVERHEAD);
        store_numbers(options, &first, epoll, &loop);
        connection_close(&first);
    }
    for (uint32_t i = 0; i < options->connections; i++) {
        connection_open(&connections[i], epoll, options->port, pieces, options->depth * request);
        send_batch(&loop, &connections[i]);
    }
    run_for(&loop, epoll, options->warm_up);
    loop.requests = 0;
    uint64_t server = cpu_time(options->pid), own = cpu_time(getpid());
    uint64_t start = nanoseconds();
    run_for(&loop, epoll, options->seconds);
    uint64_t elapsed = nanoseconds() - start;
    printf("{\"requests\": %lu, \"elapsed_ns\": %lu, \"server_ns\": %lu, \"loadgen_ns\": %lu}\n", loop.requests, elapsed,
           cpu_time(options->pid) - server, cpu_time(getpid()) - own);
    for (uint32_t i = 0; i < options->connections; i++) connection_close(&connections[i]);
    free(connections);
}
