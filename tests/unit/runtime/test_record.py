"""What is on record can be read again, bounded in size and in rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apiguard.runtime.record import (
    ATTEMPTS_AT_ONCE,
    SECONDS_PER_ATTEMPT,
    Action,
    Record,
    Ring,
    line_of,
)
from apiguard.runtime.statestore import StateStore
from tests.unit.runtime.keeping import ALICE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened = StateStore(str(tmp_path / "state"))
    yield opened
    opened.close()


async def test_attempts_are_on_disk_and_come_back(store: StateStore) -> None:
    record = Record(store, lambda: 1_000.0)
    record.note(Action(ALICE, "policy.put", "p"), "forbidden: needs role admin")
    await store.disk.run(lambda: None)
    (line,) = Record(store).last("actions", 0.0, 10)
    assert (line["actor"], line["action"], line["result"]) == (
        "alice",
        "policy.put",
        "forbidden: needs role admin",
    )


async def test_attempts_are_bounded_in_rate_and_those_left_out_are_counted(
    store: StateStore,
) -> None:
    now = 0.0
    record = Record(store, clock=lambda: now)
    for _ in range(ATTEMPTS_AT_ONCE + 15):
        record.note(Action(ALICE, "policy.put"), "forbidden")
    assert len(record.last("actions", 0.0, 100)) == ATTEMPTS_AT_ONCE
    assert record.lost == 15
    for second in range(100):
        now = float(second)
        record.note(Action(ALICE, "policy.put"), "forbidden")
    more = 99 // SECONDS_PER_ATTEMPT
    assert len(record.last("actions", 0.0, 100)) == ATTEMPTS_AT_ONCE + more


def test_whoever_asks_again_and_again_misses_no_action(store: StateStore) -> None:
    record = Record(store)
    for number in range(10):
        record.remember("actions", line_of(record.event(Action(ALICE, "a", str(number)))))
    seen = record.last("actions", 0.0, 2)
    for number in range(10, 15):
        record.remember("actions", line_of(record.event(Action(ALICE, "a", str(number)))))
    while following := record.after(str(seen[-1]["id"]), 2):
        seen += following
    assert [line["target"] for line in seen] == [str(number) for number in range(8, 15)]
    assert record.after("gone", 2) is None


def test_since_and_limit_choose_the_newest_last(store: StateStore) -> None:
    now = 0.0
    record = Record(store, lambda: now)
    for number in range(10):
        now = 1_000.0 + number
        record.remember("actions", line_of(record.event(Action(ALICE, "a", str(number)))))
    assert [line["target"] for line in record.last("actions", 1_006.0, 100)] == list("6789")
    assert [line["target"] for line in record.last("actions", 0.0, 2)] == list("89")


def test_a_ring_is_bounded_in_lines_and_bytes() -> None:
    ring = Ring(lines=3, total=10)
    for line in (b"a", b"b", b"c", b"d"):
        ring.add(line)
    assert ring.last() == [b"d", b"c", b"b"]
    ring.add(b"e" * 9)
    assert ring.last() == [b"e" * 9, b"d"]
