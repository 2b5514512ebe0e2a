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

from collections.abc import Iterable
from typing import NamedTuple

Address = tuple[str, tuple[str, ...]]

FLOOR = 0.02  # of a budget, kept by every worker so that its first request is not refused for long
HEADROOM = 0.05  # demand moves less than this: shares stay


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
