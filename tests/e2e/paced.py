"""An upstream with a real capacity: so many requests at once, each takes so long.

Run as ``python -m tests.e2e.paced PORT CERTIFICATE KEY SLOTS SECONDS``. What comes while all slots
are taken waits its turn, so whoever sends more than ``SLOTS / SECONDS`` a second makes everybody
wait longer and longer, as at a server that is overloaded.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections import deque
from typing import cast

import uvloop

_BODY = b'{"kind":"Status","apiVersion":"v1","status":"Success"}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b"Audit-Id: 432e2428-6589-4dac-84a9-bd20986bcdae\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_BODY), _BODY)
)


class Slots:
    """Who is being served, and who waits."""

    def __init__(self, slots: int, seconds: float) -> None:
        self._free = slots
        self._seconds = seconds
        self._waiting: deque[Connection] = deque()
        self._loop = asyncio.get_running_loop()

    def enter(self, connection: Connection) -> None:
        if not self._free:
            self._waiting.append(connection)
            return
        self._free -= 1
        self._loop.call_later(self._seconds, self._leave, connection)

    def _leave(self, connection: Connection) -> None:
        self._free += 1
        if self._waiting:
            self.enter(self._waiting.popleft())
        connection.answer()


class Connection(asyncio.Protocol):
    """One request at a time, as the guard sends them; a body has a declared length."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if len(body) >= int(length or b"0"):
            self._received = b""
            self._slots.enter(self)

    def answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def serve(port: int, tls: ssl.SSLContext, slots: int, seconds: float) -> None:
    shared = Slots(slots, seconds)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(shared), "127.0.0.1", port, ssl=tls, backlog=1024
    )
    await server.serve_forever()


def main(port: str, certificate: str, key: str, slots: str, seconds: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    uvloop.run(serve(int(port), tls, int(slots), float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
