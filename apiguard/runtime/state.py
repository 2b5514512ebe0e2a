"""What is in force, and the one way to change it: durable and on record first, one at a time.

A change that the disk does not take is no change; a restart never brings back anything else than
what was answered for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from apiguard.errors import StartupError
from apiguard.policy.policy import Policy
from apiguard.runtime.log import Log
from apiguard.runtime.record import Action, Record, line_of
from apiguard.runtime.statestore import KEPT_GENERATIONS, Loaded, Origin, Revision, StateStore


@dataclass(frozen=True, slots=True)
class Active:
    """What is in force; ``policy`` is compiled from the revision's text, without overrides.

    ``why`` says why it is this policy and not another.
    """

    revision: Revision
    policy: Policy
    why: str


@dataclass(frozen=True, slots=True)
class Changed:
    """The change is durable and active here; workers are told next."""

    active: Active


@dataclass(frozen=True, slots=True)
class NotStored:
    """The disk did not take it; nothing changed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Generation:
    """An accepted policy, without its text; ``number`` is a revision that has it."""

    generation: int
    number: int
    name: str
    digest: str
    origin: Origin


class GuardState:
    """``load`` comes first, then ``begin`` or ``install``.

    ``changing`` is held while a change is worked out and made. ``version`` grows with everything
    workers have to be told, also what no disk took.
    """

    def __init__(
        self, store: StateStore, log: Log, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._log = log
        self.wall_clock = wall_clock
        self.changing = asyncio.Lock()
        self.version = 0
        self._active: Active | None = None
        self._last_number = 0
        self._last_generation = 0
        self._generations: dict[int, Generation] = {}

    @property
    def active(self) -> Active:
        """Raises StartupError before there is one: nothing runs without a policy."""
        if self._active is None:
            raise StartupError("no policy is active")
        return self._active

    @property
    def next_generation(self) -> int:
        return self._last_generation + 1

    @property
    def generations(self) -> list[Generation]:
        """The last ones, newest first."""
        return sorted(self._generations.values(), key=lambda one: one.generation, reverse=True)

    def load(self) -> Loaded:
        """What the store holds. Raises StartupError."""
        loaded = self._store.load()
        self._last_number = loaded.last_number
        self._last_generation = loaded.last_generation
        for revision in loaded.history:
            self._know(revision)
        # Only now: what a crash left undone has just been made good.
        self.record = Record(self._store, self.wall_clock)
        return loaded

    def begin(self, active: Active) -> None:
        """``active`` is what the store had."""
        self._become(active)

    def install(self, active: Active, action: Action) -> None:
        """Makes ``active`` durable before the guard serves. Raises OSError."""
        saved, line = self._prepare(active, action)
        self._store.save(saved.revision, line)
        self._saved(saved, line)

    async def change(self, active: Active, action: Action) -> Changed | NotStored:
        """Makes ``active`` durable and on record, then active. Under ``changing``.

        Number and action of its revision are set here. A caller that is cancelled must not let go
        of ``changing`` before this is over: the disk carries on.
        """
        saved, line = self._prepare(active, action)
        try:
            await self._store.disk.run(self._store.save, saved.revision, line)
        except OSError as error:
            self._log.error("stateDir does not take the change", reason=str(error))
            return self._not_stored(action, error)
        self._saved(saved, line)
        return Changed(saved)

    async def write(self, action: Action) -> NotStored | None:
        """Puts on record an action that changes nothing durable, before it is carried out."""
        line = line_of(self.record.event(action))
        try:
            await self._store.disk.run(self._store.actions.append, line, durable=True)
        except OSError as error:
            self._log.error("stateDir does not take the record", reason=str(error))
            return self._not_stored(action, error)
        self.record.remember("actions", line)
        return None

    def _not_stored(self, action: Action, error: OSError) -> NotStored:
        refused = NotStored(error.strerror or str(error))
        self.record.not_stored(action, refused.reason)
        return refused

    async def text(self, generation: int) -> tuple[str, str] | None:
        """Text and name of a policy of the history; None when it is not there."""
        known = self._generations.get(generation)
        if known is None:
            return None
        revision = await self._store.disk.run(self._store.read, known.number)
        return None if revision is None else (revision.policy, revision.policy_name)

    def _prepare(self, active: Active, action: Action) -> tuple[Active, bytes]:
        """``active`` under the next number, and its line on record."""
        event = self.record.event(action)
        revision = msgspec.structs.replace(
            active.revision, number=self._last_number + 1, action=event.id
        )
        return Active(revision, active.policy, active.why), line_of(event)

    def _saved(self, active: Active, line: bytes) -> None:
        self._last_number = active.revision.number
        self.record.remember("actions", line)
        self._become(active)

    def _become(self, active: Active) -> None:
        self._last_generation = max(self._last_generation, active.revision.generation)
        self._active = active
        self.version += 1
        self._know(active.revision)

    def _know(self, revision: Revision) -> None:
        """Of a generation the newest revision is the one that is kept."""
        known = self._generations.get(revision.generation)
        if known is None or known.number < revision.number:
            self._generations[revision.generation] = Generation(
                revision.generation,
                revision.number,
                revision.policy_name,
                revision.policy_digest,
                revision.origin,
            )
        while len(self._generations) > KEPT_GENERATIONS:
            del self._generations[min(self._generations)]
