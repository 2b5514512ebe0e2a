"""What the reflector wishes for, answer by answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from apiguard.kube.framing import EventType, RawEvent
from apiguard.kube.status import Representation, Status, expired
from apiguard.relay.bodies import BodyCache
from apiguard.relay.digest import same
from apiguard.relay.fanout import Fanout
from apiguard.relay.reflector import (
    LAGGING_LISTS,
    LONGEST_BACKOFF,
    Failure,
    ListFrom,
    Pause,
    Phase,
    Reflector,
    Rest,
    WatchFrom,
    Wish,
)
from apiguard.relay.store import WatchCache

from .building import bookmark, event, keys, listed, pod, read_list, spec

ADDED, MODIFIED = EventType.ADDED, EventType.MODIFIED


class Desk:
    """A reflector with its cache, and answers in short."""

    def __init__(self, ceiling: int = 1 << 30) -> None:
        self.cache = WatchCache(spec(ceiling=ceiling))
        rng = random.Random(3)
        self.reflector = Reflector(self.cache, Fanout(self.cache, BodyCache(), rng), rng)

    def listed(self, pods: list[Mapping[str, Any]], revision: int, now: float = 0.0) -> Wish:
        return self.reflector.listed(*read_list(listed(pods, revision), self.cache), now)

    def ready(self) -> Wish:
        self.reflector.start(0.0)
        return self.listed([pod("a/x", 3)], 10)


def error(status: Status) -> RawEvent:
    return RawEvent(EventType.ERROR, status.to_json().rstrip())


def test_the_first_list_is_the_most_recent_and_its_watch_follows_it() -> None:
    """Never resourceVersion 0, which could be anything."""
    desk = Desk()
    assert desk.reflector.start(0.0) == ListFrom(None)
    phases = [desk.reflector.phase]
    wish = desk.listed([pod("a/x", 3)], 10)
    assert isinstance(wish, WatchFrom)
    assert wish.revision == 10
    assert 300 <= wish.timeout <= 600
    phases.append(desk.reflector.phase)
    assert phases == [Phase.PENDING, Phase.READY]


def test_a_watch_that_ends_is_resumed_from_the_last_event_or_bookmark() -> None:
    desk = Desk()
    desk.ready()
    assert desk.reflector.received([event(ADDED, pod("a/y", 12))], 5.0) is None
    wish = desk.reflector.ended(300.0)
    assert isinstance(wish, WatchFrom)
    assert wish.revision == 12
    desk.reflector.received([bookmark(20)], 301.0)
    wish = desk.reflector.ended(600.0)
    assert isinstance(wish, WatchFrom)
    assert wish.revision == 20
    assert desk.reflector.lists == 1


def test_a_watch_that_ends_at_once_and_empty_is_not_repeated_at_once() -> None:
    desk = Desk()
    desk.ready()
    assert isinstance(desk.reflector.ended(0.5), Pause)
    wish = desk.reflector.resume(1.0)
    assert isinstance(wish, WatchFrom)
    assert wish.revision == 10


@pytest.mark.parametrize("code", [0, 401, 403, 429, 500, 503])
def test_a_failed_watch_waits_and_is_resumed_never_listed(code: int) -> None:
    desk = Desk()
    desk.ready()
    for _ in range(5):
        assert isinstance(desk.reflector.failed(Failure(code), 1.0), Pause)
        assert isinstance(desk.reflector.resume(2.0), WatchFrom)
    assert desk.reflector.phase is Phase.READY
    assert keys(desk.cache.snapshot()) == ["a/x"]


@pytest.mark.parametrize("in_stream", [True, False])
def test_an_expired_watch_is_relisted_not_older_than_what_is_known(in_stream: bool) -> None:
    desk = Desk()
    desk.ready()
    if in_stream:
        wish = desk.reflector.received([error(expired("too old resource version"))], 1.0)
    else:
        wish = desk.reflector.failed(Failure(410), 1.0)
    assert wish == ListFrom(10)
    wish = desk.listed([pod("a/x", 3), pod("a/y", 14)], 15)
    assert isinstance(wish, WatchFrom)
    assert wish.revision == 15
    assert desk.reflector.breaks == 0


def test_waiting_doubles_with_jitter_up_to_a_bound_and_begins_small_after_quiet() -> None:
    desk = Desk()
    desk.reflector.start(0.0)
    pauses = []
    for at in range(12):
        wish = desk.reflector.failed(Failure(), float(at))
        assert isinstance(wish, Pause)
        pauses.append(wish.seconds)
    bounds = [min(0.25 * 2**at, LONGEST_BACKOFF) for at in range(12)]
    assert all(low <= seconds < 2 * low for low, seconds in zip(bounds, pauses, strict=True))
    wish = desk.reflector.failed(Failure(), 500.0)
    assert isinstance(wish, Pause)
    assert wish.seconds < 0.5
    wish = desk.reflector.failed(Failure(429, retry_after=17.0), 501.0)
    assert wish == Pause(17.0)


@pytest.mark.parametrize(
    "raw",
    [
        event(ADDED, pod("a/x", 12)),
        event(MODIFIED, pod("a/unknown", 12)),
        RawEvent(ADDED, b"{}"),
    ],
)
def test_a_missed_event_is_made_good_by_a_list(raw: RawEvent) -> None:
    """What came before it in the same read is kept."""
    desk = Desk()
    desk.ready()
    wish = desk.reflector.received([event(ADDED, pod("a/y", 11)), raw], 1.0)
    assert isinstance(wish, Pause)
    assert desk.reflector.resume(2.0) == ListFrom(11)
    assert desk.reflector.breaks == 1


def test_a_lower_revision_asks_for_the_most_recent_state() -> None:
    desk = Desk()
    desk.ready()
    assert isinstance(desk.reflector.received([bookmark(4)], 1.0), Pause)
    assert desk.reflector.resume(2.0) == ListFrom(None)
    epoch = desk.cache.epoch
    wish = desk.listed([pod("a/z", 2)], 4, 3.0)
    assert isinstance(wish, WatchFrom)
    assert wish.revision == desk.cache.revision == 4
    assert desk.cache.epoch == epoch + 1


def test_after_a_useful_watch_waiting_begins_small_again() -> None:
    """Once: what fails again at once is waited for longer."""
    desk = Desk()
    desk.ready()
    for _ in range(8):
        desk.reflector.failed(Failure(), 1.0)
    desk.reflector.resume(10.0)
    assert desk.reflector.received([bookmark(11)], 15.0) is None
    pauses = [desk.reflector.failed(Failure(), 30.0 + at) for at in range(3)]
    seconds = [pause.seconds for pause in pauses if isinstance(pause, Pause)]
    assert seconds[0] < 0.5 <= seconds[1] < 1.0 <= seconds[2]


def test_a_cache_in_doubt_is_filled_anew_even_if_a_difference_would_be_exact() -> None:
    desk = Desk()
    desk.ready()
    desk.reflector.doubt()
    phases = [desk.reflector.phase]
    assert isinstance(desk.reflector.contradicted(1.0), Pause)
    assert desk.reflector.resume(2.0) == ListFrom(None)
    epoch = desk.cache.epoch
    assert isinstance(desk.listed([pod("a/x", 3), pod("a/y", 12)], 15, 3.0), WatchFrom)
    assert desk.cache.epoch == epoch + 1
    phases.append(desk.reflector.phase)
    assert phases == [Phase.DOUBTED, Phase.READY]


def test_what_rests_is_not_in_doubt() -> None:
    desk = Desk()
    desk.ready()
    desk.reflector.stop("idle", 1.0)
    desk.reflector.doubt()
    assert desk.reflector.phase is Phase.STOPPED


def test_a_replica_that_is_behind_is_waited_for_before_it_is_believed() -> None:
    """Either it answers 504, or with an older list than asked for."""
    desk = Desk()
    desk.ready()
    desk.reflector.failed(Failure(410), 1.0)
    for at in range(LAGGING_LISTS):
        wish = desk.listed([], 5, 2.0) if at % 2 else desk.reflector.failed(Failure(504), 2.0)
        assert isinstance(wish, Pause)
        assert keys(desk.cache.snapshot()) == ["a/x"]
        last = at == LAGGING_LISTS - 1
        assert desk.reflector.resume(3.0) == ListFrom(None if last else 10)
    desk.listed([], 5, 4.0)
    assert keys(desk.cache.snapshot()) == []


def test_an_inexact_difference_begins_anew() -> None:
    """An object appears that is older than what was known."""
    desk = Desk()
    desk.ready()
    desk.reflector.failed(Failure(410), 1.0)
    epoch = desk.cache.epoch
    assert isinstance(desk.listed([pod("a/old", 5)], 15, 1.0), WatchFrom)
    assert desk.cache.epoch == epoch + 1
    assert desk.reflector.breaks == 1


def test_a_list_of_another_shape_changes_nothing() -> None:
    desk = Desk()
    desk.reflector.start(0.0)
    envelope, items = read_list(listed([], 10).replace(b"PodList", b"Status"), desk.cache)
    assert isinstance(desk.reflector.listed(envelope, items, 1.0), Pause)
    assert not desk.cache.ready
    assert desk.reflector.phase is Phase.PENDING


def test_too_much_is_given_up_and_everything_freed() -> None:
    desk = Desk(ceiling=400)
    desk.reflector.start(0.0)
    assert isinstance(desk.listed([pod("a/x", 3)], 10), WatchFrom)
    wish = desk.reflector.received([event(ADDED, pod("a/y", 11, pad=400))], 1.0)
    assert wish == Rest("ceiling")
    assert desk.reflector.phase is Phase.STOPPED
    assert not desk.cache.ready
    assert desk.cache.size == 0
    assert desk.reflector.start(9.0) == ListFrom(None)


def test_a_resource_that_is_gone_is_given_up() -> None:
    desk = Desk()
    desk.ready()
    assert desk.reflector.failed(Failure(404), 1.0) == Rest("gone")
    assert not desk.cache.ready


def test_a_digest_tells_equal_from_different() -> None:
    desk = Desk()
    desk.ready()
    snapshot = desk.cache.snapshot()

    def digest(pods: list[Mapping[str, Any]]) -> bool:
        _, items = read_list(listed(pods, 10), WatchCache(spec(Representation.JSON)))
        peeked = [desk.cache.peek(item.body) for item in items.take().freeze(0, 0).walk()]
        return same(snapshot, peeked)

    assert digest([pod("a/x", 3)])
    assert not digest([pod("a/x", 4)])
    assert not digest([pod("a/x", 3, uid="other")])
    assert not digest([pod("a/y", 3, uid="uid-a/x")])
    assert not digest([pod("a/x", 3), pod("a/y", 3)])
    assert not digest([])
