"""Operations: what operators change and ask, each change acknowledged by every serving worker.

Durable and on record first, active here, then told to workers; a worker that does not say within
a second that it applied a change is named in the result. A caller that goes away takes nothing
with it: what was begun is carried through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec

from apiguard.errors import ConfigError, StartupError
from apiguard.policy.config import Enforcement, GuardConfig
from apiguard.policy.policy import Policy
from apiguard.policy.preview import PreviewReport, preview
from apiguard.runtime.actor import Actor
from apiguard.runtime.control import (
    ApplyPolicy,
    EndStreams,
    Explain,
    Explained,
    FindStandouts,
    Question,
    SetEnforcement,
    SetOverrides,
    Standouts,
)
from apiguard.runtime.fleet import ACKNOWLEDGE_SECONDS, NO_ANSWER, Acknowledgement, Fleet, Slot
from apiguard.runtime.keeper import PolicyKeeper, Sound
from apiguard.runtime.log import Log
from apiguard.runtime.memory import HitCount, Memory, ShadowCount
from apiguard.runtime.observing import Observing
from apiguard.runtime.overriding import Asked, Live, Overrides, document_of
from apiguard.runtime.probe import Server
from apiguard.runtime.record import Action
from apiguard.runtime.results import (
    Acks,
    Changed,
    Drained,
    GenerationView,
    Invalid,
    LastServer,
    NoSuchGeneration,
    NoSuchOverride,
    NotStored,
    OverrideAdded,
    OverrideDeleted,
    OverrideExtended,
    OverrideView,
    Stale,
    TooMany,
    WouldAdd,
    WouldChange,
)
from apiguard.runtime.servers import Servers
from apiguard.runtime.state import Active
from apiguard.runtime.statestore import StoredOverride
from apiguard.telemetry.firstseen import FirstSeen
from apiguard.telemetry.toptalkers import Top

EXPIRE_SECONDS: Final = 0.2
"""How often ends of overrides are looked at."""

CONFIRM_SECONDS: Final = 2.0
"""How often workers that did not confirm the overrides are told them again."""

STANDOUTS_SECONDS: Final = 3.0
"""By when workers must have looked through their caches, 100,000 objects in 0.1 s when idle."""

DRAIN: Final = "upstream.drain"
UNDRAIN: Final = "upstream.undrain"
"""Actions on record."""

T = TypeVar("T")


class Operations:
    """Acts on one guard. ``run`` lets overrides end."""

    def __init__(
        self,
        config: GuardConfig,
        keeper: PolicyKeeper,
        fleet: Fleet,
        servers: Servers,
        log: Log,
    ) -> None:
        self._config = config
        self._keeper = keeper
        self._fleet = fleet
        self._servers = servers
        self._log = log
        state = keeper.state
        self._state = state
        self._memory = Memory(keeper.store, state.wall_clock)
        self._overrides = Overrides(state, config.overrides, log)
        self._overrides.start()
        servers.restore(state.active.revision.drained)
        self.observing = Observing(
            config.observability, self._memory, state.record, state.wall_clock
        )
        self._previewing = asyncio.Lock()
        self._begun: set[asyncio.Task[Any]] = set()

    @property
    def enforcement(self) -> str:
        """The operator's override, else what the configuration says."""
        return self._keeper.active.revision.enforcement or self._config.enforcement.value

    @property
    def policy(self) -> Policy:
        """The active policy under the overrides in force: what requests are judged by."""
        return self._overrides.effective()

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._expire(), self._confirm(), self._memory.run())

    async def close(self) -> None:
        """Writes what is not written yet, once workers have gone."""
        await self._memory.write()

    # -- the policy

    async def put_policy(
        self,
        text: str,
        name: str,
        *,
        generation: int | None,
        actor: Actor,
        reason: str = "",
        dry_run: bool = False,
    ) -> tuple[Changed | WouldChange | Stale | Invalid | NotStored, Acks]:
        """Compiles, stores and applies a policy; see ``keeper.propose``."""
        proposal = self._keeper.propose(
            text, name, generation=generation, actor=actor, reason=reason, dry_run=dry_run
        )
        change, acknowledged = await self._carry_through(self._apply(proposal))
        if isinstance(change, Sound):
            report = await self._preview(self._overrides.laid_over(change.policy))
            return WouldChange(change.policy, report), ()
        return change, acknowledged

    async def rollback(
        self, generation: int | None, *, actor: Actor, reason: str
    ) -> tuple[Changed | NoSuchGeneration | Invalid | NotStored, Acks]:
        """Takes a policy of the history up again; None is the one before the active one."""
        change = self._keeper.roll_back(generation, actor=actor, reason=reason)
        return await self._carry_through(self._apply(change))

    def history(self) -> list[GenerationView]:
        """The last accepted policies, newest first."""
        active = self._keeper.active.revision.generation
        return [
            GenerationView(
                generation=one.generation,
                digest=one.digest,
                name=one.name,
                actor=one.origin.actor,
                at=one.origin.at,
                reason=one.origin.reason,
                origin=str(one.origin),
                active=one.generation == active,
            )
            for one in self._keeper.history()
        ]

    async def generation_text(self, generation: int) -> str | None:
        """The text of a policy of the history."""
        found = await self._state.text(generation)
        return None if found is None else found[0]

    async def reload_policy(self) -> None:
        """Takes the policy file if it changed."""
        try:
            change = await self._keeper.reload_file()
        except (StartupError, ConfigError) as error:
            self._log.error("reload failed", reason=str(error))
            return
        if isinstance(change, Invalid):
            for problem in change.problems:
                self._log.error(
                    "policy file is invalid, the active policy stays", reason=str(problem)
                )
        elif isinstance(change, Changed):
            await self._policy_to_workers()
        active = self._keeper.active
        self._log.info("reloaded", generation=active.revision.generation, why=active.why)

    # -- enforcement and servers

    async def set_enforcement(
        self, enforcement: str, *, actor: Actor, reason: str = ""
    ) -> tuple[Changed | NotStored, Acks]:
        """Overrides the configured enforcement on every worker; "" returns to it."""
        return await self._carry_through(self._set_enforcement(enforcement, actor, reason))

    async def _set_enforcement(
        self, enforcement: str, actor: Actor, reason: str
    ) -> tuple[Changed | NotStored, Acks]:
        change = await self._keeper.set_enforcement(enforcement, actor=actor, reason=reason)
        if isinstance(change, NotStored):
            return change, ()
        self._log.warning("enforcement changed", enforcement=self.enforcement, actor=actor.name)
        return change, await self._fleet.all(self._apply_enforcement)

    async def set_drained(
        self, server: Server, drained: bool, *, actor: Actor, reason: str = ""
    ) -> Drained | LastServer | NotStored:
        """Keeps new requests from a server, or lets them come again."""
        return await self._carry_through(self._set_drained(server, drained, actor, reason))

    async def _set_drained(
        self, server: Server, drained: bool, actor: Actor, reason: str
    ) -> Drained | LastServer | NotStored:
        name = DRAIN if drained else UNDRAIN
        action = Action(actor, name, server.url, server.drained, drained, reason)
        async with self._state.changing:
            if drained and self._servers.is_last(server):
                self._state.record.note(action, "refused: it is the last one that is not drained")
                return LastServer()
            now = self._state.active
            kept = self._servers.drained_with(server, drained)
            revision = msgspec.structs.replace(now.revision, drained=kept)
            change = await self._state.change(Active(revision, now.policy, now.why), action)
            if isinstance(change, NotStored):
                return change
            return await self._servers.set_drained(server, drained, actor.name)

    # -- overrides

    def overrides(self) -> list[OverrideView]:
        """Those in force, newest first."""
        return [self._view(live) for live in reversed(self._overrides.in_force())]

    def override(self, id_: str) -> OverrideView | None:
        live = self._overrides.get(id_)
        return None if live is None else self._view(live)

    def override_hits(self, id_: str) -> HitCount | None:
        """What an override did, also before a restart; None while it has met nobody."""
        return self._memory.hits(id_)

    async def put_override(
        self, body: str, actor: Actor, *, dry_run: bool = False
    ) -> OverrideAdded | WouldAdd | Invalid | TooMany | NotStored:
        """``body`` as ``policy.overrides.read_override`` reads it."""
        asked = await self._overrides.ask(body, actor, note=not dry_run)
        if isinstance(asked, Invalid | TooMany):
            return asked
        if dry_run:
            policy = self._keeper.active.policy
            candidate = self._overrides.laid_over(policy, [asked.request.override])
            return WouldAdd(asked.does, await self._preview(candidate))
        return await self._carry_through(self._add_override(asked, actor))

    async def _add_override(
        self, asked: Asked, actor: Actor
    ) -> OverrideAdded | TooMany | NotStored:
        live = await self._overrides.add(asked, actor)
        if not isinstance(live, Live):
            return live
        stored = live.stored
        self._log.warning(
            "override added", override=stored.id, actor=actor.name, reason=stored.reason
        )
        acknowledged = await self._overrides_to_workers()
        if stored.end_watches_seconds is not None:
            # After every worker has it in force: clients that come back meet it.
            self._fleet.tell(EndStreams(NO_ANSWER, stored.id, stored.end_watches_seconds))
        return OverrideAdded(self._view(live), acknowledged)

    async def extend_override(
        self, id_: str, ttl_seconds: float, actor: Actor
    ) -> OverrideExtended | NoSuchOverride | Invalid | NotStored:
        """Lets it end so many seconds from now."""
        live = await self._carry_through(self._overrides.extend(id_, ttl_seconds, actor))
        return OverrideExtended(self._view(live)) if isinstance(live, Live) else live

    async def delete_override(
        self, id_: str, actor: Actor
    ) -> OverrideDeleted | NoSuchOverride | NotStored:
        """Takes it out of force."""
        return await self._carry_through(self._delete_override(id_, actor))

    async def _delete_override(
        self, id_: str, actor: Actor
    ) -> OverrideDeleted | NoSuchOverride | NotStored:
        live = await self._overrides.delete(id_, actor)
        if not isinstance(live, Live):
            return live
        self._log.warning("override deleted", override=id_, actor=actor.name)
        return OverrideDeleted(self._view(live), await self._overrides_to_workers())

    def _view(self, live: Live) -> OverrideView:
        stored = live.stored
        remaining = self._overrides.remaining(live)
        ends = stored.end_watches_seconds
        return OverrideView(
            id=stored.id,
            document=document_of(stored),
            reason=stored.reason,
            actor=stored.actor,
            created=stored.created,
            expires=self._state.wall_clock() + remaining,
            remaining_seconds=remaining,
            end_watches=ends is not None,
            end_watches_seconds=ends or 0.0,
            workers=tuple(
                Acknowledgement(slot.index, _why_not(slot, stored.id))
                for slot in self._fleet.serving
            ),
        )

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            over = self._overrides.expire()
            for live in over:
                self._log.warning("override expired", override=live.stored.id)
            if over:
                await self._overrides_to_workers()
            await self._overrides.record_expiry()

    async def _confirm(self) -> None:
        """Tells the overrides again to workers whose answer was late or lost: a busy worker takes
        them when it gets to it, and operators have to see that it did."""
        while True:
            await asyncio.sleep(CONFIRM_SECONDS)
            wanted = frozenset(one.id for one in self._overrides.stored())
            late = [slot for slot in self._fleet.serving if slot.overrides != wanted]
            await asyncio.gather(*(self._apply_overrides(slot) for slot in late))

    # -- previews

    async def _preview(self, candidate: Policy) -> PreviewReport:
        """Off the loop, one at a time: it takes a second of a core at worst."""
        async with self._previewing:
            return await asyncio.get_running_loop().run_in_executor(
                None,
                preview,
                self.observing.samples(),
                self._overrides.effective(),
                candidate,
                time.monotonic(),
                Enforcement(self.enforcement),
            )

    # -- asking

    async def explain(self, question: Question) -> Explained | None:
        """What a serving worker would decide; None when none answers in time."""
        for slot in self._fleet.serving:
            if slot.worker is not None:
                answer = await slot.worker.ask(
                    lambda number: Explain(number, question), ACKNOWLEDGE_SECONDS
                )
                if isinstance(answer, Explained):
                    return answer
        return None

    async def standouts(self, group: str, resource: str) -> tuple[Standouts, ...]:
        """The objects that stand out, as each serving worker that answers in time holds them."""

        async def ask(slot: Slot) -> Standouts | None:
            if slot.worker is None:
                return None
            answer = await slot.worker.ask(
                lambda number: FindStandouts(number, group, resource), STANDOUTS_SECONDS
            )
            return answer if isinstance(answer, Standouts) else None

        answers = await asyncio.gather(*(ask(slot) for slot in self._fleet.serving))
        return tuple(answer for answer in answers if answer is not None)

    def top(self, by: str, over: str, sort: str, limit: int) -> Top:
        """See ``TopTalkers.top``. Raises ValueError, fit for the operator."""
        return self.observing.top(by, over, sort, limit)

    @property
    def first_seen(self) -> FirstSeen:
        return self._memory.first_seen

    def shadow(self) -> list[ShadowCount]:
        """What rules would have refused, since they were first asked."""
        return self._memory.shadow()

    def audit(
        self, kind: str, since: float, limit: int, after: str = ""
    ) -> list[dict[str, object]]:
        """The last lines of ``kind`` ("actions" or "requests") since Unix time ``since``, newest
        last; or the first actions after the one with the id ``after``, as long as that is kept.

        Raises KeyError for another kind.
        """
        record = self._state.record
        following = record.after(after, limit) if after else None
        return record.last(kind, since, limit) if following is None else following

    def note_refused(
        self, actor: Actor, action: str, target: str, result: str, reason: str = ""
    ) -> None:
        """An attempt that never came to an operation, such as a forbidden one."""
        self._state.record.note(Action(actor, action, target, reason=reason), result)

    @property
    def written_lines(self) -> Mapping[str, int]:
        """Lines of the record by kind, since this supervisor began."""
        return self._state.record.written

    @property
    def lost_lines(self) -> int:
        """Lines of the record that no disk took, or that were too many."""
        return self._state.record.lost

    # -- workers

    def stored_overrides(self) -> tuple[StoredOverride, ...]:
        """What a new worker is told."""
        return self._overrides.stored()

    async def catch_up(self, slot: Slot) -> None:
        """Tells a worker that has just started what changed while it did."""
        if slot.revision != self._state.version:
            await self._apply_policy(slot)
            await self._apply_enforcement(slot)
            await self._apply_overrides(slot)

    async def _apply(self, changing: Coroutine[Any, Any, T]) -> tuple[T, Acks]:
        """A change of policy, and workers' acknowledgements when it came about."""
        change = await changing
        return change, await self._policy_to_workers() if isinstance(change, Changed) else ()

    async def _policy_to_workers(self) -> Acks:
        active = self._keeper.active
        revision = active.revision
        self._log.warning(
            "policy changed",
            generation=revision.generation,
            digest=revision.policy_digest,
            origin=str(revision.origin),
            actor=revision.origin.actor,
            why=active.why,
        )
        return await self._fleet.all(self._apply_policy)

    async def _overrides_to_workers(self) -> Acks:
        return await self._fleet.all(self._apply_overrides)

    async def _apply_policy(self, slot: Slot) -> Acknowledgement:
        revision = self._keeper.active.revision
        slot.revision = self._state.version
        done = await self._fleet.ask(
            slot,
            lambda number: ApplyPolicy(
                number, revision.policy, revision.policy_name, revision.generation
            ),
        )
        if done.problem == "":
            slot.digest = revision.policy_digest
        return done

    async def _apply_enforcement(self, slot: Slot) -> Acknowledgement:
        slot.revision = self._state.version
        return await self._fleet.ask(slot, lambda number: SetEnforcement(number, self.enforcement))

    async def _apply_overrides(self, slot: Slot) -> Acknowledgement:
        slot.revision = self._state.version
        stored = self._overrides.stored()
        done = await self._fleet.ask(slot, lambda number: SetOverrides(number, stored))
        if done.problem == "":
            slot.overrides = frozenset(one.id for one in stored)
        return done

    async def _carry_through(self, work: Coroutine[Any, Any, T]) -> T:
        """``work``, to its end even when whoever waits for it is cancelled: a change half way
        would be on disk and not in force."""
        task = asyncio.create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return await asyncio.shield(task)


def _why_not(slot: Slot, id_: str) -> str:
    """Why a worker does not have an override in force, "" when it has."""
    return "" if id_ in slot.overrides else "not confirmed"
