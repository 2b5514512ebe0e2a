"""Listener: accepts connections on a socket the supervisor opened.

It accepts by itself rather than through ``loop.create_server``, because every bound of this edge
needs to be looked at before a transport exists: connections in all and per source, TLS handshakes
in progress, the PROXY header in front of the handshake, and descriptors running out.

A handshake is the most expensive thing a stranger can ask for. At the bound, handshakes older than
``STALE_SECONDS`` make room (a healthy one takes milliseconds); when there are none, accepting
pauses and connections wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING

from apiguard.gateway.decision import Peer
from apiguard.runtime.downstream import Downstream
from apiguard.telemetry import bounds
from apiguard.wire.proxyprotocol import (
    LONGEST_V2,
    ProxyHeaderError,
    parse_proxy_header,
)

if TYPE_CHECKING:
    from apiguard.runtime.traffic import TrafficServer

ACCEPTS_PER_WAKEUP = 16
"""Connections accepted before other work gets its turn."""

PAUSE_SECONDS = 0.02
"""How long accepting rests at a bound."""

STALE_SECONDS = 1.0
"""A handshake that has taken this long may be given up for another."""

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Listener:
    """Accepts on one listening socket until ``close``."""

    def __init__(self, traffic: TrafficServer, sock: socket.socket) -> None:
        self._traffic = traffic
        self._sock = sock
        self._starting: dict[asyncio.Task[None], float] = {}
        self._resume: asyncio.TimerHandle | None = None
        self._proxies: tuple[Network, ...] = tuple(
            ipaddress.ip_network(cidr) for cidr in traffic.config.listen.trusted_proxy_cidrs
        )
        self._open = True
        traffic.loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting; connections being set up go on. The socket stays open for others."""
        if self._open:
            self._open = False
            self._traffic.loop.remove_reader(self._sock.fileno())
            if self._resume is not None:
                self._resume.cancel()

    def cut(self) -> None:
        """Give up the connections being set up, too."""
        self.close()
        for task in tuple(self._starting):
            task.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKEUP):
            if not self._room_for_handshake():
                self._rest()
                return
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                self._traffic.counters.hit(bounds.CONNECTIONS)
                self._rest()
                return
            self._begin(sock, address[0])

    def _room_for_handshake(self) -> bool:
        limit = self._traffic.config.bounds.connection.unfinished_handshakes
        if len(self._starting) < limit:
            return True
        oldest, since = next(iter(self._starting.items()))
        if self._traffic.clock() - since < STALE_SECONDS:
            return False
        self._traffic.counters.hit(bounds.HANDSHAKES_OPEN)
        del self._starting[oldest]
        oldest.cancel()
        return True

    def _rest(self) -> None:
        """Look away from the socket: a readable one that is not read would spin the loop."""
        loop = self._traffic.loop
        loop.remove_reader(self._sock.fileno())
        self._resume = loop.call_later(PAUSE_SECONDS, self._wake)

    def _wake(self) -> None:
        self._resume = None
        if self._open:
            self._traffic.loop.add_reader(self._sock.fileno(), self._accept)

    def _begin(self, sock: socket.socket, address: str) -> None:
        sock.setblocking(False)
        task = self._traffic.loop.create_task(self._start(sock, address))
        self._starting[task] = self._traffic.clock()
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.pop(task, None)

    async def _start(self, sock: socket.socket, address: str) -> None:
        """From an accepted socket to a Downstream; whatever fails here concerns one client."""
        try:
            peer = Peer.at(address)
            if self._is_proxy(peer):
                peer = await self._proxied(sock, peer)
            if self._traffic.admit(peer):
                await self._connect(sock, peer)
            else:
                sock.close()
        except (ProxyHeaderError, TimeoutError):
            self._traffic.counters.hit(bounds.HANDSHAKE_DEADLINE)
            sock.close()
        except (OSError, ssl.SSLError):
            sock.close()  # the client left, or speaks no TLS we accept
        except asyncio.CancelledError:
            sock.close()

    async def _connect(self, sock: socket.socket, peer: Peer) -> None:
        """Gives the place of ``peer`` back unless it becomes a connection."""
        loop = self._traffic.loop
        # Both now: the handshake takes a while, and both may have been replaced by its end.
        tls, authority = self._traffic.tls, self._traffic.authority
        downstream = Downstream(self._traffic, peer, authority)
        try:
            if tls is None:
                await loop.connect_accepted_socket(lambda: downstream, sock)
                return
            # Both loops report their own handshake deadline as a connection aborted by the peer,
            # which could not be counted apart.
            async with asyncio.timeout(self._handshake_seconds):
                await loop.connect_accepted_socket(
                    lambda: downstream,
                    sock,
                    ssl=tls,
                    ssl_handshake_timeout=self._handshake_seconds + 1,
                )
        finally:
            if not downstream.connected:
                self._traffic.leave(peer)

    @property
    def _handshake_seconds(self) -> float:
        return float(self._traffic.config.bounds.connection.handshake_seconds)

    def _is_proxy(self, peer: Peer) -> bool:
        """By the address itself: a listener on [::] sees IPv4 peers as mapped ones."""
        if not self._proxies:
            return False
        ip = ipaddress.ip_address(peer.source)
        return any(ip in network for network in self._proxies)

    async def _proxied(self, sock: socket.socket, proxy: Peer) -> Peer:
        """Reads exactly the PROXY header, so that TLS finds its own first byte.

        Peeked, since a byte too many could not be given back to the handshake.
        """
        loop = self._traffic.loop
        async with asyncio.timeout(self._handshake_seconds):
            seen = 0
            while True:
                data = await _peek_beyond(loop, sock, seen)
                header = parse_proxy_header(data)
                if header is not None:
                    break
                seen = len(data)
        sock.recv(header.length)
        return Peer.at(header.source) if header.source is not None else proxy


async def _peek_beyond(loop: asyncio.AbstractEventLoop, sock: socket.socket, seen: int) -> bytes:
    """What has arrived, once it is more than ``seen`` bytes. Raises ProxyHeaderError at the end."""
    while True:
        await _readable(loop, sock)
        try:
            data = sock.recv(LONGEST_V2, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if len(data) > seen:
            return data
        if not data:
            raise ProxyHeaderError("the connection ended within the PROXY header")
        # The same bytes stay readable: without this pause the loop would spin until more arrive.
        await asyncio.sleep(0.01)


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_reader(sock.fileno(), _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
