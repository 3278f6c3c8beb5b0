/* Traces for the hit ratio: requests that follow from a seed alone, so that every server sees the same ones as long as it can. */
#include "loadgen.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { BATCH = 50, PHASES = 3 };

/*   zipf   one working set, values of 20 to 500 bytes.
 *   scan   the same with a scan through it: in the middle third every second request is for a key that nobody asked for before.
 *   shift  a working set in each third, its values ten times as large as the one's before. */
struct trace {
    const char *name;
    double exponent;
    uint32_t keys;
    struct { uint32_t min, max; } lengths[PHASES];
    bool moves, scans;
};

static const struct trace traces[] = {
    {"zipf", 0.9, 1000000, {{20, 500}, {20, 500}, {20, 500}}, false, false},
    {"scan", 1.0, 1000000, {{20, 500}, {20, 500}, {20, 500}}, false, true},
    {"shift", 0.9, 300000, {{50, 100}, {500, 1000}, {5000, 10000}}, true, false},
};

struct player {
    const struct trace *trace;
    double *weights;              /* running sums of rank^-exponent */
    uint64_t random, requests, total, scanned;
    uint64_t gets, hits;          /* of the working set: a scan's misses are nobody's fault */
    struct { uint32_t key, length; } missed[BATCH];
    unsigned misses;
};

static double *running_weights(const struct trace *trace) {
    double *weights = malloc(trace->keys * sizeof *weights), sum = 0;
    if (!weights) die("no memory");
    for (uint32_t rank = 0; rank < trace->keys; rank++) weights[rank] = sum += pow(rank + 1, -trace->exponent);
    return weights;
}

static uint32_t any_rank(struct player *player) {
    uint32_t low = 0, high = player->trace->keys - 1;
    double point = random_unit(&player->random) * player->weights[high];
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (player->weights[middle] <= point) low = middle + 1;
        else high = middle;
    }
    return low;
}

static bool in_working_set(const struct trace *trace, uint32_t key) { return key < trace->keys * (trace->moves ? PHASES : 1); }

static void next_request(struct player *player, uint32_t *key, uint32_t *length) {
    const struct trace *trace = player->trace;
    unsigned phase = (unsigned)(player->requests++ * PHASES / player->total);
    if (trace->scans && phase == 1 && player->requests % 2) *key = trace->keys + (uint32_t)player->scanned++;
    else *key = any_rank(player) + (trace->moves ? phase * trace->keys : 0);
    *length = length_between(*key, trace->lengths[phase].min, trace->lengths[phase].max);
}

static void done(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    struct player *player = context;
    (void)connection;
    if (piece->kind != PIECE_VALUE) return;
    if (in_working_set(player->trace, piece->key)) {
        player->gets++;
        player->hits += verdict == RIGHT;
    }
    if (verdict == RIGHT) return;
    player->missed[player->misses].key = piece->key;
    player->missed[player->misses++].length = piece->length;
}

static const struct trace *find_trace(const char *name) {
    for (size_t i = 0; i < sizeof traces / sizeof *traces; i++)
        if (name && !strcmp(traces[i].name, name)) return &traces[i];
    die("no such trace: %s", name ? name : "(none)");
}

void run_trace(const struct options *options) {
    const struct trace *trace = find_trace(options->trace);
    struct player player = {.trace = trace, .weights = running_weights(trace), .random = options->seed, .total = options->requests};
    struct connection connection;
    uint32_t keys[BATCH], lengths[BATCH];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    connection_open(&connection, epoll, options->port, BATCH + 1, BATCH * (size_t)(2 * WIRE_OVERHEAD + trace->lengths[PHASES - 1].max));
    while (player.requests < player.total) {
        unsigned n = 0;
        for (unsigned i = 0; i < player.misses; i++) queue_quiet_set(&connection, player.missed[i].key, player.missed[i].length);
        for (player.misses = 0; n < BATCH && player.requests < player.total; n++) next_request(&player, &keys[n], &lengths[n]);
        queue_multiget(&connection, keys, lengths, n, true);
        connection_send(&connection);
        while (connection.owed) connections_serve(epoll, -1, done, &player);
    }
    printf("{\"requests\": %lu, \"gets\": %lu, \"hits\": %lu}\n", player.requests, player.gets, player.hits);
    connection_close(&connection);
    free(player.weights);
}
