"""What a worker gives up as its memory limit comes nearer, in virtual time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from apiguard.gateway.pressure import (
    COMFORT_SECONDS,
    Holder,
    Level,
    Measures,
    Pressure,
    may_be_cut,
    may_be_refused,
    to_cut,
)
from apiguard.kube.requestinfo import parse_request
from apiguard.limiter.flow import Flow

LIMIT = 1_000
LOOK = 0.2


class Worker:
    """Looks at what is resident every 200 virtual ms."""

    def __init__(self) -> None:
        self.pressure = Pressure(LIMIT)
        self.now = 1_000.0

    def look(self, resident: int) -> Measures:
        self.now += LOOK
        return self.pressure.look(resident, self.now)

    def settle(self, resident: int) -> Measures:
        """Growth up to here is no sign of more."""
        self.look(resident)
        return self.look(resident)


@pytest.mark.parametrize(
    ("resident", "level"),
    [(0, Level.AMPLE), (699, Level.AMPLE), (700, Level.NEAR), (799, Level.NEAR),
     (800, Level.TIGHT), (900, Level.SHORT), (5_000, Level.SHORT)],
)  # fmt: skip
def test_each_level_begins_at_its_part_of_the_limit(resident: int, level: Level) -> None:
    assert Worker().look(resident).level is level


def test_a_level_is_left_a_twentieth_of_the_limit_below_where_it_was_entered() -> None:
    worker = Worker()
    worker.settle(900)
    path = [(851, Level.SHORT), (849, Level.TIGHT), (751, Level.TIGHT), (749, Level.NEAR),
            (651, Level.NEAR), (649, Level.AMPLE), (699, Level.NEAR), (640, Level.AMPLE),
            (640, Level.AMPLE), (645, Level.AMPLE)]  # fmt: skip
    assert [(resident, worker.look(resident).level) for resident, _ in path] == path


def test_growth_counts_as_if_it_went_on() -> None:
    worker = Worker()
    worker.settle(500)
    assert worker.look(650).level is Level.TIGHT
    assert worker.look(650).level is Level.NEAR
    assert worker.look(600).level is Level.AMPLE


def test_comfort_goes_first_and_reads_later() -> None:
    worker = Worker()
    assert worker.settle(600) == Measures(Level.AMPLE)
    near = worker.look(710)
    assert (near.give_back, near.refuse_reads) == (True, True), "it grew by so much"
    worker = Worker()
    near = worker.look(710)
    assert (near.give_back, near.refuse_reads, near.free) == (True, False, 0)
    tight = worker.settle(810)
    assert (tight.refuse_reads, tight.refuse_connections) == (True, False)


@pytest.mark.parametrize(("resident", "level"), [(750, Level.NEAR), (850, Level.TIGHT)])
def test_comfort_is_given_back_now_and_then_only(resident: int, level: Level) -> None:
    worker = Worker()
    looks = round(60 / LOOK)
    given = sum(worker.look(resident).give_back for _ in range(looks))
    assert given == pytest.approx(60 / COMFORT_SECONDS[level], abs=1)


def test_what_is_to_be_freed_leads_out_of_the_level() -> None:
    worker = Worker()
    free = worker.settle(950).free or worker.look(950).free
    assert worker.settle(950 - free - 1).level < Level.SHORT


def test_a_cut_is_given_time_to_show() -> None:
    worker = Worker()
    wanted = [worker.look(950).free for _ in range(10)]
    assert [bool(free) for free in wanted] == [True, False] * 5


def test_connections_are_refused_only_while_nobody_is_left_to_cut() -> None:
    worker = Worker()
    worker.look(950)
    worker.pressure.cut(3)
    assert not worker.look(950).refuse_connections
    worker.pressure.cut(0)
    assert worker.look(950).refuse_connections
    assert not worker.settle(840).refuse_connections
    assert not worker.look(950).refuse_connections, "who came since may be cut"


def test_who_holds_most_is_cut_first_and_no_more_than_needed() -> None:
    small, large = Holder("small", 10, 1.0), Holder("large", 90, 5.0)
    early = Holder("early", 90, 2.0)
    assert to_cut([small, large, early], 91) == [early, large]
    assert to_cut([small, large, early], 90) == [early]
    assert to_cut([small], 1_000) == [small]
    assert to_cut([small], 0) == []
    assert to_cut([], 1) == []


NORMAL = cast(Flow, SimpleNamespace(exempt=False))
EXEMPT = cast(Flow, SimpleNamespace(exempt=True))
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@pytest.mark.parametrize(
    ("method", "target", "refused", "cut"),
    [
        ("GET", "/api/v1/pods", True, True),
        ("GET", "/api/v1/namespaces/a/pods?watch=true", True, True),
        ("GET", "/api/v1/namespaces/a/pods?limit=5", True, True),
        ("GET", "/api/v1/namespaces/a/pods/b", False, True),
        ("GET", "/api/v1/namespaces/a/pods/b/log?follow=true", False, True),
        ("GET", "/api/v1/secrets?fieldSelector=metadata.name%3Db&watch=1", False, True),
        ("GET", LEASE, False, False),
        ("GET", f"{LEASE}?watch=1", False, False),
        ("PUT", f"{LEASE}/node-1", False, False),
        ("PATCH", "/api/v1/nodes/node-1/status", False, False),
        ("POST", "/api/v1/namespaces/a/pods", False, False),
        ("DELETE", "/api/v1/namespaces/a/pods", False, False),
        ("GET", "/version", False, True),
    ],
)
def test_writes_and_leases_are_never_given_up(
    method: str, target: str, refused: bool, cut: bool
) -> None:
    info = parse_request(method, target)
    assert (may_be_refused(info, NORMAL), may_be_cut(info, NORMAL)) == (refused, cut)
    assert not may_be_refused(info, EXEMPT)
    assert not may_be_cut(info, EXEMPT)


def test_levels_are_in_order_of_need() -> None:
    """The report says them as numbers, and the alert compares."""
    assert [level.value for level in Level] == [0, 1, 2, 3]


def test_who_was_cut_is_given_back_at_the_next_look() -> None:
    worker = Worker()
    worker.settle(950)
    worker.pressure.cut(3)
    assert worker.look(950).give_back


def test_who_reads_now_and_then_is_cut_only_when_there_is_no_time_left() -> None:
    worker = Worker()
    tight = worker.settle(850)
    assert (tight.level, tight.patience) == (Level.TIGHT, 5.0)
    assert tight.free or worker.look(850).free
    short = worker.settle(950)
    assert (short.level, short.patience) == (Level.SHORT, 0.0)
