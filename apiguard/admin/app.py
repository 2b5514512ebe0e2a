"""The admin HTTP server: aiohttp with every bound set, on a socket bound before workers start."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from typing import Final, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from apiguard.admin.access import Access, TokenFile, known_hosts, middleware
from apiguard.admin.handlers import Handlers
from apiguard.admin.replies import refuse
from apiguard.kube.status import Status, entity_too_large, internal_error
from apiguard.policy.config import AdminConfig
from apiguard.runtime.log import Log
from apiguard.runtime.sockets import open_listeners
from apiguard.runtime.supervisor import Supervisor

MAX_BODY: Final = 1 << 20
MAX_LINE: Final = 8_190
MAX_CONNECTIONS: Final = 256
REQUEST_SECONDS: Final = 15.0
IDLE_SECONDS: Final = 30.0
"""A connection without a complete request for so long is closed, however it dribbles."""

SWEEP_SECONDS: Final = 2.0


class AdminServer:
    """``open`` binds, ``start`` serves, ``stop`` ends."""

    def __init__(self, config: AdminConfig, supervisor: Supervisor, log: Log) -> None:
        """Raises StartupError when the token file cannot be used."""
        access = Access(TokenFile(config.token_file), known_hosts(config.address, config.hosts))
        self._config = config
        self._log = log
        self._sock: socket.socket | None = None
        self._connections: dict[asyncio.BaseProtocol, float] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        application = web.Application(
            middlewares=[self._guarded, middleware(access)], client_max_size=MAX_BODY
        )
        application.add_routes(Handlers(supervisor).routes())
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )

    def open(self) -> None:
        """Raises StartupError when the address is taken."""
        self._sock = open_listeners(self._config.address, 1, "admin.address")[0]

    @property
    def address(self) -> tuple[str, int]:
        assert self._sock is not None
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    async def start(self) -> None:
        assert self._sock is not None
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, sock=self._sock)
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.BaseProtocol:
        """A protocol for a new connection; above the bound one that hangs up."""
        self._forget_closed()
        if len(self._connections) >= MAX_CONNECTIONS:
            return _HangUp()
        assert self._runner.server is not None
        protocol = self._runner.server()
        self._connections[protocol] = time.monotonic()
        return protocol

    def _forget_closed(self) -> None:
        assert self._runner.server is not None
        alive = set(self._runner.server.connections)
        now = time.monotonic()
        # A protocol made a moment ago is not among the server's connections yet.
        self._connections = {
            p: since for p, since in self._connections.items() if p in alive or now - since < 1.0
        }

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._forget_closed()
            due = time.monotonic() - IDLE_SECONDS
            for protocol, since in list(self._connections.items()):
                if since < due:
                    handler = cast(web.RequestHandler, protocol)
                    handler.force_close()
                    if handler.transport is not None:
                        handler.transport.abort()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every failure as a Status; a defect tells its id only, the log the rest."""
        self._connections[request.protocol] = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await handler(request)
        except TimeoutError:
            return refuse(Status(408, "", "the request took too long"))
        except web.HTTPRequestEntityTooLarge:
            return refuse(entity_too_large(MAX_BODY))
        except web.HTTPException as error:
            return refuse(_status_of(error))
        except Exception as error:
            incident = secrets.token_hex(6)
            self._log.error(
                "admin request failed", incident=incident, path=request.path, error=repr(error)
            )
            return refuse(internal_error(incident))
        finally:
            self._connections[request.protocol] = time.monotonic()


class _HangUp(asyncio.Protocol):
    """Closes at once: there are enough connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


_REASONS = {404: "NotFound", 405: "MethodNotAllowed"}


def _status_of(error: web.HTTPException) -> Status:
    return Status(error.status, _REASONS.get(error.status, ""), error.reason)
