"""Replaying samples: like the limiter where they stand for one, by estimate where for many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.limiter.flow import Flow, Per
from apiguard.limiter.limiter import ADMITTED, Limiter
from apiguard.limiter.replay import admit

from .requests import LIST_PODS, flow, in_namespace, limit, verified

ONE = flow(limit(3, 5, Per.USER, id_="rule/user"))
TWO = flow(limit(3, 5, Per.USER, id_="rule/user"), limit(7, 7, id_="rule/all"))
AGENTS = flow(limit(0.5, 2, Per.USER_AGENT, id_="rule/userAgent"))
NONE = flow(limit(0, 0, id_="rule/all"))


@given(
    st.sampled_from([ONE, TWO, AGENTS, NONE]),
    st.lists(st.tuples(st.floats(0, 0.6), st.integers(0, 12)), max_size=80),
)
def test_with_weight_one_every_answer_is_the_limiters(
    asked: Flow, arrivals: list[tuple[float, int]]
) -> None:
    real, replayed = Limiter(), Limiter()
    now = 0.0
    for gap, who in arrivals:
        now += gap
        caller = verified(f"user-{who % 3}", f"agent-{who}/1")
        passed = admit(replayed, asked, LIST_PODS, caller, now, 1.0)
        assert (passed == 1.0) is (real.acquire(asked, LIST_PODS, caller, now) is ADMITTED)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.01, 200)), min_size=1, max_size=60),
    st.sampled_from([ONE, TWO]),
)
def test_no_weight_gets_more_out_of_a_bucket_than_it_ever_held(
    arrivals: list[tuple[float, float]], asked: Flow
) -> None:
    """Over any span at most the burst, what refills, and the second before the first sample."""
    limiter, now, passed = Limiter(), 0.0, 0.0
    for gap, weight in arrivals:
        now += gap
        admitted = admit(limiter, asked, LIST_PODS, verified("u"), now, weight)
        assert -1e-9 <= admitted <= weight + 1e-9
        passed += admitted
    assert passed <= 5 + 3 * (now - arrivals[0][0] + 1.0) + 1e-6


@pytest.mark.parametrize(("rate", "weight"), [(100.0, 1.0), (100.0, 10.0), (100.0, 50.0)])
def test_a_steady_client_over_its_rate_passes_at_its_rate_however_it_is_sampled(
    rate: float, weight: float
) -> None:
    """100 requests a second for a minute against 20 a second, seen as every 10th or every 50th."""
    limiter, asked = Limiter(), flow(limit(20, 20))
    times = [i * weight / rate for i in range(1, int(60 * rate / weight) + 1)]
    passed = sum(admit(limiter, asked, LIST_PODS, verified("u"), at, weight) for at in times)
    assert passed == pytest.approx(20 * 60 + 20, rel=0.03)


@pytest.mark.parametrize("weight", [1.0, 10.0, 19.0])
def test_a_steady_client_under_its_rate_passes_whole(weight: float) -> None:
    limiter, asked = Limiter(), flow(limit(20, 20))
    for i in range(1, 100):
        at = i * weight / 19.0
        assert admit(limiter, asked, LIST_PODS, verified("u"), at, weight) == pytest.approx(weight)


def test_what_one_limit_refuses_no_other_is_charged_for() -> None:
    asked = flow(limit(1, 1, Per.NAMESPACE, id_="rule/namespace"), limit(100, 100, id_="rule/all"))
    limiter = Limiter()
    first = admit(limiter, asked, in_namespace("a"), verified("u"), 10.0, 90.0)
    assert first == pytest.approx(2.0)  # the burst, and the second before
    for name in "bcdefghijk":
        passed = admit(limiter, asked, in_namespace(name), verified("u"), 10.0, 1.0)
        assert passed == 1.0


def test_a_broken_weight_charges_what_it_stands_for() -> None:
    limiter, asked = Limiter(), flow(limit(0.001, 1))
    assert admit(limiter, asked, LIST_PODS, verified("u"), 5.0, 0.4) == 0.4
    assert admit(limiter, asked, LIST_PODS, verified("u"), 5.0, 0.4) == 0.0  # no whole token left


def test_what_flows_in_beyond_the_burst_is_lost() -> None:
    """A client that asks for less than its rate saves up one burst and no more."""
    limiter, asked = Limiter(), flow(limit(10, 10))
    for i in range(50):
        assert admit(limiter, asked, LIST_PODS, verified("u"), i * 0.5, 2.0) == 2.0
    assert admit(limiter, asked, LIST_PODS, verified("u"), 24.6, 200.0) <= 10 + 0.1 * 10
