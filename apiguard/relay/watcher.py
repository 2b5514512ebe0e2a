"""Watcher: one stream. What it was told is a position in the log, never a queue of its own.

::

            initial events           log read to its end
  STARTING ----------------> LAGGING -------------------> LIVE
                                ^                           |
                                +---------------------------+
                                   the transport is full
  any state ---> ENDED, or DOOMED and then ENDED where many end at once

A live watcher has no position: it was told everything. When its transport is full it gets one
and reads on from there once the transport drains; until then changes cost it nothing. If the log
has meanwhile forgotten its position, it is told 410.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from typing import Protocol

from apiguard.kube.framing import EventType, error_frame
from apiguard.relay.bodies import PIECE, Content
from apiguard.relay.eventlog import Event, Frame
from apiguard.relay.selection import Selection, Test
from apiguard.relay.store import WatchCache
from apiguard.relay.watching import Begin, too_old

BOOKMARK_EVERY = 60.0
"""Seconds between bookmarks of a stream, minus a random part of up to ``BOOKMARK_SPREAD``."""
BOOKMARK_SPREAD = 10.0
BOOKMARK_BEFORE_DEADLINE = 2.0
"""Seconds before its end at which a stream gets a last bookmark."""
STALL = 60.0
"""Seconds without accepting a byte after which a stream is closed."""
READ_AHEAD = 2_048
"""Events of the log looked at in one go: 1 ms with a selector."""


class State(enum.Enum):
    """See the module's diagram."""

    STARTING = "initial events"
    LAGGING = "behind"
    LIVE = "live"
    DOOMED = "doomed"  # told nothing any more, to be ended at its deadline
    ENDED = "ended"


class Ending(enum.Enum):
    """Why a stream ended; all but STALLED end it properly, after what was written."""

    TIMEOUT = "timeout"
    STALLED = "stalled"
    EXPIRED = "expired"  # an ERROR event says so
    RESET = "reset"  # it cannot be gone on with after a relist; an ERROR event says so
    REVOKED = "revoked"
    DRAINED = "drained"
    CLOSED = "closed"  # by the client


class Sink(Protocol):
    """Where a stream's bytes go.

    ``write`` always takes the frame and returns whether there is room for more; once there is
    again, the owner calls ``Watcher.pull``. It must not call back into the fanout.
    """

    def write(self, frame: Frame) -> bool: ...

    def end(self, ending: Ending) -> None: ...


def outcome(event: Event, test: Test) -> EventType | None:
    """What a watcher hears of a change (k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go)."""
    previous, item = event.previous, event.item
    before = previous is not None and test(previous)
    if item is not None and test(item):
        return EventType.MODIFIED if before else EventType.ADDED
    return EventType.DELETED if before else None


class Watcher:
    """``above``: nothing at or below this revision is told. ``deadline`` and ``stalled_at`` in
    monotonic seconds; ``stalled_at`` is when the transport last took something while full.

    ``initial`` yields the content of the initial events; the end bookmark follows where asked.
    """

    __slots__ = (
        "_at",
        "_bookmark_due",
        "_cache",
        "_end_revision",
        "_epoch",
        "_initial",
        "_rng",
        "_test",
        "above",
        "bookmarks",
        "deadline",
        "position",
        "selection",
        "sink",
        "stalled_at",
        "state",
    )

    def __init__(
        self,
        begin: Begin,
        cache: WatchCache,
        sink: Sink,
        test: Test,
        initial: Content | None,
        *,
        deadline: float,
        now: float,
        rng: random.Random,
    ) -> None:
        self.selection: Selection = begin.query.selection
        self.sink = sink
        self.state = State.LAGGING if initial is None else State.STARTING
        self.position = begin.position
        self.above = begin.above
        self.bookmarks = begin.query.bookmarks
        self.deadline = deadline
        self.stalled_at = now
        self._cache = cache
        self._epoch = cache.epoch
        self._test = test
        self._rng = rng
        self._initial = initial
        self._at = 0  # the next piece of the initial events
        self._end_revision = begin.initial.revision if begin.initial else 0
        self._bookmark_due = 0.0
        self._plan_bookmark(now)

    # --- writing --------------------------------------------------------------------------------

    def pull(self, now: float) -> bool:
        """Writes until the transport is full or nothing is missing; a bounded amount at a time.

        Returns whether to call again soon although nothing drained. Then as well as when the
        transport has room again this is called; not while it is full.
        """
        if self.state is State.STARTING:
            return self._pull_initial(now)
        if self.state is State.LAGGING:
            return self._pull_log(now)
        return False

    def _pull_initial(self, now: float) -> bool:
        content = self._initial
        assert content is not None
        if not content.selected:
            content.step()
            if not content.selected:
                return True
        self.stalled_at = now
        while self._at < content.pieces:
            self._at += 1
            if not self._write_piece(content.piece(self._at - 1)):
                return False
        self.state = State.LAGGING
        self._initial = None
        if self.bookmarks and not self._write_bookmark(self._end_revision, initial_end=True):
            return False
        return self._pull_log(now)

    def _write_piece(self, piece: bytes) -> bool:
        room = True
        for at in range(0, len(piece), PIECE):
            part = piece if len(piece) <= PIECE else piece[at : at + PIECE]
            room = self.sink.write(Frame(part))
        return room

    def _pull_log(self, now: float) -> bool:
        log = self._cache.log
        if self._epoch != self._cache.epoch or self.position < log.begin:
            self.expire()
            return False
        self.stalled_at = now
        end = min(log.end, self.position + READ_AHEAD)
        for event, kind in self._missed(end):
            if event.revision > self.above and not self.sink.write(log.frame(event, kind)):
                return False
        if end < log.end:
            return True
        self.state = State.LIVE
        return False

    def _missed(self, end: int) -> Iterator[tuple[Event, EventType]]:
        """The events of the log up to ``end`` that concern this watcher; moves its position."""
        log, test = self._cache.log, self._test
        while self.position < end:
            event = log.event(self.position)
            self.position += 1
            kind = outcome(event, test)
            if kind is not None:
                yield event, kind

    def lag(self, position: int, now: float) -> None:
        """The transport was full after a live event; ``position`` is that of the next one."""
        self.state = State.LAGGING
        self.position = position
        self.stalled_at = now

    def progressed(self, now: float) -> None:
        """The transport took bytes, though not enough to be called drained."""
        self.stalled_at = now

    # --- time -----------------------------------------------------------------------------------

    def tick(self, now: float) -> Ending | None:
        """Offers a bookmark when one is due; returns why to end the stream, if so."""
        if self.state in (State.STARTING, State.LAGGING):
            if now - self.stalled_at >= STALL:
                return Ending.STALLED
        elif self.state is State.LIVE and now >= self._bookmark_due:
            self.offer_bookmark(now)
        return Ending.TIMEOUT if now >= self.deadline else None

    def offer_bookmark(self, now: float) -> bool:
        """Everything up to the cache's revision was written before, for the stream is live.

        Returns whether it still is.
        """
        self._plan_bookmark(now)
        if not self.bookmarks or self._cache.revision < self.above:
            return True
        if self._write_bookmark(self._cache.revision, initial_end=False):
            return True
        self.lag(self._cache.log.end, now)
        return False

    def doom(self, due: float) -> None:
        """The cache broke with its past: nothing may follow but the end, at ``due``."""
        self.state = State.DOOMED
        self.deadline = due
        self._initial = None

    @property
    def due(self) -> float:
        """When ``tick`` has something to do, as far as only time passes."""
        return min(self._bookmark_due, self.deadline) if self.bookmarks else self.deadline

    def _plan_bookmark(self, now: float) -> None:
        """The next one, or the last before the deadline, whichever comes first."""
        regular = now + BOOKMARK_EVERY - self._rng.random() * BOOKMARK_SPREAD
        last = self.deadline - BOOKMARK_BEFORE_DEADLINE
        self._bookmark_due = min(regular, last) if now < last else self.deadline + 1

    def _write_bookmark(self, revision: int, *, initial_end: bool) -> bool:
        return self.sink.write(self._cache.bookmark(revision, initial_end=initial_end))

    # --- the end --------------------------------------------------------------------------------

    def expire(self, ending: Ending = Ending.EXPIRED) -> None:
        """Tells 410 and ends the stream."""
        revision = self.above
        status = too_old(revision, self._cache)
        self.sink.write(Frame(error_frame(status, self._cache.spec.representation)))
        self.end(ending)

    def end(self, ending: Ending) -> None:
        if self.state is not State.ENDED:
            self.state = State.ENDED
            self._initial = None
            self.sink.end(ending)
