"""memcached's command line as tables: each option and `-o` suboption with the setting that it changes. It parses no line itself.

Meanings and defaults stand in config.py; here are the names, the units, and what memcached answers to a bad value
(main() of memcached 1.6.45). Numbers are read as C's atoi does, but a word that is no number is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mcserver.settings.cluster import LEVELS, ClusterConfig, read_credentials
from mcserver.settings.config import MEBIBYTE, PAGE, Config
from mcserver.settings.rules import EX_FAILURE, ConfigError, Effect, check_value, rules


class Named(dict[str, Any]):
    """The settings that somebody named so far, and who named each of them last."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, str] = {}
        self.speaker = COMMAND_LINE
        """Who names settings now: a file, or the command line."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.origins[name] = self.speaker

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def update(self, *others: Mapping[str, Any], **values: Any) -> None:  # type: ignore[override]  # dict's takes pairs, too
        for other in (*others, values):
            for name, value in other.items():
                self[name] = value

    def forget_others(self, *names: str) -> None:
        """What another speaker said of these: on the command line a list begins anew instead of adding to the file's."""
        for name in names:
            if self.origins.get(name, self.speaker) != self.speaker:
                self.pop(name, None)
                del self.origins[name]


class Draft:
    """What has been named so far: settings of Config, and, in `cluster`, of ClusterConfig."""

    def __init__(self) -> None:
        self.settings = Named()
        self.cluster = Named()
        self.warnings: dict[str, None] = {}
        self.unsaid = 0
        self.strict = False
        """Whether a value of which a part would be left out is an error: in a file, which memcached has none of."""

    def leave_out(self, option: str, value: str, rest: str, taken: str) -> None:
        """Warns that the end of a value counts for nothing. Raises ConfigError (1) where that is an error."""
        if self.strict:
            raise ConfigError(
                f"{option} can't be '{shortened(value)}': '{shortened(rest)}' means nothing there", EX_FAILURE
            )
        self.warn(f"{option} {value}: '{rest}' is left out, {taken}")

    def warn(self, warning: str) -> None:
        """Said once at the start, in its place; of very many only the first, and how many there were."""
        if len(self.warnings) < WARNINGS_MOST:
            self.warnings.setdefault(warning)
        elif warning not in self.warnings:
            self.unsaid += 1

    def said_warnings(self) -> tuple[str, ...]:
        """What a start says of them."""
        more = (f"{self.unsaid} more warnings about the command line are not shown",) if self.unsaid else ()
        return (*self.warnings, *more)

    def without(self, who: str) -> Draft:
        """Another one, of what all others have said."""
        other = Draft()
        for mine, theirs in ((self.settings, other.settings), (self.cluster, other.cluster)):
            theirs.update({name: value for name, value in mine.items() if mine.origins.get(name) != who})
        return other

    def speak(self, who: str) -> None:
        """From now on it is this file, or the command line, that names settings."""
        self.settings.speaker = self.cluster.speaker = who
        self.strict = who != COMMAND_LINE


COMMAND_LINE = "command line"

WARNINGS_MOST = 50
"""More than anybody reads, or needs to see what is wrong; a shell's `*` can name a hundred thousand words."""

Apply = Callable[[Draft, str, str], None]
"""Puts a value into the draft: draft, the option as written, its value ("" when it takes none). Raises ConfigError."""


class Option(NamedTuple):
    """One line of `--help`. `metavar` "": it takes no value. `meaning` "": that of the setting of this name."""

    short: str
    long: str
    metavar: str
    setting: str
    apply: Apply
    meaning: str = ""
    effect: Effect = Effect.REAL

    @property
    def spellings(self) -> list[str]:
        """How it is written: with its letter, its long name, or both."""
        return ["-" + self.short] * bool(self.short) + ["--" + self.long] * bool(self.long)


class Suboption(NamedTuple):
    """One name of `-o`. `missing` answers it without its value; "" when the value may be left out, or there is none."""

    name: str
    metavar: str
    setting: str
    apply: Apply
    meaning: str = ""
    missing: str = ""
    effect: Effect = Effect.REAL


KNOWN = rules(ClusterConfig) | rules(Config)
"""Default and rule of every setting that an option may name."""

PROTOCOLS = ("auto", "ascii", "binary")
"""What -B takes."""

UNITS = {"MiB": MEBIBYTE, "KiB": 1 << 10}
"""Bytes of the units in which options take what settings keep in bytes."""

# Reading values ---------------------------------------------------------------------------------------------------------


LEAST, MOST = -(1 << 31), (1 << 32) - 1
"""No number of the command line lies outside, whatever its unit: what is made of one fits into 64 bits."""

DIGITS_MOST = len(str(MOST)) + 1
SHOWN_MOST = 40


def shortened(value: str) -> str:
    """A value as an error shows it."""
    return value if len(value) <= SHOWN_MOST else f"{value[:SHOWN_MOST]}..."


def integer(draft: Draft, option: str, value: str) -> int:
    """As C's atoi: leading blanks, a sign and digits; what follows is left out, with a warning.

    No digits, or a number outside -2^31 to 2^32 - 1, of which atoi would take the last 32 bits: ConfigError (1).
    """
    match = re.match(r"\s*([+-]?)0*([0-9]+)", value)
    if match is None:
        raise ConfigError(f"{option} takes a number, not '{value}'", EX_FAILURE)
    number = int(match[1] + match[2][:DIGITS_MOST])
    if not LEAST <= number <= MOST:
        raise ConfigError(f"{option} takes a number from {LEAST} to {MOST}, not {shortened(value)}", EX_FAILURE)
    if match.end() < len(value):
        draft.leave_out(option, value, value[match.end() :], f"the value is {match[0].strip()}")
    return number


def decimal(option: str, value: str) -> float:
    """A finite number with a fraction. Raises ConfigError (1)."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not -1e15 < number < 1e15:
        raise ConfigError(f"{option} takes a number, not '{value}'", EX_FAILURE)
    return number


def number(name: str, unit: int = 1) -> Apply:
    """An integer in units of so many bytes."""

    def apply(draft: Draft, option: str, value: str) -> None:
        draft.settings[name] = integer(draft, option, value) * unit

    return apply


def fraction(name: str) -> Apply:
    """A setting that is a decimal number."""

    def apply(draft: Draft, option: str, value: str) -> None:
        draft.settings[name] = decimal(option, value)

    return apply


def text(name: str) -> Apply:
    """A setting that is taken as it stands."""

    def apply(draft: Draft, option: str, value: str) -> None:
        draft.settings[name] = value

    return apply


def switch(**values: object) -> Apply:
    """An option without a value, which changes these settings."""

    def apply(draft: Draft, option: str, value: str) -> None:
        draft.settings.update(values)

    return apply


def nothing(draft: Draft, option: str, value: str) -> None:
    """Accepted, as memcached does, with no effect."""


# Options with rules of their own ----------------------------------------------------------------------------------------


def verbose(draft: Draft, option: str, value: str) -> None:
    """Each -v adds one."""
    draft.settings.forget_others("verbosity")
    draft.settings["verbosity"] = draft.settings.get("verbosity", 0) + 1


def listen(draft: Draft, option: str, value: str) -> None:
    """Addresses add up; one that was named before is left out."""
    draft.settings.forget_others("inter")
    addresses = [each for each in (draft.settings.get("inter") or "").split(",") if each]
    draft.settings["inter"] = ",".join(addresses + ([] if value in addresses else [value]))


def unix_mask(draft: Draft, option: str, value: str) -> None:
    """Octal digits. Raises ConfigError."""
    if not re.fullmatch("[0-7]{1,12}", value):
        raise ConfigError(f"{option} takes a mode in octal, such as 700, not '{shortened(value)}'", EX_FAILURE)
    draft.settings["umask"] = int(value, 8)


def item_size(draft: Draft, option: str, value: str) -> None:
    """A number of bytes, or with k or m at its end. memcached takes 1g for one byte; it is said what is wrong."""
    if re.fullmatch("[0-9]+[gGtT][bB]?", value):
        raise ConfigError(f"{option} knows the units k and m: write 1024m for a gigabyte, not '{shortened(value)}'")
    unit = {"k": 1024, "m": MEBIBYTE}.get(value[-1:].lower(), 1)
    draft.settings["item_size_max"] = integer(draft, option, value if unit == 1 else value[:-1]) * unit


def prefix_delimiter(draft: Draft, option: str, value: str) -> None:
    """The first byte counts; prefixes are collected from now on."""
    if len(value) > 1:
        draft.leave_out(option, value, value[1:], "the first character alone counts")
    draft.settings.update(stat_key_prefix=os.fsencode(value)[:1], detail_enabled=True)


def protocol(draft: Draft, option: str, value: str) -> None:
    """auto, ascii or binary. Raises ConfigError."""
    if value not in PROTOCOLS:
        raise ConfigError(f"Invalid value for binding protocol: {value}\n -- should be one of auto, binary, or ascii")
    draft.settings["binding_protocol"] = "auto-negotiate" if value == "auto" else value


def slab_automove(draft: Draft, option: str, value: str) -> None:
    """0 to 2; without a value 1."""
    draft.settings["slab_automove"] = integer(draft, option, value) if value else 1


def slab_sizes(draft: Draft, option: str, value: str) -> None:
    """Bytes, from the smallest to the largest. Raises ConfigError."""
    if not re.fullmatch("[0-9]{1,10}(-[0-9]{1,10})*", value):
        raise ConfigError(
            f"slab_sizes takes sizes in bytes separated by '-', such as 100-200-400, not '{shortened(value)}'"
        )
    draft.settings["slab_sizes"] = tuple(int(size) for size in value.split("-"))


def slab_chunk_max(draft: Draft, option: str, value: str) -> None:
    """KiB as documented; memcached's own code took bytes for long, so what is above 1024 is bytes."""
    size = integer(draft, option, value)
    draft.settings["slab_chunk_max"] = size * 1024 if size <= 1024 else size


def temporary_ttl(draft: Draft, option: str, value: str) -> None:
    """Seconds; turns the TEMP list on."""
    draft.settings.update(temp_lru=True, temporary_ttl=integer(draft, option, value))


def no_modern(draft: Draft, option: str, value: str) -> None:
    """The defaults of memcached 1.4."""
    draft.settings.setdefault("slab_chunk_max", PAGE)
    switch(slab_reassign=False, slab_automove=0, maxconns_fast=False, hash_algorithm="jenkins")(draft, option, value)
    switch(lru_segmented=False, lru_maintainer_thread=False, lru_crawler=False)(draft, option, value)


def seconds(draft: Draft, option: str, value: str) -> float:
    """A decimal number."""
    return decimal(option, value)


def plain(draft: Draft, option: str, value: str) -> str:
    """As it stands."""
    return value


def off(draft: Draft, option: str, value: str) -> bool:
    """A switch that forbids something."""
    return False


def file_name(draft: Draft, option: str, value: str) -> str:
    """The whole path of a file. An empty name is refused: it would turn TLS to ZooKeeper off in silence."""
    return whole_path(option, value)


def cluster(name: str, read: Callable[[Draft, str, str], Any] = plain) -> Apply:
    """An option of the fleet."""

    def apply(draft: Draft, option: str, value: str) -> None:
        draft.cluster[name] = read(draft, option, value)

    return apply


def prefixes(name: str) -> Apply:
    """Prefixes of keys, which add up."""

    def apply(draft: Draft, option: str, value: str) -> None:
        draft.cluster.forget_others(name)
        draft.cluster[name] = (*draft.cluster.get(name, ()), os.fsencode(value))

    return apply


def ack(draft: Draft, option: str, value: str) -> None:
    """A level for all keys, or PREFIX=LEVEL; the last of a prefix counts. Raises ConfigError."""
    draft.cluster.forget_others("ack", "ack_prefixes")
    prefix, equals, level = value.rpartition("=")
    if not equals:
        draft.cluster["ack"] = value
        return
    if level not in LEVELS:
        raise ConfigError(f"{option} takes PREFIX=async, PREFIX=committed or PREFIX=applied, not '{shortened(value)}'")
    levels = dict(draft.cluster.get("ack_prefixes", ()))
    levels[os.fsencode(prefix)] = level
    draft.cluster["ack_prefixes"] = tuple(levels.items())


def metrics_name(draft: Draft, option: str, value: str) -> None:
    """Names add up."""
    draft.settings.forget_others("metrics_names")
    draft.settings["metrics_names"] = (*draft.settings.get("metrics_names", ()), value)


def key_format(draft: Draft, option: str, value: str) -> None:
    """OpenSSL's number, or its name."""
    draft.settings["ssl_keyformat"] = {"PEM": 1, "DER": 2}.get(value.upper()) or integer(draft, option, value)


def whole_path(option: str, value: str, what: str = "name of a file") -> str:
    """Of what is opened later, maybe by a daemon, which goes elsewhere. Raises ConfigError (1)."""
    try:
        whole = os.path.abspath(value)  # noqa: PTH100  # loading pathlib takes its time
    except OSError:
        gone = f"{option} {value}: this was started in a directory that is gone; give the whole path"
        raise ConfigError(gone, EX_FAILURE) from None
    if not value or whole.strip("/") == "":
        raise ConfigError(f"{option} takes the {what}", EX_FAILURE)
    return whole


def path(name: str, what: str = "name of a file") -> Apply:
    """A setting that is the whole path of a file."""

    def apply(draft: Draft, option: str, value: str) -> None:
        draft.settings[name] = whole_path(option, value, what)

    return apply


def auth_file(draft: Draft, option: str, value: str) -> None:
    """Reads ZooKeeper's credentials."""
    try:
        draft.cluster["credentials"] = read_credentials(value)
    except OSError as error:
        raise ConfigError(f"{option}: can't read {value}: {error.strerror}", EX_FAILURE) from None


# The tables -------------------------------------------------------------------------------------------------------------


OPTIONS = (
    Option("p", "port", "num", "tcpport", number("tcpport")),
    Option("U", "udp-port", "num", "udpport", number("udpport")),
    Option("s", "unix-socket", "file", "domain_socket", text("domain_socket")),
    Option("a", "unix-mask", "mode", "umask", unix_mask),
    Option("A", "enable-shutdown", "", "shutdown_command", switch(shutdown_command=True)),
    Option("l", "listen", "addr", "inter", listen),
    Option("d", "daemon", "", "daemonize", switch(daemonize=True)),
    Option("r", "enable-coredumps", "", "core_dumps", switch(core_dumps=True)),
    Option("u", "user", "name", "user", text("user")),
    Option("m", "memory-limit", "MiB", "maxbytes", number("maxbytes", MEBIBYTE)),
    Option(
        "M",
        "disable-evictions",
        "",
        "evictions",
        switch(evictions=False),
        "refuse stores when memory is full, do not evict",
    ),
    Option("c", "conn-limit", "num", "maxconns", number("maxconns")),
    Option("e", "memory-file", "file", "memory_file", path("memory_file")),
    Option("k", "lock-memory", "", "lock_memory", switch(lock_memory=True)),
    Option("v", "verbose", "", "verbosity", verbose),
    Option("h", "help", "", "", nothing, "print this and exit"),
    Option("i", "license", "", "", nothing, "print the licence and exit"),
    Option("V", "version", "", "", nothing, "print the version and exit"),
    Option("P", "pidfile", "file", "pid_file", text("pid_file")),
    Option("f", "slab-growth-factor", "num", "growth_factor", fraction("growth_factor")),
    Option("n", "slab-min-size", "bytes", "chunk_size", number("chunk_size")),
    Option("L", "enable-largepages", "", "large_pages", switch(large_pages=True)),
    Option("D", "", "char", "stat_key_prefix", prefix_delimiter),
    Option("t", "threads", "num", "num_threads", number("num_threads")),
    Option("R", "max-reqs-per-event", "num", "reqs_per_event", number("reqs_per_event")),
    Option("C", "disable-cas", "", "cas_enabled", switch(cas_enabled=False), "keep no CAS uniques"),
    Option("b", "listen-backlog", "num", "tcp_backlog", number("tcp_backlog")),
    Option("B", "protocol", "name", "binding_protocol", protocol),
    Option("S", "enable-sasl", "", "sasl", switch(sasl=True)),
    Option("Y", "auth-file", "file", "auth_file", path("auth_file")),
    Option("I", "max-item-size", "size", "item_size_max", item_size),
    Option(
        "F",
        "disable-flush-all",
        "",
        "flush_enabled",
        switch(flush_enabled=False),
        "refuse `flush_all`, and `cluster flush`",
    ),
    Option(
        "X",
        "disable-dumping",
        "",
        "dump_enabled",
        switch(dump_enabled=False),
        "refuse `stats cachedump`, `stats detail`, `lru_crawler metadump` and `mgdump`",
    ),
    Option("W", "disable-watch", "", "watch_enabled", switch(watch_enabled=False), "refuse `watch`"),
    Option("Z", "enable-ssl", "", "ssl_enabled", switch(ssl_enabled=True)),
    Option("N", "napi-ids", "num", "num_napi_ids", number("num_napi_ids")),
    Option(
        "o",
        "extended",
        "list",
        "",
        nothing,
        "suboptions, separated by commas; may be repeated, the last of a name counts",
    ),
)

OWN_OPTIONS = (
    Option("", "config", "file", "config_file", path("config_file")),
    Option("", "loop", "name", "loop", text("loop")),
    Option("", "metrics", "addr", "metrics", text("metrics")),
    Option("", "metrics-name", "name", "metrics_names", metrics_name),
    Option("", "log-json", "", "log_json", switch(log_json=True)),
    Option("", "take-over", "path", "take_over", path("take_over", "path of a Unix socket")),
    Option("", "ephemeral", "", "ephemeral", switch(ephemeral=True)),
    Option("", "debug-clock", "", "debug_clock", switch(debug_clock=True)),
)
"""mcserver's own, unknown to memcached."""

CLUSTER_OPTIONS = (
    Option("", "zookeeper", "hosts", "zookeeper", cluster("zookeeper")),
    Option("", "cluster-path", "znode", "path", cluster("path")),
    Option("", "node-name", "name", "node_name", cluster("node_name")),
    Option("", "advertise", "addr", "advertise", cluster("advertise")),
    Option("", "zk-session-timeout", "s", "session_timeout", cluster("session_timeout", seconds)),
    Option("", "max-stale", "s", "max_stale", cluster("max_stale", seconds)),
    Option("", "on-stale", "policy", "on_stale", cluster("on_stale")),
    Option("", "ack", "level", "ack", ack),
    Option("", "ack-timeout", "s", "ack_timeout", cluster("ack_timeout", seconds)),
    Option("", "join", "policy", "join", cluster("join")),
    Option("", "hold-off", "ms", "hold_off", cluster("hold_off", integer)),
    Option("", "soft", "prefix", "soft_prefixes", prefixes("soft_prefixes")),
    Option("", "refresh", "prefix", "refresh_prefixes", prefixes("refresh_prefixes")),
    Option("", "refresh-every", "s", "refresh_every", cluster("refresh_every", seconds)),
    Option("", "broadcast-writes", "prefix", "broadcast_writes", prefixes("broadcast_writes")),
    Option("", "lock-writes", "prefix", "lock_writes", prefixes("lock_writes")),
    Option(
        "",
        "zk-auth-file",
        "file",
        "credentials",
        auth_file,
        "file with one line, user:password, for ZooKeeper (default: the environment's MCSERVER_ZK_AUTH)",
    ),
    Option("", "zk-writes", "num", "zk_writes", cluster("zk_writes", integer)),
    Option("", "zk-acl", "who", "zk_acl", cluster("zk_acl")),
    Option("", "disable-cluster-leave", "", "leave_enabled", cluster("leave_enabled", off), "refuse `cluster leave`"),
    Option(
        "",
        "disable-cluster-refresh",
        "",
        "refresh_enabled",
        cluster("refresh_enabled", off),
        "refuse `cluster refresh`",
    ),
    Option("", "zk-ca", "file", "tls_ca", cluster("tls_ca", file_name)),
    Option("", "zk-cert", "file", "tls_certificate", cluster("tls_certificate", file_name)),
    Option("", "zk-key", "file", "tls_key", cluster("tls_key", file_name)),
)


def sub(name: str, metavar: str = "num", missing: str = "Missing {} argument") -> Suboption:
    """A suboption that sets the integer setting of its own name."""
    return Suboption(name, metavar, name, number(name), "", missing.format(name))


MISSING_NUMBER = "Missing numeric argument for {}"
NONE = Effect.ACCEPTED

SUBOPTIONS = (
    Suboption("maxconns_fast", "", "maxconns_fast", switch(maxconns_fast=True)),
    Suboption("no_maxconns_fast", "", "", switch(maxconns_fast=False), "let connections over the limit wait"),
    Suboption("hashpower", "num", "hashpower_init", number("hashpower_init"), "", MISSING_NUMBER.format("hashpower")),
    Suboption("no_hashexpand", "", "", nothing, "the index always grows", "", NONE),
    sub("idle_timeout", "s", MISSING_NUMBER),
    sub("tail_repair_time", "s", MISSING_NUMBER),
    Suboption(
        "hash_algorithm", "name", "hash_algorithm", text("hash_algorithm"), "", "Missing hash_algorithm argument"
    ),
    Suboption("lru_crawler", "", "lru_crawler", switch(lru_crawler=True)),
    Suboption("no_lru_crawler", "", "", switch(lru_crawler=False), "free expired items only when they are met"),
    sub("lru_crawler_sleep", "us", "Missing {} value"),
    sub("lru_crawler_tocrawl", "num", "Missing {} value"),
    Suboption("lru_maintainer", "", "lru_maintainer_thread", switch(lru_maintainer_thread=True, lru_segmented=True)),
    Suboption(
        "no_lru_maintainer",
        "",
        "",
        switch(lru_maintainer_thread=False, lru_segmented=False),
        "one flat LRU for each class",
    ),
    sub("hot_lru_pct", "pct"),
    sub("warm_lru_pct", "pct"),
    Suboption(
        "hot_max_factor", "num", "hot_max_factor", fraction("hot_max_factor"), "", "Missing hot_max_factor argument"
    ),
    Suboption(
        "warm_max_factor", "num", "warm_max_factor", fraction("warm_max_factor"), "", "Missing warm_max_factor argument"
    ),
    Suboption("temporary_ttl", "s", "temporary_ttl", temporary_ttl, "", "Missing temporary_ttl argument"),
    Suboption("slab_reassign", "", "slab_reassign", switch(slab_reassign=True)),
    Suboption("no_slab_reassign", "", "", switch(slab_reassign=False), "keep pages in their slab class"),
    Suboption("slab_automove", "0..2", "slab_automove", slab_automove),
    Suboption("no_slab_automove", "", "", switch(slab_automove=0), "same as slab_automove=0"),
    Suboption(
        "slab_automove_ratio",
        "num",
        "slab_automove_ratio",
        fraction("slab_automove_ratio"),
        "",
        "Missing slab_automove_ratio argument",
    ),
    sub("slab_automove_window"),
    Suboption("slab_sizes", "a-b-c", "slab_sizes", slab_sizes, "", "Missing slab_sizes argument"),
    Suboption("slab_chunk_max", "KiB", "slab_chunk_max", slab_chunk_max, "", "Missing slab_chunk_max argument"),
    Suboption("no_chunked_items", "", "", switch(slab_chunk_max=PAGE), "same as slab_chunk_max=1024"),
    Suboption("room_for", "requests|bytes", "room_for", text("room_for"), "", "Missing room_for argument"),
    Suboption("track_sizes", "", "track_sizes", switch(track_sizes=True)),
    Suboption(
        "watcher_logbuf_size",
        "KiB",
        "watcher_logbuf_size",
        number("watcher_logbuf_size", 1024),
        "",
        "Missing watcher_logbuf_size argument",
    ),
    Suboption(
        "worker_logbuf_size",
        "KiB",
        "worker_logbuf_size",
        number("worker_logbuf_size", 1024),
        "",
        "Missing worker_logbuf_size argument",
    ),
    Suboption(
        "read_buf_mem_limit",
        "MiB",
        "read_buf_mem_limit",
        number("read_buf_mem_limit", MEBIBYTE),
        "",
        "Missing read_buf_mem_limit argument",
    ),
    Suboption(
        "ssl_chain_cert", "file", "ssl_chain_cert", path("ssl_chain_cert"), "", "Missing ssl_chain_cert argument"
    ),
    Suboption("ssl_key", "file", "ssl_key", path("ssl_key"), "", "Missing ssl_key argument"),
    sub("ssl_verify_mode", "0..3"),
    Suboption("ssl_keyformat", "num", "ssl_keyformat", key_format, "", "Missing ssl_keyformat argument"),
    Suboption("ssl_ciphers", "list", "ssl_ciphers", text("ssl_ciphers"), "", "Missing ssl_ciphers argument"),
    Suboption("ssl_ca_cert", "file", "ssl_ca_cert", path("ssl_ca_cert"), "", "Missing ssl_ca_cert argument"),
    Suboption(
        "ssl_wbuf_size", "KiB", "ssl_wbuf_size", number("ssl_wbuf_size", 1024), "", "Missing ssl_wbuf_size argument"
    ),
    Suboption("ssl_session_cache", "", "ssl_session_cache", switch(ssl_session_cache=True)),
    Suboption("ssl_kernel_tls", "", "ssl_kernel_tls", switch(ssl_kernel_tls=True)),
    sub("ssl_min_version", "0..3"),
    sub("ssl_handshake_timeout", "s"),
    Suboption("resp_obj_mem_limit", "num", "", nothing, "there are no such objects", "", NONE),
    Suboption("inline_ascii_resp", "", "", nothing, "nothing, as in memcached", "", NONE),
    Suboption("no_inline_ascii_resp", "", "", nothing, "nothing, as in memcached", "", NONE),
    Suboption("modern", "", "", nothing, "nothing, as in memcached: these are the defaults", "", NONE),
    Suboption("no_modern", "", "", no_modern, "the defaults of memcached 1.4"),
    Suboption("drop_privileges", "", "", nothing, "no system calls are barred", "", NONE),
    Suboption("no_drop_privileges", "", "", nothing, "no system calls are barred", "", NONE),
    Suboption("relaxed_privileges", "", "", nothing, "no system calls are barred", "", NONE),
    Suboption("sock_cookie_id", "num", "", nothing, "sockets are not marked", "Missing sock_cookie_id argument", NONE),
)

REFUSED_SUBOPTIONS = {
    "ext_": "external storage is not built",
    "slab_automove_freeratio": "external storage is not built",
    "proxy_": "the proxy is not built",
}
"""By the beginning of their names; memcached without these parts calls them illegal, and exits with 1."""


def effect_of(option: Option | Suboption) -> Effect:
    """The worst of the option's own effect and that of its setting."""
    own = KNOWN[option.setting][1].effect if option.setting in KNOWN else Effect.REAL
    return option.effect if option.effect is not Effect.REAL else own


def note_effect(draft: Draft, option: Option | Suboption, written: str) -> None:
    """Nothing is accepted and silently without effect."""
    if effect_of(option) is Effect.ACCEPTED:
        draft.warn(f"{written} is accepted, but has no effect here")


def check_named(kind: type, settings: Mapping[str, object]) -> None:
    """Raises ConfigError for a value that was asked for and can't be, even where it is the default: `-N 0`."""
    known = rules(kind)
    for name in settings.keys() & known.keys():
        check_value(known[name][1], settings[name])


def refuse_suboption(name: str, word: str = "") -> None:
    """Raises ConfigError (1) for a suboption of memcached that is not built."""
    for prefix, why in REFUSED_SUBOPTIONS.items():
        if name.startswith(prefix):
            raise ConfigError(f'Illegal suboption "{word or name}": {why}', EX_FAILURE)
