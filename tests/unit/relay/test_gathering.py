"""A list that arrives in parts fills a cache as if it had come whole."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.relay.gathering import Gathering
from apiguard.relay.item import Item
from apiguard.relay.snapshot import CHUNK

from .building import peek_item, pod

NODE = 0


def items(number: int) -> list[Item]:
    """In order; every third stands on no node."""
    return [
        Item("a", f"a/p{at:04}", f"u{at}", at + 1, {}, (f"n{at % 3}" if at % 3 else "",), b"x" * at)
        for at in range(number)
    ]


def in_parts(found: list[Item], cuts: list[int]) -> Gathering:
    gathering = Gathering(NODE)
    begin = 0
    for end in [*sorted(cuts), len(found)]:
        gathering.add(found[begin:end])
        begin = max(begin, end)
    return gathering


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3 * CHUNK), st.lists(st.integers(0, 3 * CHUNK), max_size=6))
def test_parts_make_the_whole(number: int, cuts: list[int]) -> None:
    whole = items(number)
    gathering = in_parts(whole, cuts)
    assert not gathering.twice
    held = gathering.take()
    assert list(held.freeze(1, 1).walk()) == whole
    assert (held.count, held.size) == (number, sum(range(number)))
    assert (gathering.oldest, gathering.newest) == (min(number, 1), number)
    assert gathering.first is (whole[0] if whole else None)
    nodes = gathering.nodes
    for node in ("n1", "n2"):
        on_it = tuple(one for one in whole if one.values[NODE] == node)
        assert nodes.get(node, ()) == on_it
    assert "" not in nodes


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(CHUNK)), st.lists(st.integers(0, CHUNK), max_size=3))
def test_any_order_is_put_right(order: list[int], cuts: list[int]) -> None:
    whole = items(CHUNK)
    gathering = in_parts([whole[at] for at in order], cuts)
    assert not gathering.twice
    held = gathering.take()
    assert list(held.freeze(1, 1).walk()) == whole
    assert (held.count, held.size) == (CHUNK, sum(range(CHUNK)))
    assert gathering.nodes["n1"] == tuple(whole[1::3])


def test_a_key_that_stands_twice_is_noticed_wherever_it_stands() -> None:
    for keys in (["a/x", "a/x"], ["a/x", "a/y", "a/x"], ["a/y", "a/x", "a/y", "a/z"]):
        gathering = Gathering(None)
        for at, key in enumerate(keys):
            gathering.add([peek_item(pod(key, at + 1))])
        assert gathering.twice


def test_what_is_not_needed_goes_little_by_little() -> None:
    gathering = in_parts(items(5 * CHUNK), [])
    held = gathering.take()
    assert sum(1 for _ in iter(gathering.let_go, False)) == 9
    assert held.count == len(list(held.freeze(1, 1).walk())) == 5 * CHUNK
