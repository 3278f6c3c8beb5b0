"""kazoo's terms and those of the port: settings and requests one way, results and errors the other. It keeps no state."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kazoo import exceptions as kazoo_errors
from kazoo.client import KazooClient
from kazoo.security import OPEN_ACL_UNSAFE, READ_ACL_UNSAFE, make_digest_acl

from . import ports

RECONNECT = {"max_tries": -1, "delay": 0.1, "backoff": 1.5, "max_jitter": 0.4, "max_delay": 2.0}
# kazoo's own default lets the delay grow to an hour, and a dict without max_tries gives up after one attempt.


@dataclass(frozen=True)
class Target:
    """Where ZooKeeper is and how to speak to it. `hosts` is HOST:PORT,...[/chroot]; times in seconds."""

    hosts: str
    session_timeout: float = 10.0
    reply_deadline: float = 1.5
    credentials: str | None = field(default=None, repr=False)  # user:password of a digest
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_verify: bool = True
    acl: str = "creator"  # with credentials: creator, read or open; without there is only open


def make_client(target: Target, servers: str, handler: Any, log: logging.Logger) -> KazooClient:
    """A kazoo client that has not started."""
    return KazooClient(
        hosts=servers,
        timeout=target.session_timeout,
        handler=handler,
        connection_retry=RECONNECT,
        logger=log,
        auth_data=[("digest", target.credentials)] if target.credentials else None,
        use_ssl=target.tls,
        ca=target.tls_ca,
        certfile=target.tls_cert,
        keyfile=target.tls_key or target.tls_cert,  # without one, kazoo would leave the certificate out
        verify_certs=target.tls_verify,
        check_hostname=target.tls and target.tls_verify,
    )


def make_acl(target: Target) -> list[Any]:
    """With credentials, a znode is for those who have them; with `read` everybody may look."""
    if not target.credentials or target.acl == "open":
        return list(OPEN_ACL_UNSAFE)
    creator = make_digest_acl(*target.credentials.split(":", 1), all=True)
    return [creator, *READ_ACL_UNSAFE] if target.acl == "read" else [creator]


def tls_context(target: Target) -> ssl.SSLContext | None:
    """What a handshake with these servers needs, to find out why it fails; None without TLS. It reads the files."""
    if not target.tls:
        return None
    context = ssl.create_default_context(cafile=target.tls_ca)
    if target.tls_cert:
        context.load_cert_chain(target.tls_cert, target.tls_key)
    return context


_ROLLED_BACK = (kazoo_errors.RolledBackError, kazoo_errors.RuntimeInconsistency)
_ERRORS: dict[type[Exception], type[ports.ZooKeeperError]] = {
    kazoo_errors.ConnectionLoss: ports.ConnectionLoss,
    kazoo_errors.OperationTimeoutError: ports.ConnectionLoss,
    kazoo_errors.ConnectionClosedError: ports.SessionExpired,
    kazoo_errors.SessionExpiredError: ports.SessionExpired,
    kazoo_errors.NoNodeError: ports.NoNode,
    kazoo_errors.NodeExistsError: ports.NodeExists,
    kazoo_errors.BadVersionError: ports.BadVersion,
    kazoo_errors.NotEmptyError: ports.NotEmpty,
    kazoo_errors.NoAuthError: ports.NoAuth,
    kazoo_errors.AuthFailedError: ports.NoAuth,
}


def error(failure: Exception, index: int = -1) -> ports.ZooKeeperError:
    """kazoo's exception as the port's; `index`: which operation of a transaction failed, -1 if none is known."""
    return _ERRORS.get(type(failure), ports.ZooKeeperError)(f"{type(failure).__name__} {failure}".strip(), index)


def stat(answer: Any) -> ports.Stat:
    """kazoo's ZnodeStat as the port's."""
    return ports.Stat(
        answer.czxid,
        answer.mzxid,
        answer.version,
        answer.cversion,
        answer.numChildren,
        answer.ephemeralOwner,
        answer.ctime,
        answer.mtime,
    )


def found(answers: Sequence[Any]) -> list[tuple[bytes, ports.Stat] | None]:
    """The answer to a MultiRead; raises the first error in it."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise error(answer)
    return [answer and content(answer) for answer in answers]


def content(answer: tuple[bytes | None, Any]) -> tuple[bytes, ports.Stat]:
    """A znode's. One that was made without data, as strangers' tools do, has none rather than none at all."""
    return answer[0] or b"", stat(answer[1])


def transaction(client: Any, operations: Sequence[ports.Operation], root: str, acl: list[Any]) -> Any:
    """A kazoo transaction, not committed. It can be committed once: a new try needs a new one."""
    made = client.transaction()
    for operation in operations:
        path = root + operation.path
        match operation:
            case ports.Create():
                made.create(path, operation.data, acl=acl, ephemeral=operation.ephemeral, sequence=operation.sequence)
            case ports.Set():
                made.set_data(path, operation.data, operation.version)
            case ports.Delete():
                made.delete(path, operation.version)
            case ports.Check():
                made.check(path, operation.version)
    return made


def results(operations: Sequence[ports.Operation], answers: Sequence[Any], root: str) -> list[str | ports.Stat | None]:
    """Kazoo returns a transaction's errors in the list of its results: raises the one that is the cause."""
    for index, answer in enumerate(answers):
        if isinstance(answer, Exception) and not isinstance(answer, _ROLLED_BACK):
            raise error(answer, index)
    return [_result(o, a, root) for o, a in zip(operations, answers, strict=True)]


def _result(operation: ports.Operation, answer: Any, root: str) -> str | ports.Stat | None:
    if isinstance(operation, ports.Create):
        return str(answer)[len(root) :]
    return stat(answer) if isinstance(operation, ports.Set) else None


def size(operations: Sequence[ports.Operation]) -> int:
    """Bytes of a multi on the wire, or a little more."""
    return sum(len(o.path) + len(getattr(o, "data", b"")) + 128 for o in operations)
