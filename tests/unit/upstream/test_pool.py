"""The pool under every order of events: what it must never do, and what it must not leave undone.

``Driver`` plays the runtime: it opens what is asked for, one connection at a time, fails some,
and ends requests in any order.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apiguard.upstream.balancer import candidates
from apiguard.upstream.endpoint import Address, Ceilings, Endpoint, Lane
from apiguard.upstream.health import Verdict as HealthVerdict
from apiguard.upstream.kind import Kind
from apiguard.upstream.pool import Limits, Opening, Pool, Verdict
from apiguard.upstream.readyz import Condition

CEILINGS = Ceilings(ordinary=3, exempt=2, long=4, collection=2)
LIMITS = Limits(CEILINGS, waiting=6, waiting_seconds=5.0)
SHARED = (Lane.ORDINARY, Lane.COLLECTION)
FIT = HealthVerdict(True, Condition.READY)
UNFIT = HealthVerdict(False, Condition.STORAGE)


@dataclass(eq=False, slots=True)
class Job:
    number: int
    kind: Kind
    lane: Lane


@dataclass(eq=False, slots=True)
class Connection:
    endpoint: Endpoint
    kind: Kind


def has_room(endpoint: Endpoint, lane: Lane) -> bool:
    """Written down once more: collection reads count twice, in their part and among all."""
    held = [endpoint.active[lane] + endpoint.opening[lane] for lane in Lane]
    together = sum(held[sharer] for sharer in SHARED)
    return held[lane] < CEILINGS[lane] and (lane not in SHARED or together < CEILINGS.ordinary)


@dataclass(slots=True)
class Driver:
    """A pool with its surroundings; checks each act of the pool as it happens."""

    count: int
    limits: Limits = LIMITS
    now: float = 100.0
    endpoints: list[Endpoint] = field(init=False)
    pool: Pool[Job, Connection] = field(init=False)
    openings: list[Opening] = field(default_factory=list)
    running: dict[Connection, Job] = field(default_factory=dict)
    waiting: list[Job] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.endpoints = [Endpoint(Address(f"10.0.0.{n}", 6443, True)) for n in range(self.count)]
        self.pool = Pool(self.endpoints, self.limits, random.Random(0))

    def submit(self, kind: Kind, lane: Lane) -> Connection | Verdict:
        job = Job(next(self.numbers), kind, lane)
        allowed = candidates(self.endpoints, self.now)
        result = self.pool.submit(job, kind, lane, self.now)
        if isinstance(result, Connection):
            self._runs(job, result, allowed)
        elif result is Verdict.QUEUED:
            self.waiting.append(job)
            self.plan()
        return result

    def plan(self) -> None:
        allowed = candidates(self.endpoints, self.now)
        usable = [e for e in self.endpoints if e.usable(self.now)]
        drained = [e for e in self.endpoints if e.drained]
        plan = self.pool.plan(self.now)
        if any(not opening.counted for opening in plan.open):
            # An attempt at a failing endpoint takes it out of the candidates: what comes after it
            # in the same plan goes to whichever are left.
            allowed = usable
        for job, connection in plan.assign:
            self.waiting.remove(job)
            self._runs(job, connection, allowed)
        for opening in plan.open:
            assert opening.endpoint not in drained
            assert opening.endpoint in allowed
        self.openings.extend(plan.open)
        for job in self.pool.stranded(self.now):
            self.waiting.remove(job)

    def _runs(self, job: Job, connection: Connection, allowed: list[Endpoint]) -> None:
        assert connection not in self.running, "one request at a time"
        assert connection.kind is job.kind, "a request goes out on its own kind"
        assert connection.endpoint in allowed, "nothing goes to the unfit while one is fit"
        self.running[connection] = job

    def open(self, index: int = 0) -> Connection:
        opening = self.openings.pop(index)
        connection = Connection(opening.endpoint, opening.kind)
        self.pool.opened(opening, connection, self.now)
        self.plan()
        return connection

    def fail(self, index: int = 0) -> None:
        self.pool.open_failed(self.openings.pop(index), "refused", self.now)
        self.plan()

    def release(self, connection: Connection) -> None:
        del self.running[connection]
        self.pool.released(connection, self.now)
        self.plan()

    def began(self, connection: Connection) -> None:
        """It carries a watch-list, whose objects have been sent."""
        self.pool.began(connection)
        job = self.running[connection]
        if job.lane is Lane.COLLECTION:
            job.lane = Lane.LONG
        self.plan()

    def close(self, connection: Connection) -> None:
        self.running.pop(connection, None)
        self.pool.closed(connection)
        self.plan()


class PoolMachine(RuleBasedStateMachine):
    """Any order of submissions, answers, losses, faults, verdicts and drains."""

    @initialize(count=st.integers(1, 3))
    def start(self, count: int) -> None:
        self.driver = Driver(count)
        self.opened: list[Connection] = []

    @rule(kind=st.sampled_from(Kind), lane=st.sampled_from(Lane))
    def submit(self, kind: Kind, lane: Lane) -> None:
        self.driver.submit(kind, lane)

    @rule(data=st.data())
    def connects(self, data: st.DataObject) -> None:
        openings = self.driver.openings
        if openings:
            index = data.draw(st.integers(0, len(openings) - 1))
            self.opened.append(self.driver.open(index))

    @rule(data=st.data())
    def does_not_connect(self, data: st.DataObject) -> None:
        openings = self.driver.openings
        if openings:
            self.driver.fail(data.draw(st.integers(0, len(openings) - 1)))

    @rule(data=st.data())
    def answers(self, data: st.DataObject) -> None:
        if self.driver.running:
            connection = data.draw(st.sampled_from(list(self.driver.running)))
            connection.endpoint.answered()
            self.driver.release(connection)

    @rule(data=st.data())
    def begins(self, data: st.DataObject) -> None:
        carried = [c for c, job in self.driver.running.items() if job.lane is Lane.COLLECTION]
        if carried:
            self.driver.began(data.draw(st.sampled_from(carried)))

    @rule(data=st.data(), loses=st.booleans())
    def ends(self, data: st.DataObject, loses: bool) -> None:
        if self.opened:
            connection = self.opened.pop(data.draw(st.integers(0, len(self.opened) - 1)))
            if loses and connection in self.driver.running:
                connection.endpoint.lost(self.driver.now)
            self.driver.close(connection)

    @rule(data=st.data(), fit=st.booleans(), drained=st.booleans())
    def is_judged(self, data: st.DataObject, fit: bool, drained: bool) -> None:
        endpoint = data.draw(st.sampled_from(self.driver.endpoints))
        endpoint.verdict = FIT if fit else UNFIT
        endpoint.drained = drained
        self.driver.plan()

    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        if self.driver.waiting:
            job = data.draw(st.sampled_from(self.driver.waiting))
            self.driver.waiting.remove(job)
            self.driver.pool.withdraw(job, job.kind, job.lane)

    @rule(kind=st.sampled_from(Kind))
    def certificate_changes(self, kind: Kind) -> None:
        retired = self.driver.pool.retire(kind)
        assert all(c.kind is kind and c not in self.driver.running for c in retired)
        self.opened = [c for c in self.opened if c not in retired]
        self.driver.plan()

    @rule(seconds=st.sampled_from([0.1, 0.6, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.driver.now += seconds
        for job in self.driver.pool.expired(self.driver.now):
            self.driver.waiting.remove(job)
        self.driver.plan()

    @invariant()
    def ceilings_hold_over_kinds(self) -> None:
        for endpoint in self.driver.endpoints:
            for lane in Lane:
                assert endpoint.opening[lane] >= 0
                assert endpoint.active[lane] >= 0
                # Watch-lists that began while watches filled their ceiling are let be.
                assert endpoint.held(lane) <= CEILINGS[lane] or lane is Lane.LONG
            assert sum(endpoint.held(lane) for lane in SHARED) <= CEILINGS.ordinary

    @invariant()
    def counts_are_of_what_is_there(self) -> None:
        driver = self.driver
        for endpoint in driver.endpoints:
            for lane in Lane:
                assert endpoint.opening[lane] == sum(
                    o.endpoint is endpoint and o.lane is lane for o in driver.openings
                )
                assert endpoint.active[lane] == sum(
                    c.endpoint is endpoint and j.lane is lane for c, j in driver.running.items()
                )
        assert driver.pool.waiting == len(driver.waiting)
        for lane in Lane:
            assert sum(job.lane is lane for job in driver.waiting) <= LIMITS.waiting
        assert driver.pool.size == len(self.opened)

    @invariant()
    def nothing_waits_that_could_be_served(self) -> None:
        """No waiting job has an idle connection it could use, nor room to open one."""
        driver = self.driver
        idle = [c for c in self.opened if c not in driver.running]
        for job in driver.waiting:
            room = [e for e in candidates(driver.endpoints, driver.now) if has_room(e, job.lane)]
            assert not any(c.kind is job.kind and c.endpoint in room for c in idle)
            if room:
                meant = [o for o in driver.openings if (o.kind, o.lane) == (job.kind, job.lane)]
                rivals = [w for w in driver.waiting if (w.kind, w.lane) == (job.kind, job.lane)]
                assert sum(o.counted for o in meant) >= len(rivals)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.fixture
def driver() -> Driver:
    return Driver(1)


def fill(driver: Driver, kind: Kind, count: int, lane: Lane = Lane.ORDINARY) -> list[Connection]:
    for _ in range(count):
        assert driver.submit(kind, lane) is Verdict.QUEUED
    return [driver.open() for _ in range(count)]


def test_a_slot_freed_by_one_kind_goes_to_the_other_when_that_waited_longer(
    driver: Driver,
) -> None:
    first, *_ = fill(driver, Kind.PLAIN, CEILINGS.ordinary)
    driver.submit(Kind.FRONT_PROXY, Lane.ORDINARY)
    driver.now += 1
    driver.submit(Kind.PLAIN, Lane.ORDINARY)
    driver.release(first)
    assert [o.kind for o in driver.openings] == [Kind.FRONT_PROXY]
    assert [job.kind for job in driver.waiting] == [Kind.FRONT_PROXY, Kind.PLAIN]


def test_exempt_requests_pass_when_ordinary_ones_fill_their_ceiling(driver: Driver) -> None:
    fill(driver, Kind.PLAIN, CEILINGS.ordinary)
    driver.submit(Kind.PLAIN, Lane.ORDINARY)
    driver.submit(Kind.FRONT_PROXY, Lane.EXEMPT)
    assert [(o.kind, o.lane) for o in driver.openings] == [(Kind.FRONT_PROXY, Lane.EXEMPT)]


def test_a_long_request_at_the_ceiling_is_refused_and_not_kept_waiting(driver: Driver) -> None:
    """Also while the connections of those before it are still being opened."""
    for kind in (Kind.PLAIN, Kind.FRONT_PROXY) * (CEILINGS.long // 2):
        assert driver.submit(kind, Lane.LONG) is Verdict.QUEUED
    assert driver.submit(Kind.PLAIN, Lane.LONG) is Verdict.FULL
    while driver.openings:
        driver.open()
    assert driver.submit(Kind.FRONT_PROXY, Lane.LONG) is Verdict.FULL


def test_waiting_requests_are_served_first_come_first_served(driver: Driver) -> None:
    connection, *_ = fill(driver, Kind.PLAIN, CEILINGS.ordinary)
    for _ in range(3):
        assert driver.submit(Kind.PLAIN, Lane.ORDINARY) is Verdict.QUEUED
    expected = [job.number for job in driver.waiting]
    served = []
    for _ in range(3):
        driver.release(connection)
        served.append(driver.running[connection].number)
    assert served == expected


# -- collection reads beside others --------------------------------------------------------------

WIDE = Limits(Ceilings(ordinary=10, exempt=1, long=4, collection=4), waiting=20)


def test_lists_leave_places_free_for_writes_however_many_wait() -> None:
    driver = Driver(1, WIDE)
    for _ in range(20):
        driver.submit(Kind.PLAIN, Lane.COLLECTION)
    while driver.openings:
        driver.open()
    assert len(driver.running) == WIDE.ceilings.collection
    for kind in (Kind.PLAIN, Kind.FRONT_PROXY, Kind.PLAIN):
        driver.submit(kind, Lane.ORDINARY)
        driver.open()
    lanes = [job.lane for job in driver.running.values()]
    assert lanes == [Lane.COLLECTION] * 4 + [Lane.ORDINARY] * 3


def test_a_write_does_not_stand_behind_lists_that_came_before_it() -> None:
    driver = Driver(1, WIDE)
    fill(driver, Kind.PLAIN, 4, Lane.COLLECTION)
    one, *_ = fill(driver, Kind.PLAIN, 6)
    for _ in range(5):
        driver.submit(Kind.PLAIN, Lane.COLLECTION)
    driver.now += 1
    driver.submit(Kind.PLAIN, Lane.ORDINARY)
    (*_, write) = driver.waiting
    driver.release(one)
    assert driver.running[one] is write


@pytest.mark.parametrize("crowd", SHARED)
def test_neither_lane_starves_the_other(crowd: Lane) -> None:
    """One lane holds all it can and has many waiting; the other gets its part nevertheless."""
    driver = Driver(1, WIDE)
    (other,) = set(SHARED) - {crowd}
    most, parts = WIDE.ceilings[crowd], {Lane.ORDINARY: 6, Lane.COLLECTION: 4}
    held = fill(driver, Kind.PLAIN, most, crowd)
    for _ in range(12):
        driver.submit(Kind.PLAIN, crowd)
    driver.now += 1
    for _ in range(8):
        driver.submit(Kind.PLAIN, other)
    for connection in held[: parts[other]]:
        while driver.openings:
            driver.open()
        driver.release(connection)
    while driver.openings:
        driver.open()
    assert sum(job.lane is other for job in driver.running.values()) >= parts[other]


@pytest.mark.parametrize("lane", SHARED)
def test_with_one_place_for_all_it_goes_to_whoever_waited_longest(lane: Lane) -> None:
    limits = Limits(Ceilings(ordinary=1, exempt=1, long=1, collection=1))
    driver = Driver(1, limits)
    (connection,) = fill(driver, Kind.PLAIN, 1)
    expected = []
    for number in range(6):
        expected.append(lane if number % 2 else next(x for x in SHARED if x is not lane))
        driver.now += 1
        driver.submit(Kind.PLAIN, expected[-1])
    served = []
    for _ in expected:
        driver.release(connection)
        served.append(driver.running[connection].lane)
    assert served == expected


def test_parts_are_those_of_all_servers_together() -> None:
    driver = Driver(3, WIDE)
    for _ in range(20):
        driver.submit(Kind.PLAIN, Lane.COLLECTION)
        driver.submit(Kind.PLAIN, Lane.ORDINARY)
        while driver.openings:
            driver.open()
    lanes = [job.lane for job in driver.running.values()]
    assert (lanes.count(Lane.COLLECTION), lanes.count(Lane.ORDINARY)) == (12, 18)
    assert all(e.active[Lane.COLLECTION] == 4 for e in driver.endpoints)


def test_waiting_lists_refuse_no_write_and_waiting_writes_count_before_lists() -> None:
    driver = Driver(1, Limits(Ceilings(2, 1, 1, 1), waiting=3))
    for _ in range(4):
        driver.submit(Kind.PLAIN, Lane.COLLECTION)
        driver.submit(Kind.PLAIN, Lane.ORDINARY)
        while driver.openings:
            driver.open()
    # One of each runs; of each three may wait, but lists only where writes left room.
    assert driver.submit(Kind.PLAIN, Lane.COLLECTION) is Verdict.FULL
    lanes = [job.lane for job in driver.waiting]
    assert lanes.count(Lane.ORDINARY) == 3
    assert len(driver.waiting) <= 2 * 3


def test_a_watch_list_that_began_gives_its_place_to_whoever_waits() -> None:
    driver = Driver(1, WIDE)
    first, *_ = fill(driver, Kind.PLAIN, 4, Lane.COLLECTION)
    driver.submit(Kind.PLAIN, Lane.COLLECTION)
    assert driver.openings == []
    driver.began(first)
    assert [o.lane for o in driver.openings] == [Lane.COLLECTION]
    driver.open()
    (endpoint,) = driver.endpoints
    assert (endpoint.active[Lane.COLLECTION], endpoint.active[Lane.LONG]) == (4, 1)
    driver.close(first)
    assert (endpoint.active[Lane.COLLECTION], endpoint.active[Lane.LONG]) == (4, 0)


def test_only_what_reads_a_collection_can_begin() -> None:
    driver = Driver(1, WIDE)
    (connection,) = fill(driver, Kind.PLAIN, 1)
    driver.pool.began(connection)
    driver.pool.began(Connection(driver.endpoints[0], Kind.PLAIN))
    assert driver.endpoints[0].active == [1, 0, 0, 0]


def test_a_lane_is_full_when_no_server_has_room_in_it_and_not_when_none_is_there() -> None:
    driver = Driver(1, WIDE)
    fill(driver, Kind.PLAIN, 3, Lane.LONG)
    assert not driver.pool.full(Lane.LONG, driver.now)
    fill(driver, Kind.PLAIN, 1, Lane.LONG)
    assert driver.pool.full(Lane.LONG, driver.now)
    driver.endpoints[0].drained = True
    assert not driver.pool.full(Lane.LONG, driver.now)


def test_a_full_queue_refuses(driver: Driver) -> None:
    fill(driver, Kind.PLAIN, CEILINGS.ordinary)
    verdicts = [driver.submit(kind, Lane.ORDINARY) for kind in Kind for _ in range(4)]
    assert verdicts == [Verdict.QUEUED] * LIMITS.waiting + [Verdict.FULL] * 2


def test_a_connection_opened_for_a_job_that_left_stays_for_the_next(driver: Driver) -> None:
    driver.submit(Kind.PLAIN, Lane.ORDINARY)
    driver.pool.withdraw(driver.waiting.pop(), Kind.PLAIN, Lane.ORDINARY)
    connection = driver.open()
    assert driver.submit(Kind.FRONT_PROXY, Lane.ORDINARY) is Verdict.QUEUED
    assert driver.submit(Kind.PLAIN, Lane.EXEMPT) is connection


def test_connections_idle_for_long_are_given_back_and_younger_ones_kept(driver: Driver) -> None:
    old, young = fill(driver, Kind.PLAIN, 2)
    driver.release(old)
    driver.now += 4
    driver.release(young)
    assert driver.pool.idle_since(driver.now - 3) == [old]
    assert driver.submit(Kind.PLAIN, Lane.ORDINARY) is young


def test_a_request_that_meets_a_failing_server_does_not_wait_for_it() -> None:
    """The failing one is tried, and another is opened at the same time."""
    driver = Driver(2)
    driver.endpoints[0].failed("refused", driver.now - 10)
    seen = set()
    for _ in range(20):
        driver.submit(Kind.PLAIN, Lane.LONG)
        seen = {o.endpoint for o in driver.openings}
        if len(seen) == 2:
            break
    assert len(seen) == 2
    tried = [o for o in driver.openings if o.endpoint is driver.endpoints[0]]
    assert len(tried) == 1
    assert not tried[0].counted


def test_with_every_server_failing_requests_are_refused_at_once(driver: Driver) -> None:
    driver.submit(Kind.PLAIN, Lane.ORDINARY)
    driver.fail()
    assert driver.waiting == []
    assert driver.submit(Kind.PLAIN, Lane.ORDINARY) is Verdict.UNAVAILABLE
    driver.now += 0.6
    assert driver.submit(Kind.PLAIN, Lane.ORDINARY) is Verdict.QUEUED
