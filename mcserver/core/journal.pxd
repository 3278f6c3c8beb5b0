# Journal: what happened to items and what clients said, for `watch` and -vv, until somebody spells it.
#
# Owns one bounded buffer of records, written under the engine's lock; a full one counts what it drops. Must never wait, spell,
# or take memory after it was opened.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from .mail cimport Box, box_ring, padded

cdef enum:
    SHOWN_MOST = 1024           # bytes of a command or a reply that -vv shows

cdef enum JournalKind:          # beyond store.pxd's LOG_*
    J_COMMAND = 256
    J_REPLY = 512
    J_BINARY = 1024             # ... in the binary protocol

cdef struct Record:
    uint32_t length             # of all, a multiple of 8
    uint32_t nkey
    int kind
    int fd
    int cls
    uint32_t age                # seconds since an evicted item was used
    uint64_t size
    int64_t ttl                 # of a fetch: what became of the look-up
    const char* status          # texts that live for ever, or NULL
    const char* cmd
    uint8_t fetched

cdef struct Journal:
    char* buf
    char* spare
    size_t room
    size_t length
    uint64_t dropped
    uint64_t written
    Box* reader                 # woken at the first record of an empty buffer; NULL: nobody has to be


cdef inline int journal_open(Journal* j, size_t room) noexcept nogil:
    # -1: out of memory. Untouched pages of it cost nothing.
    j.buf = <char*> malloc(room)
    j.spare = <char*> malloc(room)
    j.room = room
    j.length = 0
    return 0 if j.buf != NULL and j.spare != NULL else -1


cdef inline void journal_close(Journal* j) noexcept nogil:
    free(j.buf)
    free(j.spare)
    j.buf = NULL
    j.spare = NULL


cdef inline Record* journal_add(Journal* j, const char* text, size_t n) noexcept nogil:
    # A record with so much text behind it; NULL if there is no room.
    cdef size_t need = padded(sizeof(Record) + n)
    cdef Record* r
    if j.length + need > j.room:
        j.dropped += 1
        return NULL
    r = <Record*> (j.buf + j.length)
    r.length = <uint32_t> need
    r.nkey = <uint32_t> n
    r.status = NULL
    r.cmd = NULL
    memcpy(<char*> r + sizeof(Record), text, n)
    if j.length == 0 and j.reader != NULL:
        box_ring(j.reader)
    j.length += need
    j.written += 1
    return r


cdef inline const char* text_of(Record* r) noexcept nogil:
    return <char*> r + sizeof(Record)


cdef inline char* journal_take(Journal* j, size_t* length) noexcept nogil:
    # All records. They stay until the next call.
    cdef char* full = j.buf
    length[0] = j.length
    j.buf = j.spare
    j.spare = full
    j.length = 0
    return full
