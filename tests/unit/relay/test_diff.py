"""A difference told as events leads every reader from the old list to the new one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.kube.framing import EventType
from apiguard.relay.diff import Comparison
from apiguard.relay.eventlog import Event
from apiguard.relay.item import Item
from apiguard.relay.store import BackwardsError

from .building import event, keys, listed, peek_item, pod, read_list, with_pods


def item(key: str, revision: int, uid: str = "u") -> Item:
    return peek_item(pod(key, revision, uid=uid))


def difference(
    held: Iterable[Item], items: list[Item], last: int, revision: int, step: int = 3
) -> list[Event] | None:
    """Of a list that arrives ``step`` items at a time."""
    comparison = Comparison(held, last)
    for at in range(0, len(items), step):
        comparison.add(items[at : at + step])
    return comparison.events(revision)


# What happened unseen: (object, whether it is deleted) per revision above the last one.
writes = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.sets(st.sampled_from("abcdef")), writes, st.integers(1, 6))
def test_any_real_history_is_bridged(
    start: set[str], unseen: list[tuple[str, bool]], step: int
) -> None:
    """Revisions ascend, each is told once, none is beyond the list's, and the end is the list."""
    held = {key: item(f"n/{key}", at) for at, key in enumerate(sorted(start), 1)}
    last = revision = 10
    now = dict(held)
    for key, delete in unseen:
        if delete and key not in now:
            continue
        revision += 1
        if delete:
            del now[key]
        else:
            uid = now[key].uid if key in now else f"u{revision}"
            now[key] = item(f"n/{key}", revision, uid)
    order = sorted(now)
    events = difference(held.values(), [now[key] for key in order], last, revision, step)
    assert events is not None
    numbers = [event.revision for event in events]
    assert numbers == sorted(set(numbers))
    assert all(last < number <= revision for number in numbers)
    told = {value.key: value for value in held.values()}
    for change in events:
        assert told.get(change.subject.key) is change.previous
        if change.item is None:
            assert change.previous is not None
            del told[change.subject.key]
        else:
            assert change.previous is None or change.previous.uid == change.item.uid
            told[change.item.key] = change.item
    assert {key: value.revision for key, value in told.items()} == {
        value.key: value.revision for value in now.values()
    }


@pytest.mark.parametrize(
    ("held", "listed_items", "last", "revision"),
    [
        ([], [item("a/x", 3)], 5, 9),  # an object the cache should have held
        ([item("a/x", 4)], [item("a/x", 3)], 5, 9),  # an object that went backwards
        ([], [item("a/x", 10)], 5, 9),  # an object newer than its list
        ([item("a/x", 4), item("a/y", 5)], [], 5, 6),  # two deletions, one number
        ([item("a/x", 4, "old")], [item("a/x", 6, "new")], 5, 6),  # replaced without a number
    ],
)
def test_what_cannot_have_happened_is_not_told(
    held: list[Item], listed_items: list[Item], last: int, revision: int
) -> None:
    assert difference(held, listed_items, last, revision) is None


def test_a_cache_converges_and_marks_the_gap() -> None:
    cache = with_pods([pod("a/x", 3), pod("a/y", 4)], 5)
    later = listed([pod("a/x", 8), pod("a/z", 9)], 12)
    events: list[Event] = []
    assert cache.converge(*read_list(later, cache), 1.0, events.append, lambda *_: None)
    assert [(e.revision, e.subject.key) for e in events] == [(6, "a/y"), (8, "a/x"), (9, "a/z")]
    assert keys(cache.snapshot()) == ["a/x", "a/z"]
    assert cache.revision == 12
    assert cache.snapshot_at(5) is not None
    assert cache.snapshot_at(12) is not None
    assert cache.snapshot_at(8) is None  # between, nobody can tell what there was


def test_a_list_is_compared_with_what_is_held_when_it_is_there() -> None:
    """What was compared while it arrived is void if the cache has changed since."""
    cache = with_pods([pod("a/x", 3), pod("a/y", 4)], 5)
    envelope, gathered = read_list(listed([pod("a/x", 3)], 12), cache)
    cache.apply(event(EventType.DELETED, pod("a/y", 4), 7), 0.5)
    cache.apply(event(EventType.ADDED, pod("a/w", 8)), 0.5)
    events: list[Event] = []
    assert cache.converge(envelope, gathered, 1.0, events.append, lambda *_: None)
    assert [(e.revision, e.subject.key, e.item) for e in events] == [(9, "a/w", None)]
    assert keys(cache.snapshot()) == ["a/x"]


def test_a_list_from_the_past_is_refused() -> None:
    cache = with_pods([pod("a/x", 3)], 5)
    with pytest.raises(BackwardsError):
        cache.converge(
            *read_list(listed([pod("a/x", 3)], 4), cache), 1.0, lambda _: None, lambda *_: None
        )
    assert cache.revision == 5
