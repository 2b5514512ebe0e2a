"""What a limit is, as values: compiled by ``policy``, enforced by ``limiter``.

Specs live in the policy and are replaced with it; levels live in the Limiter and outlast it.
A bucket is found by ``(LimitSpec.id, key values)``, so a reload that keeps the id keeps the level.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Per(enum.Enum):
    """Fields a limit may be kept per; values as written in the policy file."""

    USER = "user"
    USER_AGENT = "userAgent"
    USER_AGENT_FAMILY = "userAgentFamily"
    SOURCE = "source"
    NAMESPACE = "namespace"
    VERB = "verb"
    RESOURCE = "resource"


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """``rate`` tokens per second refill up to ``burst`` tokens. Rate 0 has burst 0: none at all."""

    rate: float
    burst: float

    def part(self, share: float) -> BucketSpec:
        """What a worker holding ``share`` (0 to 1) of this budget enforces."""
        return self if share == 1.0 else BucketSpec(self.rate * share, self.burst * share)

    @property
    def fill_seconds(self) -> float:
        """How long an empty bucket takes to fill; 0 at rate 0, where empty is full."""
        return self.burst / self.rate if self.rate > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One entry of a rule's ``limits``.

    ``id`` names the limit across policy versions: rule name, ``per`` fields and ordinal among
    equals, so reordering or re-rating limits keeps living buckets.
    """

    id: str
    bucket: BucketSpec
    per: tuple[Per, ...] = ()


class Mode(enum.Enum):
    """When a flow refuses; where it does not, it only counts what it would refuse."""

    ENFORCE = "enforce"  # while the guard enforces
    SHADOW = "shadow"  # never
    PARTIAL = "partial"  # while the guard enforces, on a stable share of keys: see ``staging``
    ALWAYS = "always"  # also while the guard only observes: what an operator asked for by hand


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What one matched rule asks of the limiter. ``exempt`` flows have no limits.

    ``percent``  of keys on which a PARTIAL flow refuses, 1 to 99
    ``parts``    for a request under two flows that refuse at different times: those two, whose
                 limits together are ``limits``; its mode is then one of theirs, never ENFORCE

    Compared by identity: every request looks its flow up in the limiter's table of plans, and
    hashing the fields instead would cost more than the token bucket itself (2 µs against 0.08).
    """

    name: str
    limits: tuple[LimitSpec, ...]
    mode: Mode = Mode.ENFORCE
    exempt: bool = False
    percent: int = 100
    parts: tuple[Flow, ...] = ()
