"""Since when a client has been around: what sets a newcomer apart from an old one gone wild.

Names are chosen by clients, so a flood of invented ones must not push out those that matter. A
name first stands on probation; one that is seen again in a later slot of two seconds is known,
kept apart, and only pushed out by other known names. Within either part those not seen for
longest go first. A million names in a minute pass through probation and leave no trace, while a
busy newcomer beside them is seen five times a second, and stays on probation until it is known.

Only known names are worth writing down; they come back as known.

When a guard starts for the first time it has seen nobody, and everybody would be new. Names that
show within ``LEARNING_SECONDS`` of that are taken for those that were always there. Their date is
given (they have been around at least since), but nobody is told they are new.

Times are Unix seconds: they outlive the process. A clock that is set back makes a name known
later, nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from apiguard.telemetry.activity import ActivityRow
from apiguard.telemetry.toptalkers import USER, USER_AGENT

KNOWN = 16_384
PROBATION = 8_192
"""Names kept of each kind: together 10 MiB at typical lengths."""

SLOT_SECONDS = 2.0

LEARNING_SECONDS = 30.0
"""Informers have reconnected by then; a storm that begins later is told of as new."""


class Entry(NamedTuple):
    """``kind`` is ``userAgent`` (a family) or ``user``; ``first`` is Unix seconds."""

    kind: str
    name: str
    first: float


class FirstSeen:
    """The book of one guard. ``began`` is when it was opened, kept by whoever keeps entries."""

    __slots__ = ("_agents", "_users", "began")

    def __init__(self, began: float) -> None:
        self.began = began
        self._agents = _Book(USER_AGENT)
        self._users = _Book(USER)

    def add(self, rows: Sequence[ActivityRow], now: float) -> None:
        """One report's rows; those that stand for many clients name nobody."""
        self._agents.see({row.user_agent for row in rows if not row.folded}, now)
        self._users.see({row.user for row in rows if row.user}, now)

    def first(self, kind: str, name: str) -> float | None:
        """When ``name`` was first seen, None when that is not remembered."""
        return self._book(kind).first(name)

    def is_new(self, kind: str, name: str, since: float) -> bool:
        """Whether ``name`` was first seen at or after ``since``, and not while learning."""
        first = self._book(kind).first(name)
        return first is not None and first >= max(since, self.began + LEARNING_SECONDS)

    def entries(self) -> list[Entry]:
        """Everybody known, those not seen for longest first: what a journal is rewritten from."""
        return self._agents.entries() + self._users.entries()

    def restore(self, entries: Iterable[Entry]) -> None:
        """Takes up what ``entries`` or ``take_new`` gave; later ones are seen more lately."""
        for entry in entries:
            self._book(entry.kind).restore(entry)

    def take_new(self) -> list[Entry]:
        """Those that became known since the previous call, to be appended to a journal."""
        return self._agents.take_new() + self._users.take_new()

    def _book(self, kind: str) -> _Book:
        """Raises KeyError for a kind there is not."""
        return {USER_AGENT: self._agents, USER: self._users}[kind]


class _Book:
    """One kind, each part in order of when a name was last seen.

    In a plain dict the first key is found by stepping over the places of those deleted before it:
    under a flood that cost 17 ms a report, this 2 ms.
    """

    __slots__ = ("_kind", "_known", "_new", "_probation", "_seen", "_slot")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._known: OrderedDict[str, float] = OrderedDict()
        self._probation: OrderedDict[str, float] = OrderedDict()
        self._new: dict[str, float] = {}
        self._slot = -1
        self._seen: set[str] = set()  # known names already moved to the end in this slot

    def see(self, names: Iterable[str], now: float) -> None:
        slot = int(now // SLOT_SECONDS)
        if slot != self._slot:
            self._slot = slot
            self._seen.clear()
        known, probation, seen = self._known, self._probation, self._seen
        for name in names:
            if name in seen:
                continue
            if name in known:
                known.move_to_end(name)
                seen.add(name)
                continue
            first = probation.setdefault(name, now)
            if first // SLOT_SECONDS < slot:
                del probation[name]
                self._learn(name, first)
            else:
                probation.move_to_end(name)
                if len(probation) > PROBATION:
                    probation.popitem(last=False)

    def _learn(self, name: str, first: float) -> None:
        self._put(name, first)
        self._seen.add(name)
        self._new[name] = first
        if len(self._new) > KNOWN:  # nobody takes them
            del self._new[next(iter(self._new))]

    def _put(self, name: str, first: float) -> None:
        known = self._known
        known[name] = first
        if len(known) > KNOWN:
            known.popitem(last=False)

    def first(self, name: str) -> float | None:
        first = self._known.get(name)
        return first if first is not None else self._probation.get(name)

    def entries(self) -> list[Entry]:
        return [Entry(self._kind, name, first) for name, first in self._known.items()]

    def restore(self, entry: Entry) -> None:
        first = min(entry.first, self._known.pop(entry.name, entry.first))
        self._probation.pop(entry.name, None)
        self._put(entry.name, first)

    def take_new(self) -> list[Entry]:
        new, self._new = self._new, {}
        return [Entry(self._kind, name, first) for name, first in new.items()]
