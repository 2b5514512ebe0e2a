"""Operations: what operators change and ask, each change acknowledged by every serving worker.

Durable first, active here, then told to workers; a worker that does not say within a second that
it applied a change is named in the result.
"""

from __future__ import annotations

from apiguard.errors import ConfigError, StartupError
from apiguard.policy.config import GuardConfig
from apiguard.runtime.control import ApplyPolicy, Explain, Explained, Question, SetEnforcement
from apiguard.runtime.fleet import ACKNOWLEDGE_SECONDS, Acknowledgement, Fleet, Slot
from apiguard.runtime.keeper import Changed, Invalid, NotStored, PolicyKeeper, Stale, WouldChange
from apiguard.runtime.log import Log


class Operations:
    """Acts on one guard."""

    def __init__(self, config: GuardConfig, keeper: PolicyKeeper, fleet: Fleet, log: Log) -> None:
        self._config = config
        self._keeper = keeper
        self._fleet = fleet
        self._log = log

    @property
    def enforcement(self) -> str:
        """The operator's override, else what the configuration says."""
        return self._keeper.active.revision.enforcement or self._config.enforcement.value

    async def put_policy(
        self, text: str, name: str, *, generation: int | None, actor: str, dry_run: bool
    ) -> tuple[Changed | WouldChange | Stale | Invalid | NotStored, tuple[Acknowledgement, ...]]:
        """Compiles, stores and applies a policy; see ``keeper.propose``."""
        change = await self._keeper.propose(
            text, name, generation=generation, actor=actor, dry_run=dry_run
        )
        if not isinstance(change, Changed):
            return change, ()
        return change, await self._policy_to_workers()

    async def set_enforcement(
        self, enforcement: str, actor: str
    ) -> tuple[Changed | NotStored, tuple[Acknowledgement, ...]]:
        """Overrides the configured enforcement on every worker; "" returns to it."""
        change = await self._keeper.set_enforcement(enforcement)
        if isinstance(change, NotStored):
            return change, ()
        self._log.warning("enforcement changed", enforcement=self.enforcement, actor=actor)
        return change, await self._fleet.all(self._apply_enforcement)

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

    async def catch_up(self, slot: Slot) -> None:
        """Tells a worker that has just started what changed while it did."""
        if slot.revision != self._keeper.active.revision.number:
            await self._apply_policy(slot)
            await self._apply_enforcement(slot)

    async def _policy_to_workers(self) -> tuple[Acknowledgement, ...]:
        active = self._keeper.active
        revision = active.revision
        self._log.warning(
            "policy changed",
            generation=revision.generation,
            digest=revision.policy_digest,
            origin=revision.origin.kind,
            actor=revision.origin.actor,
            why=active.why,
        )
        return await self._fleet.all(self._apply_policy)

    async def _apply_policy(self, slot: Slot) -> Acknowledgement:
        revision = self._keeper.active.revision
        slot.revision = revision.number
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
        slot.revision = self._keeper.active.revision.number
        return await self._fleet.ask(slot, lambda number: SetEnforcement(number, self.enforcement))
