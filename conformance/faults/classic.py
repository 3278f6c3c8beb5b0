"""Faults in framing, numbers and the classic commands."""

from __future__ import annotations

import re

from .planted import Fault, Talk, after, drop, follow, number, swap

STORE = rb"(?:set|add|replace|append|prepend|cas)"
MASK16 = (1 << 16) - 1
MONTH = 2592000


def finish_lines(data: bytes, talk: Talk) -> bytes:
    """A piece of a line is taken for a line."""
    return data if data.endswith(b"\n") or data.startswith(b"set") else data + b"\r\n"


def first_two_swapped(data: bytes, talk: Talk) -> bytes:
    """The first two lines of a batch of replies change places."""
    lines = data.splitlines(keepends=True)
    if talk.request.count(b"\n") < 3 or len(lines) < 2:
        return data
    return b"".join([lines[1], lines[0], *lines[2:]])


def close_on_error(data: bytes, talk: Talk) -> bytes:
    """ERROR is the last word on a connection."""
    talk.closing = data.startswith(b"ERROR\r\n")
    return b"ERROR\r\n" if talk.closing else data


def remember_flags(data: bytes, talk: Talk) -> bytes:
    """Notes the flags that an append carries."""
    for key, flags in re.findall(rb"^append (\S+) (\d+)", data, re.MULTILINE):
        talk.notes[b"flags " + key] = flags
    return data


def show_flags(data: bytes, talk: Talk) -> bytes:
    """Shows the flags that an append carried."""
    return re.sub(
        rb"^VALUE (\S+) (\d+)", lambda m: b"VALUE " + m[1] + b" " + talk.notes.get(b"flags " + m[1], m[2]), data
    )


def remember_appends(data: bytes, talk: Talk) -> bytes:
    """Notes that a key was appended to."""
    for key in re.findall(rb"^append (\S+) ", data, re.MULTILINE):
        talk.notes[b"appended " + key] = b"yes"
    return data


def old_unique(data: bytes, talk: Talk) -> bytes:
    """After an append shows the unique from before it."""

    def show(found: re.Match[bytes]) -> bytes:
        name = b"unique " + found[2]
        if b"appended " + found[2] not in talk.notes:
            talk.notes[name] = found[3]
        return found[1] + talk.notes.get(name, found[3]) + b"\r\n"

    return re.sub(rb"^(VALUE (\S+) \d+ \d+ )(\d+)\r\n", show, data)


def undo_bad_chunk(data: bytes, talk: Talk) -> bytes:
    """A bad data chunk takes the old item with it."""
    if b"bad data chunk" in data and (found := re.search(rb"^\w+ (\S+) ", talk.request)):
        talk.tell(b"delete " + found[1] + b" noreply\r\n")
    return data


def sorted_keys(data: bytes, talk: Talk) -> bytes:
    """get answers in the order of the keys."""
    return re.sub(rb"^(gets?) (.*)\r\n", lambda m: m[1] + b" " + b" ".join(sorted(m[2].split(b" "))) + b"\r\n", data)


def keys_once(data: bytes, talk: Talk) -> bytes:
    """get answers a key once, however often it is asked."""
    return re.sub(
        rb"^(gets?) (.*)\r\n", lambda m: m[1] + b" " + b" ".join(dict.fromkeys(m[2].split(b" "))) + b"\r\n", data
    )


FAULTS = (
    # uniques
    Fault("unique-32", "gets shows 32 bits of a unique", "cas", ("classic/cas/64-bits",), since="1.6.27",
          reply=swap(rb"^(VALUE \S+ \d+ \d+ )(\d+)", number(lambda n: n & 0xFFFFFFFF))),
    # framing
    Fault("error-string", "an unknown command is answered ERR", "framing", ("framing/unknown/word",),
          reply=swap(rb"^ERROR\r\n", b"ERR\r\n")),
    Fault("short-line", "a line of fewer than 4 bytes is an unknown command", "framing", ("framing/short/crlf",),
          reply=after(rb"\A.{0,2}\n\Z|\A\r\n\Z", rb"^CLIENT_ERROR bad command line format", b"ERROR"), since="1.6.41"),
    Fault("lf-refused", "a line that ends in LF alone is refused", "framing", ("framing/line-lf",),
          request=swap(rb"^get \S+[^\r]\n", b"bogus\r\n")),
    Fault("any-case", "verbs are taken in any case", "framing", ("framing/verb/upper-case",),
          request=swap(rb"^[A-Z]{3,}(?= )", lambda m: m[0].lower())),
    Fault("tab-parts", "a tab parts words", "framing", ("framing/verb/tab", "framing/tab-in-key"),
          request=swap(rb"\t", b" ")),
    Fault("noreply-answered", "noreply is answered", "framing",
          ("classic/set/noreply", "classic/delete/noreply", "classic/incr/noreply", "classic/touch/noreply"),
          request=drop(rb" noreply(?=\r\n)")),
    Fault("noreply-prefix", "anything that begins like noreply counts as noreply", "framing",
          ("framing/noreply/exact-word",), request=swap(rb" norepl\r\n", b" noreply\r\n")),
    Fault("partial-line", "a piece of a line is taken for a line", "framing", ("framing/split/line",),
          request=finish_lines),
    Fault("swapped-replies", "pipelined replies come out of order", "framing", ("framing/pipeline/order",),
          reply=first_two_swapped),
    Fault("http-answered", "an HTTP request is answered", "framing", ("framing/http",),
          request=swap(rb"^POST / HTTP/1.1", b"bogus")),
    Fault("unknown-closes", "an unknown command closes the connection", "framing", ("framing/unknown/connection-stays",),
          reply=close_on_error),
    Fault("lf-replies", "END ends in LF alone", "framing", ("framing/line-crlf",), reply=swap(rb"^END\r\n", b"END\n")),
    Fault("get-without-key", "get without a key answers END", "framing", ("framing/minimum/get",),
          request=swap(rb"^get\r\n", b"get a\r\n")),
    Fault("leading-spaces", "trailing spaces make a word", "framing", ("framing/spaces/trailing-storage",),
          request=swap(rb"^(set \S+ \d+ \d+ \d+) \r\n", rb"\1x\r\n")),
    Fault("one-space", "two spaces part nothing from nothing", "framing", ("framing/spaces/stats",),
          request=swap(rb"^stats  settings", b"stats x settings")),
    # numbers
    Fault("hexadecimal", "a length may be hexadecimal", "numbers", ("numbers/length/hexadecimal",),
          request=swap(rb"^(set .*) 0x1\r\n\w+", rb"\1 1\r\nx")),
    Fault("flags-16-bit", "client flags have 16 bits", "numbers", ("numbers/flags/largest",),
          request=swap(rb"^(set \S+ )(\d+)( \d+ \d+)", number(lambda n: n & MASK16))),
    Fault("signed-delta", "a delta may be negative", "numbers", ("numbers/delta/negative",),
          request=swap(rb"^incr (\S+) -", rb"decr \1 ")),
    Fault("any-number", "what is no number counts as 0", "numbers",
          ("numbers/stored/not/word", "numbers/stored/not/empty", "numbers/stored/not/digits-then-letters"),
          reply=swap(rb"^CLIENT_ERROR cannot increment.*\r\n", b"1\r\n")),
    Fault("sloppy-ttl", "letters behind a ttl are ignored", "numbers", ("numbers/meta-ttl/letters-behind",),
          request=swap(rb" T1x", b" T1")),
    Fault("sloppy-touch", "letters behind an exptime are ignored", "numbers",
          ("numbers/touch/letters-behind", "numbers/gat/letters-behind"), request=swap(rb" 1x\b", b" 1")),
    # storage
    Fault("key-249", "a key of 250 bytes is too long", "storage",
          ("classic/set/key-250", "classic/get/key-250", "meta/syntax/key/250/mg"),
          request=swap(rb"(?<= )([^ \r\n]{250})(?=[ \r])", rb"\1x")),
    Fault("key-251", "a key of 251 bytes is cut and taken", "storage",
          ("classic/set/key-251", "classic/delete/key-251", "meta/syntax/key/251/mg"),
          request=swap(rb"(?<= )([^ \r\n]{250})[^ \r\n](?=[ \r])", rb"\1")),
    Fault("add-overwrites", "add overwrites", "storage", ("classic/add/present", "classic/add/twice"),
          request=swap(rb"^add ", b"set ")),
    Fault("replace-creates", "replace creates", "storage", ("classic/replace/missing",),
          request=swap(rb"^replace ", b"set ")),
    Fault("append-prepends", "append adds before the value", "storage", ("classic/append/present",),
          request=swap(rb"^append ", b"prepend ")),
    Fault("append-flags", "append takes over its flags", "storage", ("classic/append/present",),
          request=remember_flags, reply=show_flags),
    Fault("append-creates", "append of a missing key says STORED", "storage", ("classic/append/missing",),
          reply=after(rb"^append", rb"^NOT_STORED", b"STORED")),
    Fault("bad-chunk-deletes", "a bad data chunk deletes the old item", "storage",
          ("classic/set/bad-chunk", "classic/cas/bad-chunk"), reply=undo_bad_chunk),
    Fault("not-swallowed", "the data of a value that is too large is not swallowed", "storage",
          ("classic/set/too-large", "meta/ms/too-large"),
          reply=swap(rb"^(SERVER_ERROR object too large for cache\r\n)", rb"\1ERROR\r\n")),
    Fault("too-large-keeps", "a set that is too large keeps the old item", "storage", ("classic/set/too-large",),
          request=swap(rb"^set (?=\S+ \d+ \d+ 1048577\b)", b"add ")),
    Fault("too-large-deletes", "a replace that is too large deletes the old item", "storage",
          ("classic/replace/too-large",), request=swap(rb"^replace (?=\S+ \d+ \d+ 1048577\b)", b"set ")),
    Fault("too-large-string", "the words for a value that is too large differ", "storage", ("classic/set/too-large",),
          reply=swap(rb"object too large for cache", b"object too large")),
    Fault("nul-ends", "a NUL in a value becomes a space", "storage", ("classic/set/binary-value",),
          request=swap(rb"\0", b" ")),
    Fault("empty-refused", "an empty value is not stored", "storage", ("numbers/length/zero",),
          reply=after(rb"^set \S+ \d+ \d+ 0\r\n", rb"^STORED", b"NOT_STORED")),
    Fault("no-memory-string", "the words for no memory differ", "storage", ("classic/set/no-eviction",),
          reply=swap(rb"out of memory storing object", b"out of memory")),
    # retrieval
    Fault("sorted-keys", "get answers in the order of the keys", "retrieval", ("classic/get/order",), request=sorted_keys),
    Fault("keys-once", "a key asked twice is answered once", "retrieval", ("classic/get/order",), request=keys_once),
    Fault("gets-is-get", "gets shows no unique", "retrieval", ("classic/gets/hit",), request=swap(rb"^gets ", b"get ")),
    Fault("length-with-end", "the length counts the CR LF", "retrieval", ("classic/get/hit",),
          reply=swap(rb"^(VALUE \S+ \d+ )(\d+)(?=\r)", number(lambda n: n + 2))),
    # delete
    Fault("delete-always", "delete of a missing key says DELETED", "delete", ("classic/delete/miss",),
          reply=after(rb"^delete", rb"^NOT_FOUND", b"DELETED")),
    Fault("delete-strict", "delete with a time of 0 is refused", "delete", ("classic/delete/zero",),
          request=swap(rb"^delete \S+ 0\r\n", b"bogus\r\n")),
    # arithmetic
    Fault("decr-wraps", "decr goes below 0 and wraps", "arithmetic", ("classic/decr/floor", "classic/decr/of-zero"),
          reply=after(rb"^decr \S+ (?!5)\d+", rb"^0\r\n", b"18446744073709551611\r\n")),
    Fault("no-padding", "a shorter number makes a shorter value", "arithmetic",
          ("classic/decr/pads", "classic/incr/wraps-at-2^64"),
          reply=swap(rb"^(VALUE \S+ \d+) \d+\r\n(\d+) +\r\n", lambda m: m[1] + b" %d\r\n" % len(m[2]) + m[2] + b"\r\n")),
    Fault("incr-saturates", "incr stops at 2^64-1", "arithmetic", ("classic/incr/wraps-at-2^64",),
          reply=after(rb"^incr", rb"^9\r\n", b"18446744073709551615\r\n")),
    Fault("incr-creates", "incr of a missing key creates it", "arithmetic", ("classic/incr/miss",),
          reply=after(rb"^incr", rb"^NOT_FOUND", b"1")),
    Fault("incr-exptime", "incr makes an item live for ever", "arithmetic",
          ("classic/incr/keeps-exptime", "classic/incr/in-place-keeps-exptime"),
          reply=follow(rb"^incr (\S+)", rb"touch \1 0 noreply\r\n")),
    # touch
    Fault("touch-ignored", "touch changes nothing", "touch", ("classic/touch/hit",),
          request=swap(rb"^touch (\S+) \d+", rb"touch \1 0")),
    Fault("gat-is-get", "gat does not touch", "touch", ("classic/gat/hit", "classic/gats/hit"),
          request=swap(rb"^ga(ts?) \d+ ", lambda m: b"ge" + m[1] + b" ")),
    Fault("touch-unique", "touch changes the unique", "touch", ("classic/touch/keeps-cas",),
          reply=follow(rb"^touch (\S+)", rb"append \1 0 0 0 noreply\r\n\r\n")),
    # cas
    Fault("append-unique", "append leaves the unique", "cas", ("classic/cas/changed-by-append",),
          request=remember_appends, reply=old_unique),
    Fault("cas-is-set", "cas stores whatever the unique", "cas", ("classic/cas/mismatch", "classic/cas/old-unique"),
          request=swap(rb"^cas (\S+ \d+ \d+ \d+) \d+", rb"set \1")),
    Fault("cas-missing", "cas of a missing key answers EXISTS", "cas", ("classic/cas/missing",),
          reply=after(rb"^cas", rb"^NOT_FOUND", b"EXISTS")),
    Fault("cas-exists", "cas with another unique answers NOT_FOUND", "cas", ("classic/cas/mismatch",),
          reply=swap(rb"^EXISTS", b"NOT_FOUND")),
    Fault("cas-enabled", "-C still shows uniques", "cas", ("classic/cas/disabled",),
          reply=swap(rb"^(VALUE \S+ \d+ \d+) 0\r\n", rb"\1 1\r\n")),
    # exptime
    Fault("milliseconds", "an exptime is in milliseconds", "exptime", ("exptime/not-early",),
          request=swap(rb"^(set \S+ \d+ )(\d+)( )", number(lambda n: max(1, n // 1000) if 0 < n <= MONTH else n))),
    Fault("no-30-days", "an exptime over 30 days is relative", "exptime",
          ("exptime/absolute", "exptime/absolute-past", "exptime/30-days-and-one"),
          request=swap(rb"^(set \S+ \d+ )(\d+)( )", number(lambda n: 0 if n > MONTH else n))),
    Fault("29-days", "30 days are taken for a unix time", "exptime", ("exptime/30-days",),
          request=swap(rb"^(set \S+ \d+ )(\d+)( )", number(lambda n: MONTH + 1 if n == MONTH else n))),
    Fault("negative-never", "a negative exptime never expires", "exptime", ("exptime/negative",),
          request=swap(rb"^(set \S+ \d+) -\d+", rb"\1 0")),
    Fault("early", "items go too early", "exptime", ("exptime/not-early",),
          request=swap(rb"^(set \S+ \d+) 4 ", rb"\1 1 ")),
    Fault("late", "items stay too long", "exptime", ("exptime/touch-then-expire",),
          request=swap(rb"^touch (\S+) 1\r", rb"touch \1 10\r")),
    # flush_all
    Fault("flush-nothing", "flush_all spares items", "flush", ("flush/all", "flush/delete"),
          request=swap(rb"^flush_all\r", b"verbosity 0\r")),
    Fault("flush-late", "flush_all takes what is set right after it", "flush", ("flush/set-right-after",),
          reply=after(rb"^flush_all", rb"^VALUE (\S+) .*\r\n.*\r\n", b"")),
    Fault("flush-at-once", "flush_all ignores its delay", "flush", ("flush/delayed-keeps",),
          request=swap(rb"^flush_all \d+", b"flush_all")),
    Fault("flush-string", "a flush_all that -F forbids is answered with other words", "flush", ("flush/disabled",),
          reply=swap(rb"flush_all not allowed", b"flush_all disabled")),
)  # fmt: skip
