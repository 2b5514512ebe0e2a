"""TLS contexts of the Python peers."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.bench.certificates import SERVER_NAME


@dataclass(frozen=True, slots=True)
class ProxyTls:
    """Both sides of a proxy, and the name that upstream's certificate must hold."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    name: str = SERVER_NAME

    @classmethod
    def load(cls, files: Sequence[str]) -> ProxyTls | None:
        """From paths of authority, certificate and key; None when there are none."""
        if not files:
            return None
        authority, certificate, key = files
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        server.set_alpn_protocols(["http/1.1"])
        return cls(server, ssl.create_default_context(cafile=authority))
