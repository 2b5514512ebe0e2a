"""Counts of the relay go on where a worker ends, and stay few whatever workers say."""

from __future__ import annotations

from apiguard.runtime.relayreport import (
    MAX_CACHES,
    CacheName,
    CacheReport,
    CacheState,
    Counts,
    Kind,
    RelayReport,
)
from apiguard.runtime.relaytotals import MOST_REASONS, OTHER, RelayTotals

PODS = CacheName("", "v1", "pods", "json")


def _report(counts: Counts, of_all: Counts | None = None, name: CacheName = PODS) -> RelayReport:
    cache = CacheReport(name, CacheState.READY, counts=counts)
    return RelayReport((cache,), counts=of_all or {})


def test_reports_in_a_row_add_what_grew() -> None:
    totals = RelayTotals()
    first = _report({(Kind.LISTS, "any"): 5}, {(Kind.WAITS, "cache"): 1})
    second = _report({(Kind.LISTS, "any"): 8, (Kind.WATCHES, ""): 2}, {(Kind.WAITS, "cache"): 1})
    totals.add(None, first)
    totals.add(first, second)
    assert totals.caches == {PODS: {(Kind.LISTS, "any"): 8, (Kind.WATCHES, ""): 2}}
    assert totals.of_all == {
        (Kind.LISTS, "any"): 8,
        (Kind.WATCHES, ""): 2,
        (Kind.WAITS, "cache"): 1,
    }


def test_a_successor_and_a_second_worker_count_on_top() -> None:
    """Neither a restart nor a cache begun anew makes a counter fall."""
    totals = RelayTotals()
    for before in (None, _report({(Kind.EVENTS, ""): 900}), None):
        totals.add(before, _report({(Kind.EVENTS, ""): 100}))
    assert totals.of_all[Kind.EVENTS, ""] == 300


def test_a_bypass_after_its_cache_was_chosen_counts_once() -> None:
    totals = RelayTotals()
    bypass: Counts = {(Kind.BYPASSES, "stale"): 3}
    totals.add(None, _report(bypass, {**bypass, (Kind.BYPASSES, "table"): 2}))
    assert totals.of_all == {(Kind.BYPASSES, "stale"): 3, (Kind.BYPASSES, "table"): 2}
    assert totals.caches[PODS] == bypass


def test_labels_and_caches_are_bounded() -> None:
    totals = RelayTotals()
    for n in range(2 * MAX_CACHES):
        name = CacheName("", "v1", f"resource-{n}", "json")
        totals.add(None, _report({}, {(Kind.BYPASSES, f"reason-{n}"): 1}, name))
    assert len(totals.caches) == MAX_CACHES
    assert len(totals.of_all) == MOST_REASONS + 1
    assert totals.of_all[Kind.BYPASSES, OTHER] == 2 * MAX_CACHES - MOST_REASONS
