"""The active policy and enforcement: chosen at start, changed one at a time, durable first.

A change is compiled whole, stored, and only then active; what cannot be stored is not accepted,
so a restart never brings back another policy than the one that was answered for. Results are
values, because a refused change is nothing unusual.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from apiguard.errors import ConfigError, Problem, StartupError
from apiguard.policy.compile import compile_policy
from apiguard.policy.policy import Policy
from apiguard.runtime.log import Log
from apiguard.runtime.reload import (
    KeepStored,
    TakeFile,
    choose,
    compile_off_loop,
    digest,
    read_text,
)
from apiguard.runtime.statestore import Loaded, Origin, Revision, StateStore


@dataclass(frozen=True, slots=True)
class Active:
    """What is in force. ``why`` says why it is this policy and not another."""

    revision: Revision
    policy: Policy
    why: str


@dataclass(frozen=True, slots=True)
class Changed:
    """The change is durable and active here; workers are told next."""

    active: Active


@dataclass(frozen=True, slots=True)
class WouldChange:
    """A dry run found nothing wrong."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class Stale:
    """The change was made against another generation than the active one."""

    active: int
    named: int


@dataclass(frozen=True, slots=True)
class Invalid:
    """The policy does not compile."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class NotStored:
    """The disk did not take it; nothing changed."""

    reason: str


Change = Changed | WouldChange | Stale | Invalid | NotStored


class PolicyKeeper:
    """Owns the state store and what is active. ``start`` comes first."""

    def __init__(
        self,
        store: StateStore,
        policy_file: str,
        log: Log,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._file = policy_file
        self._log = log
        self._wall_clock = wall_clock
        self._changing = asyncio.Lock()
        self._last_number = 0
        self._last_generation = 0
        self._active: Active | None = None
        self.first_start = False
        self.changes: dict[str, int] = {}

    @property
    def active(self) -> Active:
        """Raises StartupError before ``start``: nothing runs without a policy."""
        if self._active is None:
            raise StartupError("no policy is active")
        return self._active

    def start(self) -> None:
        """Chooses and compiles the policy to begin with.

        Raises ConfigError when it must be the file's and that is invalid, StartupError when the
        file or the store cannot be used.
        """
        loaded = self._store.load()
        for name, reason in loaded.damaged:
            self._log.error("stored policy is damaged, falling back", revision=name, reason=reason)
        self.first_start = loaded.last_number == 0
        self._last_number = loaded.last_number
        self._last_generation = loaded.last_generation
        text = read_text(self._file, "policyFile")
        choice = choose(loaded, digest(text))
        if isinstance(choice, KeepStored):
            kept = self._compile_stored(choice)
            if kept is not None:
                self._active = kept
                return
            choice = TakeFile("the stored policy no longer compiles")
        self._take_file_at_start(text, choice, loaded)

    def _compile_stored(self, choice: KeepStored) -> Active | None:
        revision = choice.revision
        try:
            policy = compile_policy(revision.policy, revision.policy_name)
        except ConfigError as error:
            self._log.error("stored policy does not compile, using the file", reason=str(error))
            return None
        return Active(revision, policy, choice.why)

    def _take_file_at_start(self, text: str, choice: TakeFile, loaded: Loaded) -> None:
        policy = compile_policy(text, self._file)
        enforcement = loaded.newest.enforcement if loaded.newest else ""
        revision = self._next(
            text, self._file, policy, self._origin("file", ""), digest(text), enforcement
        )
        try:
            self._store.save(revision)
        except OSError as error:
            raise StartupError(f"stateDir: cannot store the policy: {error.strerror}") from error
        self._become(Active(revision, policy, choice.why))

    async def propose(
        self, text: str, name: str, *, generation: int | None, actor: str, dry_run: bool = False
    ) -> Change:
        """A policy pushed by an operator who saw ``generation`` (None: whichever is active)."""
        async with self._changing:
            now = self.active.revision
            if generation is not None and generation != now.generation:
                return self._count(Stale(now.generation, generation))
            try:
                policy = await compile_off_loop(text, name)
            except ConfigError as error:
                return self._count(Invalid(tuple(error.problems)))
            if dry_run:
                return WouldChange(policy)
            revision = self._next(
                text, name, policy, self._origin("admin", actor), now.file_digest, now.enforcement
            )
            return self._count(
                await self._store_then_activate(Active(revision, policy, "set by admin"))
            )

    async def reload_file(self) -> Change | None:
        """Takes the policy file if it changed; None when it did not. Raises StartupError when it
        cannot be read."""
        async with self._changing:
            now = self.active.revision
            loop = asyncio.get_running_loop()
            text = await loop.run_in_executor(None, read_text, self._file, "policyFile")
            loaded = Loaded(now, (), now.number, now.generation)
            choice = choose(loaded, digest(text))
            if isinstance(choice, KeepStored):
                return None
            try:
                policy = await compile_off_loop(text, self._file)
            except ConfigError as error:
                return self._count(Invalid(tuple(error.problems)))
            revision = self._next(
                text, self._file, policy, self._origin("file", ""), digest(text), now.enforcement
            )
            return self._count(
                await self._store_then_activate(Active(revision, policy, choice.why))
            )

    async def set_enforcement(self, enforcement: str) -> Changed | NotStored:
        """``enforcement`` in place of the configured one; "" returns to it."""
        async with self._changing:
            now = self.active
            revision = msgspec.structs.replace(
                now.revision, number=self._last_number + 1, enforcement=enforcement
            )
            return await self._store_then_activate(Active(revision, now.policy, now.why))

    async def _store_then_activate(self, active: Active) -> Changed | NotStored:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._store.save, active.revision)
        except OSError as error:
            self._log.error("stateDir does not take the change", reason=str(error))
            return NotStored(error.strerror or str(error))
        self._become(active)
        return Changed(active)

    def _become(self, active: Active) -> None:
        self._last_number = active.revision.number
        self._last_generation = active.revision.generation
        self._active = active

    def _next(
        self,
        text: str,
        name: str,
        policy: Policy,
        origin: Origin,
        file_digest: str,
        enforcement: str,
    ) -> Revision:
        return Revision(
            number=self._last_number + 1,
            generation=self._last_generation + 1,
            policy=text,
            policy_name=name,
            policy_digest=policy.digest,
            origin=origin,
            file_digest=file_digest,
            enforcement=enforcement,
        )

    def _origin(self, kind: Literal["file", "admin"], actor: str) -> Origin:
        return Origin(kind, self._wall_clock(), actor)

    def _count(self, change: Changed | Stale | Invalid | NotStored) -> Change:
        """Counts the attempt for ``apiguard_policy_changes_total``."""
        result = type(change).__name__.lower()
        self.changes[result] = self.changes.get(result, 0) + 1
        return change
