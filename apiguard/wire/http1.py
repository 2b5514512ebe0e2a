"""HTTP/1.1 without I/O: what both ends of a connection share.

Codecs take bytes in ``receive_data`` and ``receive_eof``, call their sinks, and collect what to
send until ``pieces_to_send``; ``on_output`` is called when there is something to do for the
runtime: bytes to write, a wish to pause, resume or close.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

COPY_LIMIT = 32 * 1024
"""Bytes from which a piece is passed on as it is: two TLS records' worth."""


class State(enum.Enum):
    """Where a connection stands in its reading."""

    HEAD = "head"  # a head is expected, perhaps partly here
    BODY = "body"  # the body of a message is arriving
    WAIT = "wait"  # the message is complete; its answer is not
    TUNNEL = "tunnel"  # bytes pass unread
    CLOSED = "closed"  # nothing more is read


# Reading a member off its Enum costs 40 ns on Python 3.11, a global 10; states are asked for a
# dozen times per request.
HEAD, BODY, WAIT, TUNNEL, CLOSED = State


class Output:
    """Bytes to send, collected; tells the runtime when there are some."""

    __slots__ = ("_on_output", "_out")

    def __init__(self, on_output: Callable[[], object]) -> None:
        self._on_output = on_output
        self._out: list[bytes] = []

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._on_output()
        self._out.append(data)

    def _send_chunk(self, data: bytes) -> None:
        """One chunk of a chunked body; a large one is not copied for its frame."""
        if len(data) < COPY_LIMIT:
            self._send(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._send(b"%x\r\n" % len(data))
            self._out += (data, b"\r\n")

    def data_to_send(self) -> bytes:
        """Everything collected, as one piece."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def pieces_to_send(self) -> list[bytes]:
        """Everything collected: small pieces joined, since each would become a TLS record of its
        own, large ones as they are, since a copy costs more than a record."""
        out, self._out = self._out, []
        if len(out) < 2 or sum(map(len, out)) >= COPY_LIMIT:
            return out
        return [b"".join(out)]
