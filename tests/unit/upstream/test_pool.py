"""Which endpoint, which connection, or no."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apiguard.upstream.balancer import pick
from apiguard.upstream.endpoint import BACKOFF_SECONDS, Address, Endpoint, Lane
from apiguard.upstream.pool import Ceilings, Pool, Verdict

ORDINARY, EXEMPT, LONG = Lane


def endpoints(count: int) -> list[Endpoint]:
    return [Endpoint(Address(f"10.0.0.{i}", 6443, True)) for i in range(1, count + 1)]


def pool_of(count: int = 1, **ceilings: int) -> Pool[str, str]:
    return Pool(endpoints(count), Ceilings(**ceilings), random.Random(1))


def connected(pool: Pool[str, str], job: str, connection: str, lane: Lane = ORDINARY) -> None:
    """``job`` uses ``connection``, newly opened for it."""
    assert pool.submit(job, lane, 0.0) is Verdict.QUEUED
    ((endpoint, opened_for),) = pool.to_open(0.0)
    assert pool.opened(endpoint, opened_for, connection, 0.0) == job


def test_an_address_reads_as_a_url() -> None:
    assert str(Address("::1", 6443, True)) == "https://[::1]:6443"
    assert str(Address("api", 80, False)) == "http://api:80"


# --- the endpoint -----------------------------------------------------------------------------


def test_a_failed_endpoint_is_left_alone_and_then_tried_once_at_a_time() -> None:
    endpoint = endpoints(1)[0]
    endpoint.failed("refused", 10.0)
    assert not endpoint.usable(10.0 + BACKOFF_SECONDS - 0.01)
    assert endpoint.usable(10.0 + BACKOFF_SECONDS)
    endpoint.opening[ORDINARY] = 1
    assert not endpoint.usable(100.0), "somebody is trying it"
    endpoint.opening[ORDINARY] = 0
    endpoint.succeeded()
    assert endpoint.usable(0.0)
    assert endpoint.last_error == ""


def test_of_two_endpoints_the_less_loaded_is_taken() -> None:
    both = endpoints(2)
    both[0].active[LONG] = 3
    both[1].opening[EXEMPT] = 2
    assert pick(both, ORDINARY, 10, 0.0, random.Random(1)) is both[1]
    both[1].active[ORDINARY] = 10
    assert pick(both, ORDINARY, 10, 0.0, random.Random(1)) is both[0], "the other is full"
    both[0].failed("refused", 0.0)
    assert pick(both, ORDINARY, 10, 0.0, random.Random(1)) is None


def test_load_spreads_over_many_endpoints() -> None:
    many, rng = endpoints(5), random.Random(2)
    for _ in range(1000):
        chosen = pick(many, ORDINARY, 1000, 0.0, rng)
        assert chosen is not None
        chosen.active[ORDINARY] += 1
    assert max(e.load for e in many) - min(e.load for e in many) <= 20


# --- connections ------------------------------------------------------------------------------


def test_a_freed_connection_carries_the_next_request() -> None:
    pool = pool_of()
    connected(pool, "a", "c1")
    assert pool.released("c1", 1.0) is None
    assert pool.submit("b", ORDINARY, 2.0) == "c1"
    assert pool.to_open(2.0) == []
    assert pool.size == 1


def test_waiting_jobs_are_served_first_come_first_served() -> None:
    pool = pool_of(ordinary=1)
    connected(pool, "a", "c1")
    for job in "bcd":
        assert pool.submit(job, ORDINARY, 0.0) is Verdict.QUEUED
    assert pool.to_open(0.0) == [], "at the ceiling"
    assert [pool.released("c1", 0.0) for _ in range(4)] == ["b", "c", "d", None]


def test_a_job_behind_others_does_not_overtake_them() -> None:
    pool = pool_of(ordinary=2)
    connected(pool, "a", "c1")
    pool.submit("b", ORDINARY, 0.0)
    pool.submit("c", ORDINARY, 0.0)
    assert pool.submit("d", ORDINARY, 0.0) is Verdict.QUEUED
    assert pool.released("c1", 0.0) == "b"


def test_exempt_jobs_do_not_wait_for_ordinary_ones() -> None:
    pool = pool_of(ordinary=1)
    connected(pool, "a", "c1")
    pool.submit("b", ORDINARY, 0.0)
    connected(pool, "x", "c2", EXEMPT)
    assert pool.released("c2", 0.0) is None, "its lane has no other job, the ordinary one is full"
    assert pool.submit("y", EXEMPT, 0.0) == "c2"


def test_a_full_queue_refuses() -> None:
    pool = pool_of(ordinary=1, waiting=2)
    connected(pool, "a", "c1")
    verdicts = [pool.submit(job, ORDINARY, 0.0) for job in "bcd"]
    assert verdicts == [Verdict.QUEUED, Verdict.QUEUED, Verdict.FULL]


def test_a_long_job_at_the_ceiling_is_refused_at_once() -> None:
    pool = pool_of(long=1)
    connected(pool, "a", "c1", LONG)
    assert pool.submit("b", LONG, 0.0) is Verdict.FULL


def test_long_jobs_beyond_the_ceiling_are_refused_though_connections_are_being_opened() -> None:
    pool = pool_of(long=2)
    assert pool.submit("a", LONG, 0.0) is Verdict.QUEUED
    assert pool.submit("b", LONG, 0.0) is Verdict.QUEUED
    assert pool.submit("c", LONG, 0.0) is Verdict.FULL
    assert len(pool.to_open(0.0)) == 2
    assert pool.submit("d", LONG, 0.0) is Verdict.FULL


def test_jobs_that_waited_their_time_are_given_back_in_order() -> None:
    pool = pool_of(ordinary=1)
    connected(pool, "a", "c1")
    pool.submit("b", ORDINARY, 1.0)
    pool.submit("c", ORDINARY, 2.0)
    assert pool.expired(15.9) == []
    assert pool.expired(16.0) == ["b"]
    assert pool.released("c1", 16.5) == "c"


def test_a_withdrawn_job_is_not_served() -> None:
    pool = pool_of(ordinary=1)
    connected(pool, "a", "c1")
    pool.submit("b", ORDINARY, 0.0)
    pool.submit("c", ORDINARY, 0.0)
    pool.withdraw("b", ORDINARY)
    pool.withdraw("never", ORDINARY)
    assert pool.released("c1", 0.0) == "c"


def test_a_connection_opened_for_a_job_that_left_stays_for_the_next() -> None:
    pool = pool_of()
    pool.submit("a", ORDINARY, 0.0)
    ((endpoint, lane),) = pool.to_open(0.0)
    pool.withdraw("a", ORDINARY)
    assert pool.opened(endpoint, lane, "c1", 0.0) is None
    assert pool.submit("b", ORDINARY, 0.0) == "c1"


def test_jobs_are_stranded_only_when_no_endpoint_is_left() -> None:
    pool = pool_of(2)
    pool.submit("a", ORDINARY, 0.0)
    pool.submit("b", EXEMPT, 0.0)
    opening = pool.to_open(0.0)
    assert len({endpoint for endpoint, _ in opening}) == 2
    (first, first_lane), (second, second_lane) = opening
    assert pool.open_failed(first, first_lane, "refused", 0.0) == []
    assert sorted(pool.open_failed(second, second_lane, "refused", 0.0)) == ["a", "b"]
    assert pool.waiting == 0
    assert pool.submit("c", ORDINARY, 0.1) is Verdict.UNAVAILABLE


def test_after_the_backoff_one_attempt_is_made_and_its_success_serves_all() -> None:
    pool = pool_of()
    pool.submit("a", ORDINARY, 0.0)
    ((endpoint, lane),) = pool.to_open(0.0)
    pool.open_failed(endpoint, lane, "refused", 0.0)
    later = BACKOFF_SECONDS + 0.01
    for job in "bcd":
        assert pool.submit(job, ORDINARY, later) is Verdict.QUEUED
    assert pool.to_open(later) == [(endpoint, ORDINARY)]
    assert pool.to_open(later) == []
    assert pool.opened(endpoint, ORDINARY, "c1", later) == "b"
    assert len(pool.to_open(later)) == 2


def test_a_closed_connection_frees_its_place() -> None:
    pool = pool_of(ordinary=1)
    connected(pool, "a", "c1")
    pool.submit("b", ORDINARY, 0.0)
    pool.closed("c1")
    pool.closed("c1")
    assert len(pool.to_open(0.0)) == 1
    assert pool.size == 0


def test_an_idle_connection_that_closes_is_forgotten() -> None:
    pool = pool_of()
    connected(pool, "a", "c1")
    pool.released("c1", 0.0)
    pool.closed("c1")
    assert pool.submit("b", ORDINARY, 0.0) is Verdict.QUEUED


def test_connections_idle_for_long_are_given_back_and_younger_ones_kept() -> None:
    pool = pool_of()
    connected(pool, "a", "c1")
    connected(pool, "b", "c2")
    pool.released("c1", 1.0)
    pool.released("c2", 5.0)
    assert pool.idle_since(1.0) == []
    assert pool.idle_since(2.0) == ["c1"]
    assert pool.submit("c", ORDINARY, 6.0) == "c2"


@pytest.mark.parametrize("lane", list(Lane))
def test_without_a_reachable_endpoint_the_answer_is_unavailable(lane: Lane) -> None:
    pool = pool_of()
    pool.endpoints[0].failed("refused", 0.0)
    assert pool.submit("a", lane, 0.1) is Verdict.UNAVAILABLE


# --- under random operations ------------------------------------------------------------------


class PoolMachine(RuleBasedStateMachine):
    """The pool with a driver that opens, fails, releases and closes at random."""

    @initialize(count=st.integers(1, 3), seed=st.integers(0, 99))
    def begin(self, count: int, seed: int) -> None:
        self.now = 0.0
        self.limits = Ceilings(ordinary=2, exempt=2, long=3, waiting=4, waiting_seconds=5.0)
        self.pool: Pool[int, int] = Pool(endpoints(count), self.limits, random.Random(seed))
        self.opening: list[tuple[Endpoint, Lane]] = []
        self.using: dict[int, int] = {}  # connection -> job
        self.idle: set[int] = set()
        self.waiting: dict[Lane, deque[int]] = {lane: deque() for lane in Lane}
        self.serial = 0

    def assigned(self, connection: int, job: int | None) -> None:
        if job is None:
            self.idle.add(connection)
            return
        lane = next(lane for lane in Lane if job in self.waiting[lane])
        assert self.waiting[lane].popleft() == job, "first come, first served"
        self.using[connection] = job

    @rule(lane=st.sampled_from(Lane))
    def submit(self, lane: Lane) -> None:
        self.serial += 1
        result = self.pool.submit(self.serial, lane, self.now)
        if result is Verdict.QUEUED:
            self.waiting[lane].append(self.serial)
        elif not isinstance(result, Verdict):
            assert not self.waiting[lane], "nobody overtakes"
            self.idle.remove(result)
            self.using[result] = self.serial

    @rule()
    def open_wanted(self) -> None:
        self.opening += self.pool.to_open(self.now)

    @precondition(lambda self: self.opening)
    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        endpoint, lane = self.opening.pop(data.draw(st.integers(0, len(self.opening) - 1)))
        self.serial += 1
        job = self.pool.opened(endpoint, lane, self.serial, self.now)
        self.assigned(self.serial, job)

    @precondition(lambda self: self.opening)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        endpoint, lane = self.opening.pop(data.draw(st.integers(0, len(self.opening) - 1)))
        stranded = self.pool.open_failed(endpoint, lane, "refused", self.now)
        if stranded:
            assert not self.opening
            assert sorted(stranded) == sorted(j for q in self.waiting.values() for j in q)
            for queue in self.waiting.values():
                queue.clear()

    @precondition(lambda self: self.using)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(sorted(self.using)))
        del self.using[connection]
        self.assigned(connection, self.pool.released(connection, self.now))

    @precondition(lambda self: self.using or self.idle)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(sorted([*self.using, *self.idle])))
        self.using.pop(connection, None)
        self.idle.discard(connection)
        self.pool.closed(connection)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from([lane for lane in Lane if self.waiting[lane]]))
        job = data.draw(st.sampled_from(sorted(self.waiting[lane])))
        self.waiting[lane].remove(job)
        self.pool.withdraw(job, lane)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for job in self.pool.expired(self.now):
            next(q for q in self.waiting.values() if job in q).remove(job)
        for connection in self.pool.idle_since(self.now - 10.0):
            self.idle.remove(connection)

    @invariant()
    def ceilings_hold(self) -> None:
        for endpoint in self.pool.endpoints:
            for lane, ceiling in zip(Lane, self.limits.by_lane(), strict=True):
                assert endpoint.active[lane] >= 0
                assert endpoint.opening[lane] >= 0
                assert endpoint.active[lane] + endpoint.opening[lane] <= ceiling

    @invariant()
    def books_agree(self) -> None:
        pool = self.pool
        assert pool.waiting == sum(len(q) for q in self.waiting.values())
        assert max(len(q) for q in self.waiting.values()) <= self.limits.waiting
        assert pool.size == len(self.using) + len(self.idle)
        assert sum(sum(e.active) for e in pool.endpoints) == len(self.using)
        assert sum(sum(e.opening) for e in pool.endpoints) == len(self.opening)

    @invariant()
    def one_probe_at_a_time(self) -> None:
        for endpoint in self.pool.endpoints:
            if endpoint.failures and endpoint.connecting:
                assert not endpoint.usable(self.now)


PoolMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)
TestPool = PoolMachine.TestCase
