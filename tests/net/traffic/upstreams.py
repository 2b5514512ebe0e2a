"""API servers as small as a test needs.

``Upstream`` runs a script per request: an async function that is handed the connection and the
request, and sends raw bytes. ``EchoUpstream`` answers tagged requests fast enough for a hundred
thousand of them and counts each tag.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from .client import RESET


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived: ``line`` and ``lines`` without CRLF, ``body`` decoded."""

    line: bytes
    lines: tuple[bytes, ...]
    body: bytes

    @property
    def method(self) -> bytes:
        return self.line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field; None without one."""
        for line in self.lines:
            field, _, value = line.partition(b":")
            if field.lower() == name.lower():
                return value.strip()
        return None


class Connection:
    """One connection from the guard."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def request(self) -> Received | None:
        """The next request, None at the end."""
        received = await self.head()
        return None if received is None else await self.rest(received)

    async def head(self) -> Received | None:
        """The next request head, its body unread; None at the end."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        line, *lines = raw[:-4].split(b"\r\n")
        return Received(line, tuple(lines), b"")

    async def rest(self, received: Received) -> Received:
        """``received`` with its body."""
        if received.get(b"transfer-encoding") == b"chunked":
            body = await self._chunks()
        else:
            body = await self.reader.readexactly(int(received.get(b"content-length") or 0))
        return Received(received.line, received.lines, body)

    async def _chunks(self) -> bytes:
        pieces: list[bytes] = []
        while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
            pieces.append((await self.reader.readexactly(size + 2))[:-2])
        await self.reader.readexactly(2)
        return b"".join(pieces)

    async def gone(self) -> bytes:
        """Waits for the guard to end the connection; returns what it sent before."""
        try:
            return await self.reader.read()
        except OSError:
            return b""

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


Script = Callable[[Connection, Received], Awaitable[None]]


class Upstream:
    """Runs ``script`` for each request until its connection ends.

    With ``heads_only`` the script gets requests with unread bodies.
    ``requests`` are all received, ``open`` the connections.
    """

    def __init__(self, script: Script, *, heads_only: bool = False) -> None:
        self._script = script
        self._heads_only = heads_only
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Received] = []
        self.open: list[Connection] = []
        self.accepted = 0
        self.busy = 0  # scripts running
        self.port = 0
        self.scheme = "http"

    async def start(self, tls: ssl.SSLContext | None = None, port: int = 0) -> Upstream:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", port, ssl=tls, limit=2**20, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.scheme = "https" if tls else "http"
        return self

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = Connection(reader, writer)
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._served)
        # Not in the task itself: one cancelled before its first step runs none of its code.
        task.add_done_callback(lambda _: connection.close())

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # a broken script must not pass unseen: the loop reports what it raises

    async def _serve(self, connection: Connection) -> None:
        self.open.append(connection)
        read = connection.head if self._heads_only else connection.request
        try:
            while (received := await read()) is not None:
                self.requests.append(received)
                self.busy += 1
                try:
                    await self._script(connection, received)
                finally:
                    self.busy -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass  # the guard left: what a test is about, or no matter
        finally:
            self.open.remove(connection)

    async def close(self) -> None:
        """Stops listening and ends every connection."""
        if self._server is not None:
            self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answers(*responses: bytes) -> Script:
    """Sends ``responses`` in turn, the last one for ever."""
    left = list(responses)

    async def script(connection: Connection, _: Received) -> None:
        connection.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def ok(body: bytes = b"ok", headers: bytes = b"") -> bytes:
    """A complete 200."""
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)


CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class EchoUpstream:
    """Answers ``…?tag=<n>&size=<n>[&chunked]`` with a body that only that tag can have.

    ``seen`` counts requests by tag. With ``faults`` a random share of requests gets no answer,
    half of one, or a late one.
    """

    def __init__(self, rng: random.Random, *, faults: float = 0.0) -> None:
        self.rng = rng
        self.faults = faults
        self.seen: Counter[bytes] = Counter()
        self.bodies_broken = 0
        self.connections: set[_EchoConnection] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> EchoUpstream:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _EchoConnection(self), "127.0.0.1", 0, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.transport.abort()


def body_of(tag: bytes, size: int) -> bytes:
    """``size`` bytes only ``tag`` has."""
    return (tag + b";") * (size // (len(tag) + 1)) + b"." * (size % (len(tag) + 1))


class _EchoConnection(asyncio.Protocol):
    """Reads requests by hand: a head, then a body by length or chunks."""

    transport: asyncio.Transport

    def __init__(self, upstream: EchoUpstream) -> None:
        self._upstream = upstream
        self._buffer = b""
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._upstream.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0:
            return
        head = self._buffer[:at]
        if b"Transfer-Encoding: chunked" in head:
            end = self._buffer.find(b"0\r\n\r\n", at)
            if end < 0:
                return
            body, end = _unchunk(self._buffer[at + 4 : end]), end + 5
        else:
            end = at + 4 + _length(head)
            if len(self._buffer) < end:
                return
            body = self._buffer[at + 4 : end]
        # Another request before this one's answer would be the guard's fault.
        assert len(self._buffer) == end, "bytes after the request"
        assert not self._busy, "a request before the answer to the one before"
        self._buffer = b""
        self._requested(head, body)

    def _requested(self, head: bytes, body: bytes) -> None:
        upstream = self._upstream
        line = head[: head.find(b"\r\n")]
        target = line.split(b" ")[1]
        parameters = dict(p.partition(b"=")[::2] for p in target.partition(b"?")[2].split(b"&"))
        tag = parameters[b"tag"]
        upstream.seen[tag] += 1
        if body and body != body_of(tag, len(body)):
            upstream.bodies_broken += 1
        answer = _answer(tag, int(parameters[b"size"]), chunked=b"chunked" in parameters)
        if line.startswith(b"HEAD "):
            answer = answer[: answer.find(b"\r\n\r\n") + 4]
        if upstream.faults and upstream.rng.random() < upstream.faults:
            self._fail(answer)
        else:
            self.transport.write(answer)

    def _fail(self, answer: bytes) -> None:
        rng = self._upstream.rng
        kind = rng.randrange(4)
        if kind == 0:
            self.transport.abort()
        elif kind == 1:
            self.transport.write(answer[: rng.randrange(len(answer))])
            self.transport.close()
        elif kind == 2:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()
        else:
            self._busy = True
            asyncio.get_running_loop().call_later(rng.random() * 0.01, self._late, answer)

    def _late(self, answer: bytes) -> None:
        self._busy = False
        if not self.transport.is_closing():
            self.transport.write(answer)


def _length(head: bytes) -> int:
    at = head.find(b"\r\nContent-Length: ")
    if at < 0:
        return 0
    end = head.find(b"\r\n", at + 2)
    return int(head[at + 18 : end if end >= 0 else len(head)])


def _unchunk(data: bytes) -> bytes:
    pieces: list[bytes] = []
    while data:
        size, _, data = data.partition(b"\r\n")
        pieces.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return b"".join(pieces)


def _answer(tag: bytes, size: int, *, chunked: bool) -> bytes:
    body = body_of(tag, size)
    head = b"HTTP/1.1 200 OK\r\nX-Tag: " + tag + b"\r\n"
    if not chunked:
        return head + b"Content-Length: %d\r\n\r\n" % size + body
    half = size // 2
    pieces = [chunk(piece) for piece in (body[:half], body[half:]) if piece]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n"
