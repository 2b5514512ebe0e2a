"""A token bucket admits burst + rate * time, and nothing but time refills it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.limiter.bucket import TokenBucket
from apiguard.limiter.flow import BucketSpec

rates = st.floats(0.01, 1000.0)
bursts = st.floats(1.0, 1000.0)


def full(rate: float, burst: float, now: float = 0.0) -> TokenBucket:
    return TokenBucket(BucketSpec(rate, burst), burst, now)


@settings(deadline=None)
@given(rates, bursts, st.lists(st.floats(-0.5, 2.0), max_size=300))
def test_admits_at_most_burst_and_rate_times_time(
    rate: float, burst: float, steps: list[float]
) -> None:
    """However calls are spaced, and even if the clock steps back."""
    bucket = full(rate, burst)
    now = latest = 0.0
    admitted = 0
    for step in steps:
        now += step
        latest = max(latest, now)
        admitted += bucket.take(1.0, now)
        assert admitted <= burst + rate * latest + 1e-6


@settings(deadline=None)
@given(rates, bursts, st.integers(1, 50))
def test_wait_is_when_the_next_token_is_there(rate: float, burst: float, taken: int) -> None:
    """A request at that time is admitted, one clearly before is not."""
    bucket = full(rate, burst)
    while bucket.take(1.0, 0.0):
        taken -= 1
    wait = bucket.wait(1.0, 0.0)
    assert wait > 0.0
    assert not bucket.take(1.0, wait * 0.99 - 1e-6)
    assert bucket.take(1.0, wait)


def test_rate_zero_never_admits_and_waits_for_ever() -> None:
    bucket = full(0.0, 0.0)
    assert not bucket.take(1.0, 1e9)
    assert bucket.wait(1.0, 1e9) == math.inf


def test_a_million_small_refills_lose_no_token() -> None:
    """Rounding does not add up: 1000 tokens a second, asked for every 0.1 ms."""
    bucket = full(1000.0, 1.0)
    admitted = sum(bucket.take(1.0, i / 10_000) for i in range(1_000_000))
    assert admitted == pytest.approx(100_000, abs=2)


@settings(deadline=None)
@given(rates, bursts, rates, bursts, st.integers(0, 100), st.floats(0.0, 5.0))
def test_respec_never_raises_a_level(
    rate: float, burst: float, new_rate: float, new_burst: float, taken: int, now: float
) -> None:
    bucket = full(rate, burst)
    for _ in range(taken):
        bucket.take(1.0, 0.0)
    before = bucket.level_at(now)
    bucket.respec(BucketSpec(new_rate, new_burst), now)
    assert bucket.level_at(now) == min(before, new_burst)


def test_a_clock_that_returns_grants_no_second_twice() -> None:
    bucket = full(1.0, 1.0)
    assert bucket.take(1.0, 10.0)
    assert not bucket.take(1.0, 5.0)
    assert not bucket.take(1.0, 10.5)
    assert bucket.take(1.0, 11.0)
