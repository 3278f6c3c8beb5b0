/* What /proc says about the CPU time of a process. */
#include "loadgen.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

/* The scheduler's own account of every thread, exact to the nanosecond where clock ticks are not. */
static uint64_t run_time(pid_t pid) {
    char path[300];
    uint64_t sum = 0, one;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) die("process %d is gone", pid);
    for (struct dirent *task; (task = readdir(tasks));) {
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, task->d_name);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        if (fscanf(file, "%lu", &one) == 1) sum += one;
        fclose(file);
    }
    closedir(tasks);
    return sum;
}

struct cpu_time cpu_time(pid_t pid) {
    struct cpu_time time = {0};
    char path[64], text[1024];
    if (!pid) return time;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(text, sizeof text, file)) die("process %d is gone", pid);
    fclose(file);
    const char *fields = strrchr(text, ')');   /* the name before may hold anything */
    if (!fields || sscanf(fields + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &time.user_ticks, &time.system_ticks) != 2)
        die("cannot read %s", path);
    time.total = run_time(pid);
    return time;
}
