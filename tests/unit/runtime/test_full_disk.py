"""A disk that fills up at any write refuses the change whole and leaves no trace of it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from apiguard.runtime.memory import Memory
from apiguard.runtime.overriding import Live
from apiguard.runtime.record import ATTEMPTS_AT_ONCE, Action
from apiguard.runtime.state import Changed, NotStored
from tests.unit.runtime.keeping import ALICE, POLICY, FullDisk, Kept

Change = Callable[[Kept], Awaitable[object]]


async def _put(kept: Kept) -> object:
    return await kept.keeper.propose(POLICY % 2, "policy", generation=None, actor=ALICE)


async def _roll_back(kept: Kept) -> object:
    return await kept.keeper.roll_back(1, actor=ALICE, reason="worse")


async def _enforce(kept: Kept) -> object:
    return await kept.keeper.set_enforcement("shadow", actor=ALICE)


async def _add(kept: Kept) -> object:
    return await kept.add(2)


async def _extend(kept: Kept) -> object:
    (live,) = kept.overrides.in_force()
    return await kept.overrides.extend(live.stored.id, 50, ALICE)


async def _delete(kept: Kept) -> object:
    (live,) = kept.overrides.in_force()
    return await kept.overrides.delete(live.stored.id, ALICE)


CHANGES: list[Change] = [_put, _roll_back, _enforce, _add, _extend, _delete]


async def _prepared(directory: Path) -> Kept:
    kept = Kept(directory)
    assert isinstance(await kept.add(1), Live)
    return kept


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
async def test_whichever_write_fails_nothing_has_changed(change: Change, tmp_path: Path) -> None:
    refused = 0
    for calls in range(20):
        directory = tmp_path / str(calls)
        kept = await _prepared(directory)
        before, recorded = kept.summary(), kept.done()
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, calls)
            result = await change(kept)
        if not disk.refused:
            assert not isinstance(result, NotStored)
            kept.close()
            break
        assert isinstance(result, NotStored), result
        assert "No space left" in result.reason
        refused += 1
        assert (kept.summary(), kept.done()) == (before, recorded)
        again_possible = await change(kept)  # and the disk has room again
        assert not isinstance(again_possible, NotStored)
        after, on_record = kept.summary(), kept.done()
        kept.close()
        again = Kept(directory)
        assert (again.summary(), again.done()) == (after, on_record)
        assert len(on_record) == len(recorded) + 1
        again.close()
    assert refused >= 5, "staging, recording and putting in place can each fail"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
async def test_a_restart_after_a_refusal_finds_what_was_before(
    change: Change, tmp_path: Path
) -> None:
    for calls in range(6):
        directory = tmp_path / str(calls)
        kept = await _prepared(directory)
        before, recorded = kept.summary(), kept.done()
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, calls)
            assert isinstance(await change(kept), NotStored)
        kept.close()
        again = Kept(directory)
        assert (again.summary(), again.done()) == (before, recorded)
        assert not list((directory / "state" / "revisions").glob("*.tmp"))
        again.close()


async def test_an_action_that_is_not_stored_is_not_on_record_either(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    before = (tmp_path / "state" / "audit.jsonl").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, 0)
        refused = await kept.state.write(Action(ALICE, "upstream.drain", "a"))
    assert isinstance(refused, NotStored)
    assert (tmp_path / "state" / "audit.jsonl").read_bytes() == before
    assert tried(kept) == [("upstream.drain", "alice")]
    assert await kept.state.write(Action(ALICE, "upstream.drain", "a")) is None
    kept.close()


def tried(kept: Kept) -> list[tuple[object, object]]:
    """Actions that no disk took, as readers of the record find them."""
    lines = kept.state.record.last("actions", 0.0, 10_000)
    return [
        (line["action"], line["actor"])
        for line in lines
        if "not stored: No space left on device; only memory" in str(line["result"])
    ]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
async def test_what_no_disk_took_is_known_until_the_guard_ends(
    change: Change, tmp_path: Path
) -> None:
    """Once, by who tried, and not as though it had been written."""
    kept = await _prepared(tmp_path)
    written, lost = dict(kept.state.record.written), kept.state.record.lost
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, 0)
        await change(kept)
    assert [actor for _, actor in tried(kept)] == ["alice"]
    assert (kept.state.record.written, kept.state.record.lost) == (written, lost + 1)
    kept.close()
    again = Kept(tmp_path)
    assert tried(again) == []
    again.close()


async def test_a_disk_that_stays_full_does_not_push_the_record_out(tmp_path: Path) -> None:
    """Neither by who tries again and again, nor by the guard, which does too."""
    now = 0.0
    kept = Kept(tmp_path, clock=lambda: now)
    assert isinstance(await kept.add(1), Live)
    now = 1_000.0
    kept.overrides.expire()
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, 0)
        for _ in range(100):
            await _enforce(kept)
            await kept.overrides.record_expiry()
    assert len(tried(kept)) == ATTEMPTS_AT_ONCE
    kept.close()


async def test_an_override_ends_although_no_disk_takes_it(tmp_path: Path) -> None:
    now = 0.0
    kept = Kept(tmp_path, clock=lambda: now)
    assert isinstance(await kept.add(1), Live)
    now = 1_000.0
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, 0)
        assert len(kept.overrides.expire()) == 1
        await kept.overrides.record_expiry()
        assert kept.overrides.in_force() == []
    assert kept.done()[-1][0] == "override.add"
    await kept.overrides.record_expiry()
    assert kept.done()[-1][0] == "override.expire"
    kept.close()


async def test_what_was_noticed_is_written_once_there_is_room_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    memory = Memory(kept.store, lambda: 5.0)
    memory.would_refuse("telemetry", 3)
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, 0)
        await memory.write()
    memory.would_refuse("telemetry", 4)
    await memory.write()
    (count,) = Memory(kept.store, lambda: 9.0).shadow()
    assert (count.count, count.first, count.last) == (7, 5.0, 5.0)
    kept.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _fill(path: Path) -> None:
    """Takes all the room there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))


async def test_a_file_system_without_space_refuses_until_there_is_some(small_disk: Path) -> None:
    kept = Kept(small_disk)
    _fill(small_disk / "filler")
    before, recorded = kept.summary(), kept.done()
    assert isinstance(await _put(kept), NotStored)
    assert isinstance(await _add(kept), NotStored)
    assert (kept.summary(), kept.done()) == (before, recorded)
    (small_disk / "filler").unlink()
    assert isinstance(await _put(kept), Changed)
    after = kept.summary()
    kept.close()
    again = Kept(small_disk)
    assert again.summary() == after
    again.close()
