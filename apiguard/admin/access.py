"""Who may ask the admin port: checks every request passes before its handler runs.

In this order, because each protects the next: a known Host (a page in an operator's browser
cannot reach us under a name of its own, DNS rebinding), the bearer token, and for writes the same
origin and a content type no plain form can send. Health checks pass all of it: kubelet sends
neither token nor a Host of our choosing.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from apiguard.admin.replies import refuse
from apiguard.errors import StartupError
from apiguard.kube.status import Status, forbidden, unauthorized

OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
CONTENT_TYPES: Final = ("application/json", "application/yaml")
MAX_TOKEN_BYTES: Final = 4_096


class TokenFile:
    """The admin token; read again when the file changes, so it can be replaced while running.

    A file that cannot be read any more leaves the last token in force: losing a mount must not
    lock the operator out in the middle of an incident. Raises StartupError when the first read
    fails.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = b""
        try:
            self._refresh()
        except OSError as error:
            raise StartupError(f"admin.tokenFile {path}: {error.strerror}") from error
        if not self._token:
            raise StartupError(f"admin.tokenFile {path}: holds no token")

    def accepts(self, presented: bytes) -> bool:
        """Whether ``presented`` is the token; takes equally long wherever they differ."""
        with contextlib.suppress(OSError):  # as said above: the last token stays
            self._refresh()
        return hmac.compare_digest(presented, self._token)

    def _refresh(self) -> None:
        found = os.stat(self._path)
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen == self._seen:
            return
        with open(self._path, "rb") as file:
            token = file.read(MAX_TOKEN_BYTES).strip()
        if token:
            self._token = token
            self._seen = seen


def known_hosts(address: str, extra: Iterable[str]) -> frozenset[str]:
    """Host names, lower case, under which the admin port may be addressed.

    Every loopback name always; the address itself unless it means "all addresses", which nobody
    sends as a Host.
    """
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]").lower()
    return frozenset({host, "localhost", "127.0.0.1", "::1", *extra}) - {"", "0.0.0.0", "::"}  # noqa: S104  compared, not bound


class Access:
    """Decides on a request's headers; ``middleware`` refuses with the Status it returns."""

    def __init__(self, token: TokenFile, hosts: frozenset[str]) -> None:
        self._token = token
        self._hosts = hosts

    def problem(self, request: web.Request) -> Status | None:
        """Why this request is refused, None when it may go on."""
        if request.path in OPEN_PATHS and request.method in ("GET", "HEAD"):
            return None
        if _host_name(request.headers.get("Host", "")) not in self._hosts:
            return Status(421, "", "this Host is not known here; list it in admin.hosts")
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._token.accepts(presented.strip().encode()):
            return unauthorized("the admin port needs Authorization: Bearer with the admin token")
        return _write_problem(request) if request.method in WRITES else None


def _write_problem(request: web.Request) -> Status | None:
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin")
    if site not in ("same-origin", "none") or not _same_origin(origin, request):
        return forbidden("writes from another origin are not accepted")
    if request.content_type not in CONTENT_TYPES or "Content-Type" not in request.headers:
        accepted = " or ".join(CONTENT_TYPES)
        return Status(415, "UnsupportedMediaType", f"writes need Content-Type {accepted}")
    return None


def _same_origin(origin: str | None, request: web.Request) -> bool:
    if origin is None:
        return True
    return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets, IP addresses in canonical form."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def middleware(access: Access) -> Middleware:
    """Runs ``access`` before every handler, unknown paths included."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        problem = access.problem(request)
        return await handler(request) if problem is None else refuse(problem)

    return check
