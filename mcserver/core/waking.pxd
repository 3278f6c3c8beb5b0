# Waking: how soon a worker runs when a request wakes it and something else has its processor, such as Python's thread.
#
# Owns what the kernel's scheduler is told about a worker. Must never need a privilege, nor change a policy or priority that an
# operator has set: a thread that asks for short slices gets its share as before, but sooner (sched_setattr's sched_runtime, Linux
# 6.12 and newer; older kernels take no notice).

cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <unistd.h>
    #include <sys/syscall.h>
    static void mc_short_slices(uint64_t ns) {
        struct {
            uint32_t size, policy;
            uint64_t flags;
            int32_t nice;
            uint32_t priority;
            uint64_t runtime, deadline, period;
            uint32_t least, most;
        } a;
        if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) != 0 || a.policy != 0 /* SCHED_OTHER */) return;
        a.runtime = ns;
        syscall(SYS_sched_setattr, 0, &a, 0);
    }
    """
    void mc_short_slices(unsigned long long ns)

cdef enum:
    SHORT_NS = 100000    # the shortest that there is; 2.8 ms or so is the usual one
