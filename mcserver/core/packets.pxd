# Packets: the header of a binary reply, byte by byte, and its statuses (proto_bin.c of memcached 1.6).
#
# Owns the shape of that header: whoever answers in the binary protocol has it written here. Must never know a connection.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen
from .wire cimport WIRE_SERVER_ERROR

cdef extern from "<endian.h>" nogil:
    uint16_t htobe16(uint16_t x)
    uint32_t htobe32(uint32_t x)
    uint64_t htobe64(uint64_t x)

cdef enum:
    BINARY_REQUEST = 0x80
    BINARY_REPLY = 0x81
    BINARY_HEADER = 24
    OPAQUE_AT = 12              # in a header: four bytes of the request that come back

cdef enum BinaryStatus:
    BIN_OK = 0x00
    BIN_NOT_FOUND = 0x01
    BIN_EXISTS = 0x02
    BIN_TOO_LARGE = 0x03
    BIN_INVALID = 0x04
    BIN_NOT_STORED = 0x05
    BIN_NON_NUMERIC = 0x06
    BIN_AUTH_ERROR = 0x20
    BIN_AUTH_CONTINUE = 0x21
    BIN_UNKNOWN = 0x81
    BIN_NO_MEMORY = 0x82
    BIN_NOT_SUPPORTED = 0x83
    BIN_TEMPORARY = 0x86        # memcached has no such answers: stale, not confirmed, lock lost


cdef inline void header_write(char* p, uint8_t opcode, const void* opaque, BinaryStatus status, uint8_t extlen, uint16_t keylen,
                              uint32_t bodylen, uint64_t cas) noexcept nogil:
    # A reply's BINARY_HEADER bytes. opaque: its four bytes, as they came; NULL: nothing came.
    cdef uint16_t two
    cdef uint32_t four
    cdef uint64_t eight
    p[0] = <char> BINARY_REPLY
    p[1] = <char> opcode
    two = htobe16(keylen)
    memcpy(p + 2, &two, 2)
    p[4] = <char> extlen
    p[5] = 0
    two = htobe16(<uint16_t> status)
    memcpy(p + 6, &two, 2)
    four = htobe32(bodylen)
    memcpy(p + 8, &four, 4)
    if opaque != NULL:
        memcpy(p + OPAQUE_AT, opaque, 4)
    else:
        memset(p + OPAQUE_AT, 0, 4)
    eight = htobe64(cas)
    memcpy(p + 16, &eight, 8)


cdef inline void as_words(const char** line, size_t* n) noexcept nogil:
    # An error of the text protocol, as a binary reply says it: without SERVER_ERROR and its line end.
    cdef size_t first = strlen(WIRE_SERVER_ERROR)
    if n[0] > first and memcmp(line[0], WIRE_SERVER_ERROR, first) == 0:
        line[0] += first
        n[0] -= first
    while n[0] and (line[0][n[0] - 1] == c'\n' or line[0][n[0] - 1] == c'\r'):
        n[0] -= 1
