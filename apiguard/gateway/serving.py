"""Serving: one request answered from the relay's caches, or handed on to upstream after all.

The sibling of Exchange: sink of the client's stream, and of a watcher in place of an upstream
stream. It decides nothing: the desk tells it what to send, and it sends that as the client's
transport takes it, a piece per turn of the loop, so that no reader holds up the others. Until the
first byte is out it can still become an Exchange (``pass_upstream``), as if the relay had not been
there.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Protocol

from apiguard.errors import WireError
from apiguard.gateway import replies
from apiguard.gateway.decision import Forward, Serve
from apiguard.gateway.exchange import CREDIT_SECONDS, SLOW_SECONDS, Exchange
from apiguard.kube.requestinfo import RequestInfo
from apiguard.kube.status import Representation, Status
from apiguard.relay.bodies import PIECE, ListAnswer
from apiguard.relay.eventlog import Frame
from apiguard.relay.fanout import Fanout
from apiguard.relay.packing import GzipAnswer, Pack, accepts_gzip
from apiguard.relay.watcher import Ending, Watcher
from apiguard.relay.watching import Begin
from apiguard.wire.messages import (
    CHUNKED,
    HeaderBlock,
    Reply,
    RequestLine,
    ResponseHead,
    ServerStream,
)

if TYPE_CHECKING:
    from apiguard.gateway.session import Session

LONGEST_UNCHUNKED = 2048
"""Bytes of a body that net/http of Go sends with its length: it buffers so much."""


class Desk(Protocol):
    """Who decides what a Serving sends. ``turn`` counts turns of the loop; ``alone`` while an event
    is told that no other follows in this turn."""

    turn: int
    alone: bool

    def soon(self, serving: Serving) -> None:
        """Call ``serving.step`` after what was written has been flushed."""

    def pack(self, serving: Serving, wish: Pack) -> None:
        """Have it compressed, then the same."""

    def left(self, serving: Serving) -> None:
        """The serving is over: whatever is kept for it can go."""


class Serving:
    """Sink of one client stream, and of at most one watcher.

    What counters and observers read is as in ``Exchange``; ``sent_at`` stays 0, for upstream had
    no part in it. ``successor`` is the Exchange that took over, if the relay could not answer;
    ``warnings`` are header lines of whatever is answered.
    """

    __slots__ = (
        "_ahead",
        "_answer",
        "_burst",
        "_credited",
        "_desk",
        "_fanout",
        "_session",
        "_stream",
        "_turn",
        "block",
        "bytes_out",
        "code",
        "credit_at",
        "head",
        "line",
        "received_at",
        "sampled",
        "sent_at",
        "serve",
        "successor",
        "warnings",
        "watcher",
    )

    def __init__(
        self,
        session: Session,
        desk: Desk,
        stream: ServerStream,
        line: RequestLine,
        block: HeaderBlock,
        serve: Serve,
        received_at: float,
    ) -> None:
        self._session = session
        self._desk = desk
        self._stream: ServerStream | None = stream
        self.line = line
        self.block = block
        self.serve = serve
        self.received_at = received_at
        self.sent_at = 0.0
        self.code = 0
        self.head: ResponseHead | None = None
        self.bytes_out = 0
        self.credit_at = 0.0
        self.sampled = False
        self.successor: Exchange | None = None
        self.watcher: Watcher | None = None
        self.warnings = b""
        self._fanout: Fanout | None = None
        self._answer: ListAnswer | GzipAnswer | None = None
        self._ahead: bytes | None = None
        self._burst = 0  # bytes written in the turn numbered _turn
        self._turn = -1
        self._credited = 0

    @property
    def forward(self) -> Forward:
        return self.serve.forward

    @property
    def info(self) -> RequestInfo:
        return self.serve.forward.info

    @property
    def representation(self) -> Representation:
        return self.serve.form.representation

    @property
    def is_watch(self) -> bool:
        return self.serve.wanted.watch

    @property
    def finished(self) -> bool:
        successor = self.successor
        return self._stream is None and (successor is None or successor.finished)

    @property
    def undecided(self) -> bool:
        """Nothing was sent, and nobody else took over."""
        return self._stream is not None and not self.code

    # -- what the desk wants sent ------------------------------------------------------------

    def pass_upstream(self) -> None:
        """The relay cannot answer this: it goes the ordinary way."""
        stream = self._stream
        if stream is None:
            return
        self._stream = None
        self._desk.left(self)
        self.successor = self._session.forward_instead(self, stream)

    def refuse(self, reply: Reply) -> None:
        stream = self._stream
        if stream is None:
            return
        self.code = reply.status
        self.bytes_out = len(reply.body)
        self._finish()
        stream.send_reply(reply)

    def failed(self, reply: Reply) -> None:
        """A defect of ours: ``reply`` if nothing was sent yet, else a visible break."""
        if self.code:
            self.cut()
        else:
            self.refuse(reply)

    def refuse_with(self, status: Status, *, sniff: bool = False) -> None:
        """A Status as upstream sends it."""
        self.refuse(replies.reply_to(status, self.error_form, lines=self._own_lines(), sniff=sniff))

    def answer_list(self, answer: ListAnswer, lines: bytes) -> None:
        """``lines`` are further header lines."""
        gzip = accepts_gzip(self.block.get(b"accept-encoding"))
        self._answer = GzipAnswer(answer) if gzip else answer
        self.head = self._response_head(self.representation.value, lines)
        # In a turn of its own: one review may answer for hundreds who wait.
        self._desk.soon(self)

    def answer_watch(
        self, fanout: Fanout, begin: Begin, deadline: float, now: float, lines: bytes
    ) -> None:
        self._send_stream_head(now, lines)
        self._fanout = fanout
        self.watcher = fanout.open(begin, self, deadline, now)
        self._again(fanout.pull(self.watcher, now))

    def answer_stream(self, frame: bytes, now: float) -> None:
        """A stream of one event, which is an error."""
        self._send_stream_head(now, b"")
        stream = self._stream
        if stream is not None:
            self.bytes_out += len(frame)
            stream.send_data(frame)
            self._end_properly(stream)

    def step(self) -> bool:
        """One bounded step of sending; returns whether another is possible in the next turn."""
        stream = self._stream
        if stream is None:
            return False
        if self.watcher is not None and self._fanout is not None:
            return self._fanout.pull(self.watcher, self._session.clock())
        answer = self._answer
        if answer is None or not stream.writable:
            return False
        part = self._ahead if self._ahead is not None else answer.read()
        self._ahead = None
        if isinstance(part, Pack):
            return self._wait_for(part)
        if part == b"":
            return True
        if part is None:
            self._end_properly(stream)
            return False
        if not self.code:
            return self._begin_list(stream, answer, part)
        self.bytes_out += len(part)
        stream.send_data(part)
        return True

    # -- sending -----------------------------------------------------------------------------

    def _wait_for(self, wish: Pack) -> bool:
        """Until the piece is compressed; then it is read again."""
        self._desk.pack(self, wish)
        return False

    def _begin_list(
        self, stream: ServerStream, answer: ListAnswer | GzipAnswer, part: bytes
    ) -> bool:
        head = self.head
        assert head is not None
        if isinstance(answer, GzipAnswer) and answer.gzipped:
            head.lines += b"Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
        ahead = answer.read()
        self.code = head.status
        self.bytes_out = len(part)
        self._observe_begin()
        if ahead is None and len(part) <= LONGEST_UNCHUNKED:
            head.length = head.declared = len(part)
        stream.send_head(head)
        stream.send_data(part)
        if ahead is None:
            self._end_properly(stream)
            return False
        if isinstance(ahead, Pack):
            return self._wait_for(ahead)
        self._ahead = ahead
        return True

    def _send_stream_head(self, now: float, lines: bytes) -> None:
        stream = self._stream
        if stream is None:
            return
        media = self.representation.value
        if self.representation is Representation.PROTOBUF:
            media += ";stream=watch"
        self.head = self._response_head(media, lines)
        self.code = 200
        self._observe_begin()
        self.credit_at = now + CREDIT_SECONDS
        self.sampled = True
        self._session.stream_began(self, now)
        stream.send_head(self.head)

    def _response_head(self, media: str, lines: bytes) -> ResponseHead:
        fields = b"%bCache-Control: no-cache, private\r\nContent-Type: %b\r\n%b" % (
            self._own_lines(),
            media.encode("ascii"),
            lines,
        )
        return ResponseHead(200, b"HTTP/1.1 200 OK\r\n", fields, False, CHUNKED, -1, b"", False)

    def _own_lines(self) -> bytes:
        """The client's own audit id is kept, as upstream does."""
        own = self.block.get(b"audit-id")
        audit = own or str(uuid.uuid4()).encode("ascii")
        return b"Audit-Id: %b\r\n%b" % (audit, self.warnings)

    @property
    def error_form(self) -> Representation:
        """How this client wants errors written."""
        return self._session.representation(self.block)

    def _observe_begin(self) -> None:
        waited = self._session.clock() - self.received_at
        self._session.gateway.counters.guard_seconds.observe(waited)

    def _again(self, more: bool) -> None:
        if more:
            self._desk.soon(self)

    def _end_properly(self, stream: ServerStream) -> None:
        self._finish()
        stream.send_end()

    # -- sink of a watcher -------------------------------------------------------------------

    def write(self, frame: Frame) -> bool:
        """At most ``PIECE`` bytes a turn: how full the transport is shows when it is flushed."""
        stream = self._stream
        if stream is None:
            return False
        size = frame.size
        self.bytes_out += size
        stream.send_shared(frame, alone=self._desk.alone)
        turn = self._desk.turn
        if turn != self._turn:
            self._turn = turn
            self._burst = 0
        self._burst += size
        if not stream.writable:
            return False
        if self._burst >= PIECE:
            self._desk.soon(self)
            return False
        return True

    def end(self, ending: Ending) -> None:
        stream = self._stream
        self.watcher = None
        if stream is None:
            return
        if ending is Ending.STALLED:
            self._finish(failed=True)
            stream.abort()
        else:
            self._end_properly(stream)

    # -- sink of the client's stream ---------------------------------------------------------

    def request_data(self, data: bytes) -> None:
        """There is none: requests with a body are none of the relay's."""

    def request_end(self) -> None:
        if self.successor is not None:
            self.successor.request_end()

    def request_aborted(self, error: WireError | None) -> None:
        if self.successor is not None:
            self.successor.request_aborted(error)
        else:
            self._finish()

    def client_writable(self, writable: bool) -> None:
        if self.successor is not None:
            self.successor.client_writable(writable)
        elif writable and (self.watcher is not None or self._answer is not None):
            # Not at once: of 50 readers whose transports drain together each would encrypt a
            # piece before the loop comes round, 20 ms in all.
            self._desk.soon(self)

    # -- time --------------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Never: whatever is waited for has a deadline at the desk."""
        return False

    def silent(self) -> None:
        """See ``overdue``."""

    def credit(self, now: float) -> None:
        """As ``Exchange.credit``. A full transport is judged by what its kernel acknowledged
        (``runtime.downstream``), more exactly than the watcher can."""
        if self.watcher is not None:
            self.watcher.progressed(now)
        if not self.credit_at:
            if now - self.received_at >= SLOW_SECONDS:
                self.credit_at = now + CREDIT_SECONDS
                self._credited = self.bytes_out
                self._session.slow(self, now)
        elif now >= self.credit_at:
            self._session.went_on(self, now)
            self.credit_at = now + CREDIT_SECONDS

    def uncredited(self, now: float) -> tuple[int, float]:
        """Bytes that observers have not been told of; no seconds of upstream's."""
        more = self.bytes_out - self._credited
        self._credited = self.bytes_out
        return more, 0.0

    # -- endings -----------------------------------------------------------------------------

    def end_stream(self) -> bool:
        """Ends a running watch cleanly; its client resumes. False to ask again later."""
        if self.successor is not None:
            return self.successor.end_stream()
        if self.watcher is None or self._fanout is None:
            return False
        self._fanout.close(self.watcher, Ending.DRAINED)
        return True

    def cut(self) -> None:
        """Breaks off, whatever the state."""
        if self.successor is not None:
            self.successor.cut()
            return
        stream = self._stream
        self._finish(failed=True)
        if stream is not None:
            stream.abort()

    def _finish(self, *, failed: bool = False) -> None:
        """Exactly once: after this stream, watcher and desk are strangers."""
        if self._stream is None:
            return
        self._stream = None
        self._answer = self._ahead = None
        watcher, self.watcher = self.watcher, None
        if watcher is not None and self._fanout is not None:
            self._fanout.close(watcher)
        self._desk.left(self)
        self._session.serving_finished(self, failed=failed)


Carried = Exchange | Serving
"""What a session may have under way."""
