"""A token bucket: one level that refills with time and is never refilled by anything else."""

from __future__ import annotations

import math

from .flow import BucketSpec

# A level a rounding error below the cost is the cost. What is admitted on this credit leaves the
# level negative by as much, so the error is paid back and cannot add up over requests.
EPSILON = 1e-9


class TokenBucket:
    """Holds at most ``burst`` tokens, gains ``rate`` a second, loses ``cost`` per admission.

    ``level`` is what was there at ``last`` (monotonic seconds). A clock that goes backwards gains
    nothing and moves ``last`` nowhere, so the same second is never granted twice.
    """

    __slots__ = ("burst", "last", "level", "rate")

    def __init__(self, spec: BucketSpec, level: float, now: float) -> None:
        self.rate = spec.rate
        self.burst = spec.burst
        self.level = min(level, spec.burst)
        self.last = now

    def refill(self, now: float) -> float:
        """Bring the level up to ``now`` and return it."""
        elapsed = now - self.last
        if elapsed > 0.0:
            level = self.level + elapsed * self.rate
            self.level = level if level < self.burst else self.burst
            self.last = now
        return self.level

    def take(self, cost: float, now: float) -> bool:
        """Charge ``cost`` tokens; False, with nothing charged, when they are not there."""
        level = self.refill(now)
        if level + EPSILON < cost:
            return False
        self.level = level - cost
        return True

    def level_at(self, now: float) -> float:
        """The level ``now`` would find, changing nothing."""
        elapsed = now - self.last
        return min(self.burst, self.level + elapsed * self.rate) if elapsed > 0.0 else self.level

    def wait(self, cost: float, now: float) -> float:
        """Seconds from ``now`` until ``cost`` tokens are there; infinite if they never will be."""
        missing = cost - self.level_at(now)
        if missing <= EPSILON:
            return 0.0
        if self.rate <= 0.0 or cost > self.burst + EPSILON:
            return math.inf
        return missing / self.rate

    def full(self, now: float) -> bool:
        """Whether this bucket cannot be told from one that was never used."""
        return self.level_at(now) >= self.burst

    def respec(self, spec: BucketSpec, now: float) -> None:
        """Go on under ``spec``: time so far counts at the old rate; the level is kept, clipped to
        the new burst and never raised."""
        self.refill(now)
        self.rate = spec.rate
        self.burst = spec.burst
        if self.level > spec.burst:
            self.level = spec.burst
