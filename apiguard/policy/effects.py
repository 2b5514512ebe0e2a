"""What a change of policy does to requests, as figures that add up.

Each record falls apart into what the change does to the requests it stands for: refused where it
was not, admitted where it was not, freed of limits, or nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

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


@dataclass(frozen=True, slots=True)
class Parts:
    """How many of one record's requests each effect befalls."""

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
        self.records += 1
        self.requests += requests
        self.bytes += requests * record.bytes_out
        self.seconds += requests * record.upstream_seconds

    def effect(self) -> Effect:
        return Effect(self.records, self.requests, round(self.bytes), self.seconds)


class EffectSum:
    """Effects in the making: of all, of one client or of one rule."""

    __slots__ = (
        "_admitted",
        "_after",
        "_before",
        "_exempted",
        "_refused",
        "_total",
        "_unchanged",
        "_would",
    )

    def __init__(self) -> None:
        self._total = _Figures()
        self._refused = _Figures()
        self._admitted = _Figures()
        self._exempted = _Figures()
        self._unchanged = _Figures()
        self._would = _Figures()
        self._before = self._after = 0.0

    def add(self, record: Sample, parts: Parts) -> None:
        self._total.add(record, record.weight)
        if parts.newly_refused:
            self._refused.add(record, parts.newly_refused)
        if parts.newly_admitted:
            self._admitted.add(record, parts.newly_admitted)
        if parts.exempted:
            self._exempted.add(record, parts.exempted)
        if parts.unchanged:
            self._unchanged.add(record, parts.unchanged)
        if parts.would_refuse:
            self._would.add(record, parts.would_refuse)
        self._before += parts.refused_before
        self._after += parts.refused_after

    @property
    def rank(self) -> tuple[float, float]:
        """By what rows are chosen: requests treated otherwise, then requests."""
        changed = self._refused.requests + self._admitted.requests + self._exempted.requests
        return changed, self._total.requests

    def effects(self) -> Effects:
        return Effects(
            total=self._total.effect(),
            newly_refused=self._refused.effect(),
            newly_admitted=self._admitted.effect(),
            exempted=self._exempted.effect(),
            unchanged=self._unchanged.effect(),
            would_refuse=self._would.effect(),
            refused_before=self._before,
            refused_after=self._after,
        )


class EffectSums(Generic[K]):
    """One EffectSum per key."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[K, EffectSum] = {}

    def of(self, key: K) -> EffectSum:
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = EffectSum()
        return found

    def __len__(self) -> int:
        return len(self._by_key)

    def first(self, most: int) -> list[tuple[K, Effects]]:
        """The ``most`` of highest rank."""
        ranked = sorted(self._by_key.items(), key=lambda item: item[1].rank, reverse=True)
        return [(key, found.effects()) for key, found in ranked[:most]]
