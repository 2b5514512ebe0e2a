"""Client: sends raw bytes and reads responses strictly.

The reader is written for these tests and shares nothing with the guard's: it takes a response for
complete only where its framing proves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send a reset."""


class BrokenResponseError(Exception):
    """The connection ended before the response was complete. ``partial`` is the body so far."""

    def __init__(self, partial: bytes = b"", status: int = 0) -> None:
        super().__init__(f"broken off after {len(partial)} body bytes of a {status}")
        self.partial = partial
        self.status = status


OPENED: list[Client] = []
"""Clients of the running test, which its end resets if a failure left them open."""


@dataclass(frozen=True, slots=True)
class Response:
    """``line`` is the status line, ``lines`` the header lines, as received without their CRLF."""

    line: bytes
    lines: tuple[bytes, ...]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.line.split(b" ")[1])

    def get(self, name: bytes) -> bytes | None:
        """The only value of a field; None without one."""
        values = [v.strip() for n, _, v in self._fields() if n.lower() == name.lower()]
        assert len(values) < 2, f"{name!r} repeated: {values}"
        return values[0] if values else None

    def _fields(self) -> list[tuple[bytes, bytes, bytes]]:
        return [line.partition(b":") for line in self.lines]


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        OPENED.append(self)

    @classmethod
    async def open(
        cls,
        port: int,
        tls: ssl.SSLContext | None = None,
        *,
        host: str = "127.0.0.1",
        receive_buffer: int = 0,
        preface: bytes = b"",
    ) -> Client:
        """``preface`` goes out before TLS begins; ``receive_buffer`` bounds the kernel's."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, (host, port))
            if preface:
                await loop.sock_sendall(sock, preface)
            name = "localhost" if tls else None
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=tls, server_hostname=name, limit=receive_buffer or 2**16
            )
        except BaseException:
            sock.close()
            raise
        return cls(reader, writer)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(
        self,
        target: str,
        *,
        method: str = "GET",
        headers: bytes = b"",
        body: bytes | None = None,
    ) -> Response:
        """Sends one request and reads its response."""
        self.send(request(target, method=method, headers=headers, body=body))
        return await self.response(method)

    async def response(self, method: str = "GET") -> Response:
        """The next final response to a request by ``method``."""
        while True:
            head = await self.head()
            if head.status >= 200:
                return Response(head.line, head.lines, await self._body(head, method))

    async def head(self) -> Response:
        """The next response head, interim ones included; its body stays unread."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError) as error:
            raise BrokenResponseError from error
        line, *lines = raw[:-4].split(b"\r\n")
        return Response(line, tuple(lines), b"")

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; b"" at its end."""
        try:
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            return (await self.reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, OSError) as error:
            raise BrokenResponseError from error

    async def _body(self, head: Response, method: str) -> bytes:
        if method == "HEAD" or head.status in (204, 304):
            return b""
        if head.get(b"transfer-encoding") == b"chunked":
            return await self._chunks(head)
        length = head.get(b"content-length")
        assert length is not None, f"a body without framing: {head}"
        try:
            return await self.reader.readexactly(int(length))
        except asyncio.IncompleteReadError as error:
            raise BrokenResponseError(error.partial, head.status) from error
        except OSError as error:
            raise BrokenResponseError(b"", head.status) from error

    async def _chunks(self, head: Response) -> bytes:
        pieces: list[bytes] = []
        try:
            while piece := await self.chunk():
                pieces.append(piece)
        except BrokenResponseError as error:
            raise BrokenResponseError(b"".join(pieces), head.status) from error
        return b"".join(pieces)

    async def ended(self, within: float = 10.0) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        pieces: list[bytes] = []
        async with asyncio.timeout(within):
            try:
                while data := await self.reader.read(65_536):
                    pieces.append(data)
            except OSError:
                pass
        return b"".join(pieces)

    def reset(self) -> None:
        """Leaves without a word: RST."""
        if not self.writer.is_closing():
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):  # it was gone already
            await self.writer.wait_closed()


def request(
    target: str,
    *,
    method: str = "GET",
    headers: bytes = b"",
    body: bytes | None = None,
) -> bytes:
    """One request; ``headers`` are whole lines with their CRLF."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return (
        f"{method} {target} HTTP/1.1\r\nHost: guard\r\n".encode()
        + headers
        + length
        + b"\r\n"
        + (body or b"")
    )
