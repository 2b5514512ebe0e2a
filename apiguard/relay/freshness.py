"""Reads without a resourceVersion: one proof of freshness for all who wait for it.

Such a read must show everything that was written before it began. The cache alone cannot promise
that; a consistent LIST upstream that began after the caller arrived can. Callers with equal
selections share one; whoever comes while it is under way waits for the next, as its snapshot may
be older than he is. When many different selections wait, one metadata-only list of everything
replaces them: if its keys and revisions equal the cache's, every one of them is answered from
the cache at the list's revision.

Callers who come one after the other would each begin a proof. A few may; then proofs of one kind
are spaced, and whoever comes meanwhile shares the next. Its guarantee stays what it was: it begins
after all of them.

::

    ask -> IDLE: a read begins            ask -> RUNNING, or too soon: next in line
    done -> all who joined are answered; those in line begin the next, now or when ``due``
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from apiguard.relay.selection import Selection

WIDE_FROM = 8
"""Selections waiting at once from which one metadata-only list costs upstream less: it is about a
tenth of a full one in bytes, a selective list costs upstream a walk over everything anyway."""

SPACING = 0.1
"""Seconds that a proof costs at least. One that takes longer costs twice the time it took, so that
at most half of the time is spent on proofs of one kind, or ``LONGEST_REST`` more than that."""

LONGEST_REST = 0.5
"""Seconds; where proofs take long callers have waited enough."""

AT_ONCE = 4
"""Proofs of one kind before they are spaced."""

W = TypeVar("W", bound=Hashable)


@dataclass(frozen=True, slots=True)
class ProveNarrow:
    """A consistent LIST of ``selection`` in the cache's representation: it is the answer."""

    selection: Selection


@dataclass(frozen=True, slots=True)
class ProveWide:
    """A consistent metadata-only LIST of everything: proof as soon as ``digest.same`` says so or
    the cache has reached the list's revision."""


Proof = ProveNarrow | ProveWide


@dataclass(slots=True)
class _Pace:
    """How soon another proof may begin (GCRA). ``paid`` is when all that began are paid for."""

    paid: float = 0.0
    begun: float = 0.0

    def allows(self, now: float) -> bool:
        return now >= self.paid - (AT_ONCE - 1) * SPACING

    def begin(self, now: float) -> None:
        self.begun = now
        self.paid = max(self.paid, now) + SPACING

    def end(self, now: float) -> None:
        took = now - self.begun
        self.paid += max(0.0, took + min(took, LONGEST_REST) - SPACING)


@dataclass(slots=True)
class _Line(Generic[W]):
    """The callers of one selection: those whose read runs, those for the next. ``reading`` says
    whether one runs, if only for callers who have all left: who comes now must not join it."""

    pace: _Pace = field(default_factory=_Pace)
    reading: bool = False
    running: dict[W, None] = field(default_factory=dict)
    next: dict[W, None] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        return not (self.reading or self.next)


class Freshness(Generic[W]):
    """Decides which proofs to fetch; ``W`` is how the owner names a waiting caller.

    At most ``most`` callers wait; more are refused (``ask`` answers None), to be told 429.
    ``proofs`` counts reads begun, ``asked`` callers. Times are monotonic seconds.
    """

    def __init__(self, most: int = 10_000, wide_from: int = WIDE_FROM) -> None:
        self.proofs = 0
        self.asked = 0
        self._most = most
        self._wide_from = wide_from
        self._lines: dict[Selection, _Line[W]] = {}
        self._wide: dict[W, None] | None = None  # who waits for the wide read under way
        self._wide_pace = _Pace()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def ask(self, selection: Selection, waiter: W, now: float) -> list[Proof] | None:
        """Joins a line. Returns the proofs to fetch now (none: one that fits begins later)."""
        if self._waiting >= self._most:
            return None
        self._waiting += 1
        self.asked += 1
        line = self._lines.setdefault(selection, _Line())
        line.next[waiter] = None
        return self._begin(selection, line, now)

    def due(self, now: float) -> list[Proof]:
        """The proofs to fetch now, since time has passed; a few times a second while callers
        wait."""
        for selection in [s for s, one in self._lines.items() if one.idle and one.pace.paid <= now]:
            del self._lines[selection]
        begun: list[Proof] = []
        for selection, line in list(self._lines.items()):
            begun += self._begin(selection, line, now)
        return begun

    def _begin(self, selection: Selection, line: _Line[W], now: float) -> list[Proof]:
        if line.reading or not line.next or self._wide is not None:
            return []
        if sum([not one.idle for one in self._lines.values()]) >= self._wide_from:
            return self._begin_wide(now)
        if not line.pace.allows(now):
            return []
        line.pace.begin(now)
        line.reading, line.running, line.next = True, line.next, {}
        self.proofs += 1
        return [ProveNarrow(selection)]

    def _begin_wide(self, now: float) -> list[Proof]:
        """Takes everybody who waits for a next read; the narrow ones under way end as they are."""
        if not self._wide_pace.allows(now):
            return []
        self._wide_pace.begin(now)
        self._wide = {waiter: None for line in self._lines.values() for waiter in line.next}
        for line in self._lines.values():
            line.next = {}
        self.proofs += 1
        return [ProveWide()]

    def done(self, proof: Proof, now: float) -> tuple[list[W], list[Proof]]:
        """A proof came or failed: who waited for it, and the proofs to fetch next."""
        if isinstance(proof, ProveWide):
            answered, self._wide = list(self._wide or ()), None
            self._wide_pace.end(now)
        else:
            line = self._lines[proof.selection]
            line.reading = False
            line.pace.end(now)
            answered, line.running = list(line.running), {}
        self._waiting -= len(answered)
        return answered, self.due(now)

    def leave(self, selection: Selection, waiter: W) -> None:
        """A caller went away; a read under way for nobody goes on, its answer is for nobody."""
        line = self._lines.get(selection)
        waiting = [self._wide or {}, *([line.next, line.running] if line is not None else ())]
        for waiters in waiting:
            if waiter in waiters:
                del waiters[waiter]
                self._waiting -= 1
                return
