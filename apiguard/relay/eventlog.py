"""The recent changes of one cache, in order, each with the object before it.

The log is what lets a watcher lag without memory of its own: it keeps a position, and reads
forward when its transport drains. Positions count changes since the log began; they never repeat.
Memory is bounded by bytes first, then by age, but ``FEWEST`` events stay whatever their age.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter

from apiguard.kube.framing import EventType, ItemForm
from apiguard.kube.objects import restamped
from apiguard.relay.item import Item

_OVERHEAD = 512
"""Bytes an event costs beside bodies and frames."""


@dataclass(frozen=True, slots=True)
class LogBounds:
    """``seconds`` of history, ``bytes`` at most, ``fewest`` events kept however old."""

    seconds: float = 300.0
    bytes: int = 64 << 20
    fewest: int = 1_000


MOST_GAPS = 64
"""Bridged ranges of revisions remembered one by one."""


class Frame:
    """One event as watchers are sent it: built once, the same bytes to everybody.

    ``wire`` is ``data`` in the framing of the transport (an HTTP/1.1 chunk), once the first stream
    has asked for it with ``framed``; held instead of ``data``, not beside it. ``size`` is that of
    ``data``, in bytes.
    """

    __slots__ = ("_begin", "_data", "size", "wire")

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.wire: bytes | None = None
        self._data: bytes | None = data
        self._begin = 0

    @property
    def data(self) -> bytes:
        if self._data is not None:
            return self._data
        assert self.wire is not None
        return self.wire[self._begin : self._begin + self.size]

    def framed(self, before: bytes, after: bytes) -> bytes:
        """Makes and returns ``wire``."""
        wire = self.wire = b"%b%b%b" % (before, self.data, after)
        self._data, self._begin = None, len(before)
        return wire


class Event:
    """One change: ``item`` is None after a deletion, ``previous`` None before a creation.

    ``deleted`` is the object of a deletion with the deletion's own revision, as an item's bytes;
    where upstream did not send it, it is made from ``previous`` on demand.
    """

    __slots__ = ("_frames", "at", "cost", "deleted", "item", "previous", "revision")

    def __init__(
        self,
        revision: int,
        item: Item | None,
        previous: Item | None,
        deleted: bytes | None = None,
    ) -> None:
        self.revision = revision
        self.item = item
        self.previous = previous
        self.deleted = deleted
        self.at = 0.0  # monotonic seconds, set by the log
        # The new object is the store's, or else the previous one of a later event.
        self.cost = (
            _OVERHEAD
            + (len(previous.body) if previous else 0)
            + (len(deleted) if deleted is not None else 0)
        )
        self._frames: dict[EventType, Frame] | None = None

    @property
    def subject(self) -> Item:
        item = self.item or self.previous
        assert item is not None
        return item

    def known_frame(self, kind: EventType) -> Frame | None:
        return self._frames.get(kind) if self._frames else None

    def build_frame(self, kind: EventType, form: ItemForm) -> Frame:
        """Builds and keeps the frame for one of the three outcomes of a change."""
        if kind is EventType.DELETED:
            body = self._deleted_body(form)
        else:
            assert self.item is not None
            body = self.item.body
        built = Frame(form.event(kind, body))
        if self._frames is None:
            self._frames = {}
        self._frames[kind] = built
        return built

    def drop_frame(self, kind: EventType) -> None:
        if self._frames is not None:
            del self._frames[kind]

    def _deleted_body(self, form: ItemForm) -> bytes:
        if self.deleted is None:
            assert self.previous is not None
            old = self.previous
            return restamped(old.body, old.revision, self.revision, form.representation)
        return self.deleted


class Unresumable(enum.Enum):
    """Why a watch cannot be resumed from here."""

    BELOW = "below"  # before the log began: upstream may still know
    GAP = "gap"  # within what a relist bridged: nobody can tell what the client has seen


_revision = attrgetter("revision")


class EventLog:
    """``begin`` and ``end`` are positions: of the oldest event kept, and of the next to come.

    ``floor`` is the lowest revision a watch can be resumed from. ``bytes`` counts the bodies only
    the log still holds and built frames; ``trimmed`` counts events forgotten to stay in bounds.
    """

    __slots__ = (
        "_events",
        "_form",
        "_head",
        "begin",
        "bounds",
        "bytes",
        "floor",
        "gaps",
        "trimmed",
    )

    def __init__(self, form: ItemForm, floor: int, bounds: LogBounds = LogBounds()) -> None:
        self.bounds = bounds
        self.begin = 0
        self.floor = floor
        self.bytes = 0
        self.trimmed = 0
        self._form = form
        self._events: list[Event] = []
        self._head = 0  # how many of _events are forgotten already; see _forget
        self.gaps: list[tuple[int, int]] = []

    @property
    def end(self) -> int:
        return self.begin + len(self._events) - self._head

    def append(self, event: Event, now: float) -> None:
        event.at = now
        self._events.append(event)
        self.bytes += event.cost
        self.trim(now)

    def event(self, position: int) -> Event:
        """The event at ``begin`` <= ``position`` < ``end``."""
        return self._events[self._head + position - self.begin]

    def frame(self, event: Event, kind: EventType) -> Frame:
        """The shared frame of an event; building it counts as the log's memory.

        Where that is used up the latest event's frame still is kept, and older events go; one
        that is built for somebody who lags is not.
        """
        found = event.known_frame(kind)
        if found is not None:
            return found
        found = event.build_frame(kind, self._form)
        size = len(found.data)
        over = self.bytes + size > self.bounds.bytes
        if self.begin == self.end or (over and event is not self._events[-1]):
            event.drop_frame(kind)
            return found
        event.cost += size
        self.bytes += size
        self.trim(event.at)
        return found

    def resume(self, revision: int) -> int | Unresumable:
        """The position of the first event above ``revision``."""
        if self._bridged(revision):
            return Unresumable.GAP
        if revision < self.floor:
            return Unresumable.BELOW
        return (
            self.begin
            + bisect_right(self._events, revision, self._head, key=_revision)
            - self._head
        )

    def exact(self, revision: int) -> bool:
        """Whether undoing events leads to the state at ``revision``."""
        return revision >= self.floor and not self._bridged(revision)

    def bridge(self, low: int, high: int) -> None:
        """Notes that between two revisions the log holds a difference, not what happened.

        This outlives the events themselves: a client that was told a revision of our choosing
        must not resume there, neither here nor upstream, where others happened in between.
        """
        if high - low <= 1:
            return
        self.gaps.append((low, high))
        if len(self.gaps) > MOST_GAPS:  # what lies between the two oldest becomes part of them
            self.gaps[:2] = [(self.gaps[0][0], self.gaps[1][1])]

    def _bridged(self, revision: int) -> bool:
        return any(low < revision < high for low, high in self.gaps)

    def trim(self, now: float) -> None:
        """Forgets what the bounds no longer allow."""
        bounds = self.bounds
        events, head = self._events, self._head
        while head < len(events):
            oldest = events[head]
            aged = now - oldest.at > bounds.seconds and len(events) - head > bounds.fewest
            if not aged and self.bytes <= bounds.bytes:
                break
            self.bytes -= oldest.cost
            self.floor = oldest.revision
            head += 1
        if head != self._head:
            self._forget(head)

    def _forget(self, head: int) -> None:
        """The list's front is cut only when half of it is void: amortised one move per event,
        where a deque would make every position a walk."""
        gone = head - self._head
        self.begin += gone
        self.trimmed += gone
        for at in range(self._head, head):
            self._events[at] = _VOID
        self._head = head
        if head * 2 > len(self._events):
            del self._events[:head]
            self._head = 0


_VOID = Event(0, None, None)
