"""One door of the admin port: accepts, and bounds what strangers can hold open.

Each door has connections of its own, so that nobody on the network can lock out the host. Within
one, a full house makes room: a connection that never presented a credential goes for a new one,
the one idle for longest first. So idle strangers cost each other, not the operator.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import web

MAX_CONNECTIONS: Final = 256
MAX_HANDSHAKES: Final = 64
HANDSHAKE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 30.0
"""A connection without a complete request for so long is closed, however it dribbles."""

SWEEP_SECONDS: Final = 2.0
REST_SECONDS: Final = 0.1
"""Pause when the process has no descriptor left for a connection."""


class Connection:
    """``since`` is when it last did something; ``trusted`` once a credential was accepted."""

    __slots__ = ("since", "trusted")

    def __init__(self, now: float) -> None:
        self.since = now
        self.trusted = False


class Listener:
    """Serves connections of one listening socket through ``server``.

    ``context`` is asked for each connection: None for plain HTTP.
    """

    def __init__(
        self,
        sock: socket.socket,
        server: web.Server,
        context: Callable[[], ssl.SSLContext | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sock = sock
        self._server = server
        self._context = context
        self._clock = clock
        self._connections: dict[web.RequestHandler, Connection] = {}
        self._starting: dict[asyncio.Task[None], None] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._sock.setblocking(False)
        self._tasks = [asyncio.create_task(self._accept()), asyncio.create_task(self._sweep())]

    async def stop(self) -> None:
        """Accepts no more; connections end with their server. The socket is the caller's."""
        tasks = [*self._tasks, *self._starting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def connection(self, request: web.BaseRequest) -> Connection | None:
        """That of ``request``, None when it came through another door or is gone."""
        return self._connections.get(request.protocol)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError:
                await asyncio.sleep(REST_SECONDS)
                continue
            if len(self._starting) >= MAX_HANDSHAKES:
                oldest = next(iter(self._starting))
                del self._starting[oldest]
                oldest.cancel()
            self._begin(sock)
            await asyncio.sleep(0)  # accepting one that waits does not yield: others have turns

    def _begin(self, sock: socket.socket) -> None:
        task = asyncio.create_task(self._serve(sock))
        self._starting[task] = None

        def ended(task: asyncio.Task[None]) -> None:
            self._starting.pop(task, None)
            if task.cancelled():
                sock.close()  # also of one that was cancelled before it ran at all

        task.add_done_callback(ended)

    async def _serve(self, sock: socket.socket) -> None:
        """From an accepted socket to a connection of the server."""
        loop = asyncio.get_running_loop()
        handler = self._server()
        try:
            sock.setblocking(False)
            context = self._context()
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await loop.connect_accepted_socket(lambda: handler, sock, ssl=context)
        except (OSError, ssl.SSLError):  # a TimeoutError is an OSError
            sock.close()  # it left, or speaks no TLS we accept
        else:
            self._admit(handler)

    def _admit(self, handler: web.RequestHandler) -> None:
        self._forget_closed()
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            _abort(handler)
            return
        self._connections[handler] = Connection(self._clock())

    def _make_room(self) -> bool:
        strangers = [
            (connection.since, index, handler)
            for index, (handler, connection) in enumerate(self._connections.items())
            if not connection.trusted
        ]
        if not strangers:
            return False
        _, _, idlest = min(strangers)
        del self._connections[idlest]
        _abort(idlest)
        return True

    def _forget_closed(self) -> None:
        alive = set(self._server.connections)
        for handler in self._connections.keys() - alive:
            del self._connections[handler]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._forget_closed()
            due = self._clock() - IDLE_SECONDS
            for handler, connection in self._connections.items():
                if connection.since < due:
                    _abort(handler)


def find(listeners: Iterable[Listener], request: web.BaseRequest) -> Connection | None:
    """The connection of ``request``, whichever door it came through."""
    return next(filter(None, (listener.connection(request) for listener in listeners)), None)


def _abort(handler: web.RequestHandler) -> None:
    transport = handler.transport
    handler.force_close()
    if isinstance(transport, asyncio.Transport):
        transport.abort()
