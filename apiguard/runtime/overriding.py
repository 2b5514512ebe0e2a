"""Overrides in force: granted, extended, taken back, over by themselves.

The end is stored as wall-clock time, for a restart; while the guard runs monotonic time counts,
so that a clock that is set changes nothing. An end is never held up: where the disk does not take
it, the override is over all the same, and a restart finds its stored end in the past.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from apiguard.errors import ConfigError, Problem
from apiguard.policy.document import Mapping, Node, Sequence, parse
from apiguard.policy.operatorconfig import OverridesConfig
from apiguard.policy.overrides import (
    Override,
    OverrideRequest,
    lay_over,
    misses,
    parse_override,
    read_override,
)
from apiguard.policy.policy import Policy
from apiguard.runtime.actor import GUARD, Actor
from apiguard.runtime.keeper import Invalid
from apiguard.runtime.log import Log
from apiguard.runtime.record import Action
from apiguard.runtime.state import Active, Changed, GuardState, NotStored
from apiguard.runtime.statestore import StoredOverride
from apiguard.telemetry.audit import Value

ADD: Final = "override.add"
EXTEND: Final = "override.extend"
DELETE: Final = "override.delete"
EXPIRE: Final = "override.expire"
"""Actions on record."""

MAX_BODY: Final = 16_384
"""Bytes of a body: what it takes to name some hundred things. The most overrides a guard may be
configured to hold fit a revision, and the message a worker starts from."""

LEAST_SECONDS: Final = 1.0


@dataclass(slots=True)
class Live:
    """An override in force; ``ends`` is monotonic."""

    stored: StoredOverride
    override: Override
    ends: float


@dataclass(frozen=True, slots=True)
class TooMany:
    """As many overrides as may be are in force."""

    most: int


@dataclass(frozen=True, slots=True)
class NoSuchOverride:
    """It never was, or is over."""

    id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A body that was read and may be granted."""

    request: OverrideRequest
    document: str

    @property
    def does(self) -> dict[str, object]:
        """What it would do, as the body has it."""
        return _does(self.document)


class Overrides:
    """``clock`` is monotonic. ``effective`` is the policy under the overrides in force."""

    def __init__(
        self,
        state: GuardState,
        config: OverridesConfig,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._config = config
        self._log = log
        self._clock = clock
        self._live: dict[str, Live] = {}
        self._over: dict[str, Live] = {}  # not on record yet
        self._laid: tuple[Policy, tuple[Override, ...], Policy] | None = None

    # -- what is in force

    def start(self) -> None:
        """Takes up what is stored; what ended meanwhile is over at the first ``expire``."""
        now, wall = self._clock(), self._state.wall_clock()
        for stored in self._state.active.revision.overrides:
            try:
                override = parse_override(stored.document, stored.id)
            except (ConfigError, ValueError) as error:
                self._log.error("stored override is dropped", override=stored.id, reason=str(error))
                continue
            left = min(stored.expires - wall, stored.seconds)
            self._live[stored.id] = Live(stored, override, now + left)

    def in_force(self) -> list[Live]:
        """In the order they were added."""
        now = self._clock()
        return [live for live in self._live.values() if live.ends > now]

    def get(self, id_: str) -> Live | None:
        live = self._live.get(id_)
        return live if live is not None and live.ends > self._clock() else None

    def remaining(self, live: Live) -> float:
        """Seconds until it ends."""
        return max(0.0, live.ends - self._clock())

    def stored(self) -> tuple[StoredOverride, ...]:
        """What workers are told."""
        return tuple(live.stored for live in self.in_force())

    def laid_over(self, policy: Policy, more: Iterable[Override] = ()) -> Policy:
        """``policy`` under the overrides in force, and ``more``."""
        overrides = [*(live.override for live in self.in_force()), *more]
        return lay_over(policy, overrides, self._config.break_glass_users)

    def effective(self) -> Policy:
        """The active policy under the overrides in force; worked out anew only when they differ."""
        policy = self._state.active.policy
        overrides = tuple(live.override for live in self.in_force())
        laid = self._laid
        if laid is None or laid[0] is not policy or laid[1] != overrides:
            laid = (policy, overrides, lay_over(policy, overrides, self._config.break_glass_users))
            self._laid = laid
        return laid[2]

    # -- changing it

    async def ask(self, body: str, actor: Actor, *, note: bool = True) -> Asked | Invalid | TooMany:
        """Whether ``body`` could be granted; a refusal is noted unless ``note`` is False."""
        refused: Invalid | TooMany
        try:
            asked = await asyncio.get_running_loop().run_in_executor(None, self._read, body)
        except ConfigError as error:
            refused = Invalid(tuple(error.problems))
            why = f"invalid: {refused.problems[0]}"
        else:
            if len(self.in_force()) < self._config.most:
                return asked
            refused = TooMany(self._config.most)
            why = f"too many: {self._config.most} are in force"
        if note:
            self._state.record.note(Action(actor, ADD), why)
        return refused

    def _read(self, body: str) -> Asked:
        """Raises ConfigError."""
        if len(body.encode(errors="replace")) > MAX_BODY:
            raise ConfigError([Problem("override", 0, "", f"is longer than {MAX_BODY} bytes")])
        request = read_override(
            body,
            secrets.token_hex(4),
            default_seconds=float(self._config.default_seconds),
            maximum_seconds=float(self._config.maximum_seconds),
        )
        problem = misses(request.override, self._state.active.policy)
        if problem is not None:
            raise ConfigError([problem])
        return Asked(request, json.dumps(_document(body), ensure_ascii=False))

    async def add(self, asked: Asked, actor: Actor) -> Live | TooMany | NotStored:
        async with self._state.changing:
            if len(self.in_force()) >= self._config.most:
                return TooMany(self._config.most)
            request = asked.request
            wall = self._state.wall_clock()
            stored = StoredOverride(
                id=request.override.id,
                document=asked.document,
                reason=request.reason,
                actor=actor.name,
                created=wall,
                expires=wall + request.ttl_seconds,
                seconds=request.ttl_seconds,
                end_watches_seconds=request.end_watches_seconds if request.end_watches else None,
            )
            action = Action(actor, ADD, stored.id, None, described(stored), request.reason)
            begun = self._clock()
            refused = await self._store((*self._kept(), stored), action)
            if refused is not None:
                return refused
            live = Live(stored, request.override, begun + request.ttl_seconds)
            self._live[stored.id] = live
            return live

    async def extend(
        self, id_: str, seconds: float, actor: Actor
    ) -> Live | NoSuchOverride | Invalid | NotStored:
        """Lets it end ``seconds`` from now, which may also be sooner than before."""
        async with self._state.changing:
            live = self.get(id_)
            if live is None:
                self._state.record.note(Action(actor, EXTEND, id_), "no such override")
                return NoSuchOverride(id_)
            most = self._config.maximum_seconds
            if not LEAST_SECONDS <= seconds <= most:
                reason = f"must be from {LEAST_SECONDS:g} to {most}, not {seconds:g}"
                problem = Problem("override", 0, "ttlSeconds", reason)
                self._state.record.note(Action(actor, EXTEND, id_), f"invalid: {problem}")
                return Invalid((problem,))
            expires = self._state.wall_clock() + seconds
            stored = msgspec.structs.replace(live.stored, expires=expires, seconds=seconds)
            before: Value = {"expires": live.stored.expires}
            action = Action(actor, EXTEND, id_, before, {"expires": expires}, live.stored.reason)
            begun = self._clock()
            changed = [stored if one.id == id_ else one for one in self._kept()]
            refused = await self._store(changed, action)
            if refused is not None:
                return refused
            live.stored, live.ends = stored, begun + seconds
            return live

    async def delete(self, id_: str, actor: Actor) -> Live | NoSuchOverride | NotStored:
        async with self._state.changing:
            live = self.get(id_)
            if live is None:
                self._state.record.note(Action(actor, DELETE, id_), "no such override")
                return NoSuchOverride(id_)
            action = Action(actor, DELETE, id_, described(live.stored), None, live.stored.reason)
            refused = await self._store([s for s in self._kept() if s.id != id_], action)
            if refused is not None:
                return refused
            self._live.pop(id_, None)
            return live

    def expire(self) -> list[Live]:
        """Takes those that are over out of force, before any disk is asked."""
        now = self._clock()
        over = [live for live in self._live.values() if live.ends <= now]
        for live in over:
            self._over[live.stored.id] = self._live.pop(live.stored.id)
        if over:
            self._state.version += 1
        return over

    async def record_expiry(self) -> None:
        """Puts on record what ``expire`` found; what the disk does not take is tried again."""
        for id_, live in list(self._over.items()):
            stored = live.stored
            async with self._state.changing:
                action = Action(GUARD, EXPIRE, id_, described(stored), None, stored.reason)
                kept = [one for one in self._kept() if one.id != id_]
                if await self._store(kept, action) is not None:
                    return
                del self._over[id_]

    def _kept(self) -> list[StoredOverride]:
        """What a revision holds: those in force, and those whose end is not on record."""
        return [live.stored for live in (*self._live.values(), *self._over.values())]

    async def _store(self, overrides: Iterable[StoredOverride], action: Action) -> NotStored | None:
        now = self._state.active
        revision = msgspec.structs.replace(now.revision, overrides=tuple(overrides))
        change = await self._state.change(Active(revision, now.policy, now.why), action)
        return None if isinstance(change, Changed) else change


def described(stored: StoredOverride) -> dict[str, Value]:
    """What the record says of an override."""
    document: dict[str, Value] = json.loads(stored.document)
    return {**document, "actor": stored.actor, "expires": stored.expires}


def document_of(stored: StoredOverride) -> dict[str, object]:
    """What the override does, as its body had it."""
    return _does(stored.document)


def _does(text: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(text)
    return {key: document[key] for key in _DOES if key in document}


_DOES: Final = ("action", "match", "limits", "rule", "factor")


def _document(body: str) -> Value:
    """A body that was found sound, as plain values; JSON is read as such, as it was then."""
    if body.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            document: Value = json.loads(body)
            return document
    return _plain(parse(body, "override"))


def _plain(node: Node) -> Value:
    if isinstance(node, Mapping):
        return {key: _plain(entry) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    return node.value
