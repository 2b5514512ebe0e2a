"""Shares follow demand, and all workers together never admit more than one would."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.limiter.limiter import ADMITTED, Limiter
from apiguard.limiter.shares import Demand, Rebalancer, Share, Shares, rebalance

from .requests import LIST_PODS, flow, limit, verified

demands = st.lists(st.integers(0, 1000), min_size=1, max_size=8)


@settings(deadline=None)
@given(demands, st.floats(1.0, 1000.0))
def test_shares_sum_to_one(demand: list[int], burst: float) -> None:
    shares = rebalance(demand, [1 / len(demand)] * len(demand), burst)
    assert sum(shares) == pytest.approx(1.0)
    assert all(share >= 0.0 for share in shares)


@settings(deadline=None)
@given(demands, st.floats(1.0, 1000.0))
def test_every_share_that_is_asked_for_holds_a_token_while_the_budget_lasts(
    demand: list[int], burst: float
) -> None:
    shares = rebalance(demand, [1 / len(demand)] * len(demand), burst)
    useful = sum(1 for d, s in zip(demand, shares, strict=True) if d and s * burst >= 1 - 1e-9)
    assert useful == min(sum(1 for d in demand if d), int(burst))


def test_a_single_token_goes_to_the_worker_with_demand() -> None:
    assert rebalance([0, 5], [0.5, 0.5], 1.0) == (0.0, 1.0)


def test_idle_workers_keep_an_even_part_of_a_large_budget() -> None:
    """The client's next connection may land there."""
    assert rebalance([0, 10], [0.5, 0.5], 100.0) == pytest.approx((0.125, 0.875))


def test_idle_workers_keep_a_token_of_a_small_budget() -> None:
    assert rebalance([0, 10], [0.5, 0.5], 5.0) == pytest.approx((0.2, 0.8))


def demand(*requests: int, burst: float = 100.0) -> Demand:
    return Demand("rule/all", (), burst, requests)


def test_grants_wait_for_every_cut_to_be_confirmed() -> None:
    rebalancer = Rebalancer(3)
    cuts = rebalancer.plan([demand(90, 5, 5)])
    assert set(cuts) == {1, 2}
    assert rebalancer.confirm(1, rebalancer.round) == {}
    grants = rebalancer.confirm(2, rebalancer.round)
    assert set(grants) == {0}
    (grant,) = grants[0]
    assert grant.share + cuts[1][0].share + cuts[2][0].share == pytest.approx(1.0)


def test_a_round_stays_open_until_confirmed() -> None:
    rebalancer = Rebalancer(2)
    assert rebalancer.plan([demand(10, 0)])
    assert rebalancer.plan([demand(0, 10)]) == {}
    assert rebalancer.confirm(1, rebalancer.round - 1) == {}


def test_a_successor_starts_with_what_its_predecessor_was_cut_to() -> None:
    rebalancer = Rebalancer(2)
    cuts = rebalancer.plan([demand(10, 0)])
    assert rebalancer.held_by(1) == cuts[1]
    assert rebalancer.held_by(0) == [Share("rule/all", (), 0.5)]
    grants = rebalancer.confirm(1, rebalancer.round)
    assert rebalancer.held_by(0) == grants[0]


def test_an_idle_bucket_returns_to_equal_parts_and_is_forgotten() -> None:
    rebalancer = Rebalancer(2)
    rebalancer.confirm(1, rebalancer.round) if rebalancer.plan([demand(10, 0)]) else None
    for _ in range(20):
        for worker in rebalancer.plan([]):
            rebalancer.confirm(worker, rebalancer.round)
    assert rebalancer.held_by(0) == []
    assert rebalancer.held_by(1) == []


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5), st.sampled_from([1.0, 3.0, 20.0, 200.0]))
def test_workers_together_never_exceed_one_budget(seed: int, workers: int, burst: float) -> None:
    """Moving load; messages arrive late, in order per worker and in any order between them."""
    rng = random.Random(seed)
    spec = limit(5.0, burst)
    asked, caller = flow(spec), verified("alice")
    limiters = [Limiter(shares=Shares(workers)) for _ in range(workers)]
    rebalancer = Rebalancer(workers)
    post: list[tuple[int, list[Share], int]] = []
    counts = [0] * workers
    now, done = 0.0, 0
    for _ in range(300):
        now += rng.random() * 0.05
        worker = rng.choice((0, rng.randrange(workers)))
        for _ in range(rng.randrange(5)):
            counts[worker] += 1
            done += limiters[worker].acquire(asked, LIST_PODS, caller, now) is ADMITTED
            assert done <= burst + 5.0 * now + 1e-6
        if rng.random() < 0.1:
            cuts = rebalancer.plan([Demand(spec.id, (), burst, tuple(counts))])
            post += [(to, shares, rebalancer.round) for to, shares in cuts.items()]
            counts = [0] * workers
        if post and rng.random() < 0.3:
            chosen = rng.choice(post)[0]
            to, shares, round_ = post.pop(next(i for i, m in enumerate(post) if m[0] == chosen))
            limiters[to].set_shares(shares, now)
            grants = rebalancer.confirm(to, round_)
            post += [(to_, granted, -1) for to_, granted in grants.items()]
