"""Whoever causes much of the traffic is named, with its share, whatever names others invent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.telemetry.activity import ActivityRow
from apiguard.telemetry.toptalkers import CHUNK, DIMENSIONS, GROWN, OVER, SORTS, TopTalkers
from tests.unit.telemetry.clients import row

START = 5_000.0


def shares(top: TopTalkers, by: str, over: str, sort: str, now: float) -> dict[str, float]:
    answer = top.top(by, over, sort, 20, now)
    whole = answer.totals.of(answer.sort)
    return {"|".join(t.key.values()): t.sums.of(answer.sort) / whole for t in answer.rows}


HEAVY = {"one": 0.012, "three": 0.03, "ten": 0.10}
"""Shares of the requests, to be found among names that never come again."""


def flood(rng: random.Random, seconds: float, per_report: int) -> Iterator[list[ActivityRow]]:
    """Reports of one worker: heavy clients, and a tail in which everybody is new."""
    for report in range(round(seconds / 0.2)):
        drawn: Counter[str] = Counter()
        for i in range(per_report):
            at = rng.random()
            for name, share in HEAVY.items():
                at -= share
                if at < 0:
                    drawn[name] += 1
                    break
            else:
                drawn[f"tail-{report}-{i}"] += 1
        rows = [
            row(name, f"user-{name}", name, requests=n, bytes_out=1_000 * n, seconds=0.01 * n)
            for name, n in drawn.items()
        ]
        rng.shuffle(rows)
        yield rows


@pytest.mark.parametrize("over", OVER)
def test_a_client_above_one_percent_is_named_within_a_tenth_of_its_share(over: str) -> None:
    top, now, truth = TopTalkers(), START, Counter[str]()
    reports: list[tuple[float, list[ActivityRow]]] = []
    for rows in flood(random.Random(11), OVER[over] / (10 if over == "10m" else 1) + 5, 400):
        now += 0.2
        top.add(rows, now)
        reports.append((now, rows))
    begin = now - top.top("user", over, "requests", 1, now).seconds
    for at, rows in reports:
        if at >= begin:
            for r in rows:
                truth[r.user_agent] += r.requests
    whole = sum(truth.values())
    for sort in SORTS:
        for by in ("userAgent", "user", "source", "userAgent,user", "user,request"):
            found = shares(top, by, over, sort, now)
            for name in HEAVY:
                (share,) = (s for key, s in found.items() if name in key.split("|")[0])
                assert share == pytest.approx(truth[name] / whole, rel=0.1), (sort, by, name)


@pytest.mark.parametrize("sort", ["bytes", "upstreamSeconds"])
def test_few_requests_that_cost_much_are_named_by_what_they_cost(sort: str) -> None:
    top, now = TopTalkers(), START
    for rows in flood(random.Random(5), 8, 600):
        now += 0.2
        top.add([*rows, row("lister", requests=1, bytes_out=40_000, seconds=0.4)], now)
    found = shares(top, "userAgent", "10s", sort, now)
    assert found["lister"] == pytest.approx(40 / 640, rel=0.1)


def test_a_client_stands_out_within_a_second_of_its_first_request() -> None:
    top, now = TopTalkers(), START
    for rows in flood(random.Random(5), 60, 100):
        now += 0.2
        top.add(rows, now)
    for _ in range(5):
        now += 0.2
        top.add([row("storm", requests=2_000)], now)
    assert next(iter(shares(top, "userAgent", "10s", "requests", now))) == "storm"


def test_what_is_older_than_the_window_is_not_in_it() -> None:
    top = TopTalkers()
    top.add([row("old", requests=7)], START)
    for over, seconds in OVER.items():
        assert top.top("user", over, "requests", 9, START + seconds * 0.79).totals.requests == 7
        assert top.top("user", over, "requests", 9, START + seconds + 0.1).totals.requests == 0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0.05, 40.0), st.integers(0, 3), st.integers(1, 9)), max_size=60)
)
def test_without_many_names_sums_are_exact_at_any_time(
    steps: list[tuple[float, int, int]],
) -> None:
    top, now, history = TopTalkers(), START, list[tuple[float, int, int]]()
    for wait, client, n in steps:
        now += wait
        history.append((now, client, n))
        top.add([row(f"agent-{client}", requests=n)], now)
    for over, seconds in OVER.items():
        answer = top.top("userAgent", over, "requests", 9, now)
        assert answer.seconds <= seconds
        since = now - answer.seconds
        expected: Counter[str] = Counter()
        for at, client, n in history:
            if at >= since - 1e-6:
                expected[f"agent-{client}"] += n
        assert {t.key["userAgent"]: t.sums.requests for t in answer.rows} == expected
        assert answer.totals.requests == sum(expected.values())


def test_the_time_covered_is_said_and_close_to_the_window() -> None:
    top = TopTalkers()
    assert top.top("user", "1m", "requests", 1, START).seconds == 0
    top.add([row()], START)
    assert top.top("user", "1m", "requests", 1, START + 3).seconds == pytest.approx(3)
    for by in ("userAgent", "source,request"):
        assert 50 <= top.top(by, "1m", "requests", 1, START + 999).seconds <= 60
        assert 540 <= top.top(by, "10m", "requests", 1, START + 9_999).seconds <= 600


def test_rows_of_nobody_are_in_totals_and_in_what_was_asked_for_only() -> None:
    top = TopTalkers()
    top.add([row("a", requests=1), row("", "", "", requests=9, folded=True)], START)
    assert shares(top, "userAgent", "10s", "requests", START) == {"a": 0.1}
    assert shares(top, "request", "10s", "requests", START) == {"list|pods": 1.0}


def test_a_client_may_be_called_anything() -> None:
    top = TopTalkers()
    top.add([row("", "", "", resource="", requests=1), row("(others)", requests=2)], START)
    assert shares(top, "userAgent", "10s", "requests", START) == {"": 1 / 3, "(others)": 2 / 3}


def test_every_dimension_answers_and_names_its_fields() -> None:
    top = TopTalkers()
    top.add([row()], START)
    fields = {
        "userAgent": {"userAgent": "kubectl"},
        "user": {"user": "alice"},
        "source": {"source": "192.0.2.1"},
        "request": {"verb": "list", "resource": "pods"},
    }
    for dimension in DIMENSIONS:
        (talker,) = top.top(",".join(dimension), "10s", "requests", 5, START).rows
        assert talker.key == {k: v for name in dimension for k, v in fields[name].items()}
    assert top.top("user,userAgent", "10s", "requests", 5, START).by == "userAgent,user"


@pytest.mark.parametrize(
    ("by", "over", "sort", "word"),
    [
        ("agent", "1m", "requests", "userAgent"),
        ("user,user", "1m", "requests", "user,source"),
        ("user", "5m", "requests", "10m"),
        ("user", "1m", "cost", "upstreamSeconds"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(
    by: str, over: str, sort: str, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        TopTalkers().top(by, over, sort, 5, START)


def test_rows_may_be_added_in_pieces() -> None:
    rows = next(flood(random.Random(9), 0.2, 2 * GROWN))
    whole, pieces = TopTalkers(), TopTalkers()
    whole.add(rows, START)
    for at in range(0, len(rows), CHUNK):
        pieces.add(rows[at : at + CHUNK], START)
    for by in ("userAgent", "user,source"):
        assert whole.top(by, "10s", "bytes", 50, START) == pieces.top(by, "10s", "bytes", 50, START)
