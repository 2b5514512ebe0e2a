"""What the relays of all workers counted since the guard began, their predecessors' included.

A worker's counts begin anew with its process; what is added here is how far they grew since the
worker's last report. Bounded whatever a worker says: so many caches, so many labels of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apiguard.runtime.relayreport import MAX_CACHES, CacheName, Counts, Kind, RelayReport

MOST_REASONS: Final = 48
"""Labels of bypasses."""

MOST_LABELS: Final = 8
"""Labels of any other kind; those that come later are ``OTHER``."""

OTHER: Final = "other"

Sums = dict[tuple[Kind, str], int]


class RelayTotals:
    """``of_all`` sums up what is of no cache and what is of each, but not bypasses of caches, which
    workers count for all together too. ``caches`` stand in the order in which they came, which is
    that of the first demand for them."""

    def __init__(self) -> None:
        self.of_all: Sums = {}
        self.caches: dict[CacheName, Sums] = {}
        self._labels: dict[Kind, set[str]] = {kind: set() for kind in Kind}

    def add(self, before: RelayReport | None, after: RelayReport) -> None:
        """Two reports in a row of one process; ``before`` None for its first."""
        known = before or RelayReport()
        self._add(self.of_all, _growth(known.counts, after.counts))
        earlier = {cache.name: cache.counts for cache in known.caches}
        for cache in after.caches:
            growth = _growth(earlier.get(cache.name, {}), cache.counts)
            self._add(self._of(cache.name), growth)
            self._add(
                self.of_all,
                {key: number for key, number in growth.items() if key[0] is not Kind.BYPASSES},
            )

    def _of(self, name: CacheName) -> Sums:
        found = self.caches.get(name)
        if found is None:
            found = {}
            if len(self.caches) < MAX_CACHES:
                self.caches[name] = found
        return found

    def _add(self, sums: Sums, growth: Mapping[tuple[Kind, str], int]) -> None:
        for (kind, label), number in growth.items():
            key = kind, self._bounded(kind, label)
            sums[key] = sums.get(key, 0) + number

    def _bounded(self, kind: Kind, label: str) -> str:
        labels = self._labels[kind]
        if label not in labels:
            if len(labels) >= (MOST_REASONS if kind is Kind.BYPASSES else MOST_LABELS):
                return OTHER
            labels.add(label)
        return label


def _growth(before: Counts, after: Counts) -> Sums:
    """A count that fell was begun anew."""
    found = {}
    for key, number in after.items():
        earlier = before.get(key, 0)
        found[key] = number - earlier if number >= earlier else number
    return found
