"""Gateways, and a client and an upstream in memory, for tests."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from apiguard.gateway.decision import Peer
from apiguard.gateway.exchange import Exchange
from apiguard.gateway.gateway import Gateway
from apiguard.gateway.session import Session
from apiguard.identity.authenticator import Authenticator
from apiguard.kube.identity import Identity
from apiguard.limiter.limiter import Limiter
from apiguard.policy.compile import compile_policy
from apiguard.policy.config import (
    AdminConfig,
    Bounds,
    Enforcement,
    GuardConfig,
    ListenConfig,
    RequestBounds,
    UpstreamConfig,
)
from apiguard.policy.policy import Policy
from apiguard.telemetry.counters import Counters
from apiguard.wire.frontproxy import FrontProxyNames
from apiguard.wire.headers import HeaderRules
from apiguard.wire.heads import RequestHeads
from apiguard.wire.http1_client import Http1Client
from apiguard.wire.http1_server import Http1Server
from apiguard.wire.messages import Reply
from tests.unit.policy.texts import HEAD

WALL = 1_795_395_000.0
"""Unix seconds at which tests take place: 2026-11-23, when the recorded identities were valid."""

PEER = Peer("192.0.2.7", "192.0.2.7")

OPEN_POLICY = HEAD + "default: {limits: [{requestsPerSecond: 1000000}]}\n"

TOKENS = {
    "token-alice": Identity("alice", ("devs", "system:authenticated")),
    "token-node": Identity("system:node:n1", ("system:nodes", "system:authenticated")),
}


@functools.cache
def policy_of(text: str) -> Policy:
    return compile_policy(text, "policy.yaml")


def config_of(bounds: RequestBounds | None = None) -> GuardConfig:
    return GuardConfig(
        listen=ListenConfig("127.0.0.1:0"),
        upstream=UpstreamConfig(("https://127.0.0.1:1",)),
        admin=AdminConfig("127.0.0.1:0", "token"),
        state_dir="state",
        policy_file="policy.yaml",
        bounds=Bounds(request=bounds or RequestBounds()),
    )


def gateway_of(
    text: str = OPEN_POLICY,
    *,
    config: GuardConfig | None = None,
    enforcement: Enforcement = Enforcement.ENFORCE,
    seed: int = 1,
    authenticator: Authenticator | None = None,
    wall: Callable[[], float] = lambda: WALL,
    front_proxy: FrontProxyNames | None = None,
) -> Gateway:
    policy = policy_of(text)
    limiter = Limiter()
    limiter.respec(policy.limits(), 0.0)
    return Gateway(
        policy=policy,
        limiter=limiter,
        authenticator=authenticator or Authenticator(TOKENS),
        counters=Counters(),
        random=random.Random(seed),
        enforcement=enforcement,
        config=config or config_of(),
        wall=wall,
        front_proxy=front_proxy,
    )


def heads_of(bounds: RequestBounds | None = None) -> RequestHeads:
    bounds = bounds or RequestBounds()
    return RequestHeads(
        HeaderRules(), target_bytes=bounds.target_bytes, header_fields=bounds.header_fields
    )


@dataclass
class Clock:
    """Monotonic seconds that stand still until moved."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Touch:
    """What a runtime would write and close: knows whether it was told of the need to look."""

    def __init__(self) -> None:
        self.pending = False

    def __call__(self) -> None:
        self.pending = True


class Upstream:
    """One in-memory connection to upstream: collects what was sent on it."""

    def __init__(self) -> None:
        self.touch = Touch()
        self.released = 0
        self.codec = Http1Client(on_output=self.touch, on_released=self._on_released)
        self._sent = bytearray()

    def _on_released(self) -> None:
        self.released += 1

    @property
    def sent(self) -> bytes:
        self._sent += self.codec.data_to_send()
        return bytes(self._sent)

    def answer(self, data: bytes) -> None:
        self.codec.receive_data(data)


class FakeDispatcher:
    """Gives every exchange a connection of its own, at once or when asked to.

    With ``refuse_with`` nobody gets one: what the dispatcher of a worker does without upstream.
    """

    def __init__(self, clock: Callable[[], float], *, held: bool = False) -> None:
        self.clock = clock
        self.held = held
        self.waiting: list[Exchange] = []
        self.withdrawn: list[Exchange] = []
        self.connections: list[Upstream] = []
        self.refuse_with: Reply | None = None

    def dispatch(self, exchange: Exchange) -> None:
        if self.refuse_with is not None:
            exchange.refused(self.refuse_with)
            return
        self.waiting.append(exchange)
        if not self.held:
            self.assign()

    def assign(self) -> Upstream:
        upstream = Upstream()
        self.connections.append(upstream)
        self.waiting.pop(0).assigned(upstream.codec, self.clock())
        return upstream

    def withdraw(self, exchange: Exchange) -> None:
        self.withdrawn.append(exchange)
        if exchange in self.waiting:
            self.waiting.remove(exchange)


@dataclass
class Guard:
    """A client connection through a gateway to in-memory upstreams."""

    gateway: Gateway = field(default_factory=gateway_of)
    peer: Peer = PEER
    bounds: RequestBounds = field(default_factory=RequestBounds)
    held: bool = False

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.dispatcher = FakeDispatcher(self.clock, held=self.held)
        self.session = Session(self.gateway, self.peer, self.dispatcher, self.clock)
        self.touch = Touch()
        self.server = Http1Server(
            self.session,
            heads_of(self.bounds),
            header_bytes=self.bounds.header_bytes,
            on_output=self.touch,
        )
        self._answered = bytearray()

    def send(self, *data: bytes) -> None:
        for piece in data:
            self.server.receive_data(piece)

    @property
    def answered(self) -> bytes:
        """Everything the client got so far."""
        self._answered += self.server.data_to_send()
        return bytes(self._answered)

    def take(self) -> bytes:
        """What the client got since last asked; also what a runtime's flush does."""
        got = self.server.data_to_send()
        self._answered += got
        self.touch.pending = False
        return got

    @property
    def upstream(self) -> Upstream:
        """The connection of the latest exchange."""
        return self.dispatcher.connections[-1]
