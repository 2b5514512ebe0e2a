"""Charging a Limiter with samples that stand for many requests each, in virtual time.

A sample says that one request came at its time and that ``weight - 1`` more came unseen. When,
nobody knows; charged all at once they would overrun any burst. They are taken as even over the
second before the sample, or over the time since the bucket was last charged if that is less: a
client over its rate is sampled again before long, and a bucket's ordinary burst is one second's
worth. Between samples tokens flow, at the sample one whole request asks ``Limiter.acquire``. With
weight 1 nothing is left to flow, and the answers are the Limiter's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flow import Flow
from .limiter import Limiter, Shed
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
    passed = 0.0
    if weight > 1.0:
        limits = limiter.limits_of(flow, now)
        passed = _flow([limit.find(info, caller, now) for limit in limits], weight - 1.0, now)
    verdict = limiter.acquire(flow, info, caller, now)
    return passed if isinstance(verdict, Shed) else passed + min(weight, 1.0)


def _flow(buckets: list[Bucket], wanted: float, now: float) -> float:
    """Take up to ``wanted`` tokens from all ``buckets`` alike as they refill until ``now``."""
    available = [_available(bucket, now) for bucket in buckets]
    taken = max(0.0, min(wanted, *available))
    for bucket, tokens in zip(buckets, available, strict=True):
        bucket.level = min(bucket.burst, tokens - taken)
        bucket.last = max(bucket.last, now)
    return taken


def _available(bucket: Bucket, now: float) -> float:
    """Tokens there are for requests even over the time that is looked at."""
    start = now - SPREAD_SECONDS
    if bucket.pending:  # charged before: only ``changed``, never called in a replay, ends that
        start = max(start, bucket.last)
        bucket.refill(start)
    return bucket.level + max(0.0, now - start) * bucket.rate
