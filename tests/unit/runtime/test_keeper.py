"""Which policy is active: file and store, changes one at a time, durable first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apiguard.errors import ConfigError, StartupError
from apiguard.runtime.actor import Actor
from apiguard.runtime.control import MAX_TEXT
from apiguard.runtime.keeper import (
    Changed,
    Invalid,
    NotStored,
    PolicyKeeper,
    Sound,
    Stale,
)
from apiguard.runtime.log import Field, RelayLog
from apiguard.runtime.statestore import Revision, StateStore

ALICE = Actor("alice", "admin", "127.0.0.1", "token")


def policy(rate: int) -> str:
    return (
        "apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\nrules: []\n"
        f"default:\n  limits: [{{requestsPerSecond: {rate}, burst: {rate}}}]\n"
    )


class Place:
    """A policy file, a state directory and what was logged."""

    def __init__(self, tmp_path: Path) -> None:
        self.file = tmp_path / "policy.yaml"
        self.state = tmp_path / "state"
        self.logged: list[str] = []
        self.store: StateStore | None = None

    def keeper(self) -> PolicyKeeper:
        """A keeper as after a (re)start."""
        self.close()
        self.store = StateStore(str(self.state))
        keeper = PolicyKeeper(self.store, str(self.file), RelayLog(self._log), lambda: 1.0)
        keeper.start()
        return keeper

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None

    def newest(self) -> Path:
        return max((self.state / "revisions").iterdir())

    def _log(self, level: str, message: str, fields: dict[str, Field]) -> None:
        self.logged.append(f"{level}: {message}"[:MAX_TEXT])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.file.write_text(policy(1))
    yield made
    made.close()


def _text(revision: Revision) -> str:
    return revision.policy


def test_the_first_start_takes_the_file(place: Place) -> None:
    keeper = place.keeper()
    assert keeper.first_start
    assert (_text(keeper.active.revision), keeper.active.why) == (policy(1), "first start")


async def test_an_accepted_policy_survives_a_restart(place: Place) -> None:
    keeper = place.keeper()
    assert isinstance(await keeper.propose(policy(2), "policy", generation=1, actor=ALICE), Changed)
    again = place.keeper()
    assert not again.first_start
    assert _text(again.active.revision) == policy(2)
    assert again.active.revision.generation == 2
    assert "set by admin" in again.active.why


async def test_a_file_changed_since_wins_over_admin_at_start(place: Place) -> None:
    keeper = place.keeper()
    await keeper.propose(policy(2), "policy", generation=None, actor=ALICE)
    place.file.write_text(policy(3))
    again = place.keeper()
    assert _text(again.active.revision) == policy(3)
    assert again.active.revision.generation == 3
    assert "changed" in again.active.why


async def test_a_file_changed_since_wins_over_admin_on_reload(place: Place) -> None:
    keeper = place.keeper()
    await keeper.propose(policy(2), "policy", generation=None, actor=ALICE)
    assert await keeper.reload_file() is None
    place.file.write_text(policy(3))
    assert isinstance(await keeper.reload_file(), Changed)
    assert _text(keeper.active.revision) == policy(3)


async def test_a_file_that_became_invalid_leaves_the_active_policy(place: Place) -> None:
    keeper = place.keeper()
    place.file.write_text("kind: Nonsense\n")
    assert isinstance(await keeper.reload_file(), Invalid)
    assert _text(keeper.active.revision) == policy(1)


def test_an_invalid_file_keeps_the_guard_from_starting(place: Place) -> None:
    place.file.write_text("kind: Nonsense\n")
    with pytest.raises(ConfigError):
        place.keeper()


def test_a_missing_file_keeps_the_guard_from_starting(place: Place) -> None:
    place.file.unlink()
    with pytest.raises(StartupError, match="policyFile"):
        place.keeper()


async def test_another_generation_than_the_active_one_changes_nothing(place: Place) -> None:
    keeper = place.keeper()
    change = await keeper.propose(policy(2), "policy", generation=7, actor=ALICE)
    assert change == Stale(active=1, named=7)
    assert _text(keeper.active.revision) == policy(1)


async def test_a_dry_run_changes_nothing(place: Place) -> None:
    keeper = place.keeper()
    change = await keeper.propose(policy(2), "p", generation=1, actor=ALICE, dry_run=True)
    assert isinstance(change, Sound)
    assert _text(keeper.active.revision) == policy(1)


async def test_a_policy_the_disk_does_not_take_is_not_accepted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = place.keeper()

    def full(_store: StateStore, _revision: Revision, _record: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateStore, "save", full)
    change = await keeper.propose(policy(2), "policy", generation=1, actor=ALICE)
    assert change == NotStored("No space left on device")
    assert keeper.active.revision.generation == 1


async def test_a_damaged_store_falls_back_loudly_and_never_reuses_a_generation(
    place: Place,
) -> None:
    keeper = place.keeper()
    await keeper.propose(policy(2), "policy", generation=1, actor=ALICE)
    place.newest().write_bytes(b"{}")
    again = place.keeper()
    assert _text(again.active.revision) == policy(1)
    assert "damaged" in again.active.why
    assert any(line.startswith("error: stored policy is damaged") for line in place.logged)
    await again.propose(policy(3), "policy", generation=1, actor=ALICE)
    assert again.active.revision.generation == 3


def test_a_store_with_nothing_sound_left_takes_the_file(place: Place) -> None:
    place.keeper()
    place.newest().write_bytes(b"")
    again = place.keeper()
    assert not again.first_start
    assert _text(again.active.revision) == policy(1)
    assert "damaged" in again.active.why


async def test_an_enforcement_override_survives_restarts_and_policy_changes(place: Place) -> None:
    keeper = place.keeper()
    await keeper.set_enforcement("shadow", actor=ALICE)
    await keeper.propose(policy(2), "policy", generation=1, actor=ALICE)
    assert place.keeper().active.revision.enforcement == "shadow"
