"""``EmbeddedApiServer``: the whole double behind a listening socket.

In-process for tests (port 0, then ``url``), or as a process of its own so that it does not share
the guard's CPU when the guard is measured: ``python -m apiguard.demo.apiserver --help``.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from apiguard.demo.authentication import Authenticator, RequestHeaders
from apiguard.demo.authorization import Authorizer
from apiguard.demo.capacity import CapacitySpec, Load
from apiguard.demo.control import Control
from apiguard.demo.customresources import Definitions
from apiguard.demo.encoding import Object
from apiguard.demo.faults import Faults
from apiguard.demo.handling import Counted, Handler, Services
from apiguard.demo.pacing import Pacer
from apiguard.demo.rbac import Roles
from apiguard.demo.resources import (
    CUSTOMRESOURCEDEFINITIONS,
    NAMESPACES,
    SERVICES,
    Catalogue,
    Resource,
)
from apiguard.demo.serviceaccounts import TokenIssuer
from apiguard.demo.store import DEFAULT_HISTORY, Store
from apiguard.demo.target import Query, Target
from apiguard.demo.verbs import BODY_LIMIT, Verbs
from apiguard.demo.watching import Hub
from apiguard.demo.watchstream import BOOKMARK_EVERY
from apiguard.kube.identity import Identity

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader
    from aiohttp.web_protocol import RequestHandler
    from cryptography import x509

# Requests remembered for tests; older ones are forgotten.
REQUEST_LOG = 20_000
_NO_QUERY = Query("")
_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived: the target and the header lines as received, in order."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    at: float

    def values(self, name: str) -> list[bytes]:
        """Values of every line of that name, in order."""
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]


@dataclass(frozen=True, slots=True)
class ApiServerOptions:
    """How to serve. ``port`` 0 lets the kernel choose; ``capacity`` None is unlimited.

    ``everybody``      allow every authenticated or anonymous request, as without an authorizer
    ``clients``        authorities of client certificates; ``tls`` must then ask for them
    ``demo_faults``    serve ``POST /demo/faults`` to loopback
    ``bookmark_every`` seconds between the bookmarks of a watch
    ``history``        changes remembered per resource, the reach of watches and old lists
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    tokens: Mapping[str, Identity] = field(default_factory=dict)
    anonymous: bool = True
    everybody: bool = False
    clients: tuple[x509.Certificate, ...] = ()
    front_proxy: RequestHeaders | None = None
    capacity: CapacitySpec | None = None
    demo_faults: bool = False
    history: int = DEFAULT_HISTORY
    seed: int = 0
    bookmark_every: float = BOOKMARK_EVERY


class _Request(web.BaseRequest):
    """A request whose answers do not name aiohttp in a Server header: upstream sends none."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.pop("Server", None)


class EmbeddedApiServer:
    """Start it, talk to ``url``, look at ``store``, ``requests`` and ``counts``, stop it.

    ``faults`` and ``control`` break it on purpose.
    """

    def __init__(self, options: ApiServerOptions | None = None) -> None:
        self.options = options if options is not None else ApiServerOptions()
        self.rng = random.Random(self.options.seed)  # noqa: S311 - names and uids of a double
        self.catalogue = Catalogue()
        self.store = Store(self.catalogue, history=self.options.history)
        self.verbs = Verbs(self.store, self.rng)
        self.faults = Faults()
        self.authorizer = Authorizer(everybody=self.options.everybody, roles=Roles(self.store))
        self.issuer = TokenIssuer(self.store, self.rng)
        self.authenticator = Authenticator(
            dict(self.options.tokens),
            self.options.anonymous,
            self.options.clients,
            self.options.front_proxy,
            self.issuer,
        )
        self.requests: deque[Received] = deque(maxlen=REQUEST_LOG)
        self.hubs: dict[Resource, Hub] = {}
        self.control = Control(self.store, self.hubs)
        self.counts: Counter[Counted] = Counter()
        self.port = self.options.port
        self._pacer: Pacer | None = None
        self._web: web.Server | None = None
        self._listener: asyncio.Server | None = None
        for resource in self.catalogue:
            self._add_hub(resource)
        self.definitions = Definitions(
            self.store, CUSTOMRESOURCEDEFINITIONS, self._serve_resource, self._withdraw_resource
        )
        self._seed_namespaces()

    @property
    def url(self) -> str:
        scheme = "https" if self.options.tls is not None else "http"
        return f"{scheme}://{self.options.host}:{self.port}"

    async def start(self) -> None:
        """Listens; raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        if self.options.capacity is not None:
            self._pacer = Pacer(self.options.capacity, self.cut_connections, self._delivered)
        services = Services(
            self.catalogue,
            self.verbs,
            self.authenticator,
            self.authorizer,
            self.faults,
            self.hubs,
            self._pacer,
            self.rng,
            f"{self.options.host}:{self.port}",
            self.options.demo_faults,
            self.control,
            self.counts,
            self.options.bookmark_every,
            self.issuer,
        )
        handler = Handler(services)

        async def logged(request: web.BaseRequest) -> web.StreamResponse:
            received = Received(
                request.method, request.raw_path, tuple(request.raw_headers), loop.time()
            )
            self.requests.append(received)
            return await handler(request)

        self._web = web.Server(
            logged,
            request_factory=_make_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=90.0,
            max_line_size=64 << 10,
            max_field_size=64 << 10,
        )
        await self.listen()
        services.address = f"{self.options.host}:{self.port}"

    async def listen(self) -> None:
        """Opens the listening socket, again after ``stop_listening`` on the same port."""
        assert self._web is not None, "start() comes first"
        self._listener = await asyncio.get_running_loop().create_server(
            self._web, self.options.host, self.port, ssl=self.options.tls, backlog=2048
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop_listening(self) -> None:
        """Refuses new connections; open ones go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def kill(self) -> None:
        """Dies as a process does: every connection is reset and nobody listens any more.

        What it stored stays; ``listen`` brings it back on the same port.
        """
        await self.stop_listening()
        self.cut_connections()

    def cut_connections(self) -> int:
        """Resets every open connection; returns how many."""
        connections = list(self._web.connections) if self._web is not None else []
        for connection in connections:
            if connection.transport is not None:
                # Always a transport for writing; uvloop's are of no class of asyncio's.
                cast(asyncio.WriteTransport, connection.transport).abort()
        return len(connections)

    async def stop(self) -> None:
        """Ends listening and every connection."""
        await self.stop_listening()
        if self._pacer is not None:
            self._pacer.close()
        if self._web is not None:
            self.cut_connections()
            await self._web.shutdown(1.0)

    def load(self) -> Load | None:
        """Live figures of the capacity model; None without one."""
        return self._pacer.load() if self._pacer is not None else None

    @property
    def watchers(self) -> int:
        """Open watches that have joined their hub."""
        return sum(hub.watchers for hub in self.hubs.values())

    def create(self, resource: Resource, value: Object, namespace: str = "") -> Object:
        """Stores an object as a POST would; returns what was stored."""
        target = Target("POST", "", _NO_QUERY, "create", namespace=namespace)
        return self.verbs.create(resource, target, value, time.time())[0].value

    def _add_hub(self, resource: Resource) -> None:
        self.hubs[resource] = Hub(self.store.collections[resource], time.time)

    def _serve_resource(self, resource: Resource) -> None:
        self._add_hub(resource)
        self.catalogue.add(resource)

    def _withdraw_resource(self, resource: Resource) -> None:
        self.catalogue.remove(resource)
        self.hubs.pop(resource).end_all()

    def _delivered(self) -> int:
        return sum(hub.delivered for hub in self.hubs.values())

    def _seed_namespaces(self) -> None:
        for name in _NAMESPACES:
            self.create(NAMESPACES, {"metadata": {"name": name}})
        ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
        service = {
            "metadata": {"name": "kubernetes"},
            "spec": {"clusterIP": "10.96.0.1", "ports": ports},
        }
        self.create(SERVICES, service, "default")


def _make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    return _Request(
        message,
        payload,
        protocol,
        writer,
        task,
        asyncio.get_running_loop(),
        client_max_size=BODY_LIMIT,
    )


if __name__ == "__main__":
    from apiguard.demo.command import main

    main()
