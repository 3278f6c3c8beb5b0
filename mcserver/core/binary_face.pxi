# The binary protocol as Python has a part in it: statistics as packets, the trace of -vv.
# Included by engine.pyx. Must never decide what a request does.

from struct import Struct as _Struct

cdef object HEADER_OF_REPLY = _Struct(">BBHBBHI4sQ")
cdef enum:
    PACKETS_MOST = 60000        # bytes of statistics that go out at once


cdef bytes packet(int opcode, bytes opaque, int status, bytes key, bytes value):
    return HEADER_OF_REPLY.pack(BINARY_REPLY, opcode, len(key), 0, 0, status, len(key) + len(value), opaque, 0) + key + value


cdef object stat_packets(int opcode, uint32_t as_it_came, bytes line, reply):
    # The text reply to a `stats` line, as packets and an empty one behind them. An iterator stays one.
    cdef bytes opaque = PyBytes_FromStringAndSize(<char*> &as_it_came, 4)
    cdef bytes text
    if line.startswith(b"stats detail dump"):
        text = reply if isinstance(reply, bytes) else b"".join(reply)
        if not text.startswith(b"CLIENT_ERROR"):
            return packet(opcode, opaque, BIN_OK, b"detailed", text) + packet(opcode, opaque, BIN_OK, b"", b"")
    elif not isinstance(reply, bytes):
        return _packets_of_lines(opcode, opaque, reply)
    else:
        text = reply
    if text.startswith((b"STAT ", b"END\r\n")):
        return b"".join(_packets_of_lines(opcode, opaque, (text,)))
    if text in (b"RESET\r\n", b"OK\r\n"):
        return packet(opcode, opaque, BIN_OK, b"", b"")
    return packet(opcode, opaque, BIN_NOT_FOUND, b"", bytes(WIRE_BIN_NOT_FOUND))


def _packets_of_lines(int opcode, bytes opaque, pieces):
    """Packets of `STAT key value` lines, for each piece of them, up to END."""
    for piece in pieces:
        out = []
        size = 0
        for line in piece.split(b"\r\n"):
            if line.startswith(b"STAT "):
                key, _, value = line[5:].partition(b" ")
                out.append(packet(opcode, opaque, BIN_OK, key, value))
            elif line == b"END":
                out.append(packet(opcode, opaque, BIN_OK, b"", b""))
            else:
                continue
            size += len(out[len(out) - 1])
            if size > PACKETS_MOST:
                yield b"".join(out)
                out = []
                size = 0
        yield b"".join(out)


cdef bytes header_text(bytes data):
    # A header for people, in one line.
    return b"binary " + data[:BINARY_HEADER].hex(" ", 4).encode()
