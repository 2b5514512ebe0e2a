"""Charging a Limiter with samples that stand for many requests each, in virtual time.

A sample says that one request came at its time and that ``weight - 1`` more came unseen. When,
nobody knows; charged all at once they would overrun any burst. They are taken as even over the
second before the sample, or over the time since the bucket was last asked if that is less: a
client over its rate is sampled again before long, and a bucket's ordinary burst is one second's
worth. Between samples tokens flow, at the sample one request asks for a whole one. With weight 1
nothing is left to flow, and the answers are those of ``Limiter.acquire``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bucket import EPSILON
from .flow import Flow
from .limiter import COST, Limiter
from .table import Bucket

if TYPE_CHECKING:
    from apiguard.kube.identity import Caller
    from apiguard.kube.requestinfo import RequestInfo

SPREAD_SECONDS = 1.0


def admit(
    limiter: Limiter, flow: Flow, info: RequestInfo, caller: Caller, now: float, weight: float
) -> float:
    """How many of ``weight`` requests (above 0, perhaps broken) pass under ``flow``; those are
    charged. The limiter is one for replays alone, called in the order of time."""
    limits = limiter.limits_of(flow, now)
    buckets = [limit.find(info, caller, now) for limit in limits]
    passed = _flow(buckets, weight - 1.0, now) if weight > 1.0 else 0.0
    for bucket in buckets:
        bucket.pending = True
        if bucket.refill(now) + EPSILON < COST:
            return passed
    last = weight if weight < COST else COST
    for bucket in buckets:
        bucket.level -= last
    return passed + last


def _flow(buckets: list[Bucket], wanted: float, now: float) -> float:
    """Take up to ``wanted`` tokens from all ``buckets`` alike as they refill until ``now``."""
    taken = wanted
    for bucket in buckets:
        start = now - SPREAD_SECONDS
        if bucket.pending and bucket.last > start:  # charged since
            start = bucket.last
        elif bucket.pending:
            bucket.refill(start)
        # For the while above the burst, as tokens that arrive may be taken in the same moment.
        if now > start:
            bucket.level += (now - start) * bucket.rate
            bucket.last = now
        if bucket.level < taken:
            taken = bucket.level if bucket.level > 0.0 else 0.0
    for bucket in buckets:
        bucket.level -= taken
        if bucket.level > bucket.burst:
            bucket.level = bucket.burst
    return taken
