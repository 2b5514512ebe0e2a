"""Moves shares of budgets to the workers that are asked for them; see limiter.shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from apiguard.limiter.shares import Demand, Rebalancer, Share
from apiguard.policy.policy import Policy
from apiguard.runtime.control import SetShares
from apiguard.runtime.fleet import NO_ANSWER, Fleet, Slot

REBALANCE_SECONDS: Final = 0.5
"""How often shares follow demand; a round costs a message to each worker that loses some."""


class Rebalancing:
    """``policy`` answers the one in force: its limits say which budgets there are."""

    def __init__(self, workers: int, policy: Callable[[], Policy], stall_seconds: float) -> None:
        self._rebalancer = Rebalancer(workers)
        self._policy = policy
        self._stall_seconds = stall_seconds

    def held_by(self, worker: int) -> tuple[Share, ...]:
        """What a successor of ``worker`` begins with."""
        return tuple(self._rebalancer.held_by(worker))

    async def run(self, fleet: Fleet) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(REBALANCE_SECONDS)
            cuts = self._rebalancer.plan(self._demands(fleet))
            await asyncio.gather(
                *(self._cut(fleet, fleet.slots[worker], cut) for worker, cut in cuts.items())
            )

    def _demands(self, fleet: Fleet) -> list[Demand]:
        bursts = {spec.id: spec.bucket.burst for spec in self._policy().limits()}
        asked = [slot.mirror.take_asked() for slot in fleet.slots]
        addresses = {address: None for taken in asked for address in taken}
        return [
            Demand(*address, burst, tuple(taken.get(address, 0) for taken in asked))
            for address in addresses
            if (burst := bursts.get(address[0].partition("!")[0])) is not None
        ]

    async def _cut(self, fleet: Fleet, slot: Slot, shares: list[Share]) -> None:
        """Has a worker give up shares; when the last one has, grants go out.

        A worker that does not confirm is stalled, and replaced: only then is it known to hold no
        more than its successor is told.
        """
        round_ = self._rebalancer.round
        worker = slot.worker
        if worker is not None:
            done = await worker.ask(
                lambda number: SetShares(number, tuple(shares)), self._stall_seconds
            )
            if done is None:
                worker.kill()
        for index, granted in self._rebalancer.confirm(slot.index, round_).items():
            holder = fleet.slots[index].worker
            if holder is not None:
                holder.send(SetShares(NO_ANSWER, tuple(granted)))
