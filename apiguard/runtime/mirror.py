"""What the supervisor knows of one worker: its last report and the levels of its buckets.

A successor starts from these levels, and admin answers from them, so neither ever waits for a
worker. The table is bounded like the worker's own; what goes first is what a successor would
rebuild anyway: buckets that are full by now, then the longest unused.
"""

from __future__ import annotations

from collections.abc import Iterable

from apiguard.runtime.control import Bucket, Report, Traffic

BucketKey = tuple[str, tuple[str, ...]]


def level(bucket: Bucket, now: float) -> float:
    """Tokens in ``bucket`` at ``now``."""
    return min(bucket.burst, bucket.level + max(0.0, now - bucket.at) * bucket.rate)


class Mirror:
    """Levels and last report of the worker in one slot; outlives the worker itself."""

    __slots__ = (
        "_limit",
        "buckets",
        "cpu",
        "demand",
        "loop_lag",
        "remembered",
        "reported_at",
        "resident",
        "traffic",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.buckets: dict[BucketKey, Bucket] = {}
        self.demand: dict[str, float] = {}
        self.forget_worker()

    def forget_worker(self) -> None:
        """The worker is gone: nothing is open any more, its levels stay."""
        self.reported_at: float | None = None
        self.traffic = Traffic()
        self.loop_lag = 0.0
        self.resident = 0
        self.cpu = 0.0
        self.remembered = 0

    def receive(self, report: Report, now: float) -> None:
        self.reported_at = now
        self.traffic = report.traffic
        self.loop_lag = report.loop_lag
        self.resident = report.resident
        self.cpu = report.cpu
        self.remembered = report.remembered
        self.demand = report.demand
        for bucket in report.buckets:
            self.buckets[(bucket.limit, bucket.key)] = bucket
        if len(self.buckets) > self._limit:
            self._make_room(now)

    def age(self, now: float) -> float | None:
        """Seconds since the worker's last report, None before its first."""
        return None if self.reported_at is None else now - self.reported_at

    def keep_limits(self, names: Iterable[str]) -> None:
        """Drops buckets of limits the policy no longer has."""
        kept = frozenset(names)
        self.buckets = {key: b for key, b in self.buckets.items() if b.limit in kept}

    def _make_room(self, now: float) -> None:
        spent = [b for b in self.buckets.values() if level(b, now) < b.burst]
        spent.sort(key=lambda b: b.at, reverse=True)
        # A tenth is freed at once, so that the sort is paid once per so many new buckets.
        kept = spent[: self._limit * 9 // 10]
        self.buckets = {(b.limit, b.key): b for b in kept}
