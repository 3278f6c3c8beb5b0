"""What TLS needs from outside of the core: its rules from the configuration, and which listener wants what. It knows no bytes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from os import EX_USAGE

from mcserver.core import TlsRules
from mcserver.server.listeners import asked_by
from mcserver.settings.config import Config, Secure
from mcserver.settings.rules import rules
from mcserver.system import files
from mcserver.system.process import StartError

TCP_ULP = 31
"""Linux's option for what stands above TCP, which Python's socket module doesn't name."""
SECURITIES = {Secure.DEFAULT: 1, Secure.NONE: 0, Secure.BASIC: 2, Secure.MUTUAL: 3}
"""How the core numbers what a listener asks of its clients."""


def load(config: Config) -> TlsRules:
    """Reads the certificates of the configuration. Raises StartError (64, as memcached), in memcached's words."""
    assert config.ssl_chain_cert is not None
    for what, name in (
        ("certificate chain", config.ssl_chain_cert),
        ("key", config.ssl_key),
        ("CA certificate", config.ssl_ca_cert),
    ):
        try:
            if name is not None:
                files.check(name)
        except OSError as error:  # OpenSSL would wait at a pipe, for ever
            raise StartError(f"Error loading the {what}: {name} : {error.strerror}", EX_USAGE) from error
    try:
        return TlsRules(
            config.ssl_chain_cert,
            config.ssl_key or config.ssl_chain_cert,
            key_format=config.ssl_keyformat,
            ca_cert=config.ssl_ca_cert,
            ciphers=config.ssl_ciphers,
            verify=config.ssl_verify_mode,
            min_version=config.ssl_min_version,
            session_cache=config.ssl_session_cache,
            kernel=config.ssl_kernel_tls,
            write_size=config.ssl_wbuf_size,
        )
    except ValueError as error:
        is_key = config.ssl_key is None and str(error).startswith("Error loading the key")
        raise StartError(f"{error}{'; name its file with -o ssl_key' * is_key}", EX_USAGE) from error


def security(config: Config, listener: socket.socket) -> int:
    """What a listener asks of its clients: nothing on a Unix socket, else what -Z says, or its prefix in -l."""
    if not config.ssl_enabled or listener.family == socket.AF_UNIX:
        return SECURITIES[Secure.NONE]
    return SECURITIES[asked_by(listener)]


def warnings(config: Config, listeners: list[socket.socket]) -> Iterator[str]:
    """What was asked for in vain, also by the prefix of a listener that another process opened (--take-over)."""
    asked = {asked_by(each) for each in listeners}
    if not config.ssl_enabled:
        if asked & {Secure.BASIC, Secure.MUTUAL}:
            yield "an address that was opened with btls: or mtls: is plain without -Z"
        for name, (default, _) in rules(Config).items():
            if name.startswith("ssl_") and getattr(config, name) != default:
                yield f"-o {name} has no effect without -Z"
        return
    if any(each.family == socket.AF_UNIX for each in listeners):
        yield "-Z is for TCP: the Unix socket is plain"
    if (config.ssl_verify_mode > 0 or Secure.MUTUAL in asked) and config.ssl_ca_cert is None:
        yield "client certificates can't be verified without -o ssl_ca_cert: whoever shows one is refused"
    if config.ssl_kernel_tls and not kernel_can():
        yield "ssl_kernel_tls has no effect: the kernel has no TLS (load its module: modprobe tls)"


def kernel_can() -> bool:
    """Whether the kernel encrypts what is sent to a TCP socket. The module is loaded at the first use where that is allowed."""
    try:
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            client.connect(server.getsockname())
            client.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    except OSError:
        return False
    return True
