"""TrafficServer: everything of one worker that carries requests.

Composes listener, client connections, gateway and upstream driver, and holds what they share: the
clock, the list of connections with something to send, the one tick. ``worker.py`` builds it and
tells it when policy or settings change.
"""

from __future__ import annotations

import asyncio
import math
import resource
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from apiguard.gateway.decision import Peer
from apiguard.gateway.gateway import Gateway
from apiguard.gateway.serving import Carried, Serving
from apiguard.kube.identity import Caller
from apiguard.kube.requestinfo import RequestInfo
from apiguard.policy.config import GuardConfig
from apiguard.policy.identityconfig import identity_names
from apiguard.runtime.defects import report_defect
from apiguard.runtime.downstream import Downstream
from apiguard.runtime.ending import CUT_SECONDS, end_spread
from apiguard.runtime.listener import Listener
from apiguard.runtime.upstream import UpstreamDriver
from apiguard.telemetry import bounds
from apiguard.telemetry.counters import Counters
from apiguard.upstream.endpoint import Address, Endpoint, Lane, State
from apiguard.upstream.health import Verdict
from apiguard.upstream.kind import Kind
from apiguard.wire.headers import HeaderRules
from apiguard.wire.heads import RequestHeads

TICK_SECONDS = 0.5
"""How often deadlines are looked at; the shortest is 10 s."""

DRAIN_SPREAD = 0.8
"""Part of the drain by which all watches are ended, however long they may take."""

RESERVED_DESCRIPTORS = 256
"""Kept for admin, files and upstream."""


class Touched(Protocol):
    """A connection with something to send, or a wish to read differently."""

    def flush(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One upstream server: ``detail`` is why it is in its state, "" for no reason."""

    server: str
    state: State
    open: int
    detail: str


@dataclass(frozen=True, slots=True)
class TrafficView:
    """What this worker holds open."""

    connections: int
    exchanges: int
    watches: int
    endpoints: tuple[EndpointView, ...]


class TrafficServer:
    """Carries the traffic of one worker on ``loop``.

    ``tls`` faces clients; None speaks plain HTTP. ``upstream_tls`` faces API servers, by what the
    connection proves; it may be empty where all of them speak plain HTTP.

    ``high_water`` is what a transport may hold before its source pauses: a quarter of the bound
    on bytes buffered per direction, because one read of up to 240 KiB still comes on top, and TLS
    holds it once more encrypted.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        gateway: Gateway,
        config: GuardConfig,
        counters: Counters,
        tls: ssl.SSLContext | None,
        upstream_tls: Mapping[Kind, ssl.SSLContext],
    ) -> None:
        self.loop = loop
        self.gateway = gateway
        self.config = config
        self.counters = counters
        self.clock = time.monotonic
        self.high_water = config.bounds.connection.buffered_bytes // 4
        self.touched: list[Touched] = []  # connections hold its ``append``: never another list
        self.heads = RequestHeads(
            HeaderRules(identity_names(config.upstream.front_proxy)),
            target_bytes=config.bounds.request.target_bytes,
            header_fields=config.bounds.request.header_fields,
        )
        self.tls = tls
        self.authority = gateway.authenticator.authority
        self.reads = 0  # of client connections, since some last rested
        self._resting: list[Downstream] = []
        self._listeners: list[Listener] = []
        self._downstreams: set[Downstream] = set()
        self._sources: Counter[str] = Counter()
        self._places = 0  # connections there are or that are being set up
        self.refuse_connections = False  # for want of memory
        self._limit = _connection_limit(config.bounds.connection.connections)
        self.upstream = UpstreamDriver(
            self, [Endpoint(address_of(url)) for url in config.upstream.servers], upstream_tls
        )
        self._tick_handle = loop.call_later(TICK_SECONDS, self._tick)
        self._empty: asyncio.Event | None = None
        self._endings: set[asyncio.Task[None]] = set()

    def listen(self, sock: socket.socket) -> None:
        """Start accepting on an inherited listening socket."""
        self._listeners.append(Listener(self, sock))

    # -- changes at runtime ------------------------------------------------------------------

    def set_tls(self, tls: ssl.SSLContext | None) -> None:
        """For connections accepted from now on; sessions of the old context are not resumed.

        The gateway's authenticator must already be the one that goes with it.
        """
        self.tls = tls
        self.authority = self.gateway.authenticator.authority

    def judge(self, index: int, verdict: Verdict, *, drained: bool) -> None:
        """What probes and operator say of the server at ``index``."""
        endpoint = self.upstream.pool.endpoints[index]
        if verdict.fit and not endpoint.verdict.fit:
            # Probes have just spoken with it, so what traffic found before is out of date.
            endpoint.answered()
        endpoint.verdict = verdict
        endpoint.drained = drained
        self.upstream.reconsider(self.clock())
        self.flush()

    # -- connections -------------------------------------------------------------------------

    def admit(self, peer: Peer) -> bool:
        """Takes a place for one more connection of ``peer``; False when that is out of bounds.

        Taken before the connection is set up, so that many at once cannot pass the bound
        together. Connections to upstream count too: a forwarded watch takes two descriptors.
        """
        if self._places + self.upstream.pool.size >= self._limit:
            self.counters.hit(bounds.CONNECTIONS)
            return False
        if self.refuse_connections:
            self.counters.hit(bounds.MEMORY_CONNECTIONS)
            return False
        if self._sources[peer.source_key] >= self.config.bounds.connection.connections_per_source:
            self.counters.hit(bounds.CONNECTIONS_PER_SOURCE)
            return False
        self._places += 1
        self._sources[peer.source_key] += 1
        return True

    def stalled(self) -> list[Downstream]:
        """Connections whose clients do not take what there is for them."""
        return [downstream for downstream in self._downstreams if downstream.stalled]

    def leave(self, peer: Peer) -> None:
        """Gives a place taken by ``admit`` back."""
        self._places -= 1
        key = peer.source_key
        self._sources[key] -= 1
        if not self._sources[key]:
            del self._sources[key]
        if self._empty is not None and not self._places:
            self._empty.set()

    def connected(self, downstream: Downstream) -> None:
        self.counters.connections += 1
        self._downstreams.add(downstream)
        if self._empty is not None:  # was being set up when the drain began
            downstream.drain()

    def disconnected(self, downstream: Downstream) -> None:
        self._downstreams.discard(downstream)
        self.leave(downstream.peer)

    def flush(self) -> None:
        """Write every touched connection once; those touched meanwhile, too."""
        touched = self.touched
        for connection in touched:
            connection.flush()
        touched.clear()

    def rest(self, downstream: Downstream) -> None:
        """``downstream`` is not read again before the loop has come round."""
        if not self._resting:
            self.loop.call_soon(self._next_turn)
        self._resting.append(downstream)
        downstream.set_resting(True)

    def _next_turn(self) -> None:
        self.reads = 0
        rested, self._resting = self._resting, []
        for downstream in rested:
            downstream.set_resting(False)

    def _tick(self) -> None:
        # First, for a defect below must not be the end of all deadlines.
        self._tick_handle = self.loop.call_later(TICK_SECONDS, self._tick)
        now = self.clock()
        for downstream in tuple(self._downstreams):
            try:
                downstream.tick(now)
            except Exception as defect:  # ours: only this connection ends
                report_defect(defect)
                downstream.cut()
        self.upstream.tick(now)
        self.flush()

    # -- views -------------------------------------------------------------------------------

    def view(self) -> TrafficView:
        pool, now = self.upstream.pool, self.clock()
        return TrafficView(
            connections=len(self._downstreams),
            exchanges=sum(e.load for e in pool.endpoints) + pool.waiting + len(self._servings()),
            watches=sum(e.active[Lane.LONG] for e in pool.endpoints) + self._relayed_watches(),
            endpoints=tuple(
                EndpointView(str(e.address), e.state(now), e.load, e.detail())
                for e in pool.endpoints
            ),
        )

    def _servings(self) -> list[Serving]:
        """What is answered here rather than upstream; nobody is looked at without a relay."""
        if self.gateway.relay is None:
            return []
        return [e for e in self._exchanges() if isinstance(e, Serving)]

    def _relayed_watches(self) -> int:
        return sum(1 for serving in self._servings() if serving.is_watch)

    # -- ending ------------------------------------------------------------------------------

    async def drain(self, seconds: float, watch_seconds: float) -> None:
        """Stop accepting, finish requests, end watches spread over ``watch_seconds``; cut what is
        left.

        Returns when the last connection is gone, after ``seconds`` at the latest.
        """
        for listener in self._listeners:
            listener.close()
        self._empty = asyncio.Event()
        for downstream in tuple(self._downstreams):
            downstream.drain()
        self.flush()
        watches = [exchange for exchange in self._exchanges() if exchange.is_watch]
        spread = self.loop.create_task(
            self._end(watches, min(watch_seconds, seconds * DRAIN_SPREAD))
        )
        try:
            if self._places:
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
        except TimeoutError:
            for listener in self._listeners:
                listener.cut()
            for downstream in tuple(self._downstreams):
                self.counters.hit(bounds.DRAIN)
                downstream.cut()
            self.flush()
        finally:
            spread.cancel()

    def end_matching(self, matches: Callable[[RequestInfo, Caller], bool], seconds: float) -> None:
        """Ends the open watches, streams and tunnels of which ``matches`` is true, spread over
        ``seconds``."""
        exchanges = [
            exchange
            for exchange in self._exchanges()
            if exchange.info.long_running and matches(exchange.info, exchange.forward.caller)
        ]
        ending = self.loop.create_task(self._end(exchanges, seconds, CUT_SECONDS))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _exchanges(self) -> list[Carried]:
        """What is under way, one for each connection at most."""
        return [e for d in self._downstreams if (e := d.session.exchange) is not None]

    async def _end(
        self, exchanges: list[Carried], seconds: float, cut_after: float = math.inf
    ) -> None:
        await end_spread(
            exchanges, seconds, clock=self.clock, flush=self.flush, cut_after=cut_after
        )

    def close(self) -> None:
        """Let go of everything at once."""
        for listener in self._listeners:
            listener.cut()
        self._tick_handle.cancel()
        for ending in self._endings:
            ending.cancel()
        for downstream in tuple(self._downstreams):
            downstream.cut()
        self.upstream.close()


def address_of(url: str) -> Address:
    """``https://host[:port]`` as configured; the policy's schema has checked its shape."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Address(parts.hostname or "", parts.port or (443 if tls else 80), tls)


def _connection_limit(configured: int) -> int:
    if configured:
        return configured
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(64, soft * 9 // 10 - RESERVED_DESCRIPTORS)
