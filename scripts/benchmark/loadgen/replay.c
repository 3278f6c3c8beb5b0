/* Replays a file of requests on a server that is a cache in front of something slow: what a get misses is stored. */
#include "loadgen.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

enum { BATCH = 16 };

/* What a request does, in bits; benchmark/requests.py writes them. */
enum { COUNTED = 1, STORED_AFTER_A_MISS = 2, STORED_UNASKED = 4 };

struct request { uint32_t key, length, kind; };

struct replay {
    struct request *requests;
    size_t count;
    uint32_t longest;
    uint32_t held[BATCH];    /* keys of this batch that the server has */
    unsigned held_count;
    uint64_t gets, hits, bytes, hit_bytes;
};

static void read_requests(struct replay *replay, const char *path) {
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file) die("no such file of requests: %s", path ? path : "(none)");
    if (fseek(file, 0, SEEK_END)) die("%s can't be read", path);
    long size = ftell(file);
    rewind(file);
    if (size <= 0 || size % (long)sizeof *replay->requests) die("%s holds no whole requests", path);
    replay->count = (size_t)size / sizeof *replay->requests;
    replay->requests = malloc((size_t)size);
    if (!replay->requests) die("no memory");
    if (fread(replay->requests, sizeof *replay->requests, replay->count, file) != replay->count) die("%s can't be read", path);
    fclose(file);
    for (size_t i = 0; i < replay->count; i++)
        if (replay->requests[i].length > replay->longest) replay->longest = replay->requests[i].length;
    if (replay->longest > VALUE_MAX) die("%s has a value of %u bytes", path, replay->longest);
}

static void hold(struct replay *replay, uint32_t key) { replay->held[replay->held_count++] = key; }

static bool holds(const struct replay *replay, uint32_t key) {
    for (unsigned i = 0; i < replay->held_count; i++)
        if (replay->held[i] == key) return true;
    return false;
}

static void done(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    (void)connection;
    if (piece->kind == PIECE_HELD && verdict == RIGHT) hold(context, piece->key);
}

static bool asked_before(const struct request *batch, unsigned i) {
    for (unsigned j = 0; j < i; j++)
        if (batch[j].key == batch[i].key && !(batch[j].kind & STORED_UNASKED)) return true;
    return false;
}

static void ask(struct replay *replay, struct connection *connection, int epoll, const struct request *batch, unsigned n) {
    replay->held_count = 0;
    for (unsigned i = 0; i < n; i++)
        if (!(batch[i].kind & STORED_UNASKED) && !asked_before(batch, i)) queue_ask(connection, batch[i].key);
    connection_send(connection);
    while (connection->owed) connections_serve(epoll, -1, done, replay);
}

static void store(struct replay *replay, struct connection *connection, int epoll, const struct request *batch, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        bool held = holds(replay, batch[i].key);
        if (batch[i].kind & COUNTED) {
            replay->gets++, replay->bytes += batch[i].length;
            if (held) replay->hits++, replay->hit_bytes += batch[i].length;
        }
        if (!(batch[i].kind & STORED_UNASKED) && (held || !(batch[i].kind & STORED_AFTER_A_MISS))) continue;
        queue_quiet_set(connection, batch[i].key, batch[i].length);
        if (!held) hold(replay, batch[i].key);
    }
    queue_nothing(connection);
    connection_send(connection);
    while (connection->owed) connections_serve(epoll, -1, done, replay);
}

static void sleep_until(uint64_t due) {
    struct timespec time = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL)) {}
}

void run_replay(const struct options *options) {
    struct replay replay = {.count = 0};
    struct connection connection;
    read_requests(&replay, options->file);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    connection_open(&connection, epoll, options->port, BATCH, (BATCH + 1) * (WIRE_OVERHEAD + (size_t)replay.longest));
    uint64_t start = nanoseconds();
    for (size_t at = 0; at < replay.count; at += BATCH) {
        unsigned n = replay.count - at < BATCH ? (unsigned)(replay.count - at) : BATCH;
        if (options->paced) sleep_until(start + (uint64_t)((double)at / options->rate * 1e9));
        ask(&replay, &connection, epoll, replay.requests + at, n);
        store(&replay, &connection, epoll, replay.requests + at, n);
    }
    printf("{\"gets\": %lu, \"hits\": %lu, \"bytes\": %lu, \"hit_bytes\": %lu, \"elapsed_ns\": %lu}\n", replay.gets, replay.hits,
           replay.bytes, replay.hit_bytes, nanoseconds() - start);
    connection_close(&connection);
    free(replay.requests);
}
