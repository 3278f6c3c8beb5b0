# Arithmetic: incr, decr and ma on a stored decimal number (protocol page, 1.3).
#
# Owns what counts as a number and when a change happens in place. Must never know how a reply is spelled.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from .memory cimport *
from .store cimport *
from .items cimport *
from .text cimport read_c_number, write_u64
from .values cimport item_alloc, item_replace, value_begin, value_is_read, value_pad

cdef enum:
    NUMBER_MOST = 256           # bytes, blanks before it included, of which a number is read

cdef enum Delta:
    D_OK
    D_EXISTS
    D_NON_NUMERIC
    D_NO_MEMORY


cdef inline Delta add_delta(Store* s, uint32_t* h, uint64_t hv, bint incr, uint64_t delta, bint cas_given, uint64_t cas,
                            uint64_t* result) noexcept nogil:
    # Changes the number in the live item h[0] (which may become another item). incr wraps at 2**64, decr stops at 0.
    # A result that is not longer than the old text overwrites it, padded with spaces; else a new item takes its place.
    cdef Item* it = item_at(&s.arena, h[0])
    cdef int64_t number
    cdef uint64_t value
    cdef char digits[24]
    cdef char text[NUMBER_MOST]
    cdef uint64_t length, unique
    cdef int n, error = 0
    cdef uint32_t new
    if it.nbytes == 0 or size_of(s, it) > s.slab_chunk_max:
        return D_NON_NUMERIC    # before the unique is looked at
    if cas_given and cas and it.cas != cas:
        return D_EXISTS
    length = value_begin(s, it, text, NUMBER_MOST)
    if length < it.nbytes:
        text[length - 1] = c'x'     # a number must have ended
    if not read_c_number(text, length, 0, &number):
        return D_NON_NUMERIC
    value = <uint64_t> number
    if incr:
        value += delta
        s.cls[it.cls].incr_hits += 1
    else:
        value = 0 if delta > value else value - delta
        s.cls[it.cls].decr_hits += 1
    result[0] = value
    n = write_u64(digits, value)
    unique = new_cas(s)
    if <uint32_t> n <= it.nbytes and not value_is_read(s, it):
        value_pad(s, it, digits, n)
        it.cas = unique
        item_update(s, h[0], it)
        return D_OK
    it.refs += 1
    new = item_alloc(s, key_of(it), it.nkey, it.flags, it.exptime, n, &error)
    if new and not it.state & S_LINKED:     # a set of its key, on its way in, was refused to make room
        item_release(s, new)
        new = 0
    item_release(s, h[0])
    if not new:
        return D_NO_MEMORY
    memcpy(value_of(item_at(&s.arena, new)), digits, n)
    item_at(&s.arena, new).cas = unique
    item_replace(s, h[0], new, hv)
    h[0] = new
    return D_OK
