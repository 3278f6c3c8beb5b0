/* The CPU time of a process, by the clock that the kernel keeps for it: it counts nanoseconds, where /proc/PID/stat counts ticks. */
#include "loadgen.h"

#include <string.h>
#include <time.h>

uint64_t cpu_time(pid_t pid) {
    clockid_t clock;
    struct timespec now;
    if (!pid) return 0;
    int error = clock_getcpuclockid(pid, &clock);
    if (error) die("process %d: %s", pid, strerror(error));
    if (clock_gettime(clock, &now)) die("process %d is gone", pid);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
