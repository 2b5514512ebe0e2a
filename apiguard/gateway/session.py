"""Session: what one client connection asks of the gateway.

Turns requests into decisions and decisions into answers or exchanges. It keeps count of refusals:
a client that ignores Retry-After and asks on is not read again for a while, so that asking faster
buys nothing and costs the guard little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from apiguard.errors import WireError
from apiguard.gateway import replies
from apiguard.gateway.decision import Decision, Forward, Peer, Refuse
from apiguard.gateway.exchange import Exchange
from apiguard.gateway.gateway import Gateway
from apiguard.gateway.serving import Carried, Serving
from apiguard.gateway.watchlist import WatchList
from apiguard.kube.status import Representation, internal_error
from apiguard.telemetry import bounds
from apiguard.upstream.endpoint import Lane
from apiguard.wire.messages import HeaderBlock, RequestLine, RequestSink, ServerStream

REFUSALS_PER_SECOND = 5
"""A connection refused more often than this within a second is not read until it is over."""

PENALTY_SECONDS = 1.0
"""At least; spread upwards, or those who begin together return together, again and again."""


_COLLECTION = Lane.COLLECTION  # a member off its Enum costs 40 ns a look, a global 10


class Dispatcher(Protocol):
    """Finds upstream connections for exchanges."""

    def dispatch(self, exchange: Exchange) -> None:
        """Calls ``exchange.assigned`` or ``exchange.refused``, now or later, once."""

    def withdraw(self, exchange: Exchange) -> None:
        """The exchange is over; it may still be waiting for a connection."""


OnDefect = Callable[[Exception], str]
"""Writes a defect of ours down; answers the id under which it can be found."""


def raise_defect(defect: Exception) -> str:
    """The OnDefect of tests, where a defect should be loud."""
    raise defect


class Session:
    """One client connection. ``quiet_until`` is when its bytes may be read again."""

    __slots__ = (
        "_dispatcher",
        "_on_defect",
        "_refusals",
        "_window",
        "clock",
        "exchange",
        "gateway",
        "peer",
        "quiet_until",
    )

    def __init__(
        self,
        gateway: Gateway,
        peer: Peer,
        dispatcher: Dispatcher,
        clock: Callable[[], float],
        on_defect: OnDefect = raise_defect,
    ) -> None:
        self.gateway = gateway
        self.peer = peer
        self.clock = clock
        self.exchange: Carried | None = None
        self.quiet_until = 0.0
        self._dispatcher = dispatcher
        self._on_defect = on_defect
        self._window = 0.0
        self._refusals = 0

    def request_received(
        self, stream: ServerStream, line: RequestLine, block: HeaderBlock
    ) -> RequestSink | None:
        try:
            return self._take(stream, line, block)
        except Exception as defect:  # ours: this request pays for it, nobody else
            self._fail(stream, self._on_defect(defect))
            return None

    def _take(
        self, stream: ServerStream, line: RequestLine, block: HeaderBlock
    ) -> RequestSink | None:
        now = self.clock()
        decision = self.gateway.decide(line, block, self.peer, now)
        if not isinstance(decision, Forward):
            return self._answer_here(stream, line, block, decision, now)
        exchange = self.exchange = _carrier(decision)(self, stream, line, block, decision, now)
        if block.length:
            stream.body_limit = self.gateway.body_limit(decision.info)
        self._dispatcher.dispatch(exchange)
        if exchange.finished:
            return None
        if not exchange.sent_at:
            exchange.queued_at = self.clock()
        return exchange

    def _answer_here(
        self,
        stream: ServerStream,
        line: RequestLine,
        block: HeaderBlock,
        decision: Decision,
        now: float,
    ) -> RequestSink | None:
        assert not isinstance(decision, Forward)
        if isinstance(decision, Refuse):
            self._refuse(stream, decision, now)
            return None
        relay = self.gateway.relay
        assert relay is not None
        serving = self.exchange = Serving(self, relay, stream, line, block, decision, now)
        relay.take(serving)
        if serving.finished:
            return None
        return serving.successor or serving

    def forward_instead(self, serving: Serving, stream: ServerStream) -> Exchange:
        """The relay cannot answer: the request goes on as if it had never been asked."""
        exchange = self.exchange = _carrier(serving.forward)(
            self, stream, serving.line, serving.block, serving.forward, serving.received_at
        )
        self._dispatcher.dispatch(exchange)
        if not exchange.finished and not exchange.sent_at:
            exchange.queued_at = self.clock()
        return exchange

    def _fail(self, stream: ServerStream, incident: str) -> None:
        reply = replies.reply_to(internal_error(incident))
        exchange = self.exchange
        if isinstance(exchange, Serving):
            exchange.failed(reply)
        elif exchange is not None:
            exchange.refused(reply)
        else:
            self.gateway.counters.count("", "failed", "", reply.status)
            stream.send_reply(reply, close=True)

    def request_malformed(self, stream: ServerStream, error: WireError) -> None:
        self.gateway.count_malformed(error)
        self.gateway.counters.count("", "rejected", "", error.code)
        reply = replies.malformed(error.code, error.reason, error.message)
        stream.send_reply(reply, close=True)

    def _refuse(self, stream: ServerStream, refuse: Refuse, now: float) -> None:
        name = refuse.flow.name if refuse.flow is not None else ""
        self.gateway.counters.count(name, refuse.decision, refuse.verb, refuse.reply.status)
        observers = self.gateway.observers
        if observers is not None:
            observers.refused(refuse, now)
        self.count_refusal(stream, now)
        stream.send_reply(refuse.reply, close=refuse.close)

    def count_refusal(self, stream: ServerStream, now: float) -> None:
        """One more answer that asks for patience, by a rule or for want of a connection."""
        if now - self._window >= 1.0:
            self._window = now
            self._refusals = 0
        self._refusals += 1
        if self._refusals > REFUSALS_PER_SECOND:
            self.quiet_until = now + self.gateway.spread(PENALTY_SECONDS)
            stream.hold_requests()
            self.gateway.counters.hit(bounds.REFUSED_TOO_OFTEN)

    def representation(self, block: HeaderBlock) -> Representation:
        """How this client wants errors written."""
        return self.gateway.client(block, self.peer, self.clock()).representation

    def stream_began(self, exchange: Carried, now: float) -> None:
        """Upstream answered a long-running request: observers need not wait for its end."""
        observers = self.gateway.observers
        if observers is not None:
            observers.forwarded(exchange, _outcome(exchange, False), now)

    def slow(self, exchange: Carried, now: float) -> None:
        """A request has been under way for a while: observers need not wait for its end."""
        observers = self.gateway.observers
        if observers is not None:
            observers.counted(exchange, now)

    def went_on(self, exchange: Carried, now: float) -> None:
        """A request that observers know of has gone on."""
        observers = self.gateway.observers
        if observers is not None:
            observers.credited(exchange, now)

    def exchange_finished(self, exchange: Exchange, *, failed: bool) -> None:
        """Called by the exchange, exactly once."""
        self._account(exchange, failed)
        if exchange.queued_at and not exchange.sent_at:
            self._dispatcher.withdraw(exchange)

    def serving_finished(self, serving: Serving, *, failed: bool) -> None:
        """Called by the serving, exactly once."""
        self._account(serving, failed)

    def _account(self, exchange: Carried, failed: bool) -> None:
        self.exchange = None
        gateway, forward = self.gateway, exchange.forward
        outcome = _outcome(exchange, failed)
        gateway.counters.count(forward.flow.name, outcome, forward.info.verb, exchange.code)
        observers = gateway.observers
        if observers is not None:
            now = self.clock()
            if exchange.credit_at:
                observers.credited(exchange, now)
                if not exchange.sampled:
                    observers.sampled(exchange, outcome, now)
            else:
                observers.forwarded(exchange, outcome, now)


def _carrier(forward: Forward) -> type[Exchange]:
    if forward.lane is _COLLECTION and forward.info.long_running:
        return WatchList
    return Exchange


def _outcome(exchange: Carried, failed: bool) -> str:
    if failed:
        return "failed"
    if exchange.forward.over_limit:
        return "would_refuse"
    return "forwarded" if isinstance(exchange, Exchange) else "served"
