"""Who may ask the admin port: checks every request passes before its handler runs.

In this order, because each protects the next: a known Host (a page in an operator's browser
cannot reach us under a name of its own, DNS rebinding), for writes the same origin and a content
type no plain form can send (browsers attach client certificates by themselves), a credential, and
the role the route needs. Health checks pass all of it: kubelet sends neither token nor a Host of
our choosing.

A bearer token counts before a client certificate, and one that is wrong is not made good by it. On
the Unix socket neither is looked at: whoever may open it has been let in by the kernel, and a
forgotten token in a file must not keep the host's own operator out.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from apiguard.admin.credentials import certificate_actor, role_of, socket_actor
from apiguard.admin.files import AdminFiles
from apiguard.admin.routes import DRY_RUN, OPEN_PATHS, Route, query_problem, route_of
from apiguard.kube.status import Status, bad_request, forbidden, unauthorized
from apiguard.policy.adminconfig import AdminConfig
from apiguard.runtime.actor import Actor
from apiguard.runtime.tls import sent_chain

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
CONTENT_TYPES: Final = ("application/json", "application/yaml")
UNKNOWN_HOST: Final = Status(421, "", "this Host is not known here; list it in admin.hosts")


def known_hosts(address: str, extra: Iterable[str]) -> frozenset[str]:
    """Host names, lower case, under which the admin port may be addressed.

    Every loopback name always; the address itself unless it means "all addresses", which nobody
    sends as a Host.
    """
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]").lower()
    return frozenset({host, "localhost", "127.0.0.1", "::1", *extra}) - {"", "0.0.0.0", "::"}  # noqa: S104  compared, not bound


class Access:
    """Decides on a request's headers and its connection."""

    def __init__(self, config: AdminConfig, files: AdminFiles) -> None:
        self._config = config
        self._files = files
        self._hosts = known_hosts(config.address, config.hosts)

    def is_open(self, request: web.Request) -> bool:
        """Whether anybody may ask this."""
        return request.path in OPEN_PATHS and request.method in ("GET", "HEAD")

    def actor(self, request: web.Request) -> Actor | Status:
        """Who asks, or why nobody is answered."""
        connection = _connection(request)
        if self._config.socket is not None and connection.family == socket.AF_UNIX:
            return _write_problem(request) or _on_socket(connection, self._config)
        if _host_name(request.headers.get("Host", "")) not in self._hosts:
            return UNKNOWN_HOST
        return _write_problem(request) or self._proven(request)

    def _proven(self, request: web.Request) -> Actor | Status:
        source = request.remote or ""
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            scheme, _, presented = authorization.partition(" ")
            found = self._files.tokens.find(presented.strip().encode("utf-8", "surrogateescape"))
            if scheme.lower() == "bearer" and found is not None:
                return Actor(found.name, found.role.value, source, "token")
            return unauthorized("this is no token of the admin port")
        sent = _certificates(request)
        authority = self._files.tls.authority if self._files.tls else None
        if sent and authority is not None:
            actor = certificate_actor(
                sent, self._config.certificates, authority, source=source, wall=time.time()
            )
            return unauthorized(actor) if isinstance(actor, str) else actor
        return unauthorized(
            "the admin port needs Authorization: Bearer with an admin token"
            + (", or a client certificate" if self._config.certificates else "")
        )


def not_allowed(request: web.Request, route: Route, actor: Actor) -> Status | None:
    """Why ``actor`` may not do what ``route`` does, None when allowed."""
    least = route.least(dry_run=request.query.get(DRY_RUN) == "All")
    held = role_of(actor)
    if least is None or held.includes(least):
        return None
    return forbidden(
        f"{request.method} {route.path} needs the role {least.value};"
        f" {actor.name} has the role {held.value}"
    )


def not_understood(request: web.Request, route: Route) -> Status | None:
    """Why the query makes no sense to ``route``, None when it does."""
    if route.path in OPEN_PATHS:
        return None
    problem = query_problem(route, [name for name, _ in request.query.items()])
    return bad_request(problem) if problem else None


def route_asked(request: web.Request) -> Route | None:
    """None for a path or method that does not exist."""
    resource = request.match_info.route.resource
    return None if resource is None else route_of(request.method, resource.canonical)


def _connection(request: web.Request) -> socket.socket:
    """Raises ConnectionResetError when the client is gone already."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    connection: socket.socket = transport.get_extra_info("socket")
    return connection


def _on_socket(connection: socket.socket, config: AdminConfig) -> Actor:
    assert config.socket is not None
    return socket_actor(connection, config.socket)


def _certificates(request: web.Request) -> tuple[bytes, ...]:
    """The client's certificate in DER, then those of intermediate authorities it sent along."""
    tls = request.transport and request.transport.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject):
        return ()
    leaf = tls.getpeercert(binary_form=True)
    return (leaf, *sent_chain(tls)) if leaf is not None else ()


def _write_problem(request: web.Request) -> Status | None:
    if request.method not in WRITES:
        return None
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin")
    if site not in ("same-origin", "none") or not _same_origin(origin, request):
        return forbidden("writes from another origin are not accepted")
    if request.method == "DELETE":  # has no body, and no plain form can send it
        return None
    if request.content_type not in CONTENT_TYPES or "Content-Type" not in request.headers:
        accepted = " or ".join(CONTENT_TYPES)
        return Status(415, "UnsupportedMediaType", f"writes need Content-Type {accepted}")
    return None


def _same_origin(origin: str | None, request: web.Request) -> bool:
    if origin is None:
        return True
    try:
        asking = urlsplit(origin).netloc.lower()
    except ValueError:  # brackets that hold no address
        return False
    return asking == request.headers.get("Host", "").lower()


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
