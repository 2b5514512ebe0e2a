"""Deadlines, turns and the budget of reviews: the parts the authorizer is made of."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.identity.deadlines import Deadlines
from apiguard.identity.reviewbudget import ReviewBudget
from apiguard.identity.turns import Turns
from tests.unit.identity.asking import most_within

_steps = st.lists(
    st.tuples(
        st.sampled_from(["set", "hasten", "discard"]),
        st.sampled_from([b"a", b"b", b"c"]),
        st.floats(0, 100),
    )
)


@given(_steps)
def test_the_first_is_always_the_earliest(steps: list[tuple[str, bytes, float]]) -> None:
    deadlines, model = Deadlines(), dict[bytes, float]()
    for what, key, due in steps:
        if what == "set":
            deadlines.set(key, due)
            model[key] = due
        elif what == "hasten":
            deadlines.hasten(key, due)
            model[key] = min(due, model.get(key, due))
        else:
            deadlines.discard(key)
            model.pop(key, None)
        expected = min(((at, one) for one, at in model.items()), default=None)
        assert deadlines.first() == expected
        assert len(deadlines) == len(model)


def test_moving_a_deadline_again_and_again_takes_no_memory() -> None:
    deadlines = Deadlines()
    for at in range(10_000):
        deadlines.set(b"a", float(at))
    assert len(deadlines._heap) < 100


def test_lateness_is_that_of_the_most_overdue() -> None:
    deadlines = Deadlines()
    assert deadlines.lateness(5.0) == 0.0
    deadlines.set(b"a", 3.0)
    deadlines.set(b"b", 1.0)
    assert deadlines.lateness(5.0) == 4.0
    assert deadlines.lateness(0.0) == 0.0


def test_users_take_turns_whatever_they_want() -> None:
    turns = Turns(10, 10)
    for number in range(4):
        assert turns.put("many", b"m%d" % number)
    turns.put("one", b"o")
    turns.put("two", b"t")
    assert [turns.pop() for _ in range(7)] == [b"m0", b"o", b"t", b"m1", b"m2", b"m3", None]


def test_turns_are_bounded_in_all_and_per_user() -> None:
    turns = Turns(5, 3)
    assert [turns.put("a", b"x") for _ in range(4)] == [True, True, True, False]
    assert [turns.put("b", b"x") for _ in range(3)] == [True, True, False]
    assert len(turns) == 5


@given(
    st.floats(0.05, 200.0),
    st.lists(st.floats(0.0, 0.7), max_size=400),
)
def test_no_window_holds_more_than_the_rate(rate: float, gaps: list[float]) -> None:
    budget, now, taken = ReviewBudget(rate), 100.0, deque[float]()
    for gap in gaps:
        now += gap
        if budget.take(now):
            taken.append(now)
    assert most_within(taken, max(1.0, 1.0 / rate)) <= max(1, int(rate))


def test_a_budget_is_used_up_to_the_last_review() -> None:
    budget = ReviewBudget(50.0)
    assert sum(budget.take(10.0) for _ in range(60)) == 50
    assert budget.pause(10.4) == pytest.approx(0.6)
    assert not budget.take(10.99)
    assert sum(budget.take(11.0) for _ in range(60)) == 50


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 50, 64])
def test_the_parts_of_workers_never_sum_to_more_than_the_whole(workers: int) -> None:
    budgets = [ReviewBudget(50.0 / workers) for _ in range(workers)]
    taken = sum(budget.take(0.05 * step) for budget in budgets for step in range(200))
    assert taken <= 10 * 50 + workers  # those below one a second begin with one each


def test_spaced_reviews_leave_room_for_a_new_one_all_the_time() -> None:
    budget, taken, longest = ReviewBudget(50.0), 0, 0.0
    for step in range(200):
        now = 10.0 + 0.1 * step
        while budget.take(now, spaced=True):
            taken += 1
        longest = max(longest, budget.pause(now))
    assert 950 <= taken <= 1_010
    assert longest <= 0.11


def test_a_smaller_rate_counts_what_was_taken_before() -> None:
    budget = ReviewBudget(10.0)
    for _ in range(10):
        budget.take(0.0)
    budget.respec(5.0)
    assert budget.left(0.5) == 0
    assert budget.pause(0.5) == pytest.approx(0.5)
    assert budget.left(1.0) == 5


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        ReviewBudget(0.0)
