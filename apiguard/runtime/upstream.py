"""Upstream connections: transports, and the driver that opens what the pool asks for.

Decisions are the pool's (``upstream/pool.py``); here they are performed. A request that finds an
idle connection takes it by plain calls; a task exists only while a connection is being opened.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

from apiguard.gateway import replies
from apiguard.gateway.exchange import Exchange
from apiguard.gateway.watchlist import WatchList
from apiguard.kube.status import Representation
from apiguard.policy.config import UpstreamBounds
from apiguard.runtime import alive
from apiguard.runtime.defects import report_defect
from apiguard.runtime.reading import Reader
from apiguard.telemetry import bounds
from apiguard.upstream.endpoint import Ceilings, Endpoint, Lane
from apiguard.upstream.kind import Kind
from apiguard.upstream.pool import Limits, Opening, Pool, Verdict
from apiguard.wire.http1_client import Http1Client

if TYPE_CHECKING:
    from apiguard.runtime.traffic import TrafficServer

RECEIVE_BUFFER_BYTES = 80 * 1024
"""Asked of the kernel for connections to upstream; it grants twice that, half of it overhead."""

_ORDINARY = Lane.ORDINARY  # a member off its Enum costs 40 ns a look, a global 10

CONNECT_SECONDS = 5.0
"""For connecting and the TLS handshake; a healthy API server takes milliseconds."""


class UpstreamConnection(Reader):
    """One connection to an endpoint; ``context`` is what it was opened with."""

    __slots__ = (
        "_driver",
        "_reading",
        "_traffic",
        "_transport",
        "codec",
        "context",
        "endpoint",
        "kind",
    )

    def __init__(
        self,
        driver: UpstreamDriver,
        endpoint: Endpoint,
        kind: Kind,
        context: ssl.SSLContext | None,
    ) -> None:
        self._driver = driver
        self._traffic = driver.traffic
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._reading = True
        self.endpoint = endpoint
        self.kind = kind
        self.context = context
        self.codec = Http1Client(
            on_output=partial(driver.traffic.touched.append, self),
            on_released=partial(driver.released, self),
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._traffic.high_water)
        # A read takes whatever the kernel holds, up to 256 KiB, and for a client that has stopped
        # reading it is then held in plain and encrypted form on both sides. Left to the kernel
        # that is 1.4 MiB a client, with these bounds half of it, for a tenth to a third more CPU
        # per byte of a large answer; halving them again costs more than it frees.
        if transport.get_extra_info("sslcontext") is not None:
            # Of TLS transports only, hence unknown to typeshed.
            transport.set_read_buffer_limits(high=self._traffic.high_water)  # type: ignore[attr-defined] # see above
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        alive.notice_silence(sock)

    def data_received(self, data: bytes) -> None:
        codec = self.codec
        try:
            codec.receive_data(data)
        except Exception as defect:  # ours: the exchange on this connection pays, nobody else
            codec.fail(f"incident {report_defect(defect)}")
        if self.endpoint.losses and not codec.awaits_head:
            self.endpoint.answered()
        self._traffic.flush()

    def eof_received(self) -> None:
        self._note_loss()
        self.codec.receive_eof()
        self._traffic.flush()

    def _note_loss(self) -> None:
        if self.codec.awaits_head:
            self.endpoint.lost(self._traffic.clock())

    def connection_lost(self, exc: Exception | None) -> None:
        self._note_loss()
        self.codec.lost()
        self._driver.lost(self)
        self._traffic.flush()

    def pause_writing(self) -> None:
        self.codec.set_writable(False)

    def resume_writing(self) -> None:
        self.codec.set_writable(True)
        self._traffic.flush()

    def flush(self) -> None:
        codec = self.codec
        pieces = codec.pieces_to_send()
        if codec.should_close:
            self._end(pieces)
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif pieces:
            self._transport.writelines(pieces)
        reading = not codec.reading_paused
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _end(self, unsent: list[bytes]) -> None:
        """Aborts, so that upstream learns at once that a request is given up; what is unsent
        belongs to it. Only a tunnel's last bytes are sent, within the bound for stalled writes.
        """
        if not self.codec.linger:
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.writelines(unsent)
            self._transport.close()
            limit = self._traffic.config.bounds.connection.write_stall_seconds
            self._traffic.loop.call_later(limit, self._transport.abort)

    def bound_unread(self, *, bounded: bool) -> None:
        """See ``alive``."""
        alive.bound_unread(self._transport.get_extra_info("socket"), bounded=bounded)

    def close(self) -> None:
        self._transport.close()


class UpstreamDriver:
    """Opens, counts and closes; the Dispatcher of every session."""

    def __init__(
        self,
        traffic: TrafficServer,
        endpoints: list[Endpoint],
        tls: Mapping[Kind, ssl.SSLContext],
    ) -> None:
        self.traffic = traffic
        self._tls = dict(tls)
        limits = traffic.config.bounds.upstream
        self.pool: Pool[Exchange, UpstreamConnection] = Pool(
            endpoints,
            Limits(ceilings_of(limits, traffic.config.workers), limits.waiting_requests),
            random.Random(),  # noqa: S311 - spreads load, guards nothing
        )
        self._opening: set[asyncio.Task[None]] = set()
        self._random = random.Random()  # noqa: S311 - jitters Retry-After, guards nothing

    # -- Dispatcher --------------------------------------------------------------------------

    def dispatch(self, exchange: Exchange) -> None:
        now = self.traffic.clock()
        forward = exchange.forward
        if isinstance(exchange, WatchList) and self.pool.full(Lane.LONG, now):
            self._refuse_full(exchange, long=True)
            return
        result = self.pool.submit(exchange, forward.kind, forward.lane, now)
        if isinstance(result, UpstreamConnection):
            self._assign(exchange, result, now)
        elif result is Verdict.QUEUED:
            self.reconsider(now)
        elif result is Verdict.UNAVAILABLE:
            exchange.refused(replies.UNAVAILABLE)
        else:
            self._refuse_full(exchange, long=forward.lane is Lane.LONG)

    def _assign(self, exchange: Exchange, connection: UpstreamConnection, now: float) -> None:
        if exchange.forward.lane is not _ORDINARY:
            self._prepare(exchange, connection)
        exchange.assigned(connection.codec, now)

    def _prepare(self, exchange: Exchange, connection: UpstreamConnection) -> None:
        if isinstance(exchange, WatchList):
            exchange.on_began = partial(self._began, connection)
        if exchange.forward.info.long_running:
            # Ordinary requests after it need no bound of their own: they have firstByteSeconds.
            streams_up = exchange.forward.upgrade or exchange.block.length
            connection.bound_unread(bounded=not streams_up)

    def _began(self, connection: UpstreamConnection) -> None:
        """A watch-list has sent its objects: whoever waits may have its place."""
        self.pool.began(connection)
        self.reconsider(self.traffic.clock())

    def withdraw(self, exchange: Exchange) -> None:
        self.pool.withdraw(exchange, exchange.forward.kind, exchange.forward.lane)

    def _refuse_full(self, exchange: Exchange, *, long: bool) -> None:
        self.traffic.counters.hit(bounds.WATCHES if long else bounds.WAITING_REQUESTS)
        message = "too many open watches and streams" if long else "too many requests under way"
        retry_after = self._random.randint(1, 5)
        exchange.refused(replies.too_busy(message, retry_after, Representation.JSON))

    # -- connections -------------------------------------------------------------------------

    def reconsider(self, now: float) -> None:
        """Carry out what the pool plans for waiting requests, and answer those it has nothing
        for. Called after everything that may change its mind."""
        pool = self.pool
        if not pool.waiting:
            return
        plan = pool.plan(now)
        for opening in plan.open:
            task = self.traffic.loop.create_task(self._open(opening))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        for exchange, connection in plan.assign:
            self._assign(exchange, connection, now)
        for exchange in pool.stranded(now):
            exchange.refused(replies.UNAVAILABLE)

    async def _open(self, opening: Opening) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._connect(opening)
        except (OSError, ssl.SSLError) as error:
            self.pool.open_failed(opening, _reason(error), self.traffic.clock())
        except BaseException:
            self.pool.open_failed(opening, "connecting was given up", self.traffic.clock())
            raise
        else:
            self._opened(opening, connection)
        self.reconsider(self.traffic.clock())
        self.traffic.flush()

    async def _connect(self, opening: Opening) -> UpstreamConnection:
        """Raises OSError. A front-proxy connection without its certificate is never made: what
        goes out on it names whoever it likes."""
        endpoint, kind = opening.endpoint, opening.kind
        address = endpoint.address
        tls = self._tls.get(kind) if address.tls else None
        if tls is None and (address.tls or kind is Kind.FRONT_PROXY):
            raise OSError("nothing to open this kind of connection with")
        name = self.traffic.config.upstream.server_name or address.host
        _, connection = await self.traffic.loop.create_connection(
            lambda: UpstreamConnection(self, endpoint, kind, tls),
            address.host,
            address.port,
            ssl=tls,
            server_hostname=name if tls else None,
        )
        return connection

    def _opened(self, opening: Opening, connection: UpstreamConnection) -> None:
        now = self.traffic.clock()
        if not connection.codec.reusable:
            # A server that speaks first, or has left again, answers nobody.
            self.pool.open_failed(opening, "closed as soon as it was opened", now)
            return
        self.pool.opened(opening, connection, now)
        if self._outdated(connection):
            self._drop(connection)

    def _outdated(self, connection: UpstreamConnection) -> bool:
        """The files it was opened with have been replaced since."""
        return connection.context is not None and connection.context is not self._tls.get(
            connection.kind
        )

    def _drop(self, connection: UpstreamConnection) -> None:
        self.pool.closed(connection)
        connection.close()

    def released(self, connection: UpstreamConnection) -> None:
        """Its response is complete; it may carry another request."""
        now = self.traffic.clock()
        if not connection.codec.reusable:
            self.pool.closed(connection)
        elif self._outdated(connection):
            self._drop(connection)
        else:
            self.pool.released(connection, now)
        self.reconsider(now)

    def lost(self, connection: UpstreamConnection) -> None:
        self.pool.closed(connection)
        self.reconsider(self.traffic.clock())

    def set_tls(self, tls: Mapping[Kind, ssl.SSLContext]) -> None:
        """Connections from now on are opened with these; idle ones go, busy ones after their
        response."""
        for kind in Kind:
            if tls.get(kind) is not self._tls.get(kind):
                for connection in self.pool.retire(kind):
                    connection.close()
        self._tls = dict(tls)

    # -- the tick ----------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        for exchange in self.pool.expired(now):
            self._refuse_full(exchange, long=exchange.forward.lane is Lane.LONG)
        limit = self.traffic.config.bounds.upstream.idle_upstream_seconds
        self.close_idle(now - limit)
        self.reconsider(now)

    def close_idle(self, before: float) -> None:
        """Closes connections that have been idle since ``before``."""
        for connection in self.pool.idle_since(before):
            self.traffic.counters.hit(bounds.UPSTREAM_IDLE)
            connection.close()

    def close(self) -> None:
        for task in self._opening:
            task.cancel()
        for connection in self.pool.idle_since(float("inf")):
            connection.close()


def ceilings_of(bounds: UpstreamBounds, workers: int) -> Ceilings:
    """A ceiling is the server's, whoever asks: each of ``workers`` has an equal part of it."""
    requests = max(1, bounds.requests_per_upstream // workers)
    return Ceilings(
        ordinary=requests,
        exempt=requests,
        long=max(1, bounds.watches_per_upstream // workers),
        collection=max(1, requests * bounds.collection_reads_percent // 100),
    )


def _reason(error: OSError) -> str:
    """One line without addresses' noise: what an operator can act on."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    return error.strerror or str(error) or type(error).__name__
