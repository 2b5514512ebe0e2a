"""Connections to upstream whose other end is gone without a word: noticed in half a minute.

A host that loses power or its network sends no end of its connections, and an idle watch has
nothing to send that could remain unanswered. The kernel asks for a sign of life (TCP keepalive):
any kernel that is there gives it, however idle or stalled the process is, so no healthy watch ends
for it. client-go finds the same with HTTP/2 pings, 30 s of silence and 15 for the answer.

Keepalive is silent while sent bytes are not acknowledged; there TCP_USER_TIMEOUT decides, instead
of fifteen minutes of repeating them. But Linux counts towards it, too, how long the other end lives
and takes no byte in (a window of zero), which is right of a tunnel or an upload through a proxy: a
program in a pod may leave its input unread for as long as it likes. So it is lifted for those.
"""

from __future__ import annotations

import socket
from typing import Protocol

IDLE_SECONDS = 15
"""Of silence before the first probe."""

INTERVAL_SECONDS = 5
PROBES = 3
SILENCE_SECONDS = IDLE_SECONDS + INTERVAL_SECONDS * PROBES
"""After so many seconds without a sign of life a connection ends."""


class Options(Protocol):
    """The part of a socket that a transport shows."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def notice_silence(sock: Options) -> None:
    """Of a connection that has just been opened."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    bound_unread(sock, bounded=True)


def bound_unread(sock: Options, *, bounded: bool) -> None:
    """Whether the other end may leave bytes unread for as long as it likes."""
    milliseconds = SILENCE_SECONDS * 1000 if bounded else 0
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
