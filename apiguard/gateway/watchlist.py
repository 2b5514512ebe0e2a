"""WatchList: an exchange that costs upstream a list before it is a watch.

A watch with ``sendInitialEvents=true`` sends the objects there are, then a bookmark that says so,
then changes. Until the bookmark it is the work of a list, and it holds a place among collection
reads; kube-apiserver's fair queues hold its seats for the same stretch (its watch initialization
signal, ``k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go``).

The bookmark is found by the name of its annotation, which is the same bytes in JSON and protobuf:
searching 64 KiB takes 25 us and ends with the objects, decoding takes milliseconds. Somebody who
writes that name into an object lets those who read it off early, into the ceiling of watches and
the limits of the policy, which hold anyway. Some watches never send it (no bookmarks asked for, an
aggregated server, a refusal), so the place also comes back after a quiet moment that is not the
client's doing, and at a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from apiguard.gateway.decision import Forward
from apiguard.gateway.exchange import Exchange, UpstreamStream
from apiguard.kube.framing import INITIAL_EVENTS_END
from apiguard.wire.messages import HeaderBlock, RequestLine, ResponseHead, ServerStream

if TYPE_CHECKING:
    from apiguard.gateway.session import Session

MARK: Final = INITIAL_EVENTS_END.encode("ascii")
"""Annotation of the bookmark behind the initial events (KEP-3157)."""

QUIET_SECONDS: Final = 2.0
"""Upstream sends objects without pause; longer when it is overloaded, shorter than this still."""

DEADLINE_SECONDS: Final = 30.0
"""After the head. A collection that takes longer to send is held up by its reader, and whoever
reads slowly must not keep others from theirs."""


class WatchList(Exchange):
    """``on_began`` is called once, when the initial events have been sent or are taken for sent;
    not at all if the exchange ends before."""

    __slots__ = ("_deadline", "_pieces_seen", "_quiet_since", "_tail", "on_began")

    def __init__(
        self,
        session: Session,
        stream: ServerStream,
        line: RequestLine,
        block: HeaderBlock,
        forward: Forward,
        received_at: float,
    ) -> None:
        super().__init__(session, stream, line, block, forward, received_at)
        self.on_began: Callable[[], object] | None = None
        self._deadline = 0.0
        self._quiet_since = 0.0
        self._pieces_seen = 0
        self._tail = b""

    def assigned(self, upstream: UpstreamStream, now: float) -> None:
        super().assigned(upstream, now)
        self._deadline = now + self._session.gateway.first_byte_seconds

    def response_head(self, head: ResponseHead) -> None:
        super().response_head(head)
        now = self._quiet_since = self._session.clock()
        self._deadline = now + DEADLINE_SECONDS

    def response_data(self, data: bytes) -> None:
        super().response_data(data)
        if self.on_began is not None:
            joint = self._tail + data[: len(MARK) - 1]
            if MARK in data or MARK in joint:
                self._begin()
            else:
                self._tail = (data if len(data) >= len(MARK) else joint)[1 - len(MARK) :]

    def credit(self, now: float) -> None:
        """At every tick; see ``Exchange.credit``."""
        super().credit(now)
        if self.on_began is None or not self.sent_at:
            return
        stream = self._stream
        if self._pieces != self._pieces_seen or (stream is not None and not stream.writable):
            self._pieces_seen = self._pieces
            self._quiet_since = now
        quiet = self.code != 0 and now - self._quiet_since >= QUIET_SECONDS
        if quiet or now >= self._deadline:
            self._begin()

    def _begin(self) -> None:
        began, self.on_began = self.on_began, None
        self._tail = b""
        if began is not None:
            began()

    def _finish(self, *, failed: bool = False) -> None:
        self.on_began = None
        super()._finish(failed=failed)
