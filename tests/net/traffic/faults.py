"""FaultProxy: a TCP proxy that does to a connection what networks do.

A ``Fault`` says what happens to one connection; the proxy is asked for one per connection, so a
test can let the first pass and cut the second.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable
from dataclasses import dataclass

from .client import RESET


class End(enum.Enum):
    """What becomes of a connection where it is cut."""

    FIN = "fin"  # both sides are closed in order
    RESET = "reset"  # both sides get a RST
    HALF = "half close"  # the receiving side sees the end; the other direction stays open
    BLACK_HOLE = "black hole"  # nothing more arrives, nothing is said


@dataclass(frozen=True, slots=True)
class Fault:
    """``down`` is towards whoever connected (responses), ``up`` towards the target (requests).

    ``cut_down``/``cut_up``  bytes that pass before ``end`` happens; None for never
    ``latency``              seconds each piece is held back
    """

    cut_down: int | None = None
    cut_up: int | None = None
    end: End = End.FIN
    latency: float = 0.0


NONE = Fault()


class FaultProxy:
    """Listens on a port of the kernel's choice and connects each client to ``port``.

    ``fault`` is read when a connection is accepted.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self.fault: Callable[[], Fault] = lambda: NONE
        self.links: set[_Side] = set()
        self.accepted = 0
        self.port = 0

    async def start(self) -> FaultProxy:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def _accept(self) -> _Side:
        self.accepted += 1
        fault = self.fault()
        near, far = _Side(self, fault, fault.cut_up), _Side(self, fault, fault.cut_down)
        near.other, far.other = far, near
        near.target = self._target
        return near

    def end_all(self, end: End) -> None:
        """Does ``end`` to every connection there is."""
        for side in tuple(self.links):
            side.end(end)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for side in tuple(self.links):
            side.abort()


class _Side(asyncio.Protocol):
    """One of the two connections of a link; reads from it, writes to ``other``."""

    other: _Side

    def __init__(self, proxy: FaultProxy, fault: Fault, left: int | None) -> None:
        self._proxy = proxy
        self._fault = fault
        self._left = left  # bytes read here that may still pass
        self._held: list[bytes] = []  # read before the other side was connected
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._cut = False
        self.target = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._proxy.links.add(self)
        if self.target:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        for data in self.other._held:
            self.other._forward(data)
        self.other._held.clear()
        self._check()

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self.other, "127.0.0.1", self.target
            )
        except OSError:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self.other._transport is None:
            self._held.append(data)
        else:
            self._forward(data)

    def _forward(self, data: bytes) -> None:
        if self._cut:
            return
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if self._fault.latency:
            asyncio.get_running_loop().call_later(self._fault.latency, self._pass_on, data)
        else:
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        target = self.other._transport
        if target is not None and not target.is_closing() and data:
            target.write(data)
        self._check()

    def _check(self) -> None:
        if self._left == 0 and not self._cut:
            self._cut = True
            self.end(self._fault.end)

    def end(self, end: End) -> None:
        """``end`` happens to what flows from here to the other side."""
        if end is End.BLACK_HOLE:
            self._cut = True
        elif end is End.HALF:
            if self.other._transport is not None:
                self.other._transport.write_eof()
        elif end is End.FIN:
            for side in (self, self.other):
                if side._transport is not None:
                    side._transport.close()
        else:
            for side in (self, self.other):
                side.reset()

    def reset(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        other = self.other._transport
        if not self._cut and other is not None and not other.is_closing():
            other.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.links.discard(self)
        if self._cut:
            return
        if exc is not None:
            self.other.reset()
        elif self.other._transport is not None:
            self.other._transport.close()
