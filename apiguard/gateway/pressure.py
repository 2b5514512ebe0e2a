"""Pressure: how near a worker is to its memory limit, and what is to be given up for that.

A worker that the kernel kills for memory takes every request and watch on it along. So it gives
things up itself before, what is missed least first::

    AMPLE   nothing
    NEAR    what is only comfort: memos, bodies built for the next reader, idle connections
    TIGHT   also: no new lists and watches, which are what fills memory; 429, they come back.
            Clients that have read nothing for ``PATIENCE_SECONDS`` are cut, or a few of them
            would keep everybody else from listing
    SHORT   also: whoever does not read is cut at once; when nobody is left, connections are
            refused

Connections come last, since whoever renews a lease may need a new one; exempt flows, leases and
writes are never given up. A level is entered at its own part of the limit and left ``SLACK`` below
it, so that what one measure frees does not bring back the cause at once. Levels are judged by
where memory will be at the next look if it goes on growing as it did since the last.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from apiguard.kube.requestinfo import RequestInfo
from apiguard.limiter.flow import Flow

H = TypeVar("H")


class Level(enum.IntEnum):
    AMPLE = 0
    NEAR = 1
    TIGHT = 2
    SHORT = 3


ENTERED: Final = {Level.NEAR: 0.70, Level.TIGHT: 0.80, Level.SHORT: 0.90}
"""Parts of the limit."""

SLACK: Final = 0.05

COMFORT_SECONDS: Final = {Level.NEAR: 10.0, Level.TIGHT: 2.0, Level.SHORT: 1.0}
"""Between two times of giving back comfort: what is built anew meanwhile costs CPU."""

PATIENCE_SECONDS: Final = {Level.TIGHT: 5.0, Level.SHORT: 0.0}
"""How long a client may read nothing before it is cut."""

CUT_SECONDS: Final = 0.4
"""Between two cuts: only after the loop came round and a look does memory show what a cut freed."""

_COLLECTION_VERBS: Final = frozenset({"list", "watch"})


@dataclass(frozen=True, slots=True)
class Measures:
    """What is to be done now. ``free`` is how many bytes are to become free by cutting clients
    that have read nothing for ``patience`` seconds, 0 for none to be cut."""

    level: Level
    give_back: bool = False
    refuse_reads: bool = False
    refuse_connections: bool = False
    free: int = 0
    patience: float = 0.0


class Pressure:
    """The level of one process whose resident memory is to stay below ``limit`` bytes."""

    __slots__ = ("_comfort_at", "_cut_at", "_last", "_nobody_left", "level", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.level = Level.AMPLE
        self._last: int | None = None
        self._comfort_at = -math.inf
        self._cut_at = -math.inf
        self._nobody_left = False

    def look(self, resident: int, now: float) -> Measures:
        """``resident`` is bytes; to be called at even intervals."""
        growth = 0 if self._last is None else max(0, resident - self._last)
        self._last = resident
        self.level = self._judge((resident + growth) / self.limit)
        if self.level is not Level.SHORT:
            self._nobody_left = False
        return Measures(
            level=self.level,
            give_back=self._comfort_is_due(now),
            refuse_reads=self.level >= Level.TIGHT,
            refuse_connections=self._nobody_left,
            free=self._to_free(resident, now),
            patience=PATIENCE_SECONDS.get(self.level, 0.0),
        )

    def cut(self, clients: int) -> None:
        """So many clients were cut for what the last look wanted freed. What they held is given
        back to the system at the next look, when their connections are gone."""
        if clients:
            self._comfort_at = -math.inf
        self._nobody_left = not clients and self.level is Level.SHORT

    def _judge(self, part: float) -> Level:
        level = Level.AMPLE
        for other, entered in ENTERED.items():
            if part >= entered - (SLACK if other <= self.level else 0.0):
                level = other
        return level

    def _comfort_is_due(self, now: float) -> bool:
        if self.level is Level.AMPLE or now - self._comfort_at < COMFORT_SECONDS[self.level]:
            return False
        self._comfort_at = now
        return True

    def _to_free(self, resident: int, now: float) -> int:
        if self.level < Level.TIGHT or now - self._cut_at < CUT_SECONDS:
            return 0
        self._cut_at = now
        return max(1, resident - int((ENTERED[self.level] - SLACK) * self.limit))


@dataclass(frozen=True, slots=True)
class Holder(Generic[H]):
    """A client that does not read: what it holds in bytes, and since when (monotonic)."""

    client: H
    held: int
    since: float


def to_cut(holders: Sequence[Holder[H]], free: int) -> list[Holder[H]]:
    """Those to cut so that ``free`` bytes go: who holds most first, of equals who reads nothing
    for longest."""
    chosen: list[Holder[H]] = []
    for holder in sorted(holders, key=lambda one: (-one.held, one.since)):
        if free <= 0:
            break
        chosen.append(holder)
        free -= holder.held
    return chosen


def may_be_refused(info: RequestInfo, flow: Flow) -> bool:
    """Lists and watches of collections, whose answers are what fills memory; of one object by its
    name they are small. Leases are how nodes and leaders show that they live."""
    return (
        info.verb in _COLLECTION_VERBS
        and info.is_resource
        and not info.name
        and not flow.exempt
        and info.resource != "leases"
    )


def may_be_cut(info: RequestInfo, flow: Flow) -> bool:
    """Whoever reads; never a write, of which nobody would know whether it was done."""
    return not (info.mutating or flow.exempt or info.resource == "leases")
