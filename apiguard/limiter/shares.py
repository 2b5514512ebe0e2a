"""This worker's part of each budget, and how the parts follow demand.

A bucket of rate r and burst b, enforced by N workers that do not talk per request, is N buckets
of rate ``share * r`` and burst ``share * b`` whose shares sum to at most 1. Then, whatever the
kernel's spreading of connections, all workers together admit at most ``b + r * t``:

* Every share starts at 1/N. The supervisor sees each worker's demand per bucket in the views it
  is sent anyway, and moves shares to where requests arrive.
* A share that shrinks clips its bucket at once; a share that grows grants no level, only a
  faster refill and more room. A *new* bucket starts with the smaller of the worker's share and
  1/N, so moving a share to a worker without a bucket grants nothing either.
* Decreases are sent first; increases only once every decrease has been confirmed. In between the
  sum is below 1, never above.
* A worker's successor begins with the shares its predecessor had, or was about to be cut to.

Both sides are values and plain calls: ``Shares`` sits in the worker's Limiter, ``Rebalancer`` in
the supervisor; ``Share`` tuples travel between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Address = tuple[str, tuple[str, ...]]

STEP = 0.05  # smaller moves are not worth a message
TRACKED = 4_096  # buckets whose shares are moved at a time; others stay at 1/N
_MEMORY = 0.5  # of the demand before the last round
_IDLE = 0.05  # remembered requests below which a bucket counts as idle


class Share(NamedTuple):
    """One worker's part of one bucket's budget, 0 to 1; the address is that of its BucketView."""

    id: str
    values: tuple[str, ...]
    share: float


class Shares:
    """The parts one worker holds: 1/N unless the supervisor said otherwise."""

    __slots__ = ("_held", "default")

    def __init__(self, workers: int = 1, held: Iterable[Share] = ()) -> None:
        self.default = 1.0 / workers
        self._held: dict[Address, float] = {(s.id, s.values): s.share for s in held}

    def of(self, id_: str, values: tuple[str, ...]) -> float:
        """The part of the bucket at this address."""
        held = self._held
        return held.get((id_, values), self.default) if held else self.default

    def set(self, share: Share) -> None:
        """Hold this part from now on; a part of 1/N needs no entry."""
        if share.share == self.default:
            self._held.pop((share.id, share.values), None)
        else:
            self._held[share.id, share.values] = share.share


class Demand(NamedTuple):
    """What the workers were asked for since the last round: requests, admitted or not.

    ``burst`` is that of the whole budget, from the policy.
    """

    id: str
    values: tuple[str, ...]
    burst: float
    requests: tuple[int, ...]


EVEN_PART = 0.25
"""Of a budget, what is divided evenly whatever the demand: a client's next connection may land on
a worker it has not used, and must find more there than a token until the shares follow. The price
is that one worker alone can spend at most ``1 - EVEN_PART * (N - 1) / N`` of a budget."""


def rebalance(demand: Sequence[float], current: Sequence[float], burst: float) -> tuple[float, ...]:
    """The shares that follow ``demand``, both by worker; they sum to 1.

    A share is of use only if it holds a whole token, ``1 / burst``. Every worker that is asked
    gets that much before the rest is divided by demand. A budget too small for all goes to those
    with the most demand, present holders first among equals. If half of the budget suffices for
    that, idle workers keep one token too, so that their first request is not refused; a budget of
    some tokens for each leaves everybody an even part of ``EVEN_PART``.
    """
    workers = range(len(demand))
    asked = sorted((w for w in workers if demand[w] > 0), key=lambda w: (-demand[w], -current[w]))
    if not asked or burst < 1.0:
        return tuple(1.0 / len(demand) for _ in workers)
    floor = 1.0 / burst
    if burst * EVEN_PART >= len(demand):
        floor = EVEN_PART / len(demand)
    holders = set(asked[: int(burst)])
    idle = floor if 2 * len(demand) <= burst else 0.0
    least = [floor if w in holders else idle for w in workers]
    rest = max(0.0, 1.0 - sum(least))
    total = sum(demand[w] for w in holders)
    return tuple(least[w] + (rest * demand[w] / total if w in holders else 0.0) for w in workers)


class Rebalancer:
    """The supervisor's record of who holds what, and the order of cuts before grants.

    One round at a time: ``plan`` returns cuts to send, ``confirm`` is called as workers report
    that they applied them, and the last confirmation returns the grants. Neither sends anything;
    messages to one worker must arrive in the order they were made.
    """

    __slots__ = ("_demand", "_grants", "_shares", "_waiting", "_workers", "round")

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._shares: dict[Address, tuple[float, ...]] = {}  # as if all cuts had been applied
        self._demand: dict[Address, tuple[float, ...]] = {}
        self._grants: dict[Address, tuple[float, ...]] = {}
        self._waiting: set[int] = set()
        self.round = 0

    def plan(self, demands: Iterable[Demand]) -> dict[int, list[Share]]:
        """Begin a round: the cuts each worker must apply and confirm. Empty while one is open.

        A bucket that nobody asks for any more drifts back to 1/N and is forgotten.
        """
        if self._waiting:
            return {}
        self.round += 1
        self._grants = {}
        cuts: dict[int, list[Share]] = {}
        for demand in self._remembered(demands):
            address = (demand.id, demand.values)
            current = self._shares.get(address) or (1.0 / self._workers,) * self._workers
            target = rebalance(self._demand.get(address, demand.requests), current, demand.burst)
            idle = address not in self._demand
            if current == target or not (idle or _worth_moving(current, target, demand.burst)):
                continue
            self._grants[address] = target
            self._shares[address] = tuple(map(min, current, target))
            for worker, (held, wanted) in enumerate(zip(current, target, strict=True)):
                if wanted < held:
                    cuts.setdefault(worker, []).append(Share(*address, wanted))
        self._waiting = set(cuts)
        return cuts

    def confirm(self, worker: int, round_: int) -> dict[int, list[Share]]:
        """A worker has applied the cuts of ``round_``; the grants to send once all have.

        A worker that is gone confirms by being gone: its successor starts with ``held_by``.
        """
        if round_ != self.round or worker not in self._waiting:
            return {}
        self._waiting.discard(worker)
        if self._waiting:
            return {}
        grants: dict[int, list[Share]] = {}
        for address, target in self._grants.items():
            for worker_, (held, wanted) in enumerate(
                zip(self._shares[address], target, strict=True)
            ):
                if wanted > held:
                    grants.setdefault(worker_, []).append(Share(*address, wanted))
            self._settle(address, target)
        self._grants = {}
        return grants

    def held_by(self, worker: int) -> list[Share]:
        """What a successor of ``worker`` starts with; grants not yet sent are no part of it."""
        return [Share(*address, shares[worker]) for address, shares in self._shares.items()]

    def _settle(self, address: Address, shares: tuple[float, ...]) -> None:
        if all(share == 1.0 / self._workers for share in shares):
            del self._shares[address]
        else:
            self._shares[address] = shares

    def _remembered(self, demands: Iterable[Demand]) -> list[Demand]:
        """Mix this round's demands into those before; what to move shares for, idle buckets last.

        A bucket not asked for keeps its shares while its demand fades, so that a client pausing
        between rounds does not lose them.
        """
        asked = {(demand.id, demand.values): demand for demand in demands}
        silent = (0,) * self._workers
        idle: list[Demand] = []
        for address, before in list(self._demand.items()):
            now = asked[address].requests if address in asked else silent
            mixed = tuple(_MEMORY * old + new for old, new in zip(before, now, strict=True))
            self._demand[address] = mixed
            if sum(mixed) < _IDLE:
                del self._demand[address]
                idle.append(Demand(*address, 0.0, silent))
        for address, demand in asked.items():
            if len(self._demand) < TRACKED:
                self._demand.setdefault(address, tuple(map(float, demand.requests)))
        return [asked[address] for address in self._demand if address in asked] + idle


def _worth_moving(current: Sequence[float], target: Sequence[float], burst: float) -> bool:
    """Whether some worker gains a step, or its first whole token."""
    token = 1.0 / burst if burst >= 1.0 else 1.0
    return any(
        abs(held - wanted) >= STEP or held < token <= wanted
        for held, wanted in zip(current, target, strict=True)
    )
