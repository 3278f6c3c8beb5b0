"""Certificates and connections for the tests of TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving import Client
from tests.tls.certificates import Folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """For tests that change no file."""
    return Folder(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def own(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def opened() -> Iterator[Callable[..., Client]]:
    """`opened(address, context)`: a connection by TLS, closed at the end."""
    clients: list[Client] = []

    def connect(
        address: tuple[str, int] | str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> Client:
        client = Client(address)
        clients.append(client)
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost", session=session)
        return client

    yield connect
    for client in clients:
        client.close()
