"""Faults in the meta commands."""

from __future__ import annotations

import re

from .planted import Fault, Talk, after, drop, number, swap, without

RETURN = re.compile(rb"^(HD|VA \d+)((?: [a-zA-Z][^ \r]*)+)\r\n")


def flags_sorted(data: bytes, talk: Talk) -> bytes:
    """Return flags come in the order of the alphabet."""
    return RETURN.sub(lambda m: m[1] + b" " + b" ".join(sorted(m[2].split())) + b"\r\n", data)


def hit_silenced(data: bytes, talk: Talk) -> bytes:
    """q silences hits of mg."""
    return re.sub(rb"^HD\r\n", b"", data) if re.search(rb"^mg \S+ (?:.* )?q", talk.request) else data


FAULTS = (
    # what all meta commands share
    Fault("opaque-dropped", "the opaque is dropped", "metasyntax",
          ("meta/syntax/opaque/31", "meta/syntax/opaque/mg-miss", "meta/syntax/opaque/ms"),
          reply=swap(rb"^((?:HD|EN|NS|EX|NF|VA \d+).*?) O[^ \r]*", rb"\1")),
    Fault("opaque-30", "an opaque of 31 bytes is too long", "metasyntax", ("meta/syntax/opaque/31",),
          request=swap(rb" O(o{31})\r", rb" O\1o\r")),
    Fault("flags-sorted", "return flags come sorted", "metasyntax", ("meta/syntax/flag-order",), reply=flags_sorted),
    Fault("trailing-space", "HD has a space behind it", "metasyntax", ("meta/mg/hit", "meta/ms/new"),
          reply=swap(rb"^HD\r\n", b"HD \r\n")),
    Fault("duplicates", "the same flag twice is taken", "metasyntax", ("meta/syntax/ms-duplicate",),
          request=swap(rb" (\w) \1\r", rb" \1\r")),
    Fault("unknown-flags", "flags that do not exist are ignored", "metasyntax",
          ("meta/syntax/invalid/z", "meta/syntax/invalid/ms"), request=without(rb"z", rb"m[gsda]")),
    Fault("base64-plain", "b is ignored: the key is taken as it stands", "metasyntax", ("meta/base64/set-and-get",),
          request=without(rb"b", rb"m[gsda]")),
    Fault("base64-no-b", "a key in base64 is shown without b", "metasyntax", ("meta/base64/echo", "meta/base64/miss"),
          reply=swap(rb"( k[^ \r]+) b(?=[ \r])", rb"\1")),
    Fault("hints-refused", "the proxy's hints are refused", "metasyntax", ("meta/syntax/hints-ms",),
          request=swap(rb" P1", b" y")),
    # mg
    Fault("quiet-miss", "mg q answers a miss", "mg", ("meta/mg/quiet-miss",), request=without(rb"q", rb"mg")),
    Fault("quiet-hit", "mg q does not answer a hit", "mg", ("meta/mg/quiet-hit",), reply=hit_silenced),
    Fault("ttl-zero", "t shows 0 for an item that never expires", "mg", ("meta/mg/ttl-none",),
          reply=swap(rb" t-1(?=[ \r])", b" t0")),
    Fault("bumps", "u is ignored", "mg", ("meta/mg/no-bump",), request=without(rb"u", rb"mg")),
    Fault("never-hit", "h is always 0", "mg", ("meta/mg/hit-before", "meta/mg/hit-by-get"),
          reply=swap(rb" h1(?=[ \r])", b" h0")),
    Fault("miss-bare", "a miss does not show the key", "mg", ("meta/mg/miss-echo",),
          reply=swap(rb"^(EN.*?) k[^ \r]+", rb"\1")),
    Fault("miss-size", "a miss shows its size", "mg", ("meta/mg/miss-echo",), reply=swap(rb"^EN k", b"EN s0 k")),
    Fault("size-with-end", "s counts the CR LF", "mg", ("meta/mg/size",),
          reply=swap(rb"^(.* s)(\d+)(?=[ \r])", number(lambda n: n + 2))),
    Fault("mg-touch", "T does not touch", "mg", ("meta/mg/touch",), request=without(rb"T\d+", rb"mg")),
    Fault("access-now", "l is always 0", "mg", ("meta/mg/last-access-grows",), reply=swap(rb" l\d+", b" l0")),
    Fault("value-unasked", "C leaves the value in", "mg", ("meta/mg/unless-cas-same",), request=without(rb"C\d+", rb"mg"),
          since="1.6.40"),
    # leases and stale items
    Fault("two-winners", "W is given twice", "lease", ("meta/lease/one-winner", "meta/lease/recache-once"),
          reply=swap(rb" Z(?=[ \r])", b" W")),
    Fault("no-z", "those who did not win are not told", "lease", ("meta/lease/one-winner",), reply=drop(rb" Z(?=[ \r])")),
    Fault("no-vivify", "N makes nothing", "lease", ("meta/lease/vivify",), request=without(rb"N\d+", rb"mg")),
    Fault("no-win", "who made an item is not told", "lease", ("meta/lease/vivify", "meta/lease/recache"),
          reply=drop(rb" W(?=[ \r])")),
    Fault("recache-early", "R wins however much time is left", "lease", ("meta/lease/recache-not-yet",),
          request=swap(rb" R\d+", b" R2000000")),
    Fault("lease-survives", "a delete leaves the lease", "lease", ("meta/lease/delete-invalidates",),
          reply=after(rb"^ms \S+ 2 C\d+", rb"^NF", b"HD")),
    Fault("stale-lost", "the stale mark is lost", "stale", ("meta/stale/mark", "meta/stale/later-fetches"),
          reply=drop(rb" X(?=[ \r])")),
    Fault("stale-always-wins", "every fetch of a stale item wins", "stale", ("meta/stale/later-fetches",),
          reply=swap(rb" Z X(?=[ \r])", b" X W")),
    Fault("stale-deletes", "md I deletes", "stale", ("meta/stale/mark", "meta/stale/keeps-value"),
          request=without(rb"I", rb"md")),
    Fault("stale-ttl", "md I ignores T", "stale", ("meta/stale/ttl",), request=without(rb"T\d+", rb"md")),
    Fault("invalidate-refused", "ms I with a lower unique is refused", "stale", ("meta/stale/invalidate-lower-cas",),
          request=without(rb"I", rb"ms")),
    # ms
    Fault("set-quiet", "ms q answers HD", "ms", ("meta/ms/quiet",), request=without(rb"q", rb"ms")),
    Fault("set-too-quiet", "ms q is silent when nothing was stored", "ms", ("meta/ms/quiet-not-stored",),
          reply=after(rb"^ms .* q", rb"^NS\r\n", b"")),
    Fault("mode-ignored", "M is ignored", "ms", ("meta/ms/mode-add", "meta/ms/mode-append", "meta/ms/mode-replace-missing"),
          request=without(rb"M\w", rb"ms")),
    Fault("compare-ignored", "C is ignored", "ms", ("meta/ms/cas-mismatch", "meta/ms/cas-missing"),
          request=without(rb"C\d+", rb"ms")),
    Fault("compare-missing", "C of a missing key answers EX", "ms", ("meta/ms/cas-missing",), reply=swap(rb"^NF", b"EX")),
    Fault("set-flags", "F is ignored", "ms", ("meta/ms/flags",), request=without(rb"F\d+", rb"ms")),
    Fault("set-ttl", "T is ignored", "ms", ("meta/ms/ttl",), request=without(rb"T\d+", rb"ms")),
    Fault("set-key", "k is not answered", "ms", ("meta/ms/return-key",), reply=after(rb"^ms", rb" k[^ \r]+", b"")),
    Fault("explicit-ignored", "E is ignored", "ms", ("meta/ms/explicit-cas",), request=without(rb"E\d+", rb"ms"),
          since="1.6.27"),
    # md
    Fault("delete-quiet", "md q answers HD", "md", ("meta/md/quiet",), request=without(rb"q", rb"md")),
    Fault("delete-too-quiet", "md q is silent about a miss", "md", ("meta/md/quiet-miss",),
          reply=after(rb"^md .* q", rb"^NF\r\n", b"")),
    Fault("delete-anyway", "md ignores C", "md", ("meta/md/cas-mismatch",), request=without(rb"C\d+", rb"md")),
    Fault("delete-found", "md of a missing key says HD", "md", ("meta/md/miss",), reply=after(rb"^md", rb"^NF", b"HD")),
    Fault("drop-deletes", "md x deletes", "md", ("meta/md/drop-value",), request=without(rb"x", rb"md"), since="1.6.27"),
    # ma
    Fault("delta-ignored", "D is ignored", "ma", ("meta/ma/delta",), request=without(rb"D\d+", rb"ma")),
    Fault("always-up", "M is ignored", "ma", ("meta/ma/mode/down-by-D",), request=without(rb"M.", rb"ma")),
    Fault("start-counted", "a made number counts the delta too", "ma", ("meta/ma/vivify",),
          request=swap(rb" J(13)( D5)", rb" J18\2")),
    Fault("ma-shows", "ma q answers", "ma", ("meta/ma/quiet",), request=without(rb"q", rb"ma")),
    Fault("ma-errors", "errors of ma name their cause", "ma", ("meta/ma/bad-j",),
          reply=after(rb"^ma", rb"CLIENT_ERROR invalid or duplicate flag", b"CLIENT_ERROR invalid numeric initial value")),
    # mn and me
    Fault("mn-silent", "mn is not answered", "mn", ("meta/mn/reply", "meta/mn/many"),
          request=swap(rb"^mn(?=\r| )", b"verbosity 0 noreply")),
    Fault("me-never-fetched", "me says fetch=no always", "me", ("meta/me/fetched",),
          reply=swap(rb"fetch=yes", b"fetch=no")),
    Fault("me-size", "me counts the value alone", "me", ("meta/me/size",),
          reply=swap(rb"^(ME .* size=)(\d+)", number(lambda n: n - 48))),
)  # fmt: skip
