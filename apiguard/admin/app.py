"""The admin HTTP server: aiohttp with every bound set, behind doors opened before workers start."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import time
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from apiguard.admin.access import Access, not_allowed, not_understood, route_asked
from apiguard.admin.answers import Answers
from apiguard.admin.files import AdminFiles
from apiguard.admin.handlers import Handlers
from apiguard.admin.listener import IDLE_SECONDS, Listener, find
from apiguard.admin.openapi import OpenApiHandlers
from apiguard.admin.overriding import OverrideHandlers
from apiguard.admin.parameters import ParameterError
from apiguard.admin.policies import PolicyHandlers
from apiguard.admin.relayhandlers import RelayHandlers
from apiguard.admin.replies import ACTOR, refuse
from apiguard.admin.routes import Route, bound
from apiguard.admin.unixsocket import close_socket, open_socket
from apiguard.errors import StartupError
from apiguard.kube.status import Status, bad_request, entity_too_large, internal_error
from apiguard.policy.config import AdminConfig
from apiguard.runtime.actor import Actor
from apiguard.runtime.log import Log
from apiguard.runtime.rotation import LOOK_SECONDS
from apiguard.runtime.sockets import open_listeners
from apiguard.runtime.supervisor import Supervisor

MAX_BODY: Final = 1 << 20
MAX_LINE: Final = 8_190
REQUEST_SECONDS: Final = 15.0
NOTE_SECONDS: Final = 1.0


class AdminServer:
    """``open`` binds, ``start`` serves, ``stop`` ends."""

    def __init__(self, config: AdminConfig, supervisor: Supervisor, log: Log) -> None:
        """Raises StartupError or ConfigError when a token or TLS file cannot be used."""
        self._config = config
        self._supervisor = supervisor
        self._log = log
        self._files = AdminFiles(config)
        self._access = Access(config, self._files)
        self._answers = Answers()
        self._noted_at = -NOTE_SECONDS
        self._sock: socket.socket | None = None
        self._unix: socket.socket | None = None
        self._listeners: list[Listener] = []
        self._follower: asyncio.Task[None] | None = None
        application = web.Application(
            middlewares=[self._guarded, self._checked], client_max_size=MAX_BODY
        )
        application.add_routes(
            bound(
                Handlers(supervisor, self._files, self._answers),
                PolicyHandlers(supervisor),
                OverrideHandlers(supervisor),
                RelayHandlers(supervisor),
                OpenApiHandlers(),
            )
        )
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )

    def open(self) -> None:
        """Raises StartupError when the address or the socket's path is taken."""
        self._sock = open_listeners(self._config.address, 1, "admin.address")[0]
        try:
            if self._config.socket is not None:
                self._unix = open_socket(self._config.socket)
        except StartupError:
            self._sock.close()
            raise

    @property
    def address(self) -> tuple[str, int]:
        assert self._sock is not None
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    async def start(self) -> None:
        assert self._sock is not None
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        self._listeners = [Listener(self._sock, server, self._context)]
        if self._unix is not None:
            self._listeners.append(Listener(self._unix, server, lambda: None))
        for listener in self._listeners:
            listener.start()
        self._follower = asyncio.create_task(self._follow_files())

    async def stop(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
        for listener in self._listeners:
            await listener.stop()
        if self._sock is not None:
            self._sock.close()
        if self._unix is not None and self._config.socket is not None:
            close_socket(self._unix, self._config.socket)
        await self._runner.cleanup()

    def look_at_files(self) -> tuple[str, ...]:
        """Reads tokens and TLS files again; the settings that changed. Blocks on files."""
        return self._files.look()

    def _context(self) -> ssl.SSLContext | None:
        return None if self._files.tls is None else self._files.tls.context

    async def _follow_files(self) -> None:
        told: dict[str, str] = {}
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            loop = asyncio.get_running_loop()
            changed = await loop.run_in_executor(None, self.look_at_files)
            if changed:
                self._log.warning("files changed", files=", ".join(changed))
            problems = self._files.problems
            for name, reason in problems.items():
                if told.get(name) != reason:
                    self._log.error(
                        "file is broken, what it held before stays", file=name, reason=reason
                    )
            told = problems

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Runs before every handler, unknown paths included."""
        if self._access.is_open(request):
            return await handler(request)
        actor = self._access.actor(request)
        if isinstance(actor, Status):
            return refuse(actor)
        connection = find(self._listeners, request)
        if connection is not None:
            connection.trusted = True
        request[ACTOR] = actor
        route = route_asked(request)
        if route is not None:
            forbidden = not_allowed(request, route, actor)
            if forbidden is not None:
                self._note_forbidden(request, route, actor)
                return refuse(forbidden)
            problem = not_understood(request, route)
            if problem is not None:
                return refuse(problem)
        return await handler(request)

    def _note_forbidden(self, request: web.Request, route: Route, actor: Actor) -> None:
        """Puts a change that was not allowed on record, one a second: who may do nothing must not
        fill the record until what others did has left it. Each is counted by its code."""
        now = time.monotonic()
        if route.method == "GET" or now - self._noted_at < NOTE_SECONDS:
            return
        self._noted_at = now
        what = f"{route.method} {route.path}"
        self._supervisor.operations.note_refused(actor, what, request.path, "forbidden")

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every failure as a Status, every answer counted."""
        connection = find(self._listeners, request)
        if connection is not None:
            connection.since = time.monotonic()
        response = await self._answered(request, handler)
        if connection is not None:
            connection.since = time.monotonic()
        route = route_asked(request)
        name = "other" if route is None else f"{route.method} {route.path}"
        self._answers.count(name, response.status)
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A defect tells its id only, the log the rest."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await handler(request)
        except TimeoutError:
            return refuse(Status(408, "", "the request took too long"))
        except ParameterError as error:
            return refuse(bad_request(str(error)))
        except web.HTTPRequestEntityTooLarge:
            return refuse(entity_too_large(MAX_BODY))
        except web.HTTPException as error:
            return refuse(_status_of(error))
        except ConnectionError:  # the client is gone: nobody reads this
            return refuse(Status(408, "", "the connection was lost"))
        except Exception as error:
            incident = secrets.token_hex(6)
            self._log.error(
                "admin request failed", incident=incident, path=request.path, error=repr(error)
            )
            return refuse(internal_error(incident))


_REASONS = {404: "NotFound", 405: "MethodNotAllowed"}


def _status_of(error: web.HTTPException) -> Status:
    return Status(error.status, _REASONS.get(error.status, ""), error.reason)
