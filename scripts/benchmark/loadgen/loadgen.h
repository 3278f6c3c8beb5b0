/* What the modes of the load generator share: their options, random numbers, and the CPU time of the server. Each mode prints one
 * JSON object. */
#ifndef LOADGEN_H
#define LOADGEN_H

#include "connection.h"

#include <sys/types.h>

enum workload {
    WORKLOAD_GET, WORKLOAD_SET, WORKLOAD_MIX, WORKLOAD_META, WORKLOAD_MULTIGET, WORKLOAD_BINARY_GET, WORKLOAD_BINARY_SET, WORKLOAD_TOUCH,
    WORKLOAD_INCR, WORKLOAD_DELETE, WORKLOAD_ALL,
    WORKLOAD_ABSENT,   /* has no name: a get that misses */
};
enum { MULTIGET_KEYS = 100 };

struct options {
    int port;
    pid_t pid;                       /* of the server, for its CPU time; 0: not measured */
    int rival_port;                  /* of the other server, if two are asked in turns */
    pid_t rival_pid;
    uint32_t turns;                  /* of each */
    uint32_t connections, depth;
    enum workload workload;
    const char *file;                /* of a replay's requests: numbers of 32 bits, three for each (key, length, kind) */
    uint32_t first, keys;            /* the keys are [first, first + keys) */
    uint32_t misses;                 /* percent of the gets */
    uint32_t key_min, key_max;       /* bytes of a key; which one follows from the key */
    uint32_t value_min, value_max;   /* bytes of a value; which one follows from the key */
    uint32_t stride;                 /* `count` asks for every stride-th key */
    double seconds, warm_up;
    double rate;                     /* requests a second (open loop; a replay if it is `paced`) */
    bool paced;
    uint64_t seed;
    bool probe;                      /* `fill` also measures the longest stall */
    bool may_miss;                   /* a get of the open loop may find nothing */
    bool stamped;                    /* the open loop leaves out its own waits for its processor */
    bool binary;                     /* `fill` and the open loop speak binary; all must be there then */
};

/* Every connection sends `depth` requests in one write, waits for all their replies, and goes on. All keys must be there; `delete` sets
 * and deletes in turn, `all` mixes verbs.
 * Reports requests, elapsed_ns, and the CPU time of the server and of the load generator. */
void run_closed(const struct options *options);
/* The same for two servers that take turns of `seconds`, so that what disturbs the machine disturbs both. Reports for each turn the
 * nanoseconds of CPU time that a request cost the one and the other. */
void run_turns(const struct options *options);
/* `connections` at once, each: connect, one get that misses, close, and again. Reports what run_closed does. */
void run_visits(const struct options *options);
/* Sends at random times, `rate` a second, ready or not. Reports percentiles of the time from when a request was due to its reply. */
void run_open(const struct options *options);
/* Sets every key once, in order. With `probe`, asks on another connection every millisecond meanwhile and reports the longest wait. */
void run_fill(const struct options *options);
/* Asks for every stride-th key. Reports gets and hits. */
void run_count(const struct options *options);
/* Uses the server as a cache: what a get misses is set. As fast as it goes, or `rate` requests a second. Reports gets, hits, and their
 * bytes. */
void run_replay(const struct options *options);

/* Nanoseconds, user and system, of all threads since the start; 0 for pid 0. Of a process that runs right now it is up to a clock tick
 * (4 ms) old. Dies when the process is gone. */
uint64_t cpu_time(pid_t pid);

/* xorshift64*; the state is any number but 0. */
static inline uint64_t random_next(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1d;
}
/* Even in [0, bound). */
static inline uint32_t random_below(uint64_t *state, uint32_t bound) {
    return (uint32_t)(((random_next(state) >> 32) * bound) >> 32);
}
/* Even in [0, 1). */
static inline double random_unit(uint64_t *state) { return (double)(random_next(state) >> 11) * 0x1p-53; }

static inline uint32_t length_between(uint32_t key, uint32_t min, uint32_t max) {
    uint64_t mixed = (uint64_t)(key + 1) * 0x9e3779b97f4a7c15;
    return min + (uint32_t)(((mixed >> 32) * (max - min + 1)) >> 32);
}
static inline uint32_t value_length(const struct options *options, uint32_t key) {
    return length_between(key, options->value_min, options->value_max);
}

#endif
