/* The closed loop: how much CPU time an operation costs the server. */
#include "loadgen.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct closed {
    const struct options *options;
    uint64_t random;
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

static void queue_any(struct closed *loop, struct connection *connection) {
    enum workload workload = loop->options->workload;
    if (workload == WORKLOAD_MULTIGET) {
        queue_any_multiget(loop, connection);
        return;
    }
    uint32_t key = any_key(loop), length = value_length(loop->options, key);
    if (workload == WORKLOAD_MIX) workload = random_below(&loop->random, 10) ? WORKLOAD_GET : WORKLOAD_SET;
    if (workload == WORKLOAD_SET) queue_set(connection, key, length, 0);
    else if (workload == WORKLOAD_BINARY_GET) queue_binary_get(connection, key, length);
    else if (workload == WORKLOAD_BINARY_SET) queue_binary_set(connection, key, length);
    else if (workload == WORKLOAD_META) queue_meta_get(connection, key, length);
    else queue_get(connection, key, length, false, 0);
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
    size_t request = WIRE_OVERHEAD + (multiget ? MULTIGET_KEYS * (KEY_LENGTH + 1) : options->value_max);
    struct connection *connections = calloc(options->connections, sizeof *connections);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
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
