"""The active policy and enforcement: chosen at start, changed one at a time.

A change is compiled whole, stored, and only then active; see ``state``. Results are values,
because a refused change is nothing unusual.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from apiguard.errors import ConfigError, Problem, StartupError
from apiguard.policy.compile import compile_policy
from apiguard.policy.policy import Policy
from apiguard.runtime.actor import GUARD, Actor
from apiguard.runtime.log import Log
from apiguard.runtime.record import Action
from apiguard.runtime.reload import (
    KeepStored,
    TakeFile,
    choose,
    compile_off_loop,
    digest,
    read_text,
)
from apiguard.runtime.state import Active, Changed, Generation, GuardState, NotStored
from apiguard.runtime.statestore import Loaded, Origin, Revision, StateStore
from apiguard.telemetry.audit import Value

__all__ = [
    "Active",
    "Change",
    "Changed",
    "Invalid",
    "NoSuchGeneration",
    "NotStored",
    "PolicyKeeper",
    "Sound",
    "Stale",
]

PUT: Final = "policy.put"
LOAD: Final = "policy.load"
ROLLBACK: Final = "policy.rollback"
ENFORCEMENT: Final = "enforcement.set"
"""Actions on record."""


@dataclass(frozen=True, slots=True)
class Sound:
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
class NoSuchGeneration:
    """Not among the last accepted policies; 0 when there is none before the active one."""

    generation: int


Change = Changed | Sound | Stale | Invalid | NotStored


class PolicyKeeper:
    """Owns what is active. ``start`` comes first."""

    def __init__(
        self,
        store: StateStore,
        policy_file: str,
        log: Log,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.state = GuardState(store, log, wall_clock)
        self._file = policy_file
        self._log = log
        self.first_start = False
        self.changes: dict[str, int] = {}

    @property
    def active(self) -> Active:
        """Raises StartupError before ``start``: nothing runs without a policy."""
        return self.state.active

    # Starting.

    def start(self) -> None:
        """Chooses and compiles the policy to begin with.

        Raises ConfigError when it must be the file's and that is invalid, StartupError when the
        file or the store cannot be used.
        """
        loaded = self.state.load()
        for name, reason in loaded.damaged:
            self._log.error("stored policy is damaged, falling back", revision=name, reason=reason)
        self.first_start = loaded.last_number == 0
        text = read_text(self._file, "policyFile")
        choice = choose(loaded, digest(text))
        if isinstance(choice, KeepStored):
            kept = self._compile_stored(choice)
            if kept is not None:
                self.state.begin(kept)
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
        revision = self._next(
            loaded.newest, text, self._file, policy, self._origin("file"), digest(text)
        )
        before = _named(loaded.newest) if loaded.newest else None
        action = Action(GUARD, LOAD, self._file, before, _named(revision), choice.why)
        try:
            self.state.install(Active(revision, policy, choice.why), action)
        except OSError as error:
            raise StartupError(f"stateDir: cannot store the policy: {error.strerror}") from error

    # Changing the policy.

    async def propose(
        self,
        text: str,
        name: str,
        *,
        generation: int | None,
        actor: Actor,
        reason: str = "",
        dry_run: bool = False,
    ) -> Changed | Sound | Stale | Invalid | NotStored:
        """A policy pushed by an operator who saw ``generation`` (None: whichever is active).

        Compiled before its turn: a large policy must not hold up somebody's ban.
        """
        attempt = Action(actor, PUT, name, reason=reason)
        stale = self._stale(generation, attempt, dry_run)
        if stale is not None:
            return stale
        compiled = await self._compile(text, name, attempt, dry_run)
        if isinstance(compiled, Invalid):
            return compiled
        if dry_run:
            return Sound(compiled)
        async with self.state.changing:
            stale = self._stale(generation, attempt, dry_run)
            if stale is not None:
                return stale
            now = self.active.revision
            origin = self._origin("admin", actor.name, reason)
            revision = self._next(now, text, name, compiled, origin, now.file_digest)
            action = Action(actor, PUT, name, _named(now), _named(revision), reason)
            return self._count(
                await self.state.change(Active(revision, compiled, "set by admin"), action)
            )

    async def roll_back(
        self, generation: int | None, *, actor: Actor, reason: str
    ) -> Changed | NoSuchGeneration | Invalid | NotStored:
        """Makes a policy of the history active again, as a new generation; None is the one before
        the active one."""
        seen = self.active.revision.generation
        wanted = self._before(seen) if generation is None else generation
        attempt = Action(actor, ROLLBACK, str(wanted), reason=reason)
        found = await self.state.text(wanted)
        if found is None:
            self.state.record.note(attempt, "no such generation")
            return NoSuchGeneration(wanted)
        text, name = found
        compiled = await self._compile(text, name, attempt)
        if isinstance(compiled, Invalid):  # an older version of the guard accepted it
            return compiled
        async with self.state.changing:
            now = self.active.revision
            origin = self._origin("rollback", actor.name, reason, wanted)
            revision = self._next(now, text, name, compiled, origin, now.file_digest)
            action = Action(actor, ROLLBACK, str(wanted), _named(now), _named(revision), reason)
            why = f"rollback of {now.generation} to {wanted}"
            return self._count(await self.state.change(Active(revision, compiled, why), action))

    def _before(self, generation: int) -> int:
        """The newest generation older than ``generation``, 0 for none."""
        older = [g.generation for g in self.state.generations if g.generation < generation]
        return max(older, default=0)

    def history(self) -> list[Generation]:
        """The last accepted policies, newest first."""
        return self.state.generations

    async def reload_file(self) -> Change | None:
        """Takes the policy file if it changed; None when it did not. Raises StartupError when it
        cannot be read."""
        async with self.state.changing:
            now = self.active.revision
            loop = asyncio.get_running_loop()
            text = await loop.run_in_executor(None, read_text, self._file, "policyFile")
            loaded = Loaded(now, (), now.number, now.generation)
            choice = choose(loaded, digest(text))
            if isinstance(choice, KeepStored):
                return None
            policy = await self._compile(text, self._file, Action(GUARD, LOAD, self._file))
            if isinstance(policy, Invalid):
                return policy
            revision = self._next(now, text, self._file, policy, self._origin("file"), digest(text))
            action = Action(GUARD, LOAD, self._file, _named(now), _named(revision), choice.why)
            return self._count(
                await self.state.change(Active(revision, policy, choice.why), action)
            )

    async def set_enforcement(
        self, enforcement: str, *, actor: Actor, reason: str = ""
    ) -> Changed | NotStored:
        """``enforcement`` in place of the configured one; "" returns to it."""
        async with self.state.changing:
            now = self.active
            revision = msgspec.structs.replace(now.revision, enforcement=enforcement)
            before, after = now.revision.enforcement or None, enforcement or None
            action = Action(actor, ENFORCEMENT, "", before, after, reason)
            return await self.state.change(Active(revision, now.policy, now.why), action)

    # Parts.

    def _next(
        self,
        now: Revision | None,
        text: str,
        name: str,
        policy: Policy,
        origin: Origin,
        file_digest: str,
    ) -> Revision:
        """A new generation; what is no part of the policy goes on as it is ``now``."""
        return Revision(
            number=0,
            generation=self.state.next_generation,
            policy=text,
            policy_name=name,
            policy_digest=policy.digest,
            origin=origin,
            file_digest=file_digest,
            enforcement=now.enforcement if now else "",
            overrides=now.overrides if now else (),
        )

    def _origin(self, kind: str, actor: str = "", reason: str = "", generation: int = 0) -> Origin:
        return Origin(kind, self.state.wall_clock(), actor, reason, generation)

    def _stale(self, generation: int | None, attempt: Action, dry_run: bool) -> Stale | None:
        """Whether ``generation`` was named and is not active any more."""
        active = self.active.revision.generation
        if generation is None or generation == active:
            return None
        stale = Stale(active, generation)
        self._tally(stale)
        if not dry_run:
            self.state.record.note(attempt, f"stale: generation {active} is active")
        return stale

    async def _compile(
        self, text: str, name: str, attempt: Action, dry_run: bool = False
    ) -> Policy | Invalid:
        try:
            return await compile_off_loop(text, name)
        except ConfigError as error:
            invalid = Invalid(tuple(error.problems))
        self._tally(invalid)
        if not dry_run:
            self.state.record.note(attempt, f"invalid: {invalid.problems[0]}")
        return invalid

    def _count(self, change: Changed | NotStored) -> Changed | NotStored:
        self._tally(change)
        return change

    def _tally(self, change: Changed | Stale | Invalid | NotStored) -> None:
        """Counts the attempt for ``apiguard_policy_changes_total``."""
        result = type(change).__name__.lower()
        self.changes[result] = self.changes.get(result, 0) + 1


def _named(revision: Revision) -> Value:
    """What the record says of a policy: its text is in the history."""
    return {"generation": revision.generation, "digest": revision.policy_digest}
