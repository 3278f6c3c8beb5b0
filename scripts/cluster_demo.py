"""A fleet on one machine: three ZooKeeper servers, three mcservers, their ports, and what to try; or a demonstration.

Owns every process it starts and ends them all, however it ends itself.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator

from tests.cluster.ensemble import Ensemble
from tests.cluster.servers import CacheServer, until

SHORT = 4  # s: session timeout and max stale of the demonstration, so that nobody waits for long


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/cluster", description=__doc__)
    parser.add_argument("--demo", action="store_true", help="show what a fleet does, with times, and end")
    parser.add_argument("options", nargs="*", help="options for the mcservers, behind --")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = list(arguments.options)
    if arguments.demo:
        options += ["--zk-session-timeout", str(SHORT), "--max-stale", str(SHORT), "--ack", "applied:=applied"]
    try:
        with contextlib.ExitStack() as stack:
            started = time.monotonic()
            ensemble = stack.enter_context(Ensemble())
            servers = [
                stack.enter_context(CacheServer(ensemble.hosts, *options, name=f"cache{number}", quick=False))
                for number in (1, 2, 3)
            ]
            until(lambda: all(server.is_fresh for server in servers))
            until(lambda: all(server.stats()["members"] == "3" for server in servers))
            describe(ensemble, servers, time.monotonic() - started)
            if arguments.demo:
                demonstrate(ensemble, servers)
            else:
                invite(servers)
                signal.pause()
    except KeyboardInterrupt:
        print("\nended")
    return 0


def describe(ensemble: Ensemble, servers: list[CacheServer], seconds: float) -> None:
    print(f"Up after {seconds:.1f} s; everything ends with this command.\n")
    for zookeeper in ensemble.servers:
        print(f"  ZooKeeper {zookeeper.number}  127.0.0.1:{zookeeper.client_port}  {zookeeper.role()}")
    for server in servers:
        leads = "leads the fleet" if server.stats()["is_leader"] == "1" else ""
        print(f"  {server.name}       127.0.0.1:{server.port}  {leads}".rstrip())
    print()


def invite(servers: list[CacheServer]) -> None:
    first, second, third = servers
    print("Try, in three terminals:\n")
    print(f"  telnet 127.0.0.1 {second.port}    set greeting 0 0 5 / hello / get greeting")
    print(f"  telnet 127.0.0.1 {first.port}    delete greeting          (now cache2 has lost it, too)")
    print(f"  telnet 127.0.0.1 {third.port}    cluster members / config get cluster / stats cluster")
    print("\nCtrl-C ends.", flush=True)


# The demonstration ---------------------------------------------------------------------------------------------------


def demonstrate(ensemble: Ensemble, servers: list[CacheServer]) -> None:
    a_delete_travels(servers)
    victim = next(server for server in servers if server.stats()["is_leader"] == "0")
    a_server_dies(servers, victim)
    the_leader_dies(servers)
    zookeeper_stops(ensemble, servers)
    print("Done: everything ends now.")


@contextlib.contextmanager
def chapter(title: str) -> Iterator[Callable[[str], None]]:
    """Prints lines, each with the time since the chapter's beginning."""
    print(title)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"  {time.monotonic() - started:8.3f} s  {text}", flush=True)

    yield say
    print()


def a_delete_travels(servers: list[CacheServer]) -> None:
    with chapter("A delete travels") as say, servers[0].client() as here, servers[1].client() as there:
        for key, level in ((b"greeting", "committed"), (b"applied:greeting", "applied")):
            there.set(key, b"hello")
            say(f"cache2 holds {key.decode()!r}")
            sent = time.monotonic()
            answer = here.delete(key)
            answered = time.monotonic() - sent
            while there.get(key) is not None:
                pass
            gone = time.monotonic() - sent
            say(f"delete at cache1: {answer.decode()} ({level}) after {answered * 1000:.1f} ms")
            say(f"gone from cache2 {gone * 1000:.1f} ms after the delete was sent")


def a_server_dies(servers: list[CacheServer], victim: CacheServer) -> None:
    with chapter(f"A server dies (session timeout {SHORT} s)") as say:
        others = [server for server in servers if server is not victim]
        victim.end()
        say(f"kill -9 {victim.name}")
        until(lambda: all(server.stats()["members"] == "2" for server in others), 30)
        say("it has left the list; `config get cluster` names the other two")
        victim.start()
        until(lambda: all(server.stats()["members"] == "3" for server in servers) and victim.is_fresh, 30)
        say(f"{victim.name} was started again, has joined and is fresh")


def the_leader_dies(servers: list[CacheServer]) -> None:
    with chapter(f"The leader dies (session timeout {SHORT} s)") as say:
        leader = next(server for server in servers if server.stats()["is_leader"] == "1")
        others = [server for server in servers if server is not leader]
        leader.end()
        say(f"kill -9 {leader.name}, which led the fleet")
        until(lambda: any(server.stats()["is_leader"] == "1" for server in others), 30)
        heir = next(server for server in others if server.stats()["is_leader"] == "1")
        say(f"{heir.name} leads")
        leader.start()
        until(lambda: leader.is_fresh, 30)
        say(f"{leader.name} is back, as a follower")


def zookeeper_stops(ensemble: Ensemble, servers: list[CacheServer]) -> None:
    with chapter(f"ZooKeeper stops and comes back (max stale {SHORT} s)") as say:
        cache = servers[0]
        cache.set(b"kept", b"value")
        for zookeeper in ensemble.servers:
            zookeeper.end()
        say("kill -9 all three ZooKeeper servers; the caches go on serving")
        assert cache.get(b"kept") == b"value"
        until(lambda: cache.get(b"kept") is None, 30)
        say("no proof of being fresh any more: the caches answer as if they were empty")
        ensemble.start()
        say("ZooKeeper is back")
        until(lambda: cache.get(b"kept") == b"value", 30)
        say("fresh again: what was cached is visible again")


if __name__ == "__main__":
    sys.exit(main())
