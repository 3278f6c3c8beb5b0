# Pulse: a timer that is always about to ring while a worker sleeps between single requests. It never rings in time, and wakes nobody.
#
# Owns that timer. Must never wait, and never know what is served.
#
# A processor that goes idle stops its tick, and starts it again when it wakes. Each sets the processor's timer anew, for which a
# virtual machine has to be left: some two microseconds. If another timer is due before the tick would be, nothing need be set. So
# the worker that answers one request after the other, and sleeps after each, keeps one: its requests cost a fifth less.

from libc.stdint cimport uint32_t, uint64_t
from .mail cimport close_fd

cdef extern from * nogil:
    """
    #include <sys/timerfd.h>
    static int mc_timer(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC); }
    static void mc_timer_due(int fd, long ns) {
        struct itimerspec due = {.it_value = {.tv_nsec = ns}};
        timerfd_settime(fd, 0, &due, NULL);
    }
    """
    int mc_timer()
    void mc_timer_due(int fd, long ns)

cdef enum:
    PULSE_TURNS = 16            # between two looks at the clock
    PULSE_NS = 1000000          # when it would ring
    AWAKE_NS = 160000           # who takes less for so many turns does not sleep between them,
    SELDOM_NS = 2000000         # and who takes more sleeps too seldom for it to pay

cdef struct Pulse:
    int fd                      # -1: the system has none, and nothing is gained
    uint32_t turns
    uint64_t since              # the last look, by a clock of nanoseconds


cdef inline void pulse_open(Pulse* p) noexcept nogil:
    p.fd = mc_timer()


cdef inline bint pulse_turn(Pulse* p) noexcept nogil:
    # Counts a turn; whether the clock is to be looked at.
    p.turns += 1
    return p.turns >= PULSE_TURNS


cdef inline void pulse_look(Pulse* p, uint64_t now) noexcept nogil:
    if AWAKE_NS < now - p.since < SELDOM_NS and p.fd >= 0:
        mc_timer_due(p.fd, PULSE_NS)
    p.since = now
    p.turns = 0


cdef inline void pulse_close(Pulse* p) noexcept nogil:
    if p.fd >= 0:
        close_fd(p.fd)
