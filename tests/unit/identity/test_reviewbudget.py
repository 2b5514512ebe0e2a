"""What of the budget is spent is what was asked lately, no more."""

from __future__ import annotations

from apiguard.identity.reviewbudget import ReviewBudget


def test_what_was_taken_counts_as_spent_for_a_second() -> None:
    budget = ReviewBudget(5.0)
    for _ in range(7):
        budget.take(10.0)
    assert budget.spent(10.0) == 5
    assert budget.spent(10.9) == 5
    assert budget.spent(11.0) == 0
