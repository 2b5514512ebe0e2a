"""A kubeconfig -> where to connect, and as whom.

Clients are looked up by user name. A cluster whose kubeconfig does not know them, as the demo's,
lets them all be the user of the current context: their queries are right, their names are not.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


@dataclass(frozen=True, slots=True)
class Access:
    """Everything needed to send one client's requests."""

    host: str
    port: int
    tls: ssl.SSLContext
    headers: dict[str, str]
    """``Authorization``, unless the TLS context presents a certificate."""


class Kubeconfig:
    """Raises OSError for a file that is absent, KeyError or StopIteration for one that lacks what
    it names. Certificates and tokens may be inline (``tls`` needs files for client pairs)."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        document: dict[str, Any] = yaml.safe_load(path.read_text())
        self._users = {entry["name"]: entry["user"] for entry in document["users"]}
        context = _named(document["contexts"], document["current-context"])["context"]
        self._default: str = context["user"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        self.server: str = cluster["server"]
        self._server = urlsplit(self.server)
        self._authority = self._read(cluster, "certificate-authority")
        self._with_tokens: ssl.SSLContext | None = None

    def knows(self, user: str) -> bool:
        return user in self._users

    def access(self, user: str) -> Access:
        """As ``user`` if there is one, else as the current context's."""
        found = self._users.get(user) or self._users[self._default]
        assert self._server.hostname is not None
        tls = self._tls_of(found)
        headers = {"Authorization": f"Bearer {found['token']}"} if "token" in found else {}
        return Access(self._server.hostname, self._server.port or 443, tls, headers)

    def _tls_of(self, user: dict[str, Any]) -> ssl.SSLContext:
        """One context for all who have no certificate: making one takes a millisecond."""
        if "client-certificate" not in user:
            if self._with_tokens is None:
                self._with_tokens = self._context()
            return self._with_tokens
        context = self._context()
        context.load_cert_chain(
            self._folder / user["client-certificate"], self._folder / user["client-key"]
        )
        return context

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self._authority)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _read(self, entry: dict[str, Any], key: str) -> str:
        if f"{key}-data" in entry:
            return base64.b64decode(entry[f"{key}-data"]).decode()
        name: str = entry[key]
        return (self._folder / name).read_text()


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
