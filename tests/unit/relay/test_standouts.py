"""Elephants and hot keys are found exactly, as far as the log reaches."""

from __future__ import annotations

from apiguard.kube.framing import EventType
from apiguard.relay.eventlog import LogBounds
from apiguard.relay.standouts import MOST, STEP, Standouts
from apiguard.relay.store import WatchCache

from .building import event, pod, with_pods


def _found(cache: WatchCache, now: float) -> Standouts:
    found = Standouts(cache, now)
    while found.step():
        pass
    return found


def _touch(cache: WatchCache, key: str, now: float) -> None:
    kind = EventType.ADDED if cache.get(key) is None else EventType.MODIFIED
    cache.apply(event(kind, pod(key, cache.revision + 1)), now)


def test_the_largest_objects_come_first_however_many_there_are() -> None:
    count = STEP + 100
    cache = with_pods([pod(f"a/p{n:05}", 1, pad=n) for n in range(count)], 5)
    found = _found(cache, 0.0)
    assert [key for _, key in found.largest] == [
        f"a/p{n:05}" for n in range(count - 1, count - 1 - MOST, -1)
    ]
    biggest = cache.get(found.largest[0][1])
    assert biggest is not None
    assert found.largest[0][0] == len(biggest.body)


def test_changes_of_the_last_minute_are_counted_by_object() -> None:
    cache = with_pods([pod("a/x", 1), pod("a/y", 1)], 5)
    _touch(cache, "a/x", 10.0)  # more than a minute before
    for now in (50.0, 60.0, 70.0):
        _touch(cache, "a/y", now)
    _touch(cache, "a/x", 80.0)
    found = _found(cache, 100.0)
    assert found.busiest == [(3, "a/y"), (1, "a/x")]
    assert found.seconds == 60.0


def test_a_deleted_object_still_counts_as_changed_but_not_as_large() -> None:
    cache = with_pods([pod("a/x", 1, pad=500), pod("a/y", 1)], 5)
    cache.apply(event(EventType.DELETED, pod("a/x", 1, pad=500), 6), 10.0)
    found = _found(cache, 11.0)
    assert found.busiest == [(1, "a/x")]
    assert [key for _, key in found.largest] == ["a/y"]


def test_a_log_that_forgot_part_of_the_minute_says_so() -> None:
    """Or a busy cache would look calm."""
    log = LogBounds(seconds=300.0, bytes=8_000, fewest=0)
    cache = with_pods([pod("a/x", 1)], 5, log=log)
    for n in range(100):
        _touch(cache, "a/x", 50.0 + n / 10)
    found = _found(cache, 60.0)
    held = cache.log.end - cache.log.begin
    assert 0 < held < 100
    assert found.busiest == [(held, "a/x")]
    assert 0.0 < found.seconds < 10.0


def test_a_cache_at_rest_has_no_hot_keys() -> None:
    found = _found(with_pods([pod("a/x", 1)], 5), 100.0)
    assert found.busiest == []
    assert len(found.largest) == 1


def test_what_is_trimmed_meanwhile_is_passed_over() -> None:
    cache = with_pods([pod("a/x", 1)], 5, log=LogBounds(1.0, 64 << 20, 0))
    for n in range(STEP + 50):
        _touch(cache, "a/x", n / 10_000)
    found = Standouts(cache, 1.0)
    assert found.step()  # the objects
    cache.trim(100.0)
    while found.step():
        pass
    assert found.busiest == []
