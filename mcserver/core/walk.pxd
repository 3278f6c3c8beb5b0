# Walk: the background pass over all items, page by page, in slices.
#
# Owns reclaiming what is dead though nobody asks for it, and carrying out prefix rules on every item so that they can be
# forgotten; and keeping the ages that are counted in traffic within 32 bits. Must never run longer than its budget of chunks.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from .memory cimport *
from .store cimport *
from .items cimport *
from .rules cimport *

cdef extern from *:
    """
    #define ALL_CLASSES UINT64_MAX
    """
    const uint64_t ALL_CLASSES  # as a mask

cdef enum:
    OLDEST = 1 << 30            # ages on the clock of traffic, which wraps, are cut there

cdef struct Walk:
    bint running
    bint asked                  # by `lru_crawler crawl`, or by prefix rules: no pause between slices
    uint64_t epoch              # refreshes up to this one are carried out when a pass over everything ends
    bint everything
    uint32_t page
    uint32_t index
    uint64_t classes            # bit mask of LRU classes
    uint64_t most               # items to look at in a class; 0 all
    uint64_t looked[MAX_CLASSES]


cdef inline void walk_start(Store* s, Walk* w, uint64_t classes, uint64_t most, bint asked) noexcept nogil:
    w.running = 1
    w.asked = asked
    w.everything = classes == ALL_CLASSES and most == 0
    if w.everything:
        pass_begins(&s.rules)
    w.epoch = s.epoch
    s.epoch_taken = 1           # a rule that comes now is a later one
    w.page = 1
    w.index = 0
    w.classes = classes
    w.most = most
    memset(w.looked, 0, sizeof(w.looked))
    s.n.crawls += 1


cdef inline void walk_item(Store* s, Walk* w, uint32_t h, Item* it) noexcept nogil:
    cdef ClassStats* c = &s.cls[it.cls]
    cdef int f
    if not (w.classes >> it.cls) & 1 or (w.most and w.looked[it.cls] >= w.most):
        return
    w.looked[it.cls] += 1
    c.crawler_checked += 1
    f = fate(s, it)
    if f == FOUND:
        if s.clock - it.used > <uint32_t> OLDEST:
            it.used = s.clock - OLDEST
        return
    c.crawler_reclaimed += 1
    if f == EXPIRED and not it.state & S_FETCHED:
        c.expired_unfetched += 1
    item_unlink(s, h, hash_of(s, it))


cdef inline bint walk_step(Store* s, Walk* w, uint32_t budget) noexcept nogil:
    # Looks at `budget` chunks, or fewer when there is more to do for each; false when the pass is over.
    cdef Arena* a = &s.arena
    cdef Page* page
    cdef Item* it
    cdef uint32_t h, more = rules_cost(&s.rules)
    while budget:
        if w.page >= a.high:
            w.running = 0
            if w.everything:
                pass_ends(&s.rules, w.epoch)
            return 0
        page = &a.page[w.page]
        if page.cls == 0 or w.index >= page.fresh:
            w.page += 1
            w.index = 0
            budget -= 1
            continue
        h = chunk_in(a, w.page, w.index)
        it = item_at(a, h)
        if it.state & S_LINKED:
            walk_item(s, w, h, it)
            budget -= more if more < budget else budget - 1
        w.index += 1
        budget -= 1
    return 1
