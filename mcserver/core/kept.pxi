# The record that the next process needs, as Python sees it. Included by engine.pyx.
#
# Owns the way from the store to bytes and back. Must never look into an item: kept.pxd does.

cdef enum:
    PAGE_BITS_APART = 2         # what was kept may have pages four times as large or small as those that fit, and go on


cdef uint32_t page_bits_like(bytes like, uint64_t limit) except 0:
    # Of an engine that is to serve what one of that layout or record kept; what fits if that can't be, which `resume` then tells.
    cdef uint32_t fits = page_bits_for(limit), kept
    cdef KeptHead* k
    if like is None or len(like) < sizeof(KeptHead):
        return fits
    k = <KeptHead*> PyBytes_AS_STRING(like)
    kept = k.page_bits
    if k.layout != KEPT_LAYOUT or not PAGE_BITS_LEAST <= kept <= PAGE_BITS_MOST \
            or kept > fits + PAGE_BITS_APART or fits > kept + PAGE_BITS_APART:
        return fits
    return kept


cdef bytes record_of(Engine self, bint sums):
    cdef Store* s = &self.s
    cdef size_t n
    cdef bytes record
    cdef KeptHead* k
    engine_lock(s)
    clock_update(s)
    if s.mover.page:
        move_give_up(s)
    garbage_free(s, <uint32_t> -1)
    n = kept_size(<uint64_t> s.rules.count, s.arena.high, s.ghosts.size)
    engine_unlock(s)
    record = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> n)
    k = <KeptHead*> PyBytes_AS_STRING(record)
    memset(k, 0, n)
    with nogil:
        engine_lock(s)
        if n == kept_size(<uint64_t> s.rules.count, s.arena.high, s.ghosts.size):
            kept_write(s, k, sums)
        engine_unlock(s)
    return record


cdef const char* take_over(Engine self, KeptHead* k, size_t length, uint64_t file_size, uint64_t away_ns) noexcept nogil:
    # NULL, or why not: the engine is then to be thrown away.
    cdef Store* s = &self.s
    cdef Found* f
    cdef uint32_t p
    cdef const char* wrong = kept_check(s, k, length)
    if wrong != NULL:
        return wrong
    if k.pages > 1 and file_size < HUGE_PAGE + (<uint64_t> (k.pages - 1) << s.arena.page_bits):     # without a page it is empty
        return b"the file is too short"
    f = <Found*> calloc(1, sizeof(Found))
    if f == NULL:
        return b"out of memory"
    kept_begin(s, k, away_ns)
    for p in range(1, k.pages):
        wrong = kept_page(s, k, f, p)
        if wrong != NULL:
            break
    if wrong == NULL:
        wrong = kept_end(s, k, f)
    free(f)
    if wrong == NULL:
        clock_set(s, s.start_ns if s.manual else boot_clock())
    return wrong
