"""A watch as a client reads it: frames, whole and in order."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self
from urllib.parse import urlsplit

from tests.net.traffic.client import BrokenResponseError, Client, Response

from .guarding import JSON


class Stream:
    """One open watch; ``frames`` yields each event's bytes."""

    def __init__(self, client: Client, head: Response, *, binary: bool) -> None:
        self.head = head
        self._client = client
        self._binary = binary
        self._buffer = b""

    @classmethod
    async def open(
        cls,
        url: str,
        target: str,
        *,
        accept: str = JSON,
        token: str = "admin-token",
        receive_buffer: int = 0,
    ) -> Self:
        port = urlsplit(url).port
        assert port is not None
        client = await Client.open(port, receive_buffer=receive_buffer)
        client.send(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(client.head(), 15)
        return cls(client, head, binary="protobuf" in accept)

    async def frame(self, within: float = 10.0) -> bytes:
        """The next event; b"" at the clean end of the stream."""
        async with asyncio.timeout(within):
            while not (found := self._cut()):
                piece = await self._client.chunk()
                if not piece:
                    assert not self._buffer, "ended within a frame"
                    return b""
                self._buffer += piece
            return found

    async def frames(self, number: int) -> list[bytes]:
        return [await self.frame() for _ in range(number)]

    async def event(self) -> dict[str, Any]:
        """The next event, of JSON; {} at the end."""
        found = await self.frame()
        value: dict[str, Any] = json.loads(found) if found else {}
        return value

    async def broken(self) -> bool:
        try:
            while await self.frame():
                pass
        except BrokenResponseError:
            return True
        return False

    def _cut(self) -> bytes:
        if self._binary:
            if len(self._buffer) < 4:
                return b""
            end = 4 + int.from_bytes(self._buffer[:4])
            if len(self._buffer) < end:
                return b""
        else:
            end = self._buffer.find(b"\n") + 1
            if not end:
                return b""
        found, self._buffer = self._buffer[:end], self._buffer[end:]
        return found

    def close(self) -> None:
        self._client.reset()
