"""What a change of policy does to requests, as figures that add up.

Each record falls apart into what the change does to the requests it stands for: refused where it
was not, admitted where it was not, freed of limits, or nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from apiguard.telemetry.sample import Sample

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Effect:
    """An estimate: ``records`` samples seen, standing for the other three figures."""

    records: int
    requests: float
    bytes: int
    upstream_seconds: float


@dataclass(frozen=True, slots=True)
class Effects:
    """What would change, as parts of ``total``: each request is in one of the next four.

    ``exempted``       not limited any more, whether or not it would have been refused
    ``would_refuse``   of ``total``: passes under the candidate, counted by what only counts
    ``refused_before``, ``refused_after``  requests each policy refuses in the replay
    """

    total: Effect
    newly_refused: Effect
    newly_admitted: Effect
    exempted: Effect
    unchanged: Effect
    would_refuse: Effect
    refused_before: float
    refused_after: float

    @property
    def changed(self) -> float:
        """Requests treated otherwise."""
        return self.newly_refused.requests + self.newly_admitted.requests + self.exempted.requests


@dataclass(frozen=True, slots=True)
class ClientEffects:
    """Requests of one user-agent family and user; ``user`` is "" for the unverified."""

    user_agent_family: str
    user: str
    effects: Effects


@dataclass(frozen=True, slots=True)
class RuleEffects:
    """Requests that fall under one rule of the candidate."""

    rule: str
    effects: Effects


class Parts(NamedTuple):
    """How many of one record's ``requests`` each effect befalls."""

    requests: float

    newly_refused: float
    newly_admitted: float
    exempted: float
    unchanged: float
    would_refuse: float
    refused_before: float
    refused_after: float


class _Figures:
    """An Effect in the making."""

    __slots__ = ("bytes", "records", "requests", "seconds")

    def __init__(self) -> None:
        self.records = 0
        self.requests = self.bytes = self.seconds = 0.0

    def add(self, record: Sample, requests: float) -> None:
        if requests <= 0.0:
            return
        self.records += 1
        self.requests += requests
        self.bytes += requests * record.bytes_out
        self.seconds += requests * record.upstream_seconds

    def effect(self) -> Effect:
        return Effect(self.records, self.requests, round(self.bytes), self.seconds)


def effects_of(records: Iterable[tuple[Sample, Parts]]) -> Effects:
    """All of ``records`` together."""
    total, refused, admitted = _Figures(), _Figures(), _Figures()
    exempted, unchanged, would = _Figures(), _Figures(), _Figures()
    before = after = 0.0
    for record, parts in records:
        total.add(record, parts.requests)
        refused.add(record, parts.newly_refused)
        admitted.add(record, parts.newly_admitted)
        exempted.add(record, parts.exempted)
        unchanged.add(record, parts.unchanged)
        would.add(record, parts.would_refuse)
        before += parts.refused_before
        after += parts.refused_after
    return Effects(
        total=total.effect(),
        newly_refused=refused.effect(),
        newly_admitted=admitted.effect(),
        exempted=exempted.effect(),
        unchanged=unchanged.effect(),
        would_refuse=would.effect(),
        refused_before=before,
        refused_after=after,
    )


class _Row:
    """The records of one key, and by what the key is ranked."""

    __slots__ = ("changed", "records", "requests")

    def __init__(self) -> None:
        self.changed = self.requests = 0.0
        self.records: list[tuple[Sample, Parts]] = []


class Ranking(Generic[K]):
    """Records by key. Only the keys that rank first are ever summed up: in a flood of invented
    names nearly every record has one of its own."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[K, _Row] = {}

    def add(self, key: K, record: Sample, parts: Parts) -> None:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row()
        row.changed += parts.newly_refused + parts.newly_admitted + parts.exempted
        row.requests += parts.requests
        row.records.append((record, parts))

    def __len__(self) -> int:
        return len(self._rows)

    def first(self, most: int) -> list[tuple[K, Effects]]:
        """The ``most`` keys with most requests treated otherwise, then with most requests."""
        ranked = nlargest(most, self._rows.items(), key=lambda i: (i[1].changed, i[1].requests))
        return [(key, effects_of(row.records)) for key, row in ranked]
