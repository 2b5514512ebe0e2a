"""The state store gives back what it took, or the revision before, and never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiguard.errors import StartupError
from apiguard.runtime.statestore import KEPT_GENERATIONS, Origin, Revision, StateStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened = StateStore(str(tmp_path / "state"))
    yield opened
    opened.close()


def _revision(number: int, generation: int | None = None) -> Revision:
    text = f"policy {number}: ü"
    return Revision(
        number, generation or number, text, "p", "digest", Origin("file", 1.0, ""), "file", ""
    )


def _file(tmp_path: Path, number: int) -> Path:
    return tmp_path / "state" / "revisions" / f"{number:010d}.json"


def test_an_empty_store_says_that_the_guard_never_ran(store: StateStore) -> None:
    loaded = store.load()
    assert (loaded.newest, loaded.damaged, loaded.last_number) == (None, (), 0)


def test_the_newest_revision_comes_back(store: StateStore) -> None:
    store.save(_revision(1))
    store.save(_revision(2))
    loaded = store.load()
    assert (loaded.newest, loaded.damaged) == (_revision(2), ())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "garbage"])
def test_a_damaged_revision_falls_back_to_the_one_before(
    store: StateStore, tmp_path: Path, damage: str
) -> None:
    store.save(_revision(1))
    store.save(_revision(2))
    path = _file(tmp_path, 2)
    data = path.read_bytes()
    damaged = {
        "truncated": data[: len(data) // 2],
        "flipped": data.replace(b"policy 2", b"policy 3"),
        "empty": b"",
        "garbage": os.urandom(64),
    }[damage]
    path.write_bytes(damaged)
    loaded = store.load()
    assert loaded.newest == _revision(1)
    assert [name for name, _ in loaded.damaged] == [path.name]
    assert loaded.last_number == 2
    assert loaded.last_generation == 2  # the damaged one may have been generation 2: not reused


def test_every_single_byte_of_damage_is_noticed(store: StateStore, tmp_path: Path) -> None:
    store.save(_revision(1))
    path = _file(tmp_path, 1)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert store.load().newest in (None, _revision(1))


def test_a_disk_that_refuses_leaves_everything_as_it_was(
    store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(_revision(1))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.save(_revision(2))
    assert store.load().newest == _revision(1)
    assert [p.name for p in (tmp_path / "state" / "revisions").iterdir()] == [
        _file(tmp_path, 1).name
    ]


def test_old_generations_are_pruned_and_the_last_twenty_kept(
    store: StateStore, tmp_path: Path
) -> None:
    for number in range(1, 31):
        store.save(_revision(number))
    names = sorted(p.name for p in (tmp_path / "state" / "revisions").iterdir())
    assert len(names) == KEPT_GENERATIONS
    assert names[-1] == _file(tmp_path, 30).name


def test_revisions_of_one_generation_do_not_push_out_others(
    store: StateStore, tmp_path: Path
) -> None:
    store.save(_revision(1))
    for number in range(2, 40):
        store.save(_revision(number, generation=2))
    assert _file(tmp_path, 1).exists()
    assert _file(tmp_path, 38).exists()  # what damage of the newest would fall back to


def test_a_second_guard_on_the_same_state_is_refused(store: StateStore, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="in use by another apiguard"):
        StateStore(str(tmp_path / "state"))


def test_files_are_readable_by_their_owner_only(store: StateStore, tmp_path: Path) -> None:
    store.save(_revision(1))
    assert _file(tmp_path, 1).stat().st_mode & 0o077 == 0
