"""Counting, deltas and their sum."""

from __future__ import annotations

import re

import pytest

from apiguard.telemetry.bounds import BOUNDS, BUCKETS
from apiguard.telemetry.counters import (
    KNOWN_VERBS,
    VERB_CLASSES,
    Counters,
    Delta,
    Histogram,
    OverrideHits,
    RefusalSample,
    Totals,
    code_label,
)
from apiguard.telemetry.names import METRICS, Kind

SAMPLE = RefusalSample("r", "l", "list", "/api/v1/pods", "u", "a/1", "127.0.0.1", 1)


def test_deltas_add_up_to_what_was_counted() -> None:
    counters, totals = Counters(), Totals()
    for round_ in range(3):
        counters.count("rule", "forwarded", "get", 200)
        counters.hit(BUCKETS)
        counters.guard_seconds.observe(0.0001 * (round_ + 1))
        counters.bytes_sent += 10
        totals.add(counters.take_delta())
    assert totals.requests == {("forwarded", "read", "200"): 3}
    assert totals.rules == {"rule": {"forwarded": 3}}
    assert totals.bounds == counters.bounds
    assert sum(totals.guard_seconds.counts) == 3
    assert totals.guard_seconds.sum == pytest.approx(0.0006)
    assert totals.bytes_sent == 30


def test_a_delta_holds_only_what_is_new() -> None:
    counters = Counters()
    counters.count("rule", "forwarded", "list", 200)
    counters.guard_seconds.observe(0.1)
    counters.hit(BUCKETS)
    counters.take_delta()
    assert counters.take_delta() == Delta()


def test_a_successor_that_counts_from_zero_never_makes_a_total_go_down() -> None:
    totals = Totals()
    for _worker in range(2):
        counters = Counters()
        counters.count("rule", "refused", "get", 429)
        totals.add(counters.take_delta())
    assert totals.rules == {"rule": {"refused": 2}}


def test_an_invented_verb_is_counted_as_other() -> None:
    counters = Counters()
    counters.count("rule", "forwarded", "frobnicate", 200)
    assert list(counters.requests) == [("rule", "forwarded", "other", 200)]


@pytest.mark.parametrize(
    ("code", "label"),
    [(0, "0"), (200, "200"), (429, "429"), (299, "2xx"), (418, "4xx"), (599, "5xx"), (99, "other"),
     (777, "other")],
)  # fmt: skip
def test_unusual_codes_are_counted_by_their_class(code: int, label: str) -> None:
    assert code_label(code) == label


def test_every_known_verb_has_a_class() -> None:
    assert {verb for verb in KNOWN_VERBS if verb not in VERB_CLASSES} == {"proxy"}


def test_who_found_a_connection_at_once_is_counted_as_having_waited_for_none() -> None:
    counters = Counters()
    for _ in range(3):
        counters.guard_seconds.observe(0.0001)
    counters.queue_seconds.observe(0.2)
    delta = counters.take_delta()
    assert sum(delta.queue_counts) == 3
    assert (delta.queue_counts[0], delta.queue_sum) == (2, 0.2)


def test_overrides_are_one_rule_in_sums_and_apart_in_their_hits() -> None:
    counters, totals = Counters(), Totals()
    counters.count("override:a1", "refused", "list", 429)
    counters.count("override:a1", "refused", "list", 429)
    counters.count("override:b2", "forwarded", "get", 200)
    counters.count("override:b2", "failed", "get", 504)
    totals.add(counters.take_delta(), 7.0)
    assert totals.rules == {"override": {"refused": 2, "forwarded": 1, "failed": 1}}
    assert totals.overrides == {
        "a1": OverrideHits(admitted=0, refused=2, last_at=7.0),
        "b2": OverrideHits(admitted=2, refused=0, last_at=7.0),
    }


def test_a_request_that_met_no_rule_is_counted_under_none() -> None:
    counters, totals = Counters(), Totals()
    counters.count("", "rejected", "", 400)
    totals.add(counters.take_delta())
    assert totals.rules == {}
    assert totals.requests == {("rejected", "other", "400"): 1}


def test_counts_of_an_earlier_life_are_added_to() -> None:
    totals = Totals()
    totals.restore({"rule": {"would_refuse": 5}})
    totals.add(Delta(requests={("rule", "would_refuse", "get", 200): 2}))
    assert totals.rules == {"rule": {"would_refuse": 7}}


def test_tables_stay_bounded_whatever_is_counted_and_nothing_is_lost() -> None:
    """A worker's word is not trusted: decisions, rules and codes without end."""
    totals = Totals()
    requests = {}
    for n in range(20_000):
        requests[(f"rule-{n}", f"decision-{n % 700}", "get", n % 999)] = 1
        requests[(f"override:{n}", "refused", f"verb-{n}", 429)] = 1
    totals.add(Delta(requests=requests))
    assert len(totals.rules) == Totals.MAX_RULES
    assert len(totals.overrides) == Totals.MAX_OVERRIDES
    assert sum(totals.requests.values()) == len(requests)
    # Beyond the bound there is one series more for each decision and class of verb.
    assert len(totals.requests) <= Totals.MAX_SERIES + 25
    assert all(len(decisions) <= 5 for decisions in totals.rules.values())


def test_the_rules_forgotten_first_are_those_not_counted_for_longest() -> None:
    totals = Totals()
    for n in range(Totals.MAX_RULES + 100):
        totals.add(
            Delta(
                requests={("living", "refused", "get", 429): 1, (f"r{n}", "refused", "get", 429): 1}
            )
        )
    assert totals.rules["living"] == {"refused": Totals.MAX_RULES + 100}
    assert "r0" not in totals.rules


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
