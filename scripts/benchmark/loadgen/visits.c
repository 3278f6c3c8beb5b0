/* Visits: clients that connect, ask once and go, as those without a pool do. */
#include "loadgen.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct visits {
    const struct options *options;
    int epoll;
    uint64_t count;
};

/* One more: it asks at once. Closing resets the connection, so that no port waits for a minute. */
static void visit(struct visits *visits, struct connection *connection) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    connection_open(connection, visits->epoll, visits->options->port, 1, WIRE_OVERHEAD);
    if (setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now)) die("setsockopt");
    queue_absent(connection, visits->options->first);
    connection_send(connection);
}

static void done(void *context, struct connection *connection, const struct piece *piece, enum verdict verdict) {
    struct visits *visits = context;
    (void)connection, (void)piece, (void)verdict;
    visits->count++;
}

static void run_for(struct visits *visits, struct connection *connections, double seconds) {
    uint64_t end = nanoseconds() + (uint64_t)(seconds * 1e9);
    while (nanoseconds() < end) {
        connections_serve(visits->epoll, -1, done, visits);
        for (uint32_t i = 0; i < visits->options->connections; i++) {
            if (connections[i].owed) continue;
            connection_close(&connections[i]);
            visit(visits, &connections[i]);
        }
    }
}

void run_visits(const struct options *options) {
    struct visits visits = {.options = options, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    struct connection *connections = calloc(options->connections, sizeof *connections);
    for (uint32_t i = 0; i < options->connections; i++) visit(&visits, &connections[i]);
    run_for(&visits, connections, options->warm_up);
    visits.count = 0;
    uint64_t server = cpu_time(options->pid), own = cpu_time(getpid()), start = nanoseconds();
    run_for(&visits, connections, options->seconds);
    uint64_t elapsed = nanoseconds() - start;
    printf("{\"requests\": %lu, \"elapsed_ns\": %lu, \"server_ns\": %lu, \"loadgen_ns\": %lu}\n", visits.count, elapsed,
           cpu_time(options->pid) - server, cpu_time(getpid()) - own);
    for (uint32_t i = 0; i < options->connections; i++) connection_close(&connections[i]);
    free(connections);
}
