"""Every setting, once: default, unit, meaning, what is valid, and how much of it mcserver does. It reads nothing itself.

A `Config` that exists is valid. Names are those of memcached's `stats settings`, where it has one.
"""

from __future__ import annotations

from enum import Enum
from os import EX_OSERR, EX_USAGE
from typing import Any, NamedTuple

from mcserver.settings.cluster import ClusterConfig
from mcserver.settings.rules import (
    ConfigError,
    Effect,
    Settings,
    check_rules,
    is_port,
    rules,
    setting,
)

MEBIBYTE = 1 << 20
PAGE = MEBIBYTE
"""A slab page, in bytes; chunks divide it."""
MEMORY_LEAST, MEMORY_MOST = 2, 262143
"""MiB that the core takes: an item has a number of 32 bits."""


class Secure(Enum):
    """What an address of `-l` asks of its clients where there is TLS, by its prefix."""

    DEFAULT = ""
    NONE = "notls"
    BASIC = "btls"
    MUTUAL = "mtls"


SPOKEN = {"ascii": "ascii", "binary": "binary", "negotiating": "auto-negotiate"}
"""What stands in `proto[...]:`, and in -B."""


class Listener(NamedTuple):
    """One address of `-l`. `host` None: every interface. `port` None: the port of `-p`."""

    host: str | None
    port: int | None
    tag: str = ""
    secure: Secure = Secure.DEFAULT
    speaks: str | None = None
    """`proto[...]:` in -B's words; None: as -B says."""


def parse_listeners(inter: str) -> tuple[Listener, ...]:
    """`host[:port]`, `[v6]:port`, `v6` or `*`, separated by `,` or `;`, each behind its prefixes (memcached.c: server_sockets).

    Raises ConfigError with status 71, memcached's for an address that can't be listened on.
    """
    return tuple(parse_listener(text) for text in inter.replace(";", ",").split(",") if text)


def parse_listener(text: str) -> Listener:
    """One address with its prefixes."""
    rest, tag, secure, speaks = text, "", Secure.DEFAULT, None
    for prefix in (Secure.NONE, Secure.BASIC, Secure.MUTUAL):
        if rest.startswith(prefix.value + ":"):
            rest, secure = rest.removeprefix(prefix.value + ":"), prefix
            break
    if rest.startswith("proto["):
        protocol, bracket, rest = rest.removeprefix("proto[").partition("]:")
        if not bracket or protocol not in SPOKEN:
            raise ConfigError(f'Invalid protocol in "{text}": write proto[ascii]:, [binary] or [negotiating]', EX_OSERR)
        speaks = SPOKEN[protocol]
    if rest.startswith("tag["):
        tag, bracket, rest = rest.removeprefix("tag[").partition("]:")
        if not bracket or not 1 <= len(tag) <= 8:
            raise ConfigError(
                f'Listener tags must be between 1 and 8 characters, as in tag[name]:host: "{text}"', EX_OSERR
            )
    host, colon, port = rest, "", ""
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        if not bracket or port[:1] not in ("", ":"):
            raise ConfigError(f'Invalid IPV6 address: "{text}": write it as [::1] or [::1]:11211', EX_OSERR)
        colon, port = port[:1], port[1:]
    elif rest.count(":") == 1:
        host, colon, port = rest.partition(":")
    if colon and not is_port(port):
        raise ConfigError(f'Invalid port number: "{port}" in -l {text}: it must be from 0 to 65535', EX_OSERR)
    if not host:  # `-l "$ADDRESS:11211"` without such a variable is not every interface
        raise ConfigError(f'There is no address in -l "{text}": write * for every interface', EX_OSERR)
    return Listener(None if host == "*" else host, int(port) if colon else None, tag, secure, speaks)


def is_host_port(address: str) -> bool:
    """HOST:PORT, with an IPv6 address in brackets."""
    host, colon, port = address.rpartition(":")
    plain = ":" not in host or (host.startswith("[") and host.endswith("]"))
    return bool(host and colon and plain) and is_port(port)


def below_80(percent: int) -> bool:
    return 1 <= percent < 80


class Config(Settings):
    """Sizes are bytes, times seconds. Tests make one by hand: `Config(tcpport=0, inter="127.0.0.1")`."""

    # Listening
    tcpport: int = setting(
        11211,
        "TCP port to listen on; 0: none, -1: any that is free",
        lambda port: -1 <= port <= 65535,
        "ERROR: Invalid port number {}. It must be from -1 (any that is free) to 65535.",
        status=EX_USAGE,
    )
    udpport: int = setting(
        0,
        "UDP port to listen on; 0: none, -1: any that is free",
        lambda port: -1 <= port <= 65535,
        "ERROR: Invalid port number {}. It must be from -1 (any that is free) to 65535.",
        status=EX_USAGE,
    )
    inter: str | None = setting(
        None,
        "address to listen on, host[:port], [v6]:port or *; several: repeated, or separated by commas (default: all interfaces)",
    )
    domain_socket: str | None = setting(None, "Unix socket to listen on, instead of TCP")
    umask: int = setting(
        0o700,
        "mode of the Unix socket, in octal",
        lambda mode: 0 <= mode <= 0o7777,
        "-a must be a mode in octal, such as 700",
    )
    maxconns: int = setting(
        1024,
        "most connections at once",
        lambda count: count > 0,
        "Maximum connections must be greater than 0",
        live=True,
    )
    maxconns_fast: bool = setting(
        True, "refuse connections over the limit at once, instead of letting them wait", live=True
    )
    tcp_backlog: int = setting(
        1024,
        "connections that may wait to be accepted",
        lambda count: -(1 << 31) <= count < 1 << 31,
        "-b takes a number below 2^31, not {}",
    )
    idle_timeout: int = setting(
        0,
        "seconds without a command after which a TCP connection is closed; 0: never",
        lambda s: 0 <= s < 1 << 32,
        "idle_timeout must not be negative, and below 2^32 seconds",
        live=True,
    )
    reqs_per_event: int = setting(
        20,
        "commands of one connection after which it is asked whether its turn has lasted 0.05 ms",
        lambda count: 0 < count < 1 << 31,
        "Number of requests per event must be greater than 0, and below 2^31",
        engine="requests_per_event",
    )
    binding_protocol: str = setting("auto-negotiate", "auto: a connection's first byte says which; or ascii, or binary")
    sasl: bool = setting(False, "binary connections log in by SASL (PLAIN), as a user of the file MEMCACHED_SASL_PWDB")
    sasl_file: str | None = None
    """A file of users, one `name:password` a line (MEMCACHED_SASL_PWDB)."""
    auth_file: str | None = setting(
        None, "file of users, one `name:password` a line: text connections log in with a first `set`"
    )
    num_threads: int = setting(
        4,
        "threads that serve connections, 1 to 64; the event loop, which accepts and administers, is one more",
        lambda count: count > 0,
        "Number of threads must be greater than 0",
    )
    num_napi_ids: int = setting(
        0,
        "NAPI ids to spread threads by",
        lambda n: n > 0,
        "Maximum number of NAPI IDs must be greater than 0",
        effect=Effect.ACCEPTED,
    )
    port_file: str | None = None
    """A file to write the ports to that were really opened (MEMCACHED_PORT_FILENAME)."""

    # TLS
    ssl_enabled: bool = setting(False, "TLS on every TCP port but those with the prefix notls: in -l")
    ssl_chain_cert: str | None = setting(
        None, "PEM file with the server's certificate, and those between it and its authority"
    )
    ssl_key: str | None = setting(None, "file with the certificate's private key (default: the certificate's file)")
    ssl_verify_mode: int = setting(
        0,
        "client certificates: 0 none, 1 verified if there is one, 2 demanded, 3 as 2",
        lambda mode: 0 <= mode <= 3,
        "Invalid ssl_verify_mode. It must be from 0 to 3.",
    )
    ssl_keyformat: int = setting(
        1,
        "the key's format: 1 PEM, 2 DER",
        lambda kind: kind in (1, 2),
        "ssl_keyformat must be 1 (PEM) or 2 (DER): keys in an engine are not read",
    )
    ssl_ciphers: str | None = setting(None, "ciphers of TLS 1.2 and before, as OpenSSL's list (default: OpenSSL's own)")
    ssl_ca_cert: str | None = setting(None, "PEM file of the authorities that may have signed a client's certificate")
    ssl_wbuf_size: int = setting(
        16 << 10,
        "a thread encrypts up to eight times this, in KiB, before it sends; below 16 it is the largest record, too",
        lambda size: 1 << 10 <= size <= 16 << 20,
        "ssl_wbuf_size must be from 1 to 16384 KiB",
    )
    ssl_session_cache: bool = setting(
        False, "keep sessions for clients that resume without tickets, and count ssl_new_sessions"
    )
    ssl_kernel_tls: bool = setting(False, "let the kernel encrypt, where it can")
    ssl_min_version: int = setting(
        2,
        "oldest version: 0 TLS 1.0, 1 TLS 1.1, 2 TLS 1.2, 3 TLS 1.3",
        lambda version: 0 <= version <= 3,
        "Invalid ssl_min_version. It must be from 0 to 3.",
    )
    ssl_handshake_timeout: int = setting(
        10,
        "seconds that a client has to complete its handshake",
        lambda s: 1 <= s <= 3600,
        "ssl_handshake_timeout must be from 1 to 3600 seconds",
    )

    # Memory
    maxbytes: int = setting(
        64 * MEBIBYTE,
        f"memory for items; from {MEMORY_LEAST} to {MEMORY_MOST}",
        engine="memory_limit",
        live=True,
    )
    evictions: bool = setting(
        True, "make room by evicting; off: stores are refused when memory is full", engine="evictions"
    )
    item_size_max: int = setting(
        MEBIBYTE,
        "largest item, header and key included; k or m may follow; from 1k to 1024m and half of the memory",
        engine="item_size_max",
    )
    growth_factor: float = setting(
        1.25,
        "ratio of a slab class's chunk size to the one before",
        lambda factor: factor > 1,
        "Factor must be greater than 1",
        engine="growth_factor",
    )
    chunk_size: int = setting(
        48,
        "bytes for key, value and flags in the smallest slab class",
        lambda size: size > 0,
        "Chunk size must be greater than 0",
        engine="chunk_size",
    )
    slab_sizes: tuple[int, ...] | None = setting(
        None, "chunk sizes of the slab classes, separated by '-', instead of those of -f and -n", engine="slab_sizes"
    )
    slab_chunk_max: int = setting(
        512 << 10,
        "largest chunk, in KiB (above 1024: in bytes); larger items are kept in several",
        lambda size: size > 0,
        "slab_chunk_max must be from 1 to 1024 KiB",
        engine="slab_chunk_max",
    )
    slab_reassign: bool = setting(True, "let pages move between slab classes", live=True)
    slab_automove: int = setting(
        1,
        "move pages to classes that evict: 0 off, 1 on, 2 at once",
        lambda mode: 0 <= mode <= 2,
        "slab_automove must be between 0 and 2",
        live=True,
    )
    slab_automove_ratio: float = setting(
        0.8,
        "shown in stats; pages move by age alone",
        lambda ratio: 0 < ratio <= 1,
        "slab_automove_ratio must be > 0 and < 1",
        effect=Effect.ACCEPTED,
    )
    slab_automove_window: int = setting(
        10, "shown in stats", lambda seconds: seconds > 2, "slab_automove_window must be > 2", effect=Effect.ACCEPTED
    )
    cas_enabled: bool = setting(True, "keep a CAS unique with each item", engine="cas")
    hashpower_init: int = setting(
        0,
        "size of the index at start, as a power of two; it grows by itself",
        lambda power: 12 <= power <= 32,
        "hashpower of {} is too low or too high: it must be from 12 to 32 (see STAT hash_power_level)",
        engine="hashpower_init",
    )
    hash_algorithm: str = setting(
        "murmur3",
        "jenkins, murmur3 or xxh3, shown in stats; the index has one keyed hash",
        error="Unknown hash_algorithm option (jenkins, murmur3, xxh3)",
        choices=("jenkins", "murmur3", "xxh3"),
        effect=Effect.ACCEPTED,
    )
    tail_repair_time: int = setting(
        0,
        "seconds after which a stuck item is freed; none gets stuck here",
        lambda seconds: seconds >= 10,
        "Cannot set tail_repair_time to less than 10 seconds",
        effect=Effect.ACCEPTED,
    )
    track_sizes: bool = setting(False, "keep the histogram of `stats sizes`", engine="track_sizes")
    memory_file: str | None = setting(
        None, "keep items in this file, on a tmpfs: the next start serves them after SIGUSR1 or `shutdown graceful`"
    )
    large_pages: bool = setting(False, "use large memory pages", effect=Effect.ACCEPTED)
    lock_memory: bool = setting(False, "lock all memory against swapping")

    room_for: str = setting(
        "requests",
        "what memory goes to when sizes differ: requests (as many hits as possible) or bytes (as many of the bytes asked for)",
        error="room_for must be requests or bytes",
        choices=("requests", "bytes"),
        engine="room_for",
    )

    # LRU
    lru_maintainer_thread: bool = setting(
        True, "keep the LRU in order in the background; off: one flat LRU for each class", engine="maintained"
    )
    lru_segmented: bool = setting(True, "hot, warm and cold LRU")
    hot_lru_pct: int = setting(
        20,
        "new items (the hot LRU) have half of this percentage of a class's memory",
        below_80,
        "hot_lru_pct must be > 1 and < 80",
        engine="hot_lru_pct",
        live=True,
    )
    warm_lru_pct: int = setting(
        40,
        "shown in stats",
        below_80,
        "warm_lru_pct must be > 1 and < 80",
        effect=Effect.ACCEPTED,
        engine="warm_lru_pct",
    )
    hot_max_factor: float = setting(
        0.2,
        "shown in stats",
        lambda f: f > 0,
        "hot_max_factor must be > 0",
        effect=Effect.ACCEPTED,
        engine="hot_max_factor",
    )
    warm_max_factor: float = setting(
        2.0,
        "shown in stats",
        lambda f: f > 0,
        "warm_max_factor must be > 0",
        effect=Effect.ACCEPTED,
        engine="warm_max_factor",
    )
    temp_lru: bool = setting(False, "a separate LRU for items of a short time to live", live=True)
    temporary_ttl: int = setting(
        61, "items with fewer seconds to live than this are kept apart and evicted last", live=True
    )
    lru_crawler: bool = setting(True, "free expired items in the background", live=True)
    lru_crawler_sleep: int = setting(
        100,
        "microseconds between items, shown in stats; it works in slices of about a millisecond",
        lambda us: 0 <= us <= 1_000_000,
        "LRU crawler sleep must be between 0 and 1 second",
        effect=Effect.ACCEPTED,
    )
    lru_crawler_tocrawl: int = setting(
        0,
        "most items of a class that one pass looks at; 0: all",
        lambda count: 0 <= count < 1 << 32,
        "lru_crawler_tocrawl takes a numeric 32bit value",
        live=True,
    )

    # Commands
    verbosity: int = setting(0, "say what happens on stderr; -vv also every command and reply", live=True)
    shutdown_command: bool = setting(False, "allow the `shutdown` command", live=True)
    flush_enabled: bool = setting(True, "allow `flush_all`", engine="flush_enabled")
    dump_enabled: bool = setting(
        True, "allow `stats cachedump`, `stats detail`, `lru_crawler metadump` and `mgdump`", live=True
    )
    watch_enabled: bool = setting(True, "allow `watch`", live=True)
    stat_key_prefix: bytes = setting(
        b":",
        "the character that ends a key's prefix in `stats detail`; turns the collection on",
        lambda c: len(c) == 1,
        "No delimiter specified",
        engine="prefix_delimiter",
    )
    detail_enabled: bool = setting(False, "collect `stats detail` from the start")
    watcher_logbuf_size: int = setting(
        256 << 10,
        "buffer of a watcher, in KiB",
        lambda size: 0 < size <= 1 << 40,
        "could not parse argument to watcher_logbuf_size: it takes KiB, at least 1",
    )
    worker_logbuf_size: int = setting(
        64 << 10,
        "a thread's share of the buffer between the threads and the watchers, in KiB",
        lambda size: 0 < size <= 1 << 40,
        "could not parse argument to worker_logbuf_size: it takes KiB, at least 1",
    )
    read_buf_mem_limit: int = setting(
        0,
        "what lines that have no end yet may take together; 0: 64 MiB",
        lambda size: size >= 0,
        "could not parse argument to read_buf_mem_limit: it takes MiB, or 0 for 64",
    )

    # Process
    user: str | None = setting(None, "user to run as; needed when started as root")
    daemonize: bool = setting(False, "run as a daemon")
    pid_file: str | None = setting(None, "file to write the process id to")
    core_dumps: bool = setting(False, "allow the largest core files")

    # mcserver's own
    loop: str = setting(
        "uvloop",
        "event loop: uvloop or asyncio",
        error="--loop takes uvloop or asyncio, not '{}'",
        choices=("uvloop", "asyncio"),
        status=EX_USAGE,
    )
    log_json: bool = setting(False, "log one JSON object a line")
    metrics: str = setting(
        "",
        "HOST:PORT for HTTP: /metrics for Prometheus, /healthz, /readyz, and a page at /; whoever reaches it reads all figures",
        is_host_port,
        "--metrics takes HOST:PORT, such as 127.0.0.1:9150, a port from 0 to 65535, an IPv6 address in [], not '{}'",
        status=EX_USAGE,
    )
    metrics_names: tuple[str, ...] = setting(
        (), "a further name by which browsers and scrapers may ask for --metrics; repeatable"
    )
    take_over: str | None = setting(
        None,
        "Unix socket at which the next process, started with this option too, gets sockets and memory; this one ends then",
    )
    ephemeral: bool = setting(
        False,
        "for tests: any free port of 127.0.0.1 unless -p or -l say otherwise, one line of JSON with address and pid on stdout, "
        "and the end when stdin closes",
    )
    debug_clock: bool = setting(False, "allow the `debugtime` command, which moves the clock; for tests only")
    cluster: ClusterConfig | None = None
    config_file: str | None = setting(
        None, "TOML file with options by their long names; the command line goes before it"
    )
    warnings: tuple[str, ...] = ()
    """What the command line asked for in vain; the server logs it at start."""

    def __post_init__(self) -> None:
        for option, path in (("-s", self.domain_socket), ("--take-over", self.take_over)):
            if path is not None and (
                not path or "\0" in path
            ):  # the system would take a name that no file's rights guard
                raise ConfigError(f"{option} takes the path of a Unix socket, not {path!r}")
        check_rules(self)
        self.check_sizes()
        if self.hot_lru_pct + self.warm_lru_pct > 80:
            raise ConfigError("hot_lru_pct + warm_lru_pct cannot be more than 80% combined")
        if self.temp_lru and not self.lru_maintainer_thread:
            raise ConfigError(
                "temporary_ttl requires lru_maintainer to be enabled: remove no_lru_maintainer or temporary_ttl"
            )
        if self.num_threads > 64:
            raise ConfigError("Number of threads can be at most 64: lower -t.")
        if self.ephemeral and self.daemonize:
            raise ConfigError("--ephemeral ends with who started it, and -d parts from him: remove one of them")
        if self.metrics_names and not self.metrics:
            raise ConfigError("--metrics-name needs --metrics HOST:PORT")
        if self.num_napi_ids > self.num_threads:
            raise ConfigError(
                f"Number of napi_ids({self.num_napi_ids}) cannot be greater than number of threads({self.num_threads})"
            )
        self.check_logins()
        self.check_tls()

    def check_logins(self) -> None:
        """A login belongs to one protocol: the other must not be a way around it."""
        if self.sasl and self.binding_protocol != "binary":
            raise ConfigError("You cannot allow the ASCII protocol while using SASL: remove -S, or write -B binary")
        if self.sasl and not self.sasl_file:
            raise ConfigError("-S needs users: set MEMCACHED_SASL_PWDB to a file with a line name:password for each")
        if self.sasl and self.udpport:
            raise ConfigError("ERROR: Cannot enable UDP while using binary SASL authentication.")
        if self.auth_file is not None and self.udpport:
            raise ConfigError("Cannot use UDP with ascii authentication enabled (-U 0 to disable)")
        if self.auth_file is not None and self.binding_protocol != "ascii":
            raise ConfigError(
                "You cannot allow the BINARY protocol while using ascii authentication tokens: remove -Y, or write -B ascii"
            )
        spoken = {each.speaks for each in self.listeners()}
        if self.sasl and "ascii" in spoken:
            raise ConfigError(
                "You cannot allow the ASCII protocol while using SASL: write proto[binary]: in -l, or nothing"
            )
        if self.auth_file is not None and "binary" in spoken:
            raise ConfigError(
                "You cannot allow the BINARY protocol while using ascii authentication tokens: write proto[ascii]: in -l",
                EX_OSERR,
            )

    def check_tls(self) -> None:
        """What can be said before a file is read (tls.py reads them)."""
        listeners = self.listeners()
        if self.ssl_enabled:
            if self.tcpport == 0 and not any(each.port for each in listeners):
                raise ConfigError("ERROR: You cannot enable SSL without a TCP port: remove -Z, or give one with -p")
            if self.ssl_chain_cert is None:
                raise ConfigError(
                    "-Z needs a certificate: name its file with -o ssl_chain_cert=FILE, and its key's with ssl_key=FILE"
                )
            return
        for each in listeners:
            if each.secure is not Secure.DEFAULT:
                raise ConfigError(
                    f"'{each.secure.value}' option is valid only when SSL is enabled: add -Z, or remove it from -l",
                    EX_OSERR,
                )

    def check_sizes(self) -> None:
        """The limits between -m, -I and the sizes of chunks; any -I within its range will do, unlike memcached."""
        if self.maxbytes < MEMORY_LEAST * MEBIBYTE:
            raise ConfigError(f"The memory limit must be at least {MEMORY_LEAST} megabytes: raise -m.")
        if self.maxbytes > MEMORY_MOST * MEBIBYTE:
            raise ConfigError(f"The memory limit can be at most {MEMORY_MOST} megabytes: lower -m.")
        if self.item_size_max < 1024:
            raise ConfigError("Item max size cannot be less than 1024 bytes.")
        if self.item_size_max > self.maxbytes // 2:
            raise ConfigError("Cannot set item size limit higher than 1/2 of memory max. Raise -m or lower -I.")
        if self.item_size_max > 1 << 30:
            raise ConfigError("Cannot set item size limit higher than a gigabyte.")
        if PAGE % self.slab_chunk_max:
            raise ConfigError(
                f"slab_chunk_max (bytes: {self.slab_chunk_max}) must divide evenly into {PAGE} (slab_page_size)"
            )
        smallest = 0
        for size in self.slab_sizes or ():
            if not self.chunk_size <= size <= self.slab_chunk_max:
                raise ConfigError(
                    f"slab size {size} is out of valid range ({self.chunk_size} to {self.slab_chunk_max})"
                )
            if size <= smallest:
                raise ConfigError(f"slab size {size} cannot be lower than or equal to a previous class size")
            if size <= smallest + 8:
                raise ConfigError(f"slab size {size} must be at least 8 bytes larger than previous class")
            smallest = size

    @property
    def engine_automove(self) -> int:
        """How pages move, as the engine takes it: 0 where they must not."""
        return self.slab_automove if self.slab_reassign else 0

    @property
    def engine_temporary_ttl(self) -> int:
        """Seconds to live up to which items are kept apart, as the engine takes it; -1: none are."""
        return self.temporary_ttl if self.temp_lru else -1

    def engine_arguments(self) -> dict[str, Any]:
        """What the engine is made with: the settings that are an argument of it, and what several of them say together.

        Sizes the engine knows better than a default here (what unfinished lines may take) are left out when nobody set them.
        """
        arguments = {rule.engine: getattr(self, name) for name, (_, rule) in rules(Config).items() if rule.engine}
        arguments["segmented"] = self.lru_segmented and self.lru_maintainer_thread
        arguments["temporary_ttl"] = self.engine_temporary_ttl
        arguments["protocol"] = self.binding_protocol
        arguments["log_buffer"] = self.worker_logbuf_size * self.num_threads
        if self.read_buf_mem_limit:
            arguments["read_buffers"] = self.read_buf_mem_limit
        return arguments

    def listeners(self) -> tuple[Listener, ...]:
        """The addresses of -l; without it, every interface."""
        return parse_listeners(self.inter) if self.inter is not None else (Listener(None, None),)
