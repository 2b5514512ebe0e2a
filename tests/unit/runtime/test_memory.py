"""What was noticed comes back after a restart, from a journal that stays small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apiguard.runtime import memory as memory_module
from apiguard.runtime.memory import HitCount, Memory, ShadowCount
from apiguard.runtime.statestore import StateStore
from apiguard.telemetry.activity import ActivityRow

WALL = 1_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened = StateStore(str(tmp_path / "state"))
    yield opened
    opened.close()


def _memory(store: StateStore, wall: float = WALL) -> Memory:
    return Memory(store, lambda: wall)


def _row(agent: str) -> ActivityRow:
    return ActivityRow(agent, "alice", "::1", "list", "pods", 1)


async def test_who_was_seen_is_known_again(store: StateStore) -> None:
    memory = _memory(store)
    for second in range(0, 8, 2):
        memory.first_seen.add([_row("kubelet")], WALL + second)
    await memory.write()
    again = _memory(store, WALL + 9_000)
    assert again.first_seen.first("userAgent", "kubelet") == WALL
    assert again.first_seen.first("user", "alice") == WALL
    assert again.first_seen.began == WALL, "so that nobody is new for having come at the start"


async def test_shadow_counts_go_on(store: StateStore) -> None:
    memory = _memory(store)
    memory.would_refuse("telemetry", 2)
    await memory.write()
    again = _memory(store, WALL + 60)
    again.would_refuse("telemetry", 3)
    await again.write()
    assert _memory(store).shadow() == [ShadowCount("telemetry", 5, WALL, WALL + 60)]


async def test_hits_of_overrides_go_on(store: StateStore) -> None:
    memory = _memory(store)
    assert memory.hits("ban") is None
    memory.hit("ban", refused=2)
    memory.hit("other", admitted=1)
    await memory.write()
    again = _memory(store, WALL + 60)
    again.hit("ban", refused=3, admitted=1)
    await again.write()
    assert _memory(store).hits("ban") == HitCount("ban", 1, 5, WALL + 60)
    assert _memory(store).hits("other") == HitCount("other", 1, 0, WALL)


def test_hits_are_bounded_by_forgetting_those_not_met_for_longest(store: StateStore) -> None:
    memory = _memory(store)
    for number in range(memory_module.MOST_OVERRIDES + 10):
        memory.hit(f"{number}", refused=1)
    assert memory.hits("9") is None
    assert memory.hits("10") is not None


async def test_a_torn_or_foreign_line_costs_only_itself(store: StateStore) -> None:
    memory = _memory(store)
    memory.would_refuse("telemetry", 2)
    await memory.write()
    with store.memory.open("ab") as file:
        file.write(b'{"seen": 7}\n{"shadow": ["tele')
    assert [one.count for one in _memory(store).shadow()] == [2]


async def test_the_journal_is_rewritten_and_says_the_same(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "LEAST_REWRITE", 2_000)
    memory = _memory(store)
    for _ in range(500):
        memory.would_refuse("telemetry", 1)
        memory.hit("ban", refused=1)
        await memory.write()
    assert store.memory.stat().st_size < 4_000
    assert _memory(store).shadow() == memory.shadow()
    assert _memory(store).hits("ban") == memory.hits("ban")
    assert memory.shadow()[0].count == 500


def test_rules_are_bounded_by_forgetting_those_not_counted_for_longest(store: StateStore) -> None:
    memory = _memory(store)
    for number in range(memory_module.MOST_RULES + 10):
        memory.would_refuse(f"rule-{number}", 1)
    names = {one.rule for one in memory.shadow()}
    assert len(names) == memory_module.MOST_RULES
    assert "rule-9" not in names
    assert "rule-10" in names
