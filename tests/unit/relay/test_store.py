"""A cache holds what upstream said, refuses what cannot follow, and leads back exactly."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc

import pytest

from apiguard.kube.framing import EventType
from apiguard.kube.objects import ObjectError
from apiguard.relay.eventlog import Event, LogBounds
from apiguard.relay.store import (
    CHECKPOINT_EVERY,
    BackwardsError,
    ContinuityError,
    WatchCache,
)

from .building import bookmark, event, filled, keys, listed, pod, read_list, spec, with_pods

ADDED, MODIFIED, DELETED = EventType.ADDED, EventType.MODIFIED, EventType.DELETED


def test_a_cache_that_was_never_filled_has_no_state() -> None:
    """Never an empty list by accident."""
    cache = WatchCache(spec())
    assert not cache.ready
    with pytest.raises(ContinuityError):
        cache.snapshot()


def test_changes_are_applied_and_remembered_with_what_they_replace() -> None:
    cache = with_pods([pod("a/x", 3)], 5)
    added = cache.apply(event(ADDED, pod("a/y", 6)), 1.0)
    changed = cache.apply(event(MODIFIED, pod("a/x", 7)), 1.0)
    gone = cache.apply(event(DELETED, pod("a/y", 6), 8), 1.0)
    assert isinstance(added, Event)
    assert isinstance(changed, Event)
    assert isinstance(gone, Event)
    assert added.previous is None
    assert changed.previous is not None
    assert changed.previous.revision == 3
    assert gone.item is None
    assert gone.previous is added.item
    assert keys(cache.snapshot()) == ["a/x"]
    assert cache.revision == cache.snapshot().revision == 8


def test_a_bookmark_moves_the_revision_and_nothing_else() -> None:
    cache = with_pods([pod("a/x", 3)], 5)
    before = cache.snapshot()
    assert cache.apply(bookmark(9), 2.0) is None
    assert cache.snapshot().revision == 9
    assert cache.snapshot().change == before.change
    assert cache.refreshed_at == 2.0


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (event(ADDED, pod("a/x", 6)), ContinuityError),
        (event(MODIFIED, pod("a/y", 6)), ContinuityError),
        (event(DELETED, pod("a/y", 6)), ContinuityError),
        (event(ADDED, pod("a/y", 5)), BackwardsError),
        (event(MODIFIED, pod("a/x", 4)), BackwardsError),
        (bookmark(4), BackwardsError),
        (event(ADDED, {"metadata": {"namespace": "a", "resourceVersion": "6"}}), ObjectError),
    ],
)
def test_what_cannot_follow_is_refused_and_changes_nothing(
    raw: object, error: type[Exception]
) -> None:
    cache = with_pods([pod("a/x", 3)], 5)
    with pytest.raises(error):
        cache.apply(raw, 1.0)  # type: ignore[arg-type]  # the table's column has one type
    assert (cache.revision, keys(cache.snapshot()), cache.log.end) == (5, ["a/x"], 0)


def test_one_transaction_may_change_two_objects_but_none_twice() -> None:
    cache = with_pods([pod("a/x", 3), pod("a/y", 4)], 5)
    cache.apply(event(DELETED, pod("a/x", 3), 6), 1.0)
    cache.apply(event(DELETED, pod("a/y", 4), 6), 1.0)
    assert keys(cache.snapshot()) == []
    with pytest.raises(BackwardsError):
        cache.apply(event(ADDED, pod("a/y", 6)), 1.0)


def test_every_revision_the_log_reaches_is_rebuilt_exactly() -> None:
    """Across checkpoints, with the states a plain copy per revision gives."""
    seed = random.SystemRandom().randrange(1 << 30)
    sys.stdout.write(f"seed {seed}\n")
    rng = random.Random(seed)
    model = {f"a/p{at}": pod(f"a/p{at}", 1) for at in range(300)}
    cache = with_pods(model.values(), 1)
    states = {1: dict.fromkeys(model, 1)}
    for revision in range(2, 2 + 3 * CHECKPOINT_EVERY):
        key = f"a/p{rng.randrange(400)}"
        if key not in model:
            model[key] = pod(key, revision)
            cache.apply(event(ADDED, model[key]), 0.0)
        elif rng.random() < 0.5:
            cache.apply(event(DELETED, model.pop(key), revision), 0.0)
        else:
            model[key] = pod(key, revision)
            cache.apply(event(MODIFIED, model[key]), 0.0)
        at = {k: int(v["metadata"]["resourceVersion"]) for k, v in model.items()}
        states[revision] = at
    for revision in rng.sample(sorted(states), 200):
        snapshot = cache.snapshot_at(revision)
        assert snapshot is not None
        assert {item.key: item.revision for item in snapshot.walk()} == states[revision]
        assert snapshot.revision == revision
        assert snapshot.count == len(states[revision])


def test_equal_change_counts_mean_equal_items() -> None:
    """Past states and present ones are numbered alike: bodies are shared by that number."""
    cache = with_pods([pod("a/x", 1)], 1)
    first = cache.snapshot()
    cache.apply(event(ADDED, pod("a/y", 2)), 0.0)
    second = cache.snapshot()
    cache.apply(event(ADDED, pod("a/z", 4)), 0.0)
    past = cache.snapshot_at(1)
    assert past is not None
    assert past.change == first.change
    between = cache.snapshot_at(3)
    assert between is not None
    assert between.change == second.change
    assert keys(between) == ["a/x", "a/y"]


def test_history_ends_where_the_log_does() -> None:
    cache = with_pods([pod("a/x", 1)], 1, log=LogBounds(fewest=2, seconds=10.0))
    for revision in range(2, 7):
        cache.apply(event(MODIFIED, pod("a/x", revision)), float(10 * revision))
    assert cache.log.floor == 4
    assert cache.snapshot_at(3) is None
    assert cache.snapshot_at(4) is not None
    assert cache.snapshot_at(7) is None


def test_the_log_pays_for_what_only_it_still_holds() -> None:
    """Bodies replaced or deleted, and frames; never more than its bound, however few events."""
    bound = 100_000
    cache = with_pods([pod("a/x", 1, pad=4_000)], 1, log=LogBounds(bytes=bound))
    for revision in range(2, 100):
        happened = cache.apply(event(MODIFIED, pod("a/x", revision, pad=4_000)), 0.0)
        assert happened is not None
        cache.log.frame(happened, MODIFIED)
        assert cache.log.bytes <= bound
    kept = [cache.log.event(at) for at in range(cache.log.begin, cache.log.end)]
    held = sum(len(e.previous.body) for e in kept if e.previous is not None)
    frames = sum(len(cache.log.frame(e, MODIFIED).data) for e in kept)
    assert held + frames <= cache.log.bytes <= held + frames + 1_024 * len(kept)
    assert cache.log.trimmed == 98 - len(kept)


def test_who_lags_makes_the_log_no_larger() -> None:
    """Frames built for him alone are his; nothing he has yet to read is forgotten for them."""
    bound = 100_000
    cache = with_pods([pod("a/x", 1, pad=4_000)], 1, log=LogBounds(bytes=bound))
    log = cache.log
    for revision in range(2, 100):
        cache.apply(event(MODIFIED, pod("a/x", revision, pad=4_000)), 0.0)
    begin = log.begin
    for at in range(begin, log.end - 1):
        assert b"resourceVersion" in log.frame(log.event(at), MODIFIED).data
        assert log.bytes <= bound
        assert log.begin == begin


def test_an_event_larger_than_the_log_is_told_and_not_kept() -> None:
    cache = with_pods([pod("a/x", 1, pad=4_000)], 1, log=LogBounds(bytes=2_000))
    happened = cache.apply(event(MODIFIED, pod("a/x", 2, pad=4_000)), 0.0)
    assert happened is not None
    assert b"resourceVersion" in cache.log.frame(happened, MODIFIED).data
    assert (cache.log.bytes, cache.log.begin, cache.log.end) == (0, 1, 1)


def test_states_of_the_past_are_kept_no_longer_than_the_log() -> None:
    cache = with_pods([pod("a/x", 1)], 1, log=LogBounds(seconds=5.0, fewest=0))
    for revision in range(2, 9):
        cache.apply(event(MODIFIED, pod("a/x", revision)), float(revision))
    old = cache.snapshot_at(4)
    assert old is not None
    item = next(old.walk())
    del old
    cache.trim(100.0)
    assert not [each for each in gc.get_referrers(item) if isinstance(each, tuple)]
    assert cache.snapshot_at(8) is not None


def test_the_node_index_follows_every_change() -> None:
    cache = with_pods([pod("a/x", 1, node="n1"), pod("b/y", 1, node="n1"), pod("b/z", 1)], 1)
    cache.apply(event(MODIFIED, pod("b/z", 2, node="n1")), 0.0)
    cache.apply(event(MODIFIED, pod("a/x", 3, node="n2")), 0.0)
    cache.apply(event(MODIFIED, pod("b/y", 4, node="n1", labels={"a": "b"})), 0.0)
    assert [(i.key, i.revision) for i in cache.on_node("n1")] == [("b/y", 4), ("b/z", 2)]
    assert [item.key for item in cache.on_node("n2")] == ["a/x"]
    cache.apply(event(DELETED, pod("a/x", 3, node="n2"), 5), 0.0)
    assert cache.on_node("n2") == ()


def test_a_page_or_a_list_without_revision_fills_nothing() -> None:
    cache = WatchCache(spec())
    envelope, items = read_list(listed([pod("a/x", 1)], 1), cache)
    for broken in (b"0", b""):
        data = listed([], 1).replace(b'"resourceVersion":"1"', b'"resourceVersion":"%b"' % broken)
        with pytest.raises(ObjectError):
            cache.fill(*read_list(data, cache), 0.0)
    assert not cache.ready
    cache.fill(envelope, items, 0.0)
    assert cache.ready


@pytest.mark.parametrize(
    "pods",
    [
        [pod("a/x", 1), pod("a/x", 2)],
        [pod("a/x", 9)],
        [{"metadata": {"name": "x", "namespace": "a"}}],
    ],
)
def test_a_list_that_contradicts_itself_fills_nothing(pods: list[dict[str, object]]) -> None:
    """An object twice, one from the future, one without revision: such an API is not for us."""
    cache = WatchCache(spec())
    with pytest.raises(ObjectError):
        cache.fill(*read_list(listed(pods, 5), cache), 0.0)
    assert not cache.ready


def test_a_new_filling_breaks_with_the_past() -> None:
    cache = with_pods([pod("a/x", 3)], 5)
    cache.apply(event(ADDED, pod("a/y", 6)), 0.0)
    epoch = cache.epoch
    cache.fill(*read_list(listed([pod("b/z", 1)], 2), cache), 1.0)
    assert cache.epoch == epoch + 1
    assert keys(cache.snapshot()) == ["b/z"]
    assert cache.snapshot_at(1) is None
    assert cache.log.end == 0
    cache.clear()
    assert not cache.ready
    assert cache.size == 0


def test_equal_label_sets_are_one_object() -> None:
    cache = filled(listed([pod(f"a/{n}", 1, labels={"app": "web"}) for n in "xyz"], 1))
    assert len({id(item.labels) for item in cache.snapshot().walk()}) == 1


def test_objects_and_indexes_cost_less_than_a_third_beside_their_bytes() -> None:
    """Pods of 4 KB with labels, nodes and addresses of their own."""
    pods = [
        pod(
            f"ns{at % 20}/web-{at:06x}",
            at + 1,
            labels={"app": f"a{at % 50}", "tier": "web"},
            node=f"node-{at % 40}",
            uid=f"4840e8fb-84ac-4a32-b571-{at:012x}",
            pad=3_800,
        )
        for at in range(800)
    ]
    data = listed(pods, 1_000)
    warm = filled(listed(pods[:1], 1_000))
    assert warm.ready
    tracemalloc.start()
    try:
        cache = filled(data)
        cache.snapshot()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used <= 1.3 * cache.size
