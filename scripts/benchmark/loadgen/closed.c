/* The closed loop: how much CPU time an operation costs a server, or two in turns. */
#include "loadgen.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { NUMBERS = 1u << 30, ABSENT = 1u << 31 };   /* bits of the keys that are not among those of the values */

/* A server's side: its connections, and what is asked of it. */
struct closed {
    const struct options *options;
    int port, epoll;
    pid_t pid;
    struct connection *connections;
    uint64_t random, turn;
    uint64_t requests;
    uint32_t busy;   /* connections that wait for replies */
    bool ending;     /* no batch is sent any more */
};

/* What a turn took. */
struct spent { uint64_t requests, elapsed, server, own; };

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
    case WORKLOAD_BINARY_GET: queue_binary_get(connection, key, length, 0); break;
    case WORKLOAD_BINARY_SET: queue_binary_set(connection, key, length, 0); break;
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
static void store_numbers(struct closed *loop) {
    const struct options *options = loop->options;
    struct connection first;
    connection_open(&first, loop->epoll, loop->port, 1, (size_t)options->keys * WIRE_OVERHEAD + WIRE_OVERHEAD);
    for (uint32_t i = 0; i < options->keys; i++) queue_number(&first, (options->first + i) ^ NUMBERS);
    queue_nothing(&first);
    connection_send(&first);
    while (first.owed) connections_serve(loop->epoll, -1, answered, loop);
    connection_close(&first);
}

static void send_batch(struct closed *loop, struct connection *connection) {
    for (uint32_t i = 0; i < loop->options->depth; i++) queue_any(loop, connection);
    connection_send(connection);
}

static void done(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    struct closed *loop = context;
    (void)verdict;
    loop->requests += piece->last;
    if (connection->owed) return;
    if (loop->ending) loop->busy--;
    else send_batch(loop, connection);
}

/* Asks for so long, then waits for what is owed: no server works in another's turn, and its clock is exact when it waits. */
static struct spent take_turn(struct closed *loop, double seconds) {
    uint64_t server = cpu_time(loop->pid), own = cpu_time(getpid()), start = nanoseconds(), end = start + (uint64_t)(seconds * 1e9);
    loop->requests = 0;
    loop->ending = false;
    loop->busy = loop->options->connections;
    for (uint32_t i = 0; i < loop->busy; i++) send_batch(loop, &loop->connections[i]);
    while (nanoseconds() < end) connections_serve(loop->epoll, -1, done, loop);
    loop->ending = true;
    while (loop->busy) connections_serve(loop->epoll, -1, done, loop);
    return (struct spent){loop->requests, nanoseconds() - start, cpu_time(loop->pid) - server, cpu_time(getpid()) - own};
}

static void open_side(struct closed *loop, const struct options *options, int port, pid_t pid) {
    bool multiget = options->workload == WORKLOAD_MULTIGET;
    uint32_t pieces = options->depth * (multiget ? MULTIGET_KEYS + 1 : 2);
    size_t request = WIRE_OVERHEAD + (multiget ? MULTIGET_KEYS * (KEY_MAX + 1) : options->value_max);
    *loop = (struct closed){.options = options, .port = port, .pid = pid, .random = options->seed, .epoll = epoll_create1(EPOLL_CLOEXEC),
                            .connections = calloc(options->connections, sizeof *loop->connections)};
    if (loop->epoll < 0 || !loop->connections) die("no epoll or no memory");
    if (options->workload == WORKLOAD_INCR || options->workload == WORKLOAD_ALL) store_numbers(loop);
    for (uint32_t i = 0; i < options->connections; i++)
        connection_open(&loop->connections[i], loop->epoll, port, pieces, options->depth * request);
}

static void close_side(struct closed *loop) {
    for (uint32_t i = 0; i < loop->options->connections; i++) connection_close(&loop->connections[i]);
    free(loop->connections);
    close(loop->epoll);
}

void run_closed(const struct options *options) {
    struct closed loop;
    open_side(&loop, options, options->port, options->pid);
    take_turn(&loop, options->warm_up);
    struct spent spent = take_turn(&loop, options->seconds);
    printf("{\"requests\": %lu, \"elapsed_ns\": %lu, \"server_ns\": %lu, \"loadgen_ns\": %lu}\n", spent.requests, spent.elapsed,
           spent.server, spent.own);
    close_side(&loop);
}

void run_turns(const struct options *options) {
    struct closed sides[2];
    double costs[2];
    open_side(&sides[0], options, options->port, options->pid);
    open_side(&sides[1], options, options->rival_port, options->rival_pid);
    for (int i = 0; i < 2; i++) take_turn(&sides[i], options->warm_up);
    printf("[");
    for (uint32_t turn = 0; turn < options->turns; turn++) {
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t side = (turn ^ i) & 1;   /* who goes first changes */
            struct spent spent = take_turn(&sides[side], options->seconds);
            costs[side] = (double)spent.server / (double)spent.requests;
        }
        printf("%s[%.1f, %.1f]", turn ? ", " : "", costs[0], costs[1]);
    }
    printf("]\n");
    for (int i = 0; i < 2; i++) close_side(&sides[i]);
}
