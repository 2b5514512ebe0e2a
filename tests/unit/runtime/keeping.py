"""Everything that keeps a guard's state, without its processes; and a disk that fills up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from apiguard.policy.operatorconfig import OverridesConfig
from apiguard.runtime.actor import Actor
from apiguard.runtime.keeper import PolicyKeeper
from apiguard.runtime.log import Field, RelayLog
from apiguard.runtime.overriding import Asked, Live, Overrides, TooMany
from apiguard.runtime.state import NotStored
from apiguard.runtime.statestore import StateStore

T = TypeVar("T")

ALICE = Actor("alice", "admin", "127.0.0.1", "token")

POLICY = """\
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
- name: telemetry
  match: {userAgents: ["telemetry/*"]}
  limits: [{requestsPerSecond: %d}]
default: {limits: [{requestsPerSecond: 1}]}
"""

BAN = '{"action":"ban","match":{"users":["u%d"]},"reason":"op %d","ttlSeconds":1000}'


class Kept:
    """One life of a guard's state in ``directory``; ``close`` ends it."""

    def __init__(
        self,
        directory: Path,
        *,
        wall: Callable[[], float] = lambda: 1_000_000.0,
        clock: Callable[[], float] = lambda: 0.0,
        config: OverridesConfig | None = None,
    ) -> None:
        directory.mkdir(exist_ok=True)
        file = directory / "policy.yaml"
        if not file.exists():
            file.write_text(POLICY % 1)
        self.logged: list[str] = []
        log = RelayLog(self._log)
        self.store = StateStore(str(directory / "state"))
        self.keeper = PolicyKeeper(self.store, str(file), log, wall)
        try:
            self.keeper.start()
        except BaseException:
            self.store.close()
            raise
        self.state = self.keeper.state
        self.overrides = Overrides(self.state, config or OverridesConfig(), log, clock)
        self.overrides.start()

    def _log(self, level: str, message: str, fields: dict[str, Field]) -> None:
        self.logged.append(message)

    def close(self) -> None:
        self.store.close()

    async def add(self, number: int) -> Live | TooMany | NotStored:
        return await self.add_body(BAN % (number, number))

    async def add_body(self, body: str) -> Live | TooMany | NotStored:
        asked = await self.overrides.ask(body, ALICE)
        assert isinstance(asked, Asked), asked
        return await self.overrides.add(asked, ALICE)

    def summary(self) -> tuple[object, ...]:
        """What is in force."""
        revision = self.state.active.revision
        live = [(one.stored.id, one.stored.expires) for one in self.overrides.in_force()]
        return (revision.generation, revision.policy, revision.enforcement, live)

    def done(self) -> list[tuple[object, object]]:
        """Actions on record that were carried out."""
        lines = self.state.record.last("actions", 0.0, 10_000)
        return [(line["action"], line["target"]) for line in lines if line["result"] == "done"]


class FullDisk:
    """Lets ``calls`` calls that write succeed; from then on there is no space.

    A write that fails has written half of what it was given, as on a real disk.
    """

    CALLS = ("open", "write", "fsync", "rename", "replace")

    def __init__(self, patch: pytest.MonkeyPatch, calls: int) -> None:
        self.left = calls
        self.refused = 0
        for name in self.CALLS:
            patch.setattr(os, name, self._bounded(name, getattr(os, name)))

    def _bounded(self, name: str, real: Callable[..., T]) -> Callable[..., T]:
        def call(*arguments: object, **named: object) -> T:
            if name == "open" and not self._creates(arguments):
                return real(*arguments, **named)
            self.left -= 1
            if self.left >= 0:
                return real(*arguments, **named)
            self.refused += 1
            if name == "write":
                data = arguments[1]
                assert isinstance(data, bytes | memoryview)
                real(arguments[0], bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        return call

    def _creates(self, arguments: tuple[object, ...]) -> bool:
        flags = arguments[1] if len(arguments) > 1 else 0
        return isinstance(flags, int) and bool(flags & os.O_CREAT)
