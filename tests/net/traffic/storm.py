"""Storm: many client connections asking tagged requests, fast enough for a hundred thousand.

Each connection is a protocol, not a task: it sends, reads and checks by plain calls. A share of
requests is given up by their client, before, during or after the answer.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import cast

from .client import RESET
from .upstreams import body_of, chunk

WRITES = ("POST", "PUT", "PATCH", "DELETE")
SIZES = (0, 1, 17, 300, 300, 2_048, 2_048, 5_000) * 8 + (40_000,)


@dataclass(slots=True)
class Tally:
    """What clients saw. ``mixed`` are answers that belong to another request: must stay empty."""

    started: int = 0
    complete: int = 0
    broken: int = 0
    cancelled: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    mixed: list[str] = field(default_factory=list)
    writes: set[bytes] = field(default_factory=set)


class Storm:
    """Asks ``total`` requests of ``port`` over ``width`` connections at a time."""

    def __init__(
        self, rng: random.Random, port: int, *, total: int, width: int, cancels: float
    ) -> None:
        self.rng = rng
        self.port = port
        self.total = total
        self.cancels = cancels
        self.tally = Tally()
        self._width = width
        self._open = 0
        self._done: asyncio.Future[None] | None = None

    async def run(self) -> Tally:
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        for _ in range(self._width):
            self.connect()
        await self._done
        return self.tally

    def connect(self) -> None:
        """Replaces a connection, or ends the storm when none is needed any more."""
        if self.tally.started < self.total:
            self._open += 1
            loop = asyncio.get_running_loop()
            loop.create_task(
                loop.create_connection(lambda: _Asking(self), "127.0.0.1", self.port)
            ).add_done_callback(_connected)
        elif not self._open and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def lost(self) -> None:
        self._open -= 1
        self.connect()

    def next(self) -> tuple[bytes, str, int, bytes] | None:
        """The next request: tag, method, size of its answer, bytes. None when all are out."""
        if self.tally.started >= self.total:
            return None
        self.tally.started += 1
        tag = b"t%d" % self.tally.started
        rng = self.rng
        size = rng.choice(SIZES)
        method = rng.choice(WRITES) if rng.random() < 0.4 else rng.choice(("GET", "GET", "HEAD"))
        if method in WRITES:
            self.tally.writes.add(tag)
        return tag, method, size, _request(rng, tag, method, size)


def _connected(task: asyncio.Task[tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]) -> None:
    task.result()


def _request(rng: random.Random, tag: bytes, method: str, size: int) -> bytes:
    chunked = b"&chunked" if rng.random() < 0.3 else b""
    head = b"%b /api/v1/namespaces/a/pods/p?tag=%b&size=%d%b HTTP/1.1\r\nHost: guard\r\n" % (
        method.encode(),
        tag,
        size,
        chunked,
    )
    if method not in WRITES or rng.random() < 0.2:
        return head + b"\r\n"
    body = body_of(tag, rng.choice(SIZES) or 5)
    if rng.random() < 0.5:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + b"0\r\n\r\n"


class _Asking(asyncio.Protocol):
    """One connection; up to four requests pipelined, their answers checked in order."""

    transport: asyncio.Transport

    def __init__(self, storm: Storm) -> None:
        self._storm = storm
        self._waiting: deque[tuple[bytes, str, int]] = deque()
        self._buffer = bytearray()
        self._cancelled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        tally = self._storm.tally
        if self._cancelled:
            tally.cancelled += len(self._waiting)
        else:
            tally.broken += len(self._waiting)
        self._storm.lost()

    def _ask(self) -> None:
        rng = self._storm.rng
        depth = 1 if rng.random() < 0.8 else rng.randint(2, 4)
        pieces: list[bytes] = []
        while len(self._waiting) < depth:
            request = self._storm.next()
            if request is None:
                break
            self._waiting.append(request[:3])
            pieces.append(request[3])
        if not self._waiting:
            self.transport.close()
            return
        data = b"".join(pieces)
        if rng.random() < self._storm.cancels:
            self.transport.write(data[: rng.randint(1, len(data))])
            if rng.random() < 0.5:
                self._leave()
            else:
                asyncio.get_running_loop().call_later(rng.random() * 0.01, self._leave)
        else:
            self.transport.write(data)

    def _leave(self) -> None:
        if not self.transport.is_closing():
            self._cancelled = True
            if self._storm.rng.random() < 0.5:
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._waiting and self._take():
            pass
        if self._buffer and not self._waiting:
            self._storm.tally.mixed.append(f"bytes nobody asked for: {self._buffer[:80]!r}")
        elif not self._waiting and not self._cancelled:
            self._ask()

    def _take(self) -> bool:
        """Takes one whole answer off the buffer, if it is there."""
        buffer = self._buffer
        at = buffer.find(b"\r\n\r\n")
        if at < 0:
            return False
        head = bytes(buffer[: at + 2])
        tag, method, size = self._waiting[0]
        body, end = b"", at + 4
        if method != "HEAD":
            found = _body(buffer, head, end)
            if found is None:
                return False
            body, end = found
        del buffer[:end]
        self._waiting.popleft()
        self._judge(head, body, tag, method, size)
        return True

    def _judge(self, head: bytes, body: bytes, tag: bytes, method: str, size: int) -> None:
        tally = self._storm.tally
        tally.complete += 1
        status = int(head[9:12])
        tally.statuses[status] += 1
        if status == 200:
            whole = b"" if method == "HEAD" else body_of(tag, size)
            if b"\r\nX-Tag: " + tag + b"\r\n" not in head or body != whole:
                tally.mixed.append(f"{tag!r} got {head!r}")
            return
        retry = b"\r\nRetry-After: 1\r\n" in head
        expected = (504, False) if method in WRITES else (503, True)
        if (status, retry) != expected or b"X-Tag" in head:
            tally.mixed.append(f"{method} {tag!r} failed as {head!r}")


def _body(buffer: bytearray, head: bytes, pos: int) -> tuple[bytes, int] | None:
    """The body at ``pos`` and where it ends; None while it is incomplete."""
    at = head.find(b"\r\nContent-Length: ")
    if at >= 0:
        end = pos + int(head[at + 18 : head.find(b"\r\n", at + 2)])
        return (bytes(buffer[pos:end]), end) if len(buffer) >= end else None
    pieces: list[bytes] = []
    while True:
        line = buffer.find(b"\r\n", pos)
        if line < 0:
            return None
        size = int(buffer[pos:line], 16)
        pos = line + 2 + size + 2
        if len(buffer) < pos:
            return None
        if not size:
            return b"".join(pieces), pos
        pieces.append(bytes(buffer[line + 2 : line + 2 + size]))
