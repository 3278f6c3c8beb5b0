/* The open loop: requests leave when they are due, whether or not earlier ones were answered, and their time counts from then: a
 * server that stalls pays for every request of the stall. With --stamped it counts from when it left, until the kernel had its
 * answer: what is left out is how long the generator itself waited for its processor. Nine gets to one set. */
#include "loadgen.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

enum { MOST_OWED = 1 << 14, SPIN_NS = 1500000 };

struct open {
    const struct options *options;
    uint64_t random;
    uint64_t measured_from, sent, answered;
    uint32_t *latencies;      /* nanoseconds, of the requests due after measured_from */
    size_t count, room;
    uint64_t latest_send;     /* the generator's own worst: how long after it was due a request was sent */
};

static void done(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    struct open *loop = context;
    (void)verdict;
    if (!piece->last) return;
    loop->answered++;
    if (piece->due < loop->measured_from || loop->count == loop->room) return;
    uint64_t latency = (connection->stamped ? connection->came : nanoseconds()) - piece->due;
    loop->latencies[loop->count++] = latency > UINT32_MAX ? UINT32_MAX : (uint32_t)latency;
}

static void send_one(struct open *loop, struct connection *connection, uint64_t due) {
    const struct options *options = loop->options;
    uint32_t key = options->first + random_below(&loop->random, options->keys), length = value_length(options, key);
    uint64_t counted = options->stamped ? nanoseconds() : due;
    bool get = random_below(&loop->random, 10);
    if (options->binary && get) queue_binary_get(connection, key, length, counted);
    else if (options->binary) queue_binary_set(connection, key, length, counted);
    else if (get) queue_get(connection, key, length, options->may_miss, counted);
    else queue_set(connection, key, length, counted);
    connection_send(connection);
    loop->sent++;
    uint64_t late = nanoseconds() - due;
    if (due >= loop->measured_from && late > loop->latest_send) loop->latest_send = late;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t percentile(const struct open *loop, double p) {
    return loop->count ? loop->latencies[(size_t)(p * (double)(loop->count - 1))] : 0;
}

static void report(struct open *loop) {
    qsort(loop->latencies, loop->count, sizeof *loop->latencies, ascending);
    printf("{\"requests\": %zu, \"p50_ns\": %u, \"p99_ns\": %u, \"p999_ns\": %u, \"max_ns\": %u, \"latest_send_ns\": %lu}\n", loop->count,
           percentile(loop, 0.5), percentile(loop, 0.99), percentile(loop, 0.999), percentile(loop, 1), loop->latest_send);
}

void run_open(const struct options *options) {
    struct open loop = {.options = options, .random = options->seed};
    struct connection *connections = calloc(options->connections, sizeof *connections);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    loop.room = (size_t)(options->rate * options->seconds * 1.2) + 1000;
    loop.latencies = malloc(loop.room * sizeof *loop.latencies);
    if (!connections || !loop.latencies) die("no memory");
    for (uint32_t i = 0; i < options->connections; i++) {
        connection_open(&connections[i], epoll, options->port, MOST_OWED, (size_t)MOST_OWED * (WIRE_OVERHEAD + options->value_max) / 2);
        if (options->stamped) connection_stamp(&connections[i]);
    }
    uint64_t start = nanoseconds(), now;
    double due = 0, end = (options->warm_up + options->seconds) * 1e9;   /* nanoseconds since the start */
    loop.measured_from = start + (uint64_t)(options->warm_up * 1e9);
    for (uint32_t next = 0; due < end;) {
        for (now = nanoseconds(); due < end && start + (uint64_t)due <= now; due -= log1p(-random_unit(&loop.random)) / options->rate * 1e9) {
            send_one(&loop, &connections[next], start + (uint64_t)due);
            next = (next + 1) % options->connections;
        }
        /* epoll's millisecond is too coarse to wake up on time, so the last stretch is polled. */
        connections_serve(epoll, start + (uint64_t)due > now + SPIN_NS ? 1 : 0, done, &loop);
    }
    while (loop.answered < loop.sent) connections_serve(epoll, -1, done, &loop);
    report(&loop);
    for (uint32_t i = 0; i < options->connections; i++) connection_close(&connections[i]);
    free(connections);
    free(loop.latencies);
}
