"""pymemcache over TLS: all of its scenarios of the plain port again, and what a wrong authority comes to."""

from __future__ import annotations

import os
import ssl
from dataclasses import replace
from typing import Any

from pymemcache.client.base import Client as PlainClient
from pymemcache.client.base import PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheError

from ..harness import Run, equal, raises
from . import pymemcache as plain

CONTEXT = ssl.create_default_context(cafile=os.environ["TLS_AUTHORITY"])


def encrypted(kind: Any) -> Any:
    """A class of pymemcache's whose clients speak TLS, unless they are told otherwise."""

    def make(address: Any, **options: Any) -> Any:
        return kind(address, **{"tls_context": CONTEXT, **options})

    return make


vars(plain).update(
    {kind.__name__: encrypted(kind) for kind in (PooledClient, HashClient)}, PlainClient=encrypted(PlainClient)
)
# Without answers there is no handshake, so nothing is ever sent.
SCENARIOS = [scenario for scenario in plain.CLIENT.scenarios if scenario is not plain.a_time_out_in_the_middle]
CLIENT = replace(plain.CLIENT, title="pymemcache (TLS)", scenarios=SCENARIOS)


@CLIENT.scenario
def who_is_not_trusted(run: Run) -> None:
    address = (run.server.host, run.server.port)
    stranger = run.count(PlainClient(address, tls_context=ssl.create_default_context(), timeout=10), "Client")
    with raises(ssl.SSLCertVerificationError):
        stranger.get(run.key())
    unencrypted = run.count(PlainClient(address, timeout=10), "Client")
    with raises(MemcacheError, OSError):
        unencrypted.get(run.key())
    client = run.count(PlainClient(address, tls_context=CONTEXT, timeout=10, default_noreply=False), "Client")
    equal(client.set(run.key(), b"v"), True)
    equal(client.get(run.key()), b"v")
    for one in (stranger, unencrypted, client):
        one.close()
