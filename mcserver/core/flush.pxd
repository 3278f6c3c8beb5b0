# Flushes: of everything, delayed, of a prefix; and the clock that sets them off.
#
# Owns epochs: an item remembers how many flushes there had been when it was stored, so a flush is one addition and the
# dead are freed when they are met. Must never walk the items, but for the one time in 65,535 when the epochs run out.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from .memory cimport *
from .store cimport *
from .items cimport *
from .mrc cimport mrc_flush

cdef enum:
    EPOCH_MAX = 0xFFFF


cdef inline void forget_everything(Store* s) noexcept nogil:
    cdef int cls, seg
    cdef uint32_t h
    for cls in range(MAX_CLASSES):
        for seg in range(4):
            while s.lru[cls][seg].tail:
                h = s.lru[cls][seg].tail
                item_unlink(s, h, hash_of(s, item_at(&s.arena, h)))
    s.epoch = 0
    s.flush_epoch = 0
    s.rules = 0


cdef inline void flush_now(Store* s) noexcept nogil:
    # Everything stored so far is dead.
    if s.epoch == EPOCH_MAX:
        forget_everything(s)
    s.epoch += 1
    s.flush_epoch = s.epoch
    s.rules = 0
    mrc_flush(s.mrc)


cdef inline void flush_all(Store* s, int64_t exptime) noexcept nogil:
    # flush_all's argument: <= 0 at once, else as an exptime. As in memcached a delayed flush begins one second early;
    # what is stored in that second goes too. A new flush replaces one that is pending.
    cdef uint32_t at
    s.n.cmd_flush += 1
    s.flush_at = 0
    s.flush_again = 0
    if exptime <= 0:
        flush_now(s)
        return
    at = expiry(s, <int32_t> exptime)
    s.flush_at = at - 1 if at > 1 else 1
    s.flush_again = at
    if s.sec >= s.flush_at:
        s.flush_at = 0
        flush_now(s)


cdef inline void add_rule(Store* s, const char* prefix, size_t n, bint refresh, uint32_t ttl) noexcept nogil:
    # A flush or a refresh (mark stale) of the keys that begin with a prefix. When there are too many at once, or the
    # epochs run out, everything is flushed: a cache may always forget more.
    cdef Rule* r
    if n > 250:
        return
    if s.rules == RULES_MAX or s.epoch == EPOCH_MAX:
        flush_now(s)
        return
    s.epoch += 1
    r = &s.rule[s.rules]
    r.length = <uint8_t> n
    r.refresh = refresh
    r.came = s.sec
    r.expires = s.sec + ttl if ttl else 0
    r.epoch = s.epoch
    memcpy(r.prefix, prefix, n)
    s.rules += 1
    s.sweep_restart = 1


cdef inline void clock_set(Store* s, uint64_t boot_ns) noexcept nogil:
    cdef int64_t elapsed
    s.boot_ns = boot_ns
    if not s.paused:
        elapsed = <int64_t> (boot_ns - s.start_ns) + s.skew_ns
        if elapsed < 0:
            elapsed = 0
        s.elapsed_ns = <uint64_t> elapsed
        s.tick = <uint32_t> (s.elapsed_ns // (1000000000 // TICKS)) + CLOCK_START * TICKS
        s.sec = s.tick // TICKS
        if s.flush_at and s.sec >= s.flush_at:
            s.flush_at = 0
            flush_now(s)
        if s.flush_again and s.sec >= s.flush_again:
            s.flush_again = 0
            flush_now(s)


cdef inline void clock_update(Store* s) noexcept nogil:
    # Reads the clock and settles the gate: once for each batch, after the read.
    if not s.manual:
        clock_set(s, boot_clock())
    s.gate = GATE_OPEN
    if s.gate_policy and s.boot_ns > s.fresh_until:
        s.gate = s.gate_policy
