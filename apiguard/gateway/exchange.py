"""Exchange: one forwarded request until its outcome.

It is the sink of both streams: request bytes go up, response bytes go down, and whatever ends
first ends the other in the right way. It owns the rule that nothing is sent twice: once a request
has been given to a connection, a failure is answered by what may have happened upstream,

====================  ==========================================================================
lost before any head  read 503 with Retry-After, watch 429 with Retry-After (an informer would
                      relist on 503), write 504 "outcome unknown" without (clients repeat any 5xx
                      that carries it)
lost after the head   the client's response is broken visibly, never ended cleanly
client gone           the upstream connection is closed: its answer would come late
====================  ==========================================================================

A client that answers slowly, or upstream that does, pauses the other side through
``pause_body``/``resume_body``; nothing is buffered here but a request body that waits for its
connection, and that stops the client at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from apiguard.errors import WireError
from apiguard.gateway import replies
from apiguard.gateway.decision import Forward
from apiguard.kube.requestinfo import RequestInfo
from apiguard.wire.messages import (
    HeaderBlock,
    Reply,
    RequestLine,
    ResponseHead,
    ResponseSink,
    ServerStream,
)

if TYPE_CHECKING:
    from apiguard.gateway.session import Session


SLOW_SECONDS = 2.0
"""After so long observers hear of a request that has not ended: in an incident the lists that
overwhelm upstream take longer than anybody can wait to learn whose they are."""

CREDIT_SECONDS = 10.0
"""How long what a stream or a slow request did since may wait until observers are told of it."""

_LOOKING_VERBS = frozenset({"head", "options"})
"""Verbs of non-resource requests that RequestInfo counts as mutating, as kube-apiserver does."""

_ACTING_SUBRESOURCES = frozenset({"attach", "exec", "portforward", "proxy"})


class UpstreamStream(Protocol):
    """A connection to upstream, carrying this exchange's request."""

    @property
    def at_boundary(self) -> bool:
        """Between two pieces the server wrote: where a stream of events may be ended."""

    def start(
        self, sink: ResponseSink, line: RequestLine, lines: bytes, *, length: int, upgrade: bytes
    ) -> None: ...

    def send_data(self, data: bytes) -> None: ...

    def send_end(self) -> None: ...

    def cancel(self) -> None: ...

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...


class Exchange:
    """Sink of one client stream and one upstream stream.

    ``code`` is the status the client got, 0 while it got none; ``head`` what upstream answered,
    None before and for answers of our own; ``bytes_out`` of its body have gone to the client.
    ``credit_at`` is when observers should next hear of its bytes and seconds, 0 while they have
    not heard of it at all: most are told of when they end, a long-running request when upstream
    answers, a slow one after ``SLOW_SECONDS``. ``sampled`` says whether samplers saw it.
    """

    __slots__ = (
        "_credited",
        "_credited_at",
        "_held",
        "_line",
        "_pieces",
        "_request_done",
        "_session",
        "_stream",
        "_upstream",
        "block",
        "bytes_out",
        "code",
        "credit_at",
        "due",
        "forward",
        "head",
        "queued_at",
        "received_at",
        "sampled",
        "sent_at",
        "tunnel",
    )

    def __init__(
        self,
        session: Session,
        stream: ServerStream,
        line: RequestLine,
        block: HeaderBlock,
        forward: Forward,
        received_at: float,
    ) -> None:
        self._session = session
        self._stream: ServerStream | None = stream
        self._line = line
        self._upstream: UpstreamStream | None = None
        self._held: list[bytes] | None = None
        self._request_done = False
        self.block = block
        self.forward = forward
        self.code = 0
        self.received_at = received_at
        self.queued_at = 0.0  # since when it waits for a connection; 0 when it had one at once
        self.sent_at = 0.0
        self.due = 0.0  # when upstream's silence is taken for its end; 0 for never
        self._pieces = 0  # of the response, since silence was last looked at
        self.tunnel = False
        self.head: ResponseHead | None = None
        self.bytes_out = 0
        self.credit_at = 0.0
        self.sampled = False

    @property
    def info(self) -> RequestInfo:
        return self.forward.info

    @property
    def is_watch(self) -> bool:
        """A stream of events, perhaps not begun; as a tunnel it is none whose end could be told."""
        return self.forward.info.verb == "watch" and not self.tunnel

    @property
    def finished(self) -> bool:
        return self._stream is None

    # -- the connection ----------------------------------------------------------------------

    def assigned(self, upstream: UpstreamStream, now: float) -> None:
        """The request goes out on ``upstream``: from here it counts as sent."""
        self._upstream = upstream
        self.sent_at = now
        counters = self._session.gateway.counters
        if self.queued_at:
            counters.guard_seconds.observe(self.queued_at - self.received_at)
            counters.queue_seconds.observe(now - self.queued_at)
        else:
            counters.guard_seconds.observe(now - self.received_at)
        if not self.forward.info.long_running:
            self.due = now + self._session.gateway.first_byte_seconds
        forward = self.forward
        upstream.start(
            self,
            self._line,
            forward.fields,
            length=self.block.length,
            upgrade=forward.upgrade,
        )
        held, self._held = self._held, None
        if held is not None:
            for piece in held:
                upstream.send_data(piece)
            if self._stream is not None:
                self._stream.resume_body()
        if self._request_done and self.block.length:
            upstream.send_end()

    def refused(self, reply: Reply) -> None:
        """There is no connection to be had: nothing was sent."""
        if self._stream is not None:
            self._session.count_refusal(self._stream, self._session.clock())
        self._answer(reply)

    # -- request: sink of the client's stream ------------------------------------------------

    def request_data(self, data: bytes) -> None:
        if self._upstream is not None:
            self._upstream.send_data(data)
            return
        if self._held is None:
            self._held = []
            if self._stream is not None:
                self._stream.pause_body()
        self._held.append(data)

    def request_end(self) -> None:
        self._request_done = True
        if self._upstream is not None and (self.tunnel or self.block.length):
            self._upstream.send_end()
            if self.tunnel:
                self._finish()

    def request_aborted(self, error: WireError | None) -> None:
        self._cancel_upstream()
        if error is None:
            self._finish()
        else:
            self._session.gateway.count_malformed(error)
            self._answer(replies.malformed(error.code, error.reason, error.message), close=True)

    def client_writable(self, writable: bool) -> None:
        if self._upstream is not None:
            if writable:
                self._upstream.resume_body()
            else:
                self._upstream.pause_body()

    # -- response: sink of the upstream stream -----------------------------------------------

    def response_interim(self, head: ResponseHead) -> None:
        if self._stream is not None:
            self._stream.send_interim(head)

    def response_head(self, head: ResponseHead) -> None:
        stream = self._stream
        if stream is None:
            return
        session = self._session
        self.code = head.status
        self.head = head
        now = session.clock()
        session.gateway.counters.upstream_seconds.observe(now - self.sent_at)
        if self.due:
            self.due = now + session.gateway.first_byte_seconds
        if self.forward.info.long_running and not self.credit_at:
            self._begin_credit(now)
            self.sampled = True
            session.stream_began(self, now)
        if not stream.writable and self._upstream is not None:
            self._upstream.pause_body()
        if head.status == 101:
            self.tunnel = True
            stream.start_tunnel(head)
            return
        stream.send_head(head, close=bool(self.forward.upgrade))

    def response_data(self, data: bytes) -> None:
        self._pieces += 1
        if self._stream is not None:
            self.bytes_out += len(data)
            self._stream.send_data(data)

    def response_end(self) -> None:
        stream = self._stream
        if stream is None:
            return
        self._upstream = None
        self._finish()
        stream.send_end()

    def response_aborted(self, reason: str) -> None:
        self._upstream = None
        if self._stream is None:
            return
        if self.code:
            self._break()
        elif self.forward.info.verb == "watch":
            busy = replies.too_busy(
                "the API server closed the connection before the watch began, please try again",
                1,
                self._session.representation(self.block),
            )
            self._answer(busy)
        elif _acts(self.forward.info):
            self._answer(replies.OUTCOME_UNKNOWN)
        else:
            self._answer(replies.LOST_READ)

    def upstream_writable(self, writable: bool) -> None:
        if self._stream is not None:
            if writable:
                self._stream.resume_body()
            else:
                self._stream.pause_body()

    # -- observing ---------------------------------------------------------------------------

    def credit(self, now: float) -> None:
        """Tells observers of what takes its time when that is due; called at every tick."""
        if not self.credit_at:
            if now - self.received_at >= SLOW_SECONDS:
                self._begin_credit(now)
                self._session.slow(self, now)
        elif now >= self.credit_at:
            self._session.went_on(self, now)
            self.credit_at = now + CREDIT_SECONDS

    def _begin_credit(self, now: float) -> None:
        self.credit_at = now + CREDIT_SECONDS
        self._credited = self.bytes_out
        self._credited_at = now

    def uncredited(self, now: float) -> tuple[int, float]:
        """Bytes and upstream's seconds that observers have not been told of; from here on they
        have. A stream takes no seconds of upstream's once it began."""
        more, since = self.bytes_out - self._credited, max(self._credited_at, self.sent_at)
        self._credited, self._credited_at = self.bytes_out, now
        timed = self.sent_at and not self.forward.info.long_running
        return more, now - since if timed else 0.0

    # -- endings -----------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Upstream has been silent for too long, before its answer or within it.

        A client that takes its time is no silence of upstream's.
        """
        if not self.due or now < self.due:
            return False
        stream = self._stream
        if self.code and (self._pieces or (stream is not None and not stream.writable)):
            self._pieces = 0
            self.due = now + self._session.gateway.first_byte_seconds
            return False
        return True

    def silent(self) -> None:
        """Upstream did not answer in time, or stopped within its answer."""
        self._cancel_upstream()
        self._answer(replies.OUTCOME_UNKNOWN if _acts(self.forward.info) else replies.SILENT)

    def end_stream(self) -> bool:
        """End a running watch cleanly, where that loses nothing; False to ask again later.

        Only a watch: its client resumes. A list or a log ended between two chunks would pass for
        complete.
        """
        upstream, stream = self._upstream, self._stream
        if upstream is None or stream is None or not self.code:
            return False
        if not self.is_watch or not upstream.at_boundary:
            return False
        self._cancel_upstream()
        self._finish()
        stream.send_end()
        return True

    def cut(self) -> None:
        """Break off, whatever the state: the worker ends, or the client takes nothing."""
        self._cancel_upstream()
        self._break()

    def _answer(self, reply: Reply, *, close: bool = False) -> None:
        stream = self._stream
        if stream is None:
            return
        if self.code:
            self._break()
            return
        self.code = reply.status
        self._finish(failed=True)
        stream.send_reply(reply, close=close or bool(self.forward.upgrade))

    def _break(self) -> None:
        stream = self._stream
        self._finish(failed=True)
        if stream is not None:
            stream.abort()

    def _cancel_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.cancel()

    def _finish(self, *, failed: bool = False) -> None:
        """Exactly once: after this both streams are strangers."""
        if self._stream is None:
            return
        self._stream = None
        if self._upstream is not None:
            self._cancel_upstream()
        self._held = None
        self._session.exchange_finished(self, failed=failed)


def _acts(info: RequestInfo) -> bool:
    """Whether doing it twice may differ from once: a command in a pod is also started by GET."""
    if info.verb in _LOOKING_VERBS:
        return False
    return info.mutating or info.subresource in _ACTING_SUBRESOURCES
