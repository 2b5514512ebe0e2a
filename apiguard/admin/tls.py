"""TLS of the admin port: its own files, followed like those of traffic, known to no worker."""

from __future__ import annotations

import ssl
from typing import Final

from apiguard.identity.certificate import ClientAuthority
from apiguard.policy.tlsconfig import TlsConfig
from apiguard.runtime.files import Files
from apiguard.runtime.rotation import Check, Followed
from apiguard.runtime.tls import serving_context

SECTION: Final = "admin.tls"
CERT: Final = f"{SECTION}.certFile"
KEY: Final = f"{SECTION}.keyFile"
CLIENT_CA: Final = f"{SECTION}.clientCAFile"


class AdminTls(Followed):
    """``context`` is for the next connection, ``authority`` judges the next request."""

    def __init__(self, config: TlsConfig) -> None:
        paths = {CERT: config.cert_file, KEY: config.key_file}
        groups: dict[tuple[str, ...], Check] = {(CERT, KEY): _context}
        if config.client_ca_file:
            paths[CLIENT_CA] = config.client_ca_file
            # Apart, so that a broken pair does not keep a withdrawn authority in force.
            groups[(CLIENT_CA,)] = _context
        super().__init__(paths, groups)
        self.context: ssl.SSLContext | None = None
        self.authority: ClientAuthority | None = None

    def load(self) -> None:
        """Raises StartupError or ConfigError."""
        super().load()
        self._use()

    def look(self) -> Files:
        changed = super().look()
        if changed:
            self._use()
        return changed

    def _use(self) -> None:
        self.context = _unresumed(serving_context(self.files, SECTION))
        authority = self.files.get(CLIENT_CA)
        self.authority = ClientAuthority(authority.data, authority.path) if authority else None


def _unresumed(context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Every connection with a handshake of its own: a resumed one does not say which intermediate
    authorities its client has, and each request is verified anew."""
    if context is not None:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _context(files: Files) -> object:
    """Raises StartupError or ConfigError for files that cannot be used."""
    if CLIENT_CA in files:
        ClientAuthority(files[CLIENT_CA].data, files[CLIENT_CA].path)
    return serving_context(files, SECTION)
