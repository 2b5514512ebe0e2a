"""Who has been around, and since when: remembered through floods of names and restarts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.telemetry.firstseen import (
    KNOWN,
    LEARNING_SECONDS,
    PROBATION,
    SLOT_SECONDS,
    Entry,
    FirstSeen,
)
from apiguard.telemetry.toptalkers import USER, USER_AGENT
from tests.unit.telemetry.clients import row

START = 1_795_395_000.0


def flood(book: FirstSeen, names: int, now: float, prefix: str = "x") -> None:
    for at in range(0, names, 2_000):
        book.add([row(f"{prefix}{at + i}", f"u-{prefix}{at + i}") for i in range(2_000)], now)


def test_a_name_is_dated_at_its_first_request() -> None:
    book = FirstSeen(START)
    for second in range(9):
        book.add([row("telemetry", "bob")], START + second)
    assert book.first(USER_AGENT, "telemetry") == book.first(USER, "bob") == START
    assert book.first(USER, "carol") is None


def test_a_million_names_push_out_nobody_seen_in_two_slots() -> None:
    book = FirstSeen(START)
    book.add([row("kubectl", "alice")], START)
    book.add([row("kubectl", "alice")], START + SLOT_SECONDS)
    flood(book, 1_000_000, START + 10)
    assert book.first(USER_AGENT, "kubectl") == START
    assert book.first(USER, "alice") == START
    assert len(book.entries()) == 2, "the flood left no trace worth writing down"


def test_a_busy_newcomer_becomes_known_while_names_pour_in() -> None:
    book, now = FirstSeen(START), START + 60
    for report in range(30):  # six seconds of 20,000 new names each
        book.add([row("storm", "storm")], now)
        flood(book, 4_000, now, f"{report}-")
        now += 0.2
    assert book.first(USER_AGENT, "storm") == START + 60
    assert Entry(USER, "storm", START + 60) in book.take_new()


def test_names_that_all_come_twice_push_out_those_not_seen_for_longest() -> None:
    book = FirstSeen(START)
    book.restore([Entry(USER, "gone", 1.0), Entry(USER, "busy", 2.0)])
    for chunk in range(KNOWN // 4_000 + 2):
        now = START + chunk * 2 * SLOT_SECONDS
        for again in range(2):
            book.add([row("", "busy")], now + again * SLOT_SECONDS)
            flood(book, 4_000, now + again * SLOT_SECONDS, f"{chunk}-")
    assert book.first(USER, "busy") == 2.0
    assert book.first(USER, "gone") is None
    assert len([e for e in book.entries() if e.kind == USER]) <= KNOWN


def test_the_restored_are_known_and_keep_their_date() -> None:
    book = FirstSeen(START)
    book.restore([Entry(USER_AGENT, "kubelet", 5.0)])
    book.add([row("kubelet")], START)
    flood(book, 2 * PROBATION + 2_000, START + 1)
    assert book.first(USER_AGENT, "kubelet") == 5.0
    assert book.take_new() == [], "what was read back need not be written again"


def test_a_repeated_entry_keeps_the_earlier_date() -> None:
    book = FirstSeen(START)
    book.restore([Entry(USER, "bob", 9.0), Entry(USER, "bob", 5.0), Entry(USER, "bob", 7.0)])
    assert book.first(USER, "bob") == 5.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.1, 5.0)), max_size=40))
def test_journal_and_rewritten_book_tell_the_same(steps: list[tuple[str, float]]) -> None:
    book, journal, now = FirstSeen(START), list[Entry](), START
    for name, wait in steps:
        now += wait
        book.add([row(name, name)], now)
        journal += book.take_new()
    appended, rewritten = FirstSeen(START), FirstSeen(START)
    appended.restore(journal)
    rewritten.restore(book.entries())
    assert set(appended.entries()) == set(rewritten.entries()) == set(book.entries())
    assert all(book.first(e.kind, e.name) == e.first for e in journal)


def test_a_newcomer_is_new_and_those_there_from_the_start_are_not() -> None:
    book = FirstSeen(START)
    book.add([row("kubelet")], START + LEARNING_SECONDS - 1)
    book.add([row("storm")], START + LEARNING_SECONDS + 60)
    assert not book.is_new(USER_AGENT, "kubelet", START)
    assert book.is_new(USER_AGENT, "storm", START)
    assert book.is_new(USER_AGENT, "storm", START + LEARNING_SECONDS + 60)
    assert not book.is_new(USER_AGENT, "storm", START + LEARNING_SECONDS + 61)
    assert not book.is_new(USER_AGENT, "never", START)


def test_rows_that_name_nobody_are_not_remembered() -> None:
    book = FirstSeen(START)
    for _ in range(2):
        book.add([row("folded", "", folded=True), row("agent", "")], START)
    assert book.first(USER_AGENT, "folded") is None
    assert book.first(USER, "") is None


def test_only_agents_and_users_have_dates() -> None:
    with pytest.raises(KeyError):
        FirstSeen(START).first("source", "192.0.2.1")
