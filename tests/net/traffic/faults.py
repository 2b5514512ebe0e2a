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
from typing import cast

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

    ``fault`` is asked when a connection is accepted; ``links`` are those there are.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self._server: asyncio.Server | None = None
        self.fault: Callable[[], Fault] = lambda: NONE
        self.links: set[Link] = set()
        self.accepted = 0
        self.port = 0

    async def start(self) -> FaultProxy:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def _accept(self) -> _Side:
        self.accepted += 1
        return Link(self, self.fault()).near

    def end_all(self, end: End) -> None:
        """Does ``end`` to every connection there is, in the direction of responses."""
        for link in tuple(self.links):
            link.end(link.far, end)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in tuple(self.links):
            link.end(link.near, End.RESET)
            await asyncio.gather(*link.connecting, return_exceptions=True)


class Link:
    """A client's connection and the one to the target. Nothing flows before both are there."""

    def __init__(self, proxy: FaultProxy, fault: Fault) -> None:
        self._proxy = proxy
        self.latency = fault.latency
        self._end = fault.end
        self.near = _Side(self, fault.cut_up)
        self.far = _Side(self, fault.cut_down)
        self.connecting: list[asyncio.Task[None]] = []

    def side_made(self, side: _Side) -> None:
        self._proxy.links.add(self)
        if side is self.near:
            self.connecting.append(asyncio.get_running_loop().create_task(self._connect()))
            return
        if self.near.transport.is_closing():
            side.transport.abort()
            return
        self.near.start()
        self.far.start()

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self.far, "127.0.0.1", self._proxy.target
            )
        except OSError:
            self.near.transport.abort()

    def side_lost(self, side: _Side, exc: Exception | None) -> None:
        other = self.other(side)
        if other.gone:
            self._proxy.links.discard(self)
        elif side.swallows and self._end is End.BLACK_HOLE:
            pass  # nobody learns of it
        elif exc is not None:
            other.reset()
        else:
            other.transport.close()

    def other(self, side: _Side) -> _Side:
        return self.far if side is self.near else self.near

    def cut(self, side: _Side) -> None:
        self.end(side, self._end)

    def end(self, side: _Side, end: End) -> None:
        """``end`` happens to what flows from ``side`` to the other."""
        side.swallows = True
        other = self.other(side)
        if end is End.HALF:
            if not other.gone:
                other.end_of_file()
        elif end is not End.BLACK_HOLE:
            for each in (other, side):
                if end is End.RESET:
                    each.reset()
                elif not each.gone:
                    each.transport.close()


class _Side(asyncio.Protocol):
    """One of the two connections of a link; ``left`` bytes read from it may still pass."""

    transport: asyncio.Transport

    def __init__(self, link: Link, left: int | None) -> None:
        self._link = link
        self._left = left
        self._held: list[bytes] | None = []  # read before the other side was there
        self.swallows = False
        self.gone = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.gone = False
        self._link.side_made(self)

    def start(self) -> None:
        held, self._held = self._held, None
        for data in held or ():
            self.data_received(data)
        self.check()

    def data_received(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
            return
        if self.swallows:
            return
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if self._link.latency:
            loop = asyncio.get_running_loop()
            loop.call_later(self._link.latency, self._pass_on, data)
        else:
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        other = self._link.other(self)
        if not other.gone and not other.transport.is_closing() and not self.swallows:
            other.transport.write(data)
        self.check()

    def check(self) -> None:
        """Cuts if all has passed that may."""
        if self._left == 0 and not self.swallows:
            self._link.cut(self)

    def reset(self) -> None:
        if not self.gone and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()

    def end_of_file(self) -> None:
        if not self.transport.is_closing():
            self.transport.write_eof()

    def eof_received(self) -> bool:
        other = self._link.other(self)
        if (
            not self.swallows
            and self._held is None
            and not other.gone
            and not other.transport.is_closing()
        ):
            other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._link.side_lost(self, exc)
