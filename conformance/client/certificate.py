"""A throw-away authority and certificates for 127.0.0.1 and localhost, made of nothing but the standard library.

Owns one elliptic curve (P-256), its signature (FIPS 186-5: ECDSA, with SHA-256) and as much of DER and X.509 (RFC 5280) as
they take. It is for a server on this machine that lives for minutes: the arithmetic takes no care to hide the key from
whoever measures its time.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
import tempfile
import textwrap
import time

PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
VALID = 86400  # seconds, before now and after: clocks differ
BOOLEAN, INTEGER, BITS, OCTETS, IDENTIFIER, TEXT, TIME, SEQUENCE, SET = 1, 2, 3, 4, 6, 12, 23, 0x30, 0x31
CURVE = bytes.fromhex("2a8648ce3d030107")  # prime256v1
PUBLIC_KEY = bytes.fromhex("2a8648ce3d0201")  # ecPublicKey
SIGNED = bytes.fromhex("2a8648ce3d040302")  # ecdsa-with-SHA256
COMMON_NAME = bytes.fromhex("550403")
OWN_KEY, USAGE, NAMES, CONSTRAINTS, ISSUERS_KEY = (
    bytes.fromhex(f"551d{number}") for number in ("0e", "0f", "11", "13", "23")
)
SIGNS_CERTIFICATES, SIGNS = b"\x02\x04", b"\x07\x80"  # usages: bits, and how many of the last byte are none

Point = tuple[int, int] | None  # None: the point at infinity


class Authority:
    """Whom clients trust."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = secrets.randbelow(ORDER - 1) + 1
        self.point = public(self.key)
        self.certificate = pem("CERTIFICATE", self._issue(name, self.point, authority=True))
        """PEM."""

    def server(self, host: str = "localhost") -> ssl.SSLContext:
        """A server's context, with a new key and the certificate for it. host: its name; localhost has 127.0.0.1, too."""
        key = secrets.randbelow(ORDER - 1) + 1
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # its owner alone may read it
            file.write(pem("EC PRIVATE KEY", private(key)))
            file.write(pem("CERTIFICATE", self._issue(host, public(key), authority=False)))
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _issue(self, name: str, point: bytes, *, authority: bool) -> bytes:
        """A certificate in DER, signed with the authority's key."""
        algorithm = der(SEQUENCE, der(IDENTIFIER, SIGNED))
        now = time.time()
        valid = [time.strftime("%y%m%d%H%M%SZ", time.gmtime(at)) for at in (now - VALID, now + VALID)]
        told = der(
            SEQUENCE,
            der(0xA0, integer(2)),  # version 3
            integer(secrets.randbits(64)),
            algorithm,
            common_name(self.name),
            der(SEQUENCE, *(der(TIME, each.encode()) for each in valid)),
            common_name(name),
            der(SEQUENCE, der(SEQUENCE, der(IDENTIFIER, PUBLIC_KEY), der(IDENTIFIER, CURVE)), bits(point)),
            der(0xA3, der(SEQUENCE, *self._extensions(name, point, authority=authority))),
        )
        return der(SEQUENCE, told, algorithm, bits(sign(told, self.key)))

    def _extensions(self, name: str, point: bytes, *, authority: bool) -> list[bytes]:
        common = [
            extension(OWN_KEY, der(OCTETS, key_name(point))),
            extension(ISSUERS_KEY, der(SEQUENCE, der(0x80, key_name(self.point)))),
            extension(CONSTRAINTS, der(SEQUENCE, der(BOOLEAN, b"\xff") if authority else b""), critical=True),
            extension(USAGE, der(BITS, SIGNS_CERTIFICATES if authority else SIGNS), critical=True),
        ]
        address = der(0x87, bytes((127, 0, 0, 1))) if name == "localhost" else b""
        names = der(SEQUENCE, der(0x82, name.encode()), address)
        return common if authority else [*common, extension(NAMES, names)]


def common_name(name: str) -> bytes:
    return der(SEQUENCE, der(SET, der(SEQUENCE, der(IDENTIFIER, COMMON_NAME), der(TEXT, name.encode()))))


def key_name(point: bytes) -> bytes:
    return hashlib.sha1(point, usedforsecurity=False).digest()


def extension(identifier: bytes, content: bytes, *, critical: bool = False) -> bytes:
    return der(SEQUENCE, der(IDENTIFIER, identifier), der(BOOLEAN, b"\xff") if critical else b"", der(OCTETS, content))


def private(key: int) -> bytes:
    """The key in DER (RFC 5915)."""
    return der(
        SEQUENCE,
        integer(1),
        der(OCTETS, key.to_bytes(32)),
        der(0xA0, der(IDENTIFIER, CURVE)),
        der(0xA1, bits(public(key))),
    )


def public(key: int) -> bytes:
    """The key's point, uncompressed."""
    point = times(key, BASE)
    assert point
    return b"\x04" + point[0].to_bytes(32) + point[1].to_bytes(32)


def sign(data: bytes, key: int) -> bytes:
    """The signature in DER."""
    digest = int.from_bytes(hashlib.sha256(data).digest())
    while True:
        once = secrets.randbelow(ORDER - 1) + 1
        point = times(once, BASE)
        assert point
        r = point[0] % ORDER
        s = pow(once, -1, ORDER) * (digest + r * key) % ORDER
        if r and s:
            return der(SEQUENCE, integer(r), integer(s))


# The curve y^2 = x^3 - 3x + b ------------------------------------------------------------------------------------------


def times(number: int, point: Point) -> Point:
    """The point added to itself so many times."""
    total: Point = None
    while number:
        if number & 1:
            total = plus(total, point)
        point = plus(point, point)
        number >>= 1
    return total


def plus(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % PRIME == 0:
        return None
    if one == other:
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, PRIME)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, PRIME)
    x = (slope * slope - one[0] - other[0]) % PRIME
    return x, (slope * (one[0] - x) - one[1]) % PRIME


# DER ------------------------------------------------------------------------------------------------------------------


def der(tag: int, *parts: bytes) -> bytes:
    """A value with its tag and length."""
    content = b"".join(parts)
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, *([size] if size < 128 else [0x80 | len(length), *length])]) + content


def integer(number: int) -> bytes:
    """Not negative: a leading zero where the first bit would say so."""
    return der(INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def bits(content: bytes) -> bytes:
    return der(BITS, b"\0", content)


def pem(kind: str, content: bytes) -> str:
    text = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 64))
    return f"-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n"
