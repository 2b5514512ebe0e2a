"""Reads a client's bytes as a guard would, and notes what became of each message."""

from __future__ import annotations

from dataclasses import dataclass, field

from apiguard.errors import WireError
from apiguard.gateway import replies
from apiguard.gateway.decision import Forward, Refuse
from apiguard.gateway.gateway import Gateway
from apiguard.policy.config import RequestBounds
from apiguard.wire.http1 import State
from apiguard.wire.http1_server import Http1Server
from apiguard.wire.messages import (
    HeaderBlock,
    Reply,
    RequestLine,
    ServerStream,
)
from tests.unit.gateway.building import PEER, Touch, config_of, gateway_of, heads_of

OK = Reply(200, b"OK", b"Content-Length: 2\r\n", b"ok")


@dataclass
class Accepted:
    """A request that arrived whole."""

    line: RequestLine
    block: HeaderBlock
    forward: Forward
    body: bytes = b""


@dataclass
class Refused:
    code: int
    reason: str
    close: bool
    stage: str  # codec or classify


Outcome = Accepted | Refused


@dataclass
class Reader:
    """A handler that accepts what the gateway would forward, and answers it when it is whole."""

    bounds: RequestBounds = field(default_factory=RequestBounds)
    outcomes: list[Outcome] = field(default_factory=list)
    gateway: Gateway | None = None

    def __post_init__(self) -> None:
        if self.gateway is None:
            self.gateway = gateway_of(config=config_of(self.bounds))
        self.touch = Touch()
        self.server = Http1Server(
            self,
            heads_of(self.bounds),
            header_bytes=self.bounds.header_bytes,
            on_output=self.touch,
        )

    def request_received(
        self, stream: ServerStream, line: RequestLine, block: HeaderBlock
    ) -> _Taking | None:
        assert self.gateway is not None
        decision = self.gateway.decide(line, block, PEER, 0.0)
        if isinstance(decision, Refuse):
            reply = decision.reply
            self.outcomes.append(_refused(reply, decision.close, "classify"))
            stream.send_reply(reply, close=decision.close)
            return None
        assert isinstance(decision, Forward)
        stream.body_limit = self.gateway.body_limit(decision.info)
        return _Taking(self, stream, Accepted(line, block, decision))

    def request_malformed(self, stream: ServerStream, error: WireError) -> None:
        self.outcomes.append(Refused(error.code, error.reason, True, "codec"))
        stream.send_reply(replies.malformed(error.code, error.reason, error.message), close=True)

    @property
    def unfinished(self) -> bool:
        """Part of a message is here, the rest is not."""
        return self.server.head_begun or self.server.state is State.BODY


class _Taking:
    """Collects one request's body."""

    def __init__(self, reader: Reader, stream: ServerStream, accepted: Accepted) -> None:
        self.reader = reader
        self.stream = stream
        self.accepted = accepted
        self.pieces: list[bytes] = []

    def request_data(self, data: bytes) -> None:
        self.pieces.append(data)

    def request_end(self) -> None:
        self.accepted.body = b"".join(self.pieces)
        self.reader.outcomes.append(self.accepted)
        self.stream.send_reply(OK, close=bool(self.accepted.forward.upgrade))

    def request_aborted(self, error: WireError | None) -> None:
        assert error is not None, "no client left in these tests"
        self.reader.outcomes.append(Refused(error.code, error.reason, True, "codec"))
        reply = replies.malformed(error.code, error.reason, error.message)
        self.stream.send_reply(reply, close=True)

    def client_writable(self, writable: bool) -> None:
        raise AssertionError("nothing here is ever full")


def _refused(reply: Reply, close: bool, stage: str) -> Refused:
    reason = reply.body.partition(b'"reason":"')[2].partition(b'"')[0].decode()
    return Refused(reply.status, reason, close, stage)
