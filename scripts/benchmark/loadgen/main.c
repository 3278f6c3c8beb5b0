/* A load generator for memcached-like servers on this machine: one thread, one epoll, and no reply unread. See loadgen.h. */
#include "loadgen.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name; void (*run)(const struct options *); } modes[] = {
    {"closed", run_closed}, {"turns", run_turns}, {"open", run_open}, {"fill", run_fill}, {"count", run_count}, {"replay", run_replay},
    {"visits", run_visits},
};
static const char *const workloads[] = {"get", "set", "mix", "meta", "multiget", "binary-get", "binary-set", "touch", "incr", "delete", "all"};
/* in the order of enum workload */

static const char usage[] =
    "usage: loadgen closed|turns|open|fill|count|replay|visits --port PORT [options]\n"
    "  --pid PID            of the server, for its CPU time\n"
    "  --rival-port PORT, --rival-pid PID   of the other server (turns)\n"
    "  --turns N            of each server, 1 to 10000 (turns; 10)\n"
    "  --connections N      1 to 1000 (1)\n"
    "  --depth N            requests in one write, 1 to 1000 (1)\n"
    "  --workload NAME      get, set, mix (nine gets to one set), meta, multiget, binary-get, binary-set, touch, incr,\n"
    "                       delete (and set, in turn), all (get)\n"
    "  --misses N           percent of the gets that miss, 0 to 100 (0)\n"
    "  --key N[-M]          bytes of a key, 10 to 250 (16)\n"
    "  --first N, --keys N  which keys (0, 10000)\n"
    "  --value N[-M]        bytes of a value, up to 1048576 (32)\n"
    "  --seconds S, --warm-up S   (1, 0.1)\n"
    "  --rate R             requests a second (open: 1000; replay: as fast as it goes)\n"
    "  --stride N           every N-th key (count; 1)\n"
    "  --file FILE          of requests (replay)\n"
    "  --seed N             of the random numbers (1)\n"
    "  --tls HOW            full, or resumed: every handshake but the first resumes a session (plain)\n"
    "  --udp                a request a datagram; a port of UDP (closed, turns, open)\n"
    "  --login TEXT         what -Y wants of every connection: NAME PASSWORD\n"
    "  --sasl TEXT          what -S wants of every connection: NAME PASSWORD; requests are binary (fill, open)\n"
    "  --probe              measure the longest stall (fill)\n"
    "  --may-miss           gets may find nothing (open)\n"
    "  --stamped            time from when a request left until the kernel had its answer (open, plain)\n";

static _Noreturn void misused(const char *what, const char *text) {
    fprintf(stderr, "loadgen: bad %s: %s\n%s", what, text, usage);
    exit(2);
}

static uint64_t whole(const char *name, const char *text, uint64_t min, uint64_t max) {
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || number < min || number > max) misused(name, text);
    return number;
}

static double positive(const char *name, const char *text, double max) {
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number > 0 && number <= max)) misused(name, text);
    return number;
}

/* N or N-M, between `least` and `most`. */
static void lengths(const char *name, const char *text, uint32_t least, uint32_t most, uint32_t *from, uint32_t *to) {
    unsigned end = 0;
    int fields = sscanf(text, "%u%n-%u%n", from, &end, to, &end);
    if (fields == 1) *to = *from;
    if (fields < 1 || text[end] || *from < least || *from > *to || *to > most) misused(name, text);
}

static enum workload find_workload(const char *name) {
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++)
        if (!strcmp(workloads[i], name)) return (enum workload)i;
    misused("--workload", name);
}

static void set_option(struct options *options, int option, const char *name, const char *text) {
    switch (option) {
    case 'p': options->port = (int)whole(name, text, 1, 65535); break;
    case 'P': options->pid = (pid_t)whole(name, text, 1, INT32_MAX); break;
    case 'q': options->rival_port = (int)whole(name, text, 1, 65535); break;
    case 'Q': options->rival_pid = (pid_t)whole(name, text, 1, INT32_MAX); break;
    case 'n': options->turns = (uint32_t)whole(name, text, 1, 10000); break;
    case 'c': options->connections = (uint32_t)whole(name, text, 1, 1000); break;
    case 'd': options->depth = (uint32_t)whole(name, text, 1, 1000); break;
    case 'w': options->workload = find_workload(text); break;
    case 'f': options->first = (uint32_t)whole(name, text, 0, UINT32_MAX / 2); break;
    case 'k': options->keys = (uint32_t)whole(name, text, 1, UINT32_MAX / 2); break;
    case 'v': lengths(name, text, 0, VALUE_MAX, &options->value_min, &options->value_max); break;
    case 'K': lengths(name, text, KEY_MIN, KEY_MAX, &options->key_min, &options->key_max); break;
    case 'm': options->misses = (uint32_t)whole(name, text, 0, 100); break;
    case 's': options->seconds = positive(name, text, 3600); break;
    case 'u': options->warm_up = positive(name, text, 3600); break;
    case 'r': options->rate = positive(name, text, 1e7), options->paced = true; break;
    case 'S': options->stride = (uint32_t)whole(name, text, 1, UINT32_MAX); break;
    case 'F': options->file = text; break;
    case 'e': options->seed = whole(name, text, 1, UINT64_MAX); break;
    case 't':
        if (strcmp(text, "full") && strcmp(text, "resumed")) misused(name, text);
        connection_tls(strcmp(text, "full") ? TLS_RESUMED : TLS_FULL);
        break;
    case 'U': connection_udp(); break;
    case 'L': connection_login(text); break;
    case 'A': connection_sasl(text), options->binary = true; break;
    case 'b': options->probe = true; break;
    case 'M': options->may_miss = true; break;
    case 'T': options->stamped = true; break;
    default: fputs(usage, stderr); exit(2);
    }
}

int main(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'}, {"pid", 1, 0, 'P'}, {"connections", 1, 0, 'c'}, {"depth", 1, 0, 'd'}, {"workload", 1, 0, 'w'},
        {"first", 1, 0, 'f'}, {"keys", 1, 0, 'k'}, {"value", 1, 0, 'v'}, {"seconds", 1, 0, 's'}, {"warm-up", 1, 0, 'u'},
        {"rate", 1, 0, 'r'}, {"stride", 1, 0, 'S'}, {"file", 1, 0, 'F'}, {"seed", 1, 0, 'e'},
        {"probe", 0, 0, 'b'}, {"may-miss", 0, 0, 'M'}, {"stamped", 0, 0, 'T'}, {"key", 1, 0, 'K'}, {"misses", 1, 0, 'm'},
        {"tls", 1, 0, 't'}, {"udp", 0, 0, 'U'}, {"login", 1, 0, 'L'}, {"sasl", 1, 0, 'A'},
        {"rival-port", 1, 0, 'q'}, {"rival-pid", 1, 0, 'Q'}, {"turns", 1, 0, 'n'}, {0, 0, 0, 0},
    };
    struct options options = {.turns = 10, .connections = 1, .depth = 1, .keys = 10000, .value_min = 32, .value_max = 32, .stride = 1,
                              .key_min = KEY_LENGTH, .key_max = KEY_LENGTH, .seconds = 1, .warm_up = 0.1, .rate = 1000, .seed = 1};
    int index = 0;
    for (int option; (option = getopt_long(argc, argv, "", names, &index)) >= 0;)
        set_option(&options, option, names[index].name, optarg);
    if (optind != argc - 1) misused("mode", "exactly one is wanted");
    if (!options.port) misused("--port", "it is wanted");
    if (!strcmp(argv[optind], "turns") && !options.rival_port) misused("--rival-port", "it is wanted");
    wire_init(options.key_min, options.key_max);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(modes[i].name, argv[optind])) continue;
        modes[i].run(&options);
        return 0;
    }
    misused("mode", argv[optind]);
}
