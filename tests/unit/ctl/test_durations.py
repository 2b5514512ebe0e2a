"""Durations are read strictly and shown as kubectl shows them."""

from __future__ import annotations

import pytest

from apiguard.ages import rough
from apiguard.ctl.durations import exact, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("30m", 1800), ("1h30m", 5400), ("2d", 172_800), ("1d1h1m1s", 90_061)],
)
def test_units_add_up_and_are_written_back_alike(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds
    assert exact(seconds) == text


@pytest.mark.parametrize("text", ["", "m", "1.5h", "-1m", "30 m", "1m1h", "1h1h", "5w", "٣m", "1H"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="write 30m, 1h30m, 45s or 2d"):
        parse_duration(text)


def test_a_bare_number_is_asked_for_its_unit() -> None:
    with pytest.raises(ValueError, match="did you mean 30m or 30s"):
        parse_duration("30")


def test_no_time_at_all_is_no_duration() -> None:
    with pytest.raises(ValueError, match="no time at all"):
        parse_duration("0s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (119, "119s"), (120, "2m"), (250, "4m10s"), (3_600, "60m"), (12_600, "3h30m"),
     (36_000, "10h"), (200_000, "2d7h"), (700_000, "8d")],
)  # fmt: skip
def test_ages_have_two_figures_at_most(seconds: float, text: str) -> None:
    assert rough(seconds) == text
