"""The samples of the last minutes, from all workers, bounded in number.

Workers choose up to a hundred requests a second each, so a ring of the last N would reach back
for a minute at most and shorter the more workers there are. Instead every second keeps a uniform
choice of what came in during it, and a sample that stays answers for those that did not: its
weight grows by what was seen over what was kept. Admitted and refused ones are chosen apart, as
workers do.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from apiguard.telemetry.sample import Sample

SECONDS: Final = 300
PER_SECOND: Final = 16
"""Of each of the two strata: 9,600 samples at most, about 15 MiB."""


@dataclass(slots=True)
class _Stratum:
    kept: list[Sample] = field(default_factory=list)
    seen: int = 0

    def add(self, sample: Sample, chance: random.Random) -> None:
        """Algorithm R: after n calls each of the n is kept with the same probability."""
        self.seen += 1
        if len(self.kept) < PER_SECOND:
            self.kept.append(sample)
            return
        place = chance.randrange(self.seen)
        if place < PER_SECOND:
            self.kept[place] = sample

    def weighted(self) -> Iterable[Sample]:
        factor = self.seen / len(self.kept) if self.kept else 1.0
        if factor == 1.0:
            return self.kept
        return [msgspec.structs.replace(one, weight=one.weight * factor) for one in self.kept]


@dataclass(slots=True)
class _Second:
    number: int
    admitted: _Stratum = field(default_factory=_Stratum)
    refused: _Stratum = field(default_factory=_Stratum)


class SampleRing:
    """``now`` is monotonic; samples belong to the second in which they are added."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._seconds: deque[_Second] = deque()

    def add(self, samples: Iterable[Sample], now: float) -> None:
        second = self._current(int(now))
        for sample in samples:
            stratum = second.admitted if sample.admitted else second.refused
            stratum.add(sample, self._chance)

    def _current(self, number: int) -> _Second:
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
        while self._seconds[0].number <= number - SECONDS:
            self._seconds.popleft()
        return self._seconds[-1]

    def samples(self, now: float) -> list[Sample]:
        """Those of the last minutes, weighted."""
        self._current(int(now))
        return [
            sample
            for second in self._seconds
            for stratum in (second.admitted, second.refused)
            for sample in stratum.weighted()
        ]
