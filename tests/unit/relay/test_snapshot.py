"""Sorted items against a dictionary, and snapshots that never change."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.relay.snapshot import CHUNK, SortedItems, namespace_range

from .building import peek_item, pod

names = st.builds(
    lambda ns, at: f"{ns}/p{at}", st.sampled_from(["a", "a-b", "a0", "b"]), st.integers(0, 400)
)
steps = st.lists(st.tuples(names, st.booleans()), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2 * CHUNK), st.lists(steps, max_size=4))
def test_items_stay_in_key_order_and_snapshots_as_they_were(
    start: int, rounds: list[list[tuple[str, bool]]]
) -> None:
    """Through splits and joins of chunks; a snapshot is taken between the rounds."""
    model = {f"a/p{at}": peek_item(pod(f"a/p{at}", 1)) for at in range(start)}
    items = SortedItems()
    items.fill([model[key] for key in sorted(model)])
    kept = []
    for number, changes in enumerate(rounds, 2):
        for key, remove in changes:
            if remove:
                assert items.remove(key) is model.pop(key, None)
            else:
                item = peek_item(pod(key, number))
                assert items.put(item) is model.get(key)
                model[key] = item
            assert items.get(key) is model.get(key)
        kept.append((items.freeze(number, number), [model[key] for key in sorted(model)]))
    for snapshot, expected in kept:
        assert list(snapshot.walk()) == expected
        assert snapshot.count == len(expected)
        assert snapshot.size == sum(len(item.body) for item in expected)
        for namespace in ("a", "a-b", "a0", "b"):
            bounds = namespace_range(namespace)
            inside = [item for item in expected if item.namespace == namespace]
            assert list(snapshot.walk(*bounds)) == inside
            assert snapshot.count_between(*bounds) == len(inside)


def test_order_is_that_of_the_whole_key() -> None:
    """``a-b/x`` precedes ``a/x``: the hyphen sorts before the slash."""
    items = SortedItems()
    for key in ("a/x", "a-b/x", "a0/x"):
        items.put(peek_item(pod(key, 1)))
    assert [item.key for item in items.freeze(1, 1).walk()] == ["a-b/x", "a/x", "a0/x"]


def test_deletions_leave_no_crumbs() -> None:
    """Chunks are joined when they shrink, so steps per change stay few."""
    items = SortedItems()
    items.fill([peek_item(pod(f"a/p{at:05}", 1)) for at in range(20 * CHUNK)])
    for at in range(20 * CHUNK):
        if at % 40:
            items.remove(f"a/p{at:05}")
    assert items.count == CHUNK // 2
    assert len(items.parts()[0]) <= 20
