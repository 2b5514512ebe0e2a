"""Counting, deltas and their sum."""

from __future__ import annotations

import re

import pytest

from apiguard.telemetry.bounds import BOUNDS, BUCKETS
from apiguard.telemetry.counters import Counters, Delta, Histogram, RefusalSample, Totals
from apiguard.telemetry.names import METRICS, Kind

SAMPLE = RefusalSample("r", "l", "list", "/api/v1/pods", "u", "a/1", "127.0.0.1", 1)


def test_deltas_add_up_to_what_was_counted() -> None:
    counters, totals = Counters(), Totals()
    for round_ in range(3):
        counters.count("rule", "forwarded", "list", 200)
        counters.hit(BUCKETS)
        counters.guard_seconds.observe(0.0001 * (round_ + 1))
        counters.bytes_sent += 10
        totals.add(counters.take_delta())
    assert totals.requests == counters.requests == {("rule", "forwarded", "list", 200): 3}
    assert totals.bounds == counters.bounds
    assert totals.guard_seconds.counts == counters.guard_seconds.counts
    assert totals.guard_seconds.sum == pytest.approx(counters.guard_seconds.sum)
    assert totals.bytes_sent == 30


def test_a_delta_holds_only_what_changed() -> None:
    counters = Counters()
    counters.count("rule", "forwarded", "list", 200)
    counters.take_delta()
    assert counters.take_delta() == Delta()


def test_a_successor_that_counts_from_zero_never_makes_a_total_go_down() -> None:
    totals = Totals()
    for _worker in range(2):
        counters = Counters()
        counters.count("rule", "refused", "get", 429)
        totals.add(counters.take_delta())
    assert totals.requests[("rule", "refused", "get", 429)] == 2


def test_an_invented_verb_is_counted_as_other() -> None:
    counters = Counters()
    counters.count("rule", "forwarded", "frobnicate", 200)
    assert list(counters.requests) == [("rule", "forwarded", "other", 200)]


def test_series_stop_growing_at_their_bound_and_nothing_is_lost() -> None:
    totals = Totals()
    keys = {(f"rule-{n}", "forwarded", "get", 200): 1 for n in range(Totals.MAX_SERIES + 50)}
    totals.add(Delta(requests=keys))
    assert len(totals.requests) <= Totals.MAX_SERIES + 1
    assert sum(totals.requests.values()) == len(keys)


@pytest.mark.parametrize(("seconds", "index"), [(0.0, 0), (1.0, 0), (1.001, 1), (2.0, 1), (9.0, 2)])
def test_an_observation_lands_in_the_first_bucket_it_fits(seconds: float, index: int) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(seconds)
    assert histogram.counts.index(1) == index


def test_a_histogram_of_another_shape_is_not_added() -> None:
    with pytest.raises(ValueError, match="buckets"):
        Totals().add(Delta(guard_counts=(1, 2)))


def test_refusals_are_sampled_one_per_delta() -> None:
    counters = Counters()
    for _ in range(100):
        counters.sample(SAMPLE)
    assert counters.take_delta().samples == (SAMPLE,)
    counters.sample(SAMPLE)
    assert len(counters.take_delta().samples) == 1


def test_a_bound_nobody_named_cannot_be_hit() -> None:
    with pytest.raises(KeyError):
        Counters().hit("nonsense")


def test_metric_names_follow_the_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert re.fullmatch(r"apiguard_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.help.endswith(".")


def test_every_bound_says_what_a_hit_means() -> None:
    assert all(re.fullmatch(r"[a-z_]+", name) and text for name, text in BOUNDS.items())
