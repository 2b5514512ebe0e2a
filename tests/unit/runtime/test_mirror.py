"""What the supervisor remembers of a worker."""

from __future__ import annotations

from apiguard.limiter.table import BucketView
from apiguard.runtime.control import Report, Traffic
from apiguard.runtime.mirror import Mirror
from apiguard.telemetry.counters import Delta


def _report(*views: BucketView) -> Report:
    return Report(Delta(), views, Traffic(connections=3))


def _view(name: str, admitted: int, seen: float = 0.0) -> BucketView:
    return BucketView("rule/user", (name,), 1.0, seen, admitted, 0, 0, seen)


def test_levels_outlive_their_worker_and_open_things_do_not() -> None:
    mirror = Mirror(10, shared=False)
    mirror.receive(_report(_view("alice", 1)), now=1.0)
    mirror.forget_worker()
    assert list(mirror.buckets.values()) == [_view("alice", 1)]
    assert mirror.traffic == Traffic()
    assert mirror.age(2.0) is None


def test_the_table_is_bounded_and_keeps_what_was_used_last() -> None:
    mirror = Mirror(100, shared=False)
    for number in range(1_000):
        mirror.receive(_report(_view(f"user-{number}", 1, float(number))), now=float(number))
    assert len(mirror.buckets) <= 125
    assert ("rule/user", ("user-999",)) in mirror.buckets


def test_demand_is_what_was_asked_since_last_taken() -> None:
    mirror = Mirror(10, shared=True)
    address = ("rule/user", ("alice",))
    mirror.receive(_report(_view("alice", 3)), now=1.0)
    mirror.receive(_report(_view("alice", 5)), now=2.0)
    assert mirror.take_asked() == {address: 5}
    mirror.receive(_report(_view("alice", 2)), now=3.0)  # evicted, opened again
    assert mirror.take_asked() == {address: 2}
    assert mirror.take_asked() == {}


def test_a_lone_worker_records_no_demand() -> None:
    mirror = Mirror(10, shared=False)
    mirror.receive(_report(_view("alice", 3)), now=1.0)
    assert mirror.take_asked() == {}
