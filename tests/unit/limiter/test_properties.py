"""Promises that hold through any interleaving: a model of what one bucket may admit at most."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.limiter.flow import Per
from apiguard.limiter.limiter import ADMITTED, Limiter, Shed

from .requests import LIST_PODS, flow, limit, unverified, verified

# (seconds since the last call, user, user-agent, whether the policy is reloaded first)
calls = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.0]),
        st.integers(0, 5),
        st.integers(0, 30),
        st.sampled_from([None, None, None, None, "same", "gone", "back"]),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(calls, st.integers(0, 4), st.sampled_from([1.0, 2.0, 5.0]))
def test_no_user_gets_more_than_burst_and_rate_times_time(
    steps: list[tuple[float, int, int, str | None]], capacity: int, burst: float
) -> None:
    """Whatever is evicted, overflows, vanishes from the policy and comes back.

    A user may be charged to his own bucket and to the overflow bucket, so two budgets bound him.
    """
    spec = limit(1.0, burst, Per.USER)
    limiter, asked = Limiter(capacity), flow(spec)
    now, got = 0.0, Counter[int]()
    for step, user, agent, reload in steps:
        now += step
        if reload is not None:
            limiter.respec([] if reload == "gone" else [spec], now)
        caller = verified(f"user{user}", f"agent{agent}/1")
        got[user] += limiter.acquire(asked, LIST_PODS, caller, now) is ADMITTED
        assert got[user] <= 2 * (burst + now) + 1e-6
        assert sum(got.values()) <= (capacity + 1) * (burst + now) + capacity * now + 1e-6
        assert limiter.size <= capacity


@settings(max_examples=150, deadline=None)
@given(calls, st.sampled_from([1.0, 2.0, 5.0]))
def test_invented_user_agents_win_at_most_ten_budgets_and_one(
    steps: list[tuple[float, int, int, str | None]], burst: float
) -> None:
    spec = limit(1.0, burst, Per.USER_AGENT)
    limiter, asked = Limiter(), flow(spec)
    now, got = 0.0, 0
    for step, _, agent, _ in steps:
        now += step
        caller = unverified("10.0.0.1", f"agent{agent}/1")
        got += limiter.acquire(asked, LIST_PODS, caller, now) is ADMITTED
        assert got <= 11 * (burst + now) + 1e-6


@settings(max_examples=150, deadline=None)
@given(calls)
def test_peek_foretells_acquire_and_all_limits_are_charged_or_none(
    steps: list[tuple[float, int, int, str | None]],
) -> None:
    limits = (
        limit(2.0, 4.0, id_="rule/all"),
        limit(1.0, 2.0, Per.USER, id_="rule/user"),
        limit(0.5, 2.0, Per.USER_AGENT_FAMILY, Per.USER, id_="rule/family"),
    )
    limiter, asked = Limiter(), flow(*limits)
    now = 0.0
    for step, user, agent, _ in steps:
        now += step
        caller = verified(f"user{user}", f"agent{agent % 14}/1")
        peeked = limiter.peek(asked, LIST_PODS, caller, now)
        answer = limiter.acquire(asked, LIST_PODS, caller, now)
        assert answer == peeked.verdict
        after = limiter.peek(asked, LIST_PODS, caller, now).buckets
        cost = 0.0 if isinstance(answer, Shed) else 1.0
        for was, is_ in zip(peeked.buckets, after, strict=True):
            assert was.id == is_.id
            assert is_.level == was.level - cost


def test_a_million_user_agents_stay_in_bound_and_win_nothing() -> None:
    """One source, one limit: ten buckets, one for the rest, whatever is invented."""
    limiter, asked = Limiter(), flow(limit(1.0, 5.0, Per.USER_AGENT))
    admitted = sum(
        limiter.acquire(asked, LIST_PODS, unverified("10.0.0.1", f"{i}/1"), i * 1e-5) is ADMITTED
        for i in range(1_000_000)
    )
    assert admitted <= 11 * (5.0 + 10.0)
    assert limiter.size <= 1 + 10 * 3  # given back twice within ten seconds at five to refill


def test_user_agents_from_many_sources_stay_in_the_table() -> None:
    limiter, asked = Limiter(capacity=500), flow(limit(0.01, 5.0, Per.USER_AGENT))
    admitted = sum(
        limiter.acquire(asked, LIST_PODS, unverified(f"10.0.{i % 256}.1", f"{i}/1"), i * 1e-5)
        is ADMITTED
        for i in range(100_000)
    )
    assert limiter.size == 500
    assert admitted <= 501 * 5.0 + 501 * 0.01 + 256 * 5.01
