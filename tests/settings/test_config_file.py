"""The configuration file: as strict as the command line, below it; `mcserver config` prints one that gives the same settings."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mcserver import cli
from mcserver.settings.cluster import ClusterConfig
from mcserver.settings.config import Config
from mcserver.settings.file import effective, file_options
from mcserver.settings.options import CLUSTER_OPTIONS, OPTIONS, OWN_OPTIONS, SUBOPTIONS, Draft
from mcserver.settings.rules import ConfigError, rules
from tests.conftest import Start
from tests.serving import eventually, run_to_end


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mcserver.toml"


def parsed(file: Path, text: str, *arguments: str) -> Config:
    file.write_text(text)
    config = cli.parse(["--config", str(file), *arguments], {})
    assert isinstance(config, Config)
    return config


def plain(config: Config) -> Config:
    """Without what tells where it came from."""
    return config.but(config_file=None, warnings=())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 11212", "-p 11212"),
        ("port = -1\nmemory-limit = 128\n", "-p -1 -m 128"),
        ('memory-limit = "128"', "-m 128"),
        ('max-item-size = "2m"', "-I 2m"),
        ('listen = "127.0.0.1"', "-l 127.0.0.1"),
        ('listen = ["127.0.0.1", "::1"]', "-l 127.0.0.1 -l ::1"),
        ("verbose = 2", "-vv"),
        ("verbose = 0", ""),
        ("disable-evictions = true\ndisable-cas = false", "-M"),
        ('unix-mask = "666"\nunix-socket = "/tmp/s"', "-a 666 -s /tmp/s"),
        ("slab-growth-factor = 1.5", "-f 1.5"),
        ('D = "|"', "-D |"),
        ("[extended]\nidle_timeout = 10\nmaxconns_fast = false", "-o idle_timeout=10,no_maxconns_fast"),
        ('[extended]\nslab_sizes = "100-200-400"\ntrack_sizes = true', "-o slab_sizes=100-200-400,track_sizes"),
        ("[extended]\nno_modern = true", "-o no_modern"),
        (
            'zookeeper = "zk1:2181"\nack = ["applied", "user:=async"]\nsoft = ["a:", "b:"]\nmax-stale = 2.5',
            "--zookeeper zk1:2181 --ack applied --ack user:=async --soft a: --soft b: --max-stale 2.5",
        ),
    ],
)
def test_a_file_says_what_the_command_line_says(file: Path, text: str, line: str) -> None:
    config = cli.parse(line.split(), {})
    assert isinstance(config, Config)
    assert plain(parsed(file, text)) == plain(config)


@pytest.mark.parametrize(
    ("text", "line", "settings"),
    [
        ("memory-limit = 128", "-m 256", {"maxbytes": 256 << 20}),
        ("memory-limit = 128\nconn-limit = 5", "-m 256", {"maxbytes": 256 << 20, "maxconns": 5}),
        ('listen = ["127.0.0.1"]', "-l ::1 -l 127.0.0.2", {"inter": "::1,127.0.0.2"}),
        ("verbose = 2", "-v", {"verbosity": 1}),
        ("[extended]\nidle_timeout = 10", "-o idle_timeout=20", {"idle_timeout": 20}),
    ],
)
def test_the_command_line_goes_before_the_file(file: Path, text: str, line: str, settings: dict[str, object]) -> None:
    file.write_text(text)
    for arguments in (["--config", str(file), *line.split()], [*line.split(), f"--config={file}"]):
        config = cli.parse(arguments, {})
        assert {name: getattr(config, name) for name in settings} == settings


def test_lists_of_the_fleet_begin_anew_on_the_command_line(file: Path) -> None:
    text = 'zookeeper = "zk1:2181"\nack = ["applied", "user:=async"]\nsoft = ["a:"]\nlock-writes = ["l:"]'
    config = parsed(file, text, "--soft", "b:", "--ack", "x:=committed").cluster
    assert config is not None
    assert (config.soft_prefixes, config.lock_writes) == ((b"b:",), (b"l:",))
    assert (config.ack, config.ack_prefixes) == ("committed", ((b"x:", "committed"),))


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("port = ", 64, "is no TOML"),
        ("port = 1\nport = 2", 64, "is no TOML"),
        ("prot = 1", 64, "there is no option 'prot': did you mean port?"),
        ("por = 1", 64, "there is no option 'por'"),  # no abbreviations: a file is read for years
        ("idle_timeout = 1", 64, "below [extended]"),
        ("help = true", 64, "there is no option 'help'"),
        ('config = "/x"', 64, "there is no option 'config'"),
        ('extended = "idle_timeout=1"', 64, "[extended]"),
        ("[extended]\nfoo = 1", 64, "there is no option 'foo'"),
        ("[extended]\next_path = 'x'", 1, "external storage is not built"),
        ("[extended]\nidle_timeout = true", 64, "idle_timeout takes one s, not True"),
        ("listen = []", 64, "listen = [] names no address: leave it out to listen on every interface"),
        ("port = true", 64, "port takes one num, not True"),
        ("port = [1, 2]", 64, "port takes one num"),
        ("port = 2026-01-01", 64, "port takes one num"),
        ("[port]\na = 1", 64, "port takes one num"),
        ("port = 'x'", 1, "takes a number, not 'x'"),
        ("port = 70000", 64, "Invalid port number 70000"),
        ("conn-limit = 0", 1, "Maximum connections must be greater than 0"),
        ("disable-cas = 1", 64, "disable-cas takes true or false, not 1"),
        ("verbose = 10", 64, "verbose must be from 0 to 9"),
        ('user = "a\\u0000b"', 64, "user takes one name"),
        ("port = 11211.5", 1, "can't be '11211.5': '.5' means nothing there"),
        ('memory-limit = "1g"', 1, "can't be '1g': 'g' means nothing there"),
        ("memory-limit = 1", 64, "must be at least 2 megabytes"),
        ('D = "ab"', 1, "can't be 'ab'"),
        ("unix-mask = 0o660", 64, 'unix-mask is written in quotes, such as "700"'),
        ("verbose = 'much'", 64, "verbose takes a number from 0 to 9"),
        ('zookeeper = "zk:1"\nzk-ca = ""', 1, "takes the name of a file"),
        ('zookeeper = "zk:1"\nack = "sometimes"', 64, "--ack takes async, committed or applied"),
        ('metrics-name = ["cache"]', 64, "--metrics-name needs --metrics"),
    ],
)
def test_a_file_is_checked_as_strictly_as_the_command_line(file: Path, text: str, status: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(file, text)
    assert (caught.value.status, str(file) in str(caught.value)) == (status, True)
    assert words in str(caught.value)


def test_what_is_only_checked_at_the_end_is_refused_too(file: Path) -> None:
    for text, why in (('max-item-size = "40m"', "1/2 of memory"), ("max-stale = 3", "needs --zookeeper")):
        with pytest.raises(ConfigError, match=f"^{file}: .*{why}"):
            parsed(file, text)
    with pytest.raises(ConfigError, match=f"^{file}: .*1/2 of memory"):
        parsed(file, "memory-limit = 60", "-I", "31m")  # neither of them without the other
    with pytest.raises(ConfigError, match=r"^Cannot set item size limit"):
        parsed(file, "port = 1", "-I", "40m")


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        result = run_to_end("-u", "root", "--config", str(path))
        assert result.returncode == 64
        assert f"can't read {path}" in result.stderr
    assert run_to_end("--config", "").returncode == 1
    big = tmp_path / "big"
    big.write_bytes(b"#" * ((1 << 20) + 1))
    assert "no configuration file" in run_to_end("--config", str(big)).stderr
    big.write_bytes(b"a = '\xff'")
    assert "is no TOML" in run_to_end("--config", str(big)).stderr


def test_what_has_no_effect_is_said_with_its_file(file: Path) -> None:
    warnings = parsed(file, "enable-largepages = true\n[extended]\nmodern = true").warnings
    assert [warning.split(" in ")[0] for warning in warnings] == ["enable-largepages", "modern"]
    assert all(str(file) in warning for warning in warnings)


def test_a_page_before_the_file_counts(file: Path) -> None:
    assert cli.parse(["-V", "--config", "/nowhere"], {}) == "version"
    file.write_text("port = 'x'")
    with pytest.raises(ConfigError):
        cli.parse(["--config", str(file), "-V"], {})


# What is in effect ---------------------------------------------------------------------------------------------------------

LINES = [
    "",
    "-p 0 -s /tmp/s -a 640 -A -d -r -u nobody -P /tmp/pid -m 1024 -M -c 10 -vvv -f 1.3 -n 72 -t 8 -R 7 -C -b 5 -B ascii -I 2m",
    "-F -X -W -l 127.0.0.1,[::1]:11212 -D | --loop asyncio --log-json --debug-clock",
    "-o no_maxconns_fast,hashpower=20,idle_timeout=9,no_lru_crawler,no_lru_maintainer,track_sizes,room_for=bytes",
    "-o slab_sizes=100-200-400,slab_chunk_max=16,temporary_ttl=60,hot_lru_pct=30,read_buf_mem_limit=3",
    "-o no_modern,slab_automove_ratio=0.5,worker_logbuf_size=32,watcher_logbuf_size=128,tail_repair_time=20 -N 2 -k -L",
    """--zookeeper zk1:2181/chroot --cluster-path /fleet --node-name web1 --advertise web1:11211 --zk-session-timeout 5
       --max-stale 7.5 --on-stale error --ack async --ack user:=applied --ack-timeout 2 --join serve --hold-off 200
       --soft page: --soft feed: --broadcast-writes cart: --lock-writes stock: --zk-writes 50 --zk-acl open
       --disable-cluster-leave --disable-cluster-refresh --zk-ca ca.pem --zk-cert cert.pem --zk-key key.pem""",
]


@pytest.mark.parametrize("line", LINES)
def test_the_effective_settings_are_a_file_that_gives_them_again(file: Path, line: str) -> None:
    draft = cli.read(line.split())
    assert not isinstance(draft, str)
    config = cli.configure(draft, {})
    text = effective(config, draft)
    assert plain(parsed(file, text)) == plain(config)
    assert (
        text.count("# command line")
        >= len([word for word in line.split() if word.startswith("-") and word != "-o"]) - 4
    )


def test_a_quoted_text_comes_back(file: Path) -> None:
    user = 'a "b" \\ \x1b é'
    draft = cli.read(["-u", user])
    assert not isinstance(draft, str)
    assert parsed(file, effective(cli.configure(draft, {}), draft)).user == user


def test_origins_and_no_password(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("me:hidden\n")
    secret.chmod(0o600)
    file.write_text(f'memory-limit = 128\nconn-limit = 7\nzookeeper = "zk1:2181"\nzk-auth-file = "{secret}"')
    assert cli.main(["config", "--config", str(file), "-c", "9"]) == 0
    page = capsys.readouterr().out
    rows = {line.split(" = ")[0].rstrip(): line.split("  # ")[1] for line in page.splitlines() if "  # " in line}
    assert rows["memory-limit"] == f"{file}, MiB"
    assert (rows["conn-limit"], rows["port"]) == ("command line", "default")
    assert f"# zk-auth-file: credentials are set, and not shown  # {file}" in page
    assert "hidden" not in page


def test_every_setting_can_stand_in_a_file_and_is_shown() -> None:
    shown = effective(Config(cluster=ClusterConfig("zk1:2181")), Draft())
    for name in rules(Config):
        if name not in {"config_file", "lru_segmented", "temp_lru", "detail_enabled"}:  # others speak for these
            entry = next(each for each in (*OPTIONS, *OWN_OPTIONS, *SUBOPTIONS) if each.setting == name)
            assert f"\n{getattr(entry, 'long', '') or getattr(entry, 'name', '')}" in "\n" + shown.replace("# ", "")
    for option in CLUSTER_OPTIONS:
        if option.long != "zk-auth-file":
            assert option.long in shown
    assert len(file_options()) > 50


# Reloading -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reload_changes_what_is_live_and_names_what_is_not(start: Start, file: Path) -> None:
    file.write_text("memory-limit = 64\nconn-limit = 100\nthreads = 4\n[extended]\nidle_timeout = 0")
    server = start("--config", str(file))
    client = server.connect()
    file.write_text(
        "memory-limit = 128\nconn-limit = 2\nthreads = 5\nenable-shutdown = true\ndisable-watch = true\n"
        "[extended]\nidle_timeout = 60\nlru_crawler = false\nslab_automove = 0\ntemporary_ttl = 30\n"
    )
    server.signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP: read" in server.log())
    settings = client.stats("settings")
    assert settings["maxbytes"] == str(128 << 20)
    assert (settings["maxconns"], settings["idle_timeout"], settings["slab_automove"]) == ("2", "60", "0")
    assert (settings["lru_crawler"], settings["temp_lru"], settings["num_threads"]) == ("no", "yes", "4")
    assert client.stats()["limit_maxbytes"] == str(128 << 20)
    assert client.command(b"watch fetchers") == b"CLIENT_ERROR watch commands not allowed\r\n"
    server.connect()
    refused = server.connect()
    assert refused.until(b"\r\n") == b"ERROR Too many open connections\r\n"
    log = server.log()
    assert "memory-limit is 128 now, it was 64" in log
    assert "SIGHUP: threads needs a new start to become 5" in log
    assert "conn-limit is 2 now" in log


@pytest.mark.slow
def test_each_reload_says_all_that_it_did_and_all_that_it_could_not_do(start: Start, file: Path) -> None:
    file.write_text("conn-limit = 100\n")
    server = start("--config", str(file))
    texts = {
        "conn-limit = 100\nthreads = 5\nmax-item-size = 2048\n": [
            "threads needs a new start",
            "max-item-size needs a new start",
        ],
        "conn-limit = 0\n": ["SIGHUP: nothing has changed: "],
        "conn-limit = 200\n": ["conn-limit is 200 now, it was 100"],
        "conn-limit = 200\n[extended]\ntemporary_ttl = 61\n": ["again; temporary_ttl is 61 now, it was none\n"],
        "conn-limit = 300\n": ["conn-limit is 300 now, it was 200; temporary_ttl is none now, it was 61\n"],
    }
    for text, lines in texts.items():
        file.write_text(text)
        server.signal(signal.SIGHUP)
        for line in lines:
            eventually(lambda line=line: line in server.log())
    said = server.log().count("nothing to change")
    for count in range(1, 4):
        server.signal(signal.SIGHUP)
        eventually(lambda count=count: server.log().count("nothing to change") == said + count)


@pytest.mark.slow
def test_a_bad_file_changes_nothing(start: Start, file: Path) -> None:
    file.write_text("conn-limit = 100")
    server = start("--config", str(file))
    client = server.connect()
    draft = file.with_suffix(".new")
    for text in ("conn-limit = 0\n", "conn-limit = 50\nnonsense = 1\n", "=\n"):
        draft.write_text(text)
        draft.replace(file)
        server.signal(signal.SIGHUP)
    file.unlink()
    server.signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP: nothing has changed" in server.log())
    assert client.stats("settings")["maxconns"] == "100"
    file.write_text("conn-limit = 50\n")
    server.signal(signal.SIGHUP)
    eventually(lambda: client.stats("settings")["maxconns"] == "50")


@pytest.mark.slow
@pytest.mark.parametrize("written", ["", "memory-limit = 1024\nconn-limit = 1", "memory-limit = 1024\nconn-li"])
def test_a_file_that_is_half_written_changes_nothing(start: Start, file: Path, written: str) -> None:
    text = "memory-limit = 1024\nconn-limit = 100\n"
    file.write_text(text)
    server = start("--config", str(file))
    client = server.connect()
    file.write_text(written)
    server.signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP: nothing has changed" in server.log())
    assert f"{file} doesn't end with a line end" in server.log()
    settings = client.stats("settings")
    assert (settings["maxbytes"], settings["maxconns"]) == (str(1024 << 20), "100")
    file.write_text(text.replace("100", "90"))
    server.signal(signal.SIGHUP)
    eventually(lambda: client.stats("settings")["maxconns"] == "90")


@pytest.mark.slow
def test_memory_beyond_what_was_reserved_is_refused_and_the_rest_done(start: Start, file: Path) -> None:
    file.write_text("memory-limit = 64")
    server = start("--config", str(file))
    file.write_text("memory-limit = 200000\nenable-shutdown = true\n")
    server.signal(signal.SIGHUP)
    eventually(lambda: "memory-limit can't be 200000 while it runs" in server.log())
    client = server.connect()
    assert client.stats("settings")["shutdown_command"] == "yes"
    assert client.stats()["limit_maxbytes"] == str(64 << 20)


@pytest.mark.slow
def test_without_a_file_a_reload_says_so(start: Start) -> None:
    server = start()
    server.signal(signal.SIGHUP)
    eventually(lambda: "there is no file to read again" in server.log())
