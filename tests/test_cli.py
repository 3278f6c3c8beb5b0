"""The command line: read as getopt_long reads it, answered with memcached's exit codes; -h and -V stay light."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcserver import MEMCACHED_VERSION, __version__, cli
from mcserver.settings.cluster import ClusterConfig
from mcserver.settings.config import Config
from mcserver.settings.help import help_page, licence_page
from mcserver.settings.options import (
    CLUSTER_OPTIONS,
    OPTIONS,
    OWN_OPTIONS,
    SUBOPTIONS,
    Draft,
    Option,
    Suboption,
    effect_of,
)
from mcserver.settings.rules import ConfigError, Effect, rules
from tests.peer import RELEASE

ROOT = Path(__file__).parent.parent


def parsed(*arguments: str, environment: dict[str, str] | None = None) -> Config:
    config = cli.parse(arguments, environment or {})
    assert isinstance(config, Config)
    return config


def refusal(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    with pytest.raises(ConfigError) as caught:
        cli.parse(arguments, environment or {})
    return caught.value.status, str(caught.value)


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcserver", *arguments],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# Spelling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    ["-p 11212", "-p11212", "--port 11212", "--port=11212", "--po 11212", "--por=11212", "-vp11212", "-vp 11212"],
)
def test_spellings_of_a_value(arguments: str) -> None:
    assert parsed(*arguments.split()).tcpport == 11212


@pytest.mark.parametrize("value", ["1g", "2G", "1gb", "1t"])
def test_a_unit_that_the_size_of_an_item_has_not(value: str) -> None:
    status, text = refusal("-I", value)
    assert status == 64
    assert text == f"-I knows the units k and m: write 1024m for a gigabyte, not '{value}'"


def test_bundled_flags() -> None:
    config = parsed("-vvAMCk")
    assert (config.verbosity, config.shutdown_command, config.evictions, config.cas_enabled) == (2, True, False, False)


def test_a_value_may_look_like_an_option_or_be_empty() -> None:
    assert parsed("-u", "-v").user == "-v"
    assert parsed("--user=").user == ""


def test_verbose_adds_up_and_its_long_form_takes_a_useless_value() -> None:
    assert parsed("-v", "--verbose", "--verbose=9", "-vv").verbosity == 5


def test_the_last_value_counts() -> None:
    assert parsed("-m64", "-m", "128", "-u", "root", "-u", "nobody") == parsed("-m128", "-unobody")


def test_options_may_follow_other_words_which_are_named_in_a_warning() -> None:
    config = parsed("start", "-p", "1", "now", "--", "-p2")
    assert config.tcpport == 1
    assert [warning.split("'")[1] for warning in config.warnings] == ["start", "now", "-p2"]


def test_abbreviations_of_memcacheds_names_are_not_disturbed_by_our_own() -> None:
    assert parsed("--lo").lock_memory  # --lock-memory in memcached; --loop, --log-json and --lock-writes here
    assert parsed("--log").log_json


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-z"], "invalid option -- 'z'"),
        (["-v3"], "invalid option -- '3'"),
        (["--frobnicate"], "unrecognized option '--frobnicate'"),
        (["--p=1"], "option '--p' is ambiguous; possibilities: '--port' '--pidfile' '--protocol'"),
        (["-p"], "option requires an argument -- 'p'"),
        (["--port"], "option '--port' requires an argument"),
        (["--version=3"], "option '--version' doesn't allow an argument"),
    ],
)
def test_misspellings_end_with_1(arguments: list[str], text: str) -> None:
    status, message = refusal(*arguments)
    assert status == 1
    assert text in message


# Options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ("-p 0", {"tcpport": 0}),
        ("-p -1", {"tcpport": -1}),
        ("-U 0", {"udpport": 0, "tcpport": 11211}),
        ("-s /tmp/s -a 666", {"domain_socket": "/tmp/s", "umask": 0o666}),
        ("-l 127.0.0.1 -l ::1,h:1", {"inter": "127.0.0.1,::1,h:1"}),
        ("-l a -l a", {"inter": "a"}),
        ("-A", {"shutdown_command": True}),
        ("-d -P /run/pid -u nobody -r", {"daemonize": True, "pid_file": "/run/pid", "user": "nobody", "core_dumps": True}),
        ("-m 1024", {"maxbytes": 1 << 30}),
        ("-M -C -F -X -W", {"evictions": False, "cas_enabled": False, "flush_enabled": False, "dump_enabled": False}),
        ("-W", {"watch_enabled": False}),
        ("-c 10 -b 5 -R 7 -t 8", {"maxconns": 10, "tcp_backlog": 5, "reqs_per_event": 7, "num_threads": 8}),
        ("-f 1.08 -n 72", {"growth_factor": 1.08, "chunk_size": 72}),
        ("-I 2m", {"item_size_max": 2 << 20}),
        ("-I 512K", {"item_size_max": 512 << 10}),
        ("-I 2048", {"item_size_max": 2048}),
        ("-D |", {"stat_key_prefix": b"|", "detail_enabled": True}),
        ("-D ab", {"stat_key_prefix": b"a"}),
        ("-B auto", {"binding_protocol": "auto-negotiate"}),
        ("-B ascii", {"binding_protocol": "ascii"}),
        ("-k -L -N 4", {"lock_memory": True, "large_pages": True, "num_napi_ids": 4}),
        ("--disable-evictions --enable-sh --max-item-size=3m", {"evictions": False, "item_size_max": 3 << 20}),
        ("--loop asyncio --log-json --debug-clock", {"loop": "asyncio", "log_json": True, "debug_clock": True}),
        ("-o maxconns_fast", {"maxconns_fast": True}),
        ("-o no_maxconns_fast", {"maxconns_fast": False}),
        ("-o hashpower=20,idle_timeout=10", {"hashpower_init": 20, "idle_timeout": 10}),
        ("-o idle_timeout=10 -o idle_timeout=5,track_sizes", {"idle_timeout": 5, "track_sizes": True}),
        ("-o tail_repair_time=10,hash_algorithm=xxh3", {"tail_repair_time": 10, "hash_algorithm": "xxh3"}),
        ("-o no_lru_crawler", {"lru_crawler": False}),
        ("-o no_lru_crawler,lru_crawler", {"lru_crawler": True}),
        ("-o lru_crawler_sleep=0,lru_crawler_tocrawl=5", {"lru_crawler_sleep": 0, "lru_crawler_tocrawl": 5}),
        ("-o no_lru_maintainer", {"lru_maintainer_thread": False, "lru_segmented": False}),
        ("-o hot_lru_pct=10,warm_lru_pct=70", {"hot_lru_pct": 10, "warm_lru_pct": 70}),
        ("-o hot_max_factor=0.5,warm_max_factor=3", {"hot_max_factor": 0.5, "warm_max_factor": 3.0}),
        ("-o temporary_ttl=30", {"temp_lru": True, "temporary_ttl": 30}),
        ("-o slab_reassign,no_slab_reassign", {"slab_reassign": False}),
        ("-o slab_automove=2", {"slab_automove": 2}),
        ("-o slab_automove=2,slab_automove", {"slab_automove": 1}),
        ("-o no_slab_automove", {"slab_automove": 0}),
        ("-o slab_automove_ratio=0.5,slab_automove_window=30", {"slab_automove_ratio": 0.5, "slab_automove_window": 30}),
        ("-o slab_sizes=100-200-400", {"slab_sizes": (100, 200, 400)}),
        ("-o slab_chunk_max=16", {"slab_chunk_max": 16 << 10}),
        ("-o slab_chunk_max=1024", {"slab_chunk_max": 1 << 20}),
        ("-o slab_chunk_max=16384", {"slab_chunk_max": 16 << 10}),
        ("-o no_chunked_items", {"slab_chunk_max": 1 << 20}),
        ("-o watcher_logbuf_size=128,worker_logbuf_size=32", {"watcher_logbuf_size": 131072, "worker_logbuf_size": 32768}),
        ("-o read_buf_mem_limit=100", {"read_buf_mem_limit": 100 << 20}),
        ("-o modern,inline_ascii_resp,drop_privileges,no_drop_privileges,no_hashexpand,", {"slab_reassign": True}),
        ("-o no_modern", {"slab_chunk_max": 1 << 20, "slab_automove": 0, "maxconns_fast": False, "lru_crawler": False}),
        ("-o slab_chunk_max=256,no_modern,lru_crawler", {"slab_chunk_max": 256 << 10, "lru_crawler": True}),
    ],
)  # fmt: skip
def test_options_change_their_settings(arguments: str, settings: dict[str, object]) -> None:
    config = parsed(*arguments.split())
    assert {name: getattr(config, name) for name in settings} == settings


def test_an_empty_list_of_suboptions_is_nothing() -> None:
    assert parsed("-o", "") == parsed()


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ("-S", 64, "set MEMCACHED_SASL_PWDB"),
        ("-S -B ascii", 64, "You cannot allow the ASCII protocol while using SASL"),
        ("-S -B auto", 64, "You cannot allow the ASCII protocol while using SASL"),
        ("-Z", 64, "-Z needs a certificate"),
        ("-Z -p 0", 64, "ERROR: You cannot enable SSL without a TCP port"),
        ("-Y /etc/hosts -B binary", 64, "You cannot allow the BINARY protocol while using ascii authentication tokens"),
        ("-U 65536", 64, "Invalid port number 65536"),
        ("-Y /etc/hosts -U 11211", 64, "Cannot use UDP with ascii authentication enabled"),
        ("-B foo", 64, "should be one of auto, binary, or ascii"),
        ("-o ssl_keyformat=7", 1, "ssl_keyformat must be 1 (PEM) or 2 (DER)"),
        ("-o ssl_wbuf_size=0", 1, "ssl_wbuf_size must be from 1 to 16384 KiB"),
        ("-o ssl_handshake_timeout=0", 1, "ssl_handshake_timeout must be from 1 to 3600 seconds"),
        ("-o ext_path=/x:1m", 1, 'Illegal suboption "ext_path=/x:1m": external storage is not built'),
        ("-o proxy_config=/x", 1, 'Illegal suboption "proxy_config=/x": the proxy is not built'),
        ("-o maxconns_fast,,", 1, 'Illegal suboption ""'),
        ("-p x", 1, "-p takes a number, not 'x'"),
        ("-m x", 1, "-m takes a number, not 'x'"),
        ("--threads=x", 1, "--threads takes a number, not 'x'"),
        ("-f x", 1, "-f takes a number, not 'x'"),
        ("-f nan", 1, "-f takes a number, not 'nan'"),
        ("-f inf", 1, "-f takes a number, not 'inf'"),
        ("-a 888", 1, "-a takes a mode in octal"),
        ("-o slab_sizes=1-x", 64, "slab_sizes takes sizes in bytes"),
        ("-o watcher_logbuf_size=0", 1, "watcher_logbuf_size: it takes KiB, at least 1"),
        ("--zookeeper a:1 --ack x=foo", 64, "or PREFIX=applied, not 'x=foo'"),
    ],
)
def test_what_is_not_built_and_what_is_no_number_stops_at_start(arguments: str, status: int, text: str) -> None:
    assert refusal(*arguments.split())[0] == status
    assert text in refusal(*arguments.split())[1]


def test_a_number_with_something_after_it_is_taken_as_atoi_does_and_said() -> None:
    config = parsed("-m", "1024MB")
    assert config.maxbytes == 1 << 30
    assert config.warnings == ("-m 1024MB: 'MB' is left out, the value is 1024",)


def test_a_value_where_none_is_taken_is_said() -> None:
    """memcached's getsubopt leaves it out without a word: `lru_crawler=0` turns it on."""
    config = parsed("-o", "lru_crawler=0,no_maxconns_fast", "-D", "ab")
    assert (config.lru_crawler, config.maxconns_fast, config.stat_key_prefix) == (True, False, b"a")
    assert config.warnings == (
        "-o lru_crawler=0: '=0' is left out, lru_crawler takes no value",
        "-D ab: 'b' is left out, the first character alone counts",
    )


def test_what_is_written_nearly_right_is_guessed() -> None:
    assert refusal("--conn-limmit", "5") == (1, "unrecognized option '--conn-limmit': did you mean --conn-limit?")
    assert refusal("--frobnicate") == (1, "unrecognized option '--frobnicate': see mcserver -h")
    assert refusal("-o", "idle_timout=5") == (1, 'Illegal suboption "idle_timout=5": did you mean idle_timeout?')
    assert parsed("pingg", "other").warnings == (
        "'pingg' is no option and is left out; did you mean `mcserver ping`?",
        "'other' is no option and is left out",
    )


def test_what_is_only_accepted_is_said_at_start() -> None:
    config = parsed("-L", "-o", "tail_repair_time=10,modern", "-m", "64")
    named = [warning.split(" is accepted")[0] for warning in config.warnings]
    assert named == ["-L", "-o tail_repair_time", "-o modern"]


# The real memcached -------------------------------------------------------------------------------------------------------

BAD_LINES = [
    "-z", "--frobnicate", "--p=1", "-p", "--port", "-v3", "--version=3", "-c 0", "-c abc", "-c -1", "-R 0", "-f 1", "-f x",
    "-n 0", "-t 0", "-t -1", "-N 0", "-N 5", "-B foo", "-I 100", "-I 1023", "-I 40m", "-I 2000m -m 10000", "-m 0",
    "-p 70000 -u root",
    "-u root -p 11999 -l 127.0.0.1:abc", "-u root -p 11999 -l [::1", "-u root -p 11999 -l notls:127.0.0.1",
    "-u root -p 11999 -l tag[toolongtag]:127.0.0.1",
    "-o foo", "-o foo=3", "-o ,", "-o maxconns_fast,,", "-o hashpower",
    "-o hashpower=0", "-o tail_repair_time=0", "-o hashpower=11", "-o hashpower=33", "-o hashpower=x",
    "-o slab_automove=3", "-o slab_automove_ratio", "-o slab_automove_ratio=0", "-o slab_automove_ratio=1.1",
    "-o slab_automove_window", "-o slab_automove_window=2", "-o tail_repair_time", "-o tail_repair_time=9",
    "-o hash_algorithm", "-o hash_algorithm=foo", "-o lru_crawler_sleep", "-o lru_crawler_sleep=-1",
    "-o lru_crawler_sleep=1000001", "-o lru_crawler_tocrawl", "-o lru_crawler_tocrawl=x", "-o lru_crawler_tocrawl=-1",
    "-o hot_lru_pct", "-o hot_lru_pct=0", "-o hot_lru_pct=80", "-o hot_lru_pct=50", "-o hot_lru_pct=50,warm_lru_pct=31",
    "-o warm_lru_pct", "-o warm_lru_pct=0", "-o hot_max_factor", "-o hot_max_factor=0", "-o warm_max_factor",
    "-o warm_max_factor=0", "-o temporary_ttl", "-o temporary_ttl=5,no_lru_maintainer", "-o idle_timeout",
    "-o watcher_logbuf_size", "-o watcher_logbuf_size=x", "-o worker_logbuf_size", "-o worker_logbuf_size=x",
    "-o slab_sizes=1", "-o slab_sizes=200-100", "-o slab_sizes=100-x", "-o slab_sizes=100-105", "-o slab_chunk_max=1025",
    "-o slab_chunk_max=300", "-o read_buf_mem_limit", "-o read_buf_mem_limit=x", "-o proxy_config=/x",
]  # fmt: skip


CHANGED_SINCE = {"-o slab_chunk_max=1025": 64, "-o proxy_config=/x": 1}
"""Debian's newer ones are built with the proxy, and refuse the other with 1."""


@pytest.mark.slow
@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_lines_end_with_the_exit_code_of_memcached(line: str) -> None:
    memcached = subprocess.run(["memcached", *line.split()], capture_output=True, timeout=10, check=False)
    theirs = memcached.returncode if RELEASE < (1, 6, 45) else CHANGED_SINCE.get(line, memcached.returncode)
    assert refusal(*line.split())[0] == theirs


def test_a_missing_delimiter_ends_with_1_as_in_memcached() -> None:
    memcached = subprocess.run(["memcached", "-D", ""], capture_output=True, text=True, timeout=10, check=False)
    assert refusal("-D", "") == (memcached.returncode, memcached.stderr.strip())


def options_of(page: str) -> set[str]:
    """Short and long names in a page of help."""
    found = re.findall(r"^ *(-[a-zA-Z])?,? *(--[a-z_-]+)?", page, re.MULTILINE)
    return {name.replace("_", "-") for pair in found for name in pair if name}  # --napi_ids: misprinted there


def test_the_options_are_those_of_memcacheds_own_help() -> None:
    page = subprocess.run(["memcached", "-h"], capture_output=True, text=True, timeout=10, check=True).stdout
    theirs, ours = options_of(page), options_of(help_page())
    assert len(theirs) > 60
    assert theirs <= ours
    own = {f"--{option.long}" for option in (*OWN_OPTIONS, *CLUSTER_OPTIONS)}
    assert ours - theirs == own | {"--help"} - theirs, "the rest is mcserver's own"
    suboptions = set(re.findall(r"^   - (\w+):", page, re.MULTILINE))
    assert len(suboptions) > 40
    for name in suboptions:
        known = any(each.name == name for each in SUBOPTIONS)
        status, text = (0, "") if known else refusal("-o", f"{name}=1")
        assert known or (status == 1 and "not built" in text), name


def test_every_suboption_is_memcacheds_but_two() -> None:
    """A name that memcached doesn't know it calls illegal; -V ends it before it serves."""
    illegal = set()
    for name in {each.name for each in SUBOPTIONS}:
        done = subprocess.run(["memcached", "-o", name, "-V"], capture_output=True, text=True, timeout=10, check=False)
        if "Illegal suboption" in done.stderr:
            illegal.add(name)
    builds_for_debugging = {"relaxed_privileges"}
    assert illegal - builds_for_debugging == {"room_for", "ssl_handshake_timeout"}


OPENED_ELSEWHERE = ("domain_socket", "pid_file")
"""As in memcached, whose daemon opens them once it is in `/`."""
NAMING = [
    entry
    for entry in (*cli.ALL_OPTIONS, *SUBOPTIONS)
    if entry.metavar in ("file", "path") and entry.setting not in (*OPENED_ELSEWHERE, "credentials")
]


@pytest.mark.parametrize("entry", NAMING, ids=lambda entry: entry.setting)
def test_files_that_a_daemon_opens_later_are_named_from_the_root(entry: Option | Suboption) -> None:
    draft = Draft()
    entry.apply(draft, "--it", "some/file")
    assert {**draft.settings, **draft.cluster} == {entry.setting: f"{Path.cwd()}/some/file"}


def test_the_file_of_users_is_named_from_the_root() -> None:
    assert parsed("-S", environment={"MEMCACHED_SASL_PWDB": "users"}).sasl_file == f"{Path.cwd()}/users"
    assert parsed(environment={"MEMCACHED_SASL_PWDB": "/"}).sasl_file is None


# The fleet ---------------------------------------------------------------------------------------


def test_options_of_the_fleet() -> None:
    line = """--zookeeper zk1:2181,zk2:2181/chroot --cluster-path /fleet --node-name web1 --advertise web1:11211
        --zk-session-timeout 5 --max-stale 7.5 --on-stale error --ack async --ack user:=applied --ack a=b=committed
        --ack user:=committed --ack-timeout 2 --join serve --hold-off 200 --soft page: --soft feed:
        --refresh menu: --refresh-every 60 --broadcast-writes cart:
        --lock-writes stock: --zk-ca ca.pem --zk-cert cert.pem --zk-key key.pem"""
    assert parsed(*line.split()).cluster == ClusterConfig(
        zookeeper="zk1:2181,zk2:2181/chroot",
        path="/fleet",
        node_name="web1",
        advertise="web1:11211",
        session_timeout=5.0,
        max_stale=7.5,
        on_stale="error",
        ack="async",
        ack_prefixes=((b"user:", "committed"), (b"a=b", "committed")),
        ack_timeout=2.0,
        join="serve",
        hold_off=200,
        soft_prefixes=(b"page:", b"feed:"),
        refresh_prefixes=(b"menu:",),
        refresh_every=60.0,
        broadcast_writes=(b"cart:",),
        lock_writes=(b"stock:",),
        tls_ca=f"{Path.cwd()}/ca.pem",
        tls_certificate=f"{Path.cwd()}/cert.pem",
        tls_key=f"{Path.cwd()}/key.pem",
    )


@pytest.mark.parametrize(
    "option", [option for option in CLUSTER_OPTIONS if option.long not in ("zookeeper", "zk-auth-file")]
)
def test_an_option_of_the_fleet_needs_zookeeper(option: Option) -> None:
    values = {"s": "5", "ms": "5", "num": "5", "level": "async", "policy": "serve"}
    status, text = refusal(f"--{option.long}", values.get(option.metavar, "/x"))
    assert (status, text) == (64, f"--{option.long} needs --zookeeper HOST:PORT, without which there is no fleet")
    assert refusal("--ack", "user:=applied")[0] == 64


def test_credentials_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text("file:secret\n")
    file.chmod(0o600)
    zookeeper = ["--zookeeper", "zk1:2181"]
    environment = {"MCSERVER_ZK_AUTH": "environment:secret"}
    for arguments, variables, credentials in [
        (zookeeper, {}, ""),
        (zookeeper, environment, "environment:secret"),
        ([*zookeeper, "--zk-auth-file", str(file)], environment, "file:secret"),
    ]:
        cluster = parsed(*arguments, environment=variables).cluster
        assert cluster is not None
        assert cluster.credentials == credentials
    assert refusal(*zookeeper, "--zk-auth-file", str(tmp_path / "none"))[0] == 1
    assert parsed(environment=environment).cluster is None


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("", 0o600, "one line"), ("\n", 0o600, "one line"), ("me:a\nme:b\n", 0o600, "one line"), ("me", 0o600, "one line"),
        ("me:secret\n", 0o644, "chmod 600"), ("me:secret\n", 0o660, "chmod 600"),
    ],
)  # fmt: skip
def test_an_auth_file_is_one_line_that_others_cannot_read(tmp_path: Path, text: str, mode: int, words: str) -> None:
    file = tmp_path / "auth"
    file.write_text(text)
    file.chmod(mode)
    status, error = refusal("--zookeeper", "zk1:2181", "--zk-auth-file", str(file))
    assert status == 64
    assert words in error
    assert "secret" not in error


@pytest.mark.parametrize("option", ["zk-ca", "zk-cert", "zk-key"])
def test_a_file_of_tls_without_a_name_does_not_turn_it_off(option: str) -> None:
    arguments = ["--zookeeper", "zk1:2181", "--zk-cert", "cert.pem"]
    assert refusal(*arguments, f"--{option}", "") == (1, f"--{option} takes the name of a file")
    cluster = parsed(*arguments, f"--{option}", "file.pem").cluster
    assert str(Path.cwd() / "file.pem") in repr(cluster), "a daemon goes elsewhere"


@pytest.mark.parametrize("option", ["zk-ca", "zk-cert"])
def test_files_of_tls_are_looked_at_before_the_start(tmp_path: Path, option: str, capsys: Any) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for path in (str(empty), str(tmp_path / "none.pem")):
        assert cli.main(["-u", "root", "--zookeeper", "zk1:2181", f"--{option}", path]) == 64
        assert f"--{option} {path}" in capsys.readouterr().err


# Pages and the program ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["-h"], ["--help"], ["-V"], ["--version"], ["-i"], ["--license"], ["-vVz"], ["-c", "9", "-h", "-z"]]
)
def test_pages_begin_with_memcacheds_version_and_end_with_0(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:2] == [f"memcached {MEMCACHED_VERSION}", f"mcserver {__version__}"]


def test_an_error_before_a_page_counts() -> None:
    assert run("-z", "-h").returncode == 1
    assert run("-c", "0", "-h").returncode == 1


def test_the_help_page_has_every_option_and_suboption_and_marks_what_is_only_accepted() -> None:
    page = " ".join(help_page().split())
    for option in (*OPTIONS, *OWN_OPTIONS, *CLUSTER_OPTIONS):
        assert (f"--{option.long}" if option.long else f"-{option.short} <") in page
    for suboption in SUBOPTIONS:
        assert f"- {suboption.name}" in page
    expected = sum(effect_of(each) is Effect.ACCEPTED for each in (*OPTIONS, *SUBOPTIONS))
    assert expected > 10
    assert page.count("[only accepted]") == expected + 1  # the line that explains the mark
    assert max(map(len, help_page().splitlines())) <= 108


def test_every_option_has_a_setting_that_exists() -> None:
    for option in (*OPTIONS, *OWN_OPTIONS, *SUBOPTIONS):
        assert option.setting in {*rules(Config), ""}
    for option in CLUSTER_OPTIONS:
        assert option.setting in {*rules(ClusterConfig), "credentials"}


def test_the_licence_page_has_the_whole_licence() -> None:
    assert licence_page().endswith((ROOT / "LICENSE").read_text().rstrip())


@pytest.mark.parametrize("page", ["-h", "-V"])
def test_help_and_version_load_nothing_heavy(page: str) -> None:
    code = f"import sys; from mcserver.cli import main; main([{page!r}]); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(result.stderr.split())
    assert "mcserver.settings.options" in loaded
    for heavy in ("asyncio", "uvloop", "kazoo", "mcserver.core", "mcserver.server", "mcserver.admin", "logging", "ssl"):
        assert heavy not in loaded


def test_a_start_loads_little_before_it_answers() -> None:
    code = "import sys; before = {*sys.modules}; import mcserver.cli, mcserver.server.start; print(*{*sys.modules} - before)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(result.stdout.split())
    assert "mcserver.core" in loaded
    later = {
        *("asyncio", "uvloop", "concurrent.futures", "subprocess", "ssl", "ctypes", "inspect", "pathlib", "json"),
        *("tomllib", "argparse", "kazoo", "prometheus_client", "rich", "logging", "traceback", "textwrap"),
        *(
            "mcserver.server.loop",
            "mcserver.coordination",
            "mcserver.system.logs",
            "mcserver.admin.commands",
            "mcserver.admin.stats",
        ),
    }
    assert loaded & later == set()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["-c", "0"], ["-I", "10"], ["-Z"], ["-l", "h:x", "-u", "root"]])
def test_errors_are_one_clear_text_on_stderr(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (refusal(*arguments)[0], "")
    assert result.stderr.strip() == refusal(*arguments)[1]


def test_root_must_say_whom_to_run_as(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert cli.main(["-p", "0"]) == 64
    assert capsys.readouterr().err.startswith("must add '-u root' to start as root")
    assert cli.main(["-p", "0", "-u", ""]) == 64
    capsys.readouterr()
    assert cli.main(["pign"]) == 64
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "'pign' is no option and is left out; did you mean `mcserver ping`?", "what was meant comes first"
    assert said[1].startswith("must add '-u root'")


def test_the_port_file_comes_from_the_environment() -> None:
    assert parsed(environment={"MEMCACHED_PORT_FILENAME": "/tmp/ports"}).port_file == "/tmp/ports"
    assert parsed(environment={"MEMCACHED_PORT_FILENAME": ""}).port_file is None


def test_a_link_named_memcached_is_the_same_program(tmp_path: Path) -> None:
    link = tmp_path / "memcached"
    link.symlink_to(Path(sys.executable).parent / "mcserver")
    result = subprocess.run([link, "-V"], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.startswith(f"memcached {MEMCACHED_VERSION}\n")


def test_the_page_of_compatibility_names_every_option_with_its_effect() -> None:
    readme = (ROOT / "docs/compatibility.md").read_text()
    options = (ROOT / "docs/options.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| `")]
    for option in (*OPTIONS, *SUBOPTIONS):
        name = (
            option.name if isinstance(option, Suboption) else f"--{option.long}" if option.long else f"-{option.short}"
        )
        (row,) = [row for row in rows if re.search(rf"[` ]{name}`", row.split(" | ")[0] + " ")]
        assert ("only accepted" in row) == (effect_of(option) is Effect.ACCEPTED), name
    for option in (*OWN_OPTIONS, *CLUSTER_OPTIONS):
        assert re.search(rf"`--{option.long}[ `]", readme + options), option.long
