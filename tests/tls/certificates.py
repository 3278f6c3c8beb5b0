"""Certificates for the tests of TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

SECONDS = 60
"""Far more than any wait here takes."""


class Folder:
    """Certificates of one authority, and of another that nobody knows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(path / "ca.pem"))
        self.stranger = trustme.CA()
        self.renew("server")
        self.renew("client")
        self.renew("foreign", self.stranger)

    def renew(self, name: str, authority: trustme.CA | None = None) -> None:
        """A new key and certificate in NAME.pem, NAME.key and, both in one, NAME.both."""
        issued = (authority or self.authority).issue_cert("localhost", "127.0.0.1", common_name=name)
        issued.private_key_pem.write_to_path(str(self.path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(self.path / f"{name}.pem"))
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.path / f"{name}.both"))

    def __truediv__(self, name: str) -> str:
        return str(self.path / name)

    def options(self, *more: str) -> tuple[str, ...]:
        """-Z with the server's certificate."""
        files = [f"ssl_chain_cert={self / 'server.pem'}", f"ssl_key={self / 'server.key'}", *more]
        return "-Z", "-o", ",".join(files)

    def context(self, certificate: str = "") -> ssl.SSLContext:
        """A client's, which knows the authority; it shows a certificate if there is one to show."""
        context = ssl.create_default_context(cafile=self / "ca.pem")
        if certificate:
            context.load_cert_chain(self / f"{certificate}.pem", self / f"{certificate}.key")
        return context
