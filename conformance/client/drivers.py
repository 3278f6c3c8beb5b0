"""What runs inside a client's process: `python -m conformance.client.drivers CLIENT PORT OPERATIONS [CA]`.

Owns how each Python client is made and called, every one with a time-out of a second; with CA, the file of an authority, by
TLS. Prints a line of JSON for each operation: {"value": ...} or {"error": ...}, and "seconds". It judges nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import resource
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from .cases import TIMEOUT

MEMORY = 4 << 30  # bytes of address space that a client may take
Call = Callable[[list[Any]], Any]


def trusting(ca: str) -> ssl.SSLContext | None:
    """What a client checks a server with; None without TLS."""
    return ssl.create_default_context(cafile=ca) if ca else None


def pymemcache(port: int, ca: str, kind: str = "Client", **options: Any) -> Call:
    """kind: Client, PooledClient or HashClient."""
    options |= {"timeout": TIMEOUT, "connect_timeout": TIMEOUT, "tls_context": trusting(ca)}
    address = ("127.0.0.1", port)
    make = getattr(importlib.import_module("pymemcache"), kind)
    return _pymemcache(make([address] if kind == "HashClient" else address, **options))


def _pymemcache(client: Any) -> Call:
    calls = {"get": client.get, "many": client.get_many, "set": lambda k, v: client.set(k, v, noreply=False)}
    return lambda operation: calls[operation[0]](*operation[1:])


def pymemcache_retrying(port: int, ca: str) -> Call:
    client = importlib.import_module("pymemcache").Client(
        ("127.0.0.1", port), timeout=TIMEOUT, connect_timeout=TIMEOUT, tls_context=trusting(ca)
    )
    return _pymemcache(importlib.import_module("pymemcache.client.retrying").RetryingClient(client))


def pymemcache_compressing(port: int, ca: str) -> Call:
    """A pool, a serde that pickles and compresses, and no_delay."""
    serde = importlib.import_module("pymemcache.serde").compressed_serde
    return pymemcache(port, ca, "PooledClient", serde=serde, no_delay=True, max_pool_size=2)


def _single_file(name: str) -> Path | None:
    """The module NAME.py: a package of the same name may hide it."""
    return next((path for folder in sys.path if (path := Path(folder, f"{name}.py")).is_file()), None)


def python_memcached(port: int, ca: str) -> Call:
    path = _single_file("memcache")
    assert path, "python-memcached is not installed"
    spec = importlib.util.spec_from_file_location("python_memcached", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    client = module.Client([f"127.0.0.1:{port}"], socket_timeout=TIMEOUT, dead_retry=1)
    calls = {"get": client.get, "many": client.get_multi, "set": client.set}
    return lambda operation: calls[operation[0]](*operation[1:])


def pylibmc(port: int, ca: str) -> Call:
    behaviors = {
        "connect_timeout": 1000,
        "receive_timeout": 1000000,
        "send_timeout": 1000000,
        "retry_timeout": 1,
        "_poll_timeout": 1000,
    }
    client = importlib.import_module("pylibmc").Client([f"127.0.0.1:{port}"], behaviors=behaviors)
    calls = {"get": client.get, "many": client.get_multi, "set": client.set}
    return lambda operation: calls[operation[0]](*operation[1:])


def meta_memcache(port: int, ca: str) -> Call:
    module = importlib.import_module("meta_memcache")
    factory = module.connection_pool_factory_builder(recv_timeout=TIMEOUT, connection_timeout=TIMEOUT)
    client = module.CacheClient.cache_client_from_servers([module.ServerAddress("127.0.0.1", port)], factory)
    calls = {"get": client.get, "set": lambda k, v: client.set(k, v, ttl=100),
             "many": lambda keys: {k.key: v for k, v in client.multi_get([module.Key(key) for key in keys]).items()}}  # fmt: skip
    return lambda operation: calls[operation[0]](*operation[1:])


async def aiomcache(port: int, ca: str) -> Callable[[list[Any]], Awaitable[Any]]:
    client = importlib.import_module("aiomcache").Client("127.0.0.1", port, conn_args={"ssl": trusting(ca)})

    async def call(operation: list[Any]) -> Any:
        word, key, *rest = operation
        if word == "many":
            found = await asyncio.wait_for(client.multi_get(*(name.encode() for name in key)), TIMEOUT)
            return dict(zip(key, found, strict=True))
        method = client.get if word == "get" else client.set
        return await asyncio.wait_for(method(key.encode(), *(value.encode() for value in rest)), TIMEOUT)

    return call


async def emcache(port: int, ca: str) -> Callable[[list[Any]], Awaitable[Any]]:
    module = importlib.import_module("emcache")
    client = await module.create_client(
        [module.MemcachedHostAddress("127.0.0.1", port)],
        timeout=TIMEOUT,
        connection_timeout=TIMEOUT,
        ssl=bool(ca),
        ssl_extra_ca=ca or None,
    )

    async def call(operation: list[Any]) -> Any:
        word, key, *rest = operation
        if word == "many":
            return {
                name.decode(): item.value for name, item in (await client.get_many([k.encode() for k in key])).items()
            }
        if word == "set":
            await client.set(key.encode(), rest[0].encode())
            return True
        item = await client.get(key.encode())
        return item.value if item else None

    return call


PLAIN: dict[str, tuple[str, Callable[[int, str], Call]]] = {
    "pymemcache": ("pymemcache", pymemcache),
    "pymemcache ignore_exc": ("pymemcache", partial(pymemcache, ignore_exc=True)),
    "pymemcache HashClient": ("pymemcache", partial(pymemcache, kind="HashClient")),
    "pymemcache HashClient ignore_exc": (
        "pymemcache",
        partial(pymemcache, kind="HashClient", ignore_exc=True, use_pooling=True),
    ),
    "pymemcache RetryingClient": ("pymemcache", pymemcache_retrying),
    "pymemcache compressed": ("pymemcache", pymemcache_compressing),
    "python-memcached": ("memcache", python_memcached),
    "pylibmc": ("pylibmc", pylibmc),
    "meta-memcache": ("meta_memcache", meta_memcache),
}
LOOPING = {"aiomcache": ("aiomcache", aiomcache), "emcache": ("emcache", emcache)}
WITHOUT_TLS = {"python-memcached", "pylibmc", "meta-memcache"}  # it can't be asked of them


def installed() -> list[str]:
    """The Python clients that are here."""
    modules = {name: module for name, (module, _) in [*PLAIN.items(), *LOOPING.items()]}
    found = [name for name, module in modules.items() if module != "memcache" and importlib.util.find_spec(module)]
    return [*found, *(["python-memcached"] if _single_file("memcache") else [])]


def text(value: Any) -> Any:
    """Bytes as text, for JSON."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return {text(key): text(item) for key, item in value.items()} if isinstance(value, dict) else value


def tell(begun: float, **what: Any) -> None:
    print(json.dumps({**what, "seconds": time.monotonic() - begun}, default=str), flush=True)


def run_plain(name: str, port: int, operations: list[list[Any]], ca: str) -> None:
    """Each call in turn; a client that could not be made is made again for the next one."""
    call: Call | None = None
    for operation in operations:
        begun = time.monotonic()
        try:
            if operation[0] == "sleep":
                time.sleep(operation[1])
                result = None
            else:
                call = call or PLAIN[name][1](port, ca)
                result = text(call(operation))
        except Exception as error:  # noqa: BLE001  # whatever a client raises is its answer
            tell(begun, error=f"{type(error).__name__}: {str(error)[:100]}")
        else:
            tell(begun, value=result)


async def run_looping(name: str, port: int, operations: list[list[Any]], ca: str) -> None:
    """As run_plain."""
    call: Callable[[list[Any]], Awaitable[Any]] | None = None
    for operation in operations:
        begun = time.monotonic()
        try:
            if operation[0] == "sleep":
                await asyncio.sleep(operation[1])
                result = None
            else:
                call = call or await LOOPING[name][1](port, ca)
                result = text(await call(operation))
        except Exception as error:  # noqa: BLE001  # whatever a client raises is its answer
            tell(begun, error=f"{type(error).__name__}: {str(error)[:100]}")
        else:
            tell(begun, value=result)


if __name__ == "__main__":
    client, port_text, what, *authority = sys.argv[1:5]
    given = (client, int(port_text), json.loads(what), "".join(authority))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if client in PLAIN:
        run_plain(*given)
    else:
        asyncio.run(run_looping(*given))
