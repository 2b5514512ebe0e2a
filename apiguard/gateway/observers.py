"""Observers: what is told of every request that ends, besides the counters.

A gateway without any holds None in their place, so that observing costs nothing when it is off
but that one look.
"""

from __future__ import annotations

from apiguard.telemetry.activity import Activity
from apiguard.telemetry.sample import Sampler


class Observers:
    """Of one worker; either may be absent."""

    __slots__ = ("activity", "sampler")

    def __init__(self, activity: Activity | None, sampler: Sampler | None) -> None:
        self.activity = activity
        self.sampler = sampler
