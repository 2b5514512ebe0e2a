"""A memo forgets by halves and never grows past its bound."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.memo import Memo


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=100))
def test_a_memo_answers_what_was_put_or_nothing_and_stays_within_twice_its_size(
    size: int, operations: list[tuple[bool, int]]
) -> None:
    memo: Memo[int, str] = Memo(size)
    put: set[int] = set()
    for is_put, key in operations:
        if is_put:
            memo.put(key, f"v{key}")
            put.add(key)
            assert memo.get(key) == f"v{key}"
        else:
            found = memo.get(key)
            assert found is None or (key in put and found == f"v{key}")
        assert len(memo) <= 2 * size


def test_what_is_asked_for_survives_a_flood() -> None:
    memo: Memo[int, str] = Memo(10)
    memo.put(-1, "kept")
    for i in range(1000):
        memo.put(i, "once")
        if i % 5 == 0:
            assert memo.get(-1) == "kept"


def test_what_is_not_asked_for_is_forgotten() -> None:
    memo: Memo[int, str] = Memo(10)
    memo.put(-1, "rare")
    for i in range(21):
        memo.put(i, "once")
    assert memo.get(-1) is None
    memo.clear()
    assert len(memo) == 0
