"""One end of the control socket on an asyncio loop.

Neither side ever waits for the other: what cannot be written at once is held up to a bound, and
beyond it the channel is closed. A worker that does not read its commands is as good as stalled.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from apiguard.runtime.control import Command, ControlError, Event, Frames, frame

Received = TypeVar("Received")

MAX_UNREAD = 128 << 20
"""Bytes written that the other side has not read: one ``Start`` and then some."""


class Channel(asyncio.Protocol, Generic[Received]):
    """Calls ``on_message`` for each message and ``on_closed`` once, with the reason or ""."""

    def __init__(
        self,
        read: Callable[[bytes], Received],
        limit: int,
        on_message: Callable[[Received], None],
        on_closed: Callable[[str], None],
    ) -> None:
        self._read = read
        self._frames = Frames(limit)
        self._on_message = on_message
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.receive_data(data):
                self._on_message(self._read(body))
        except ControlError as error:
            self._abort(f"unreadable message: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_closed(self._reason or (str(exc) if exc else ""))

    def send(self, message: Command | Event) -> bool:
        """Queues ``message``; False when the channel is closed or was just given up."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        transport.write(frame(message))
        if transport.get_write_buffer_size() > MAX_UNREAD:
            self._abort("messages are not read")
            return False
        return True

    def close(self) -> None:
        """Closes after what was queued is written."""
        if self._transport is not None:
            self._transport.close()

    def _abort(self, reason: str) -> None:
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()


async def attach(channel: Channel[Received], sock: socket.socket) -> None:
    """Connects ``channel`` to one end of a socket pair; the channel then owns ``sock``."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: channel, sock=sock)
