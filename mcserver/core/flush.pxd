# Flushes: of everything, delayed, of a prefix; and the clock that sets them off.
#
# Owns epochs: an item remembers how many flushes there had been when it was stored, so a flush is one addition and the
# dead are freed when they are met. An item keeps 16 bits of that number; each flush that needs a new epoch renumbers a
# share of the items, so that all have been met long before the bits come round. Must never walk all items at once.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from .memory cimport *
from .store cimport *
from .rules cimport *
from .items cimport *
from .mrc cimport mrc_flush
from .expiry cimport due_advance

cdef enum:
    SWEEP_EPOCHS = 16384        # new epochs in which all items are met, or twice as many while their number grows
    USUAL_SHARE = 16            # chunks; to look at more is not what a command usually does


cdef inline void sweep_step(Store* s) noexcept nogil:
    # Meets one share of the items: frees the dead, renumbers the living.
    cdef Arena* a = &s.arena
    cdef Page* page
    cdef Item* it
    cdef uint64_t share = 0
    cdef uint32_t h
    cdef int cls
    for cls in range(1, a.classes + 1):
        share += <uint64_t> a.cls[cls].pages * a.cls[cls].per_page
    share = (share + a.high) // SWEEP_EPOCHS + 1
    s.costly = s.costly or share > USUAL_SHARE
    while share:
        share -= 1
        if s.sweep_page >= a.high:
            s.sweep_page = 1
            s.sweep_index = 0
            return
        page = &a.page[s.sweep_page]
        if page.cls == 0 or s.sweep_index >= page.fresh:
            s.sweep_page += 1
            s.sweep_index = 0
            continue
        h = chunk_in(a, s.sweep_page, s.sweep_index)
        s.sweep_index += 1
        it = item_at(a, h)
        if it.state & S_LINKED:
            if fate(s, it) == FOUND:
                renumber(s, it)
            else:
                free_dead(s, h, it)


cdef inline void next_epoch(Store* s) noexcept nogil:
    # No item has it yet. While none was stored since the last flush, the present one will do.
    if s.epoch_taken:
        sweep_step(s)
        s.epoch += 1
        s.epoch_taken = 0


cdef inline void flush_now(Store* s) noexcept nogil:
    # Everything stored so far is dead.
    next_epoch(s)
    s.flush_epoch = s.epoch
    rules_clear(&s.rules)
    s.costly = s.costly or s.mrc.asked > TOUCHED_MOST
    mrc_flush(s.mrc)


cdef inline void flush_all(Store* s, int64_t exptime) noexcept nogil:
    # flush_all's argument: <= 0 at once, else as an exptime. As in memcached a delayed flush begins one second early;
    # what is stored in that second goes too. A date that has passed is at once, and spares what comes. A new flush replaces one
    # that is pending.
    cdef uint32_t at
    s.n.cmd_flush += 1
    s.flush_at = 0
    s.flush_again = 0
    if exptime <= 0:
        flush_now(s)
        return
    at = expiry(s, exptime)
    s.flush_at = at - 1 if at > 1 else 1
    s.flush_again = at if at > s.sec else 0
    if s.sec >= s.flush_at:
        s.flush_at = 0
        flush_now(s)


cdef inline void flush_prefix(Store* s, const char* prefix, size_t n) noexcept nogil:
    # The keys that begin with it. When there are too many prefixes that were not yet carried out on every item, everything is flushed:
    # a cache may always forget more.
    if n > RULE_PREFIX_MOST:
        return
    if n == 0:
        flush_now(s)
        return
    next_epoch(s)
    refreshes_covered(&s.rules, prefix, n)
    if not flush_add(&s.rules, &s.rules.young, prefix, n, s.epoch, s.sec):
        flush_now(s)


cdef inline void refresh_prefix(Store* s, const char* prefix, size_t n, uint32_t ttl) noexcept nogil:
    # Marks the keys that begin with it stale. Too many at once: they are flushed.
    if n > RULE_PREFIX_MOST:
        return
    next_epoch(s)
    if not refresh_add(&s.rules, prefix, n, s.epoch, s.sec, s.sec + ttl if ttl else 0):
        flush_prefix(s, prefix, n)


cdef inline void clock_set(Store* s, uint64_t boot_ns) noexcept nogil:
    cdef int64_t elapsed
    s.boot_ns = boot_ns
    if not s.paused:
        elapsed = <int64_t> (boot_ns - s.start_ns) + s.skew_ns
        if elapsed < 0:
            elapsed = 0
        s.elapsed_ns = <uint64_t> elapsed
        s.tick = tick_of(s.elapsed_ns)
        s.sec = s.tick // TICKS
        if s.sec > s.due_sec:
            due_advance(s)
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
