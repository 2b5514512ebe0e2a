"""When overrides end, whatever becomes of clocks; and who is on record for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apiguard.limiter.flow import Mode
from apiguard.policy.operatorconfig import OverridesConfig
from apiguard.runtime.overriding import Live, NoSuchOverride
from apiguard.runtime.statestore import StoredOverride
from tests.unit.runtime.keeping import ALICE, BAN, Kept


class Clocks:
    """Wall and monotonic time, each set by hand."""

    wall = 1_000_000.0
    now = 50.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.now += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def _kept(tmp_path: Path, clocks: Clocks) -> Kept:
    return Kept(tmp_path, wall=lambda: clocks.wall, clock=lambda: clocks.now)


async def _added(kept: Kept, number: int = 1) -> Live:
    live = await kept.add(number)
    assert isinstance(live, Live)
    return live


@pytest.mark.parametrize("jump", [-86_400.0, -1.0, 1.0, 86_400.0])
async def test_a_clock_that_is_set_moves_no_end_while_the_guard_runs(
    tmp_path: Path, clocks: Clocks, jump: float
) -> None:
    kept = _kept(tmp_path, clocks)
    live = await _added(kept)
    clocks.wall += jump
    assert kept.overrides.remaining(live) == 1_000.0
    clocks.now += 999.5
    assert kept.overrides.expire() == []
    clocks.now += 0.5
    assert kept.overrides.in_force() == []
    assert kept.overrides.expire() == [live]
    kept.close()


async def test_over_a_restart_the_stored_end_counts(tmp_path: Path, clocks: Clocks) -> None:
    kept = _kept(tmp_path, clocks)
    await _added(kept)
    kept.close()
    clocks.wall += 400.0
    clocks.now = 3.0  # monotonic time of another boot
    kept = _kept(tmp_path, clocks)
    (live,) = kept.overrides.in_force()
    assert kept.overrides.remaining(live) == 600.0
    kept.close()


async def test_a_clock_set_back_between_lives_grants_no_more_than_was_granted(
    tmp_path: Path, clocks: Clocks
) -> None:
    kept = _kept(tmp_path, clocks)
    await _added(kept)
    kept.close()
    clocks.wall -= 86_400.0
    kept = _kept(tmp_path, clocks)
    (live,) = kept.overrides.in_force()
    assert kept.overrides.remaining(live) == 1_000.0
    kept.close()


async def test_what_ended_while_the_guard_was_down_is_put_on_record_once(
    tmp_path: Path, clocks: Clocks
) -> None:
    kept = _kept(tmp_path, clocks)
    live = await _added(kept)
    kept.close()
    clocks.pass_by(2_000.0)
    for _ in range(2):
        kept = _kept(tmp_path, clocks)
        assert kept.overrides.in_force() == []
        kept.overrides.expire()
        await kept.overrides.record_expiry()
        expired = [event for event in kept.done() if event[0] == "override.expire"]
        assert expired == [("override.expire", live.stored.id)]
        kept.close()


async def test_a_change_between_end_and_its_record_loses_neither(
    tmp_path: Path, clocks: Clocks
) -> None:
    kept = _kept(tmp_path, clocks)
    first = await _added(kept)
    clocks.pass_by(1_000.0)
    kept.overrides.expire()
    second = await _added(kept, 2)
    kept.close()  # before the end of the first was recorded
    kept = _kept(tmp_path, clocks)
    assert [one.stored.id for one in kept.overrides.in_force()] == [second.stored.id]
    assert [one.stored.id for one in kept.overrides.expire()] == [first.stored.id]
    await kept.overrides.record_expiry()
    assert kept.done()[-1] == ("override.expire", first.stored.id)
    kept.close()


async def test_what_is_over_can_be_neither_extended_nor_deleted(
    tmp_path: Path, clocks: Clocks
) -> None:
    kept = _kept(tmp_path, clocks)
    id_ = (await _added(kept)).stored.id
    clocks.pass_by(1_000.0)
    assert await kept.overrides.extend(id_, 60, ALICE) == NoSuchOverride(id_)
    assert await kept.overrides.delete(id_, ALICE) == NoSuchOverride(id_)
    kept.close()


async def test_the_bound_holds_also_among_those_that_ask_at_once(tmp_path: Path) -> None:
    kept = Kept(tmp_path, config=OverridesConfig(most=3))
    results = await asyncio.gather(*(kept.add(number) for number in range(3)))
    assert all(isinstance(one, Live) for one in results)
    asked = await kept.overrides.ask(BAN % (9, 9), ALICE)
    assert type(asked).__name__ == "TooMany"
    kept.close()


async def test_break_glass_users_stand_above_every_override(tmp_path: Path) -> None:
    kept = Kept(tmp_path, config=OverridesConfig(break_glass_users=("oncall",)))
    await _added(kept)
    first = kept.overrides.effective().above[0].flow
    assert (first.name, first.exempt, first.mode) == ("break-glass", True, Mode.ALWAYS)
    kept.close()


async def test_a_yaml_body_is_kept_as_what_it_says(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    live = await kept.add_body(
        "action: limit\nmatch: {users: [bob]}\nreason: INC-7\n"
        "limits:\n- {requestsPerSecond: 0.5, per: [user]}\n"
    )
    assert isinstance(live, Live)
    kept.close()
    again = Kept(tmp_path)
    assert [one.override for one in again.overrides.in_force()] == [live.override]
    again.close()


async def test_a_stored_override_no_guard_can_read_is_dropped_and_told(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    sound = await _added(kept)
    broken = StoredOverride("broken", '{"action":"smite"}', "r", "a", 0.0, 9e9, 9e9)
    kept.overrides._live["broken"] = Live(broken, sound.override, 9e9)
    await kept.keeper.set_enforcement("shadow", actor=ALICE)
    await _added(kept, 2)
    kept.close()
    again = Kept(tmp_path)
    assert len(again.overrides.in_force()) == 2
    assert again.logged == ["stored override is dropped"]
    again.close()
