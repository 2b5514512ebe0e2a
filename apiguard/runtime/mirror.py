"""What the supervisor knows of one worker: its last report and the levels of its buckets.

A successor starts from these levels, and admin answers from them, so neither ever waits for a
worker. The table is bounded a little above the worker's own; what goes first are the longest
unused, which the worker's table has replaced before.
"""

from __future__ import annotations

from apiguard.limiter.table import BucketView
from apiguard.runtime.control import Report, Traffic
from apiguard.runtime.relayreport import RelayReport

BucketKey = tuple[str, tuple[str, ...]]


def asked(view: BucketView) -> int:
    """Requests this bucket judged since it was opened."""
    return view.admitted + view.refused + view.would_refuse


class Mirror:
    """Levels and last report of the worker in one slot; outlives the worker itself."""

    __slots__ = (
        "_limit",
        "_shared",
        "asked",
        "buckets",
        "cpu",
        "loop_lag",
        "memory_level",
        "memory_limit",
        "relay",
        "remembered",
        "reported_at",
        "resident",
        "traffic",
    )

    def __init__(self, table: int, *, shared: bool) -> None:
        """``table`` is the capacity of the worker's bucket table, ``shared`` whether there are
        other workers, so that demand is worth recording."""
        self._shared = shared
        self._limit = table * 5 // 4
        self.buckets: dict[BucketKey, BucketView] = {}
        self.asked: dict[BucketKey, int] = {}
        self.forget_worker()

    def forget_worker(self) -> None:
        """The worker is gone: nothing is open any more, its levels stay."""
        self.reported_at: float | None = None
        self.traffic = Traffic()
        self.loop_lag = 0.0
        self.resident = 0
        self.cpu = 0.0
        self.remembered = 0
        self.relay: RelayReport | None = None
        self.memory_limit = 0
        self.memory_level = 0

    def receive(self, report: Report, now: float) -> None:
        self.reported_at = now
        self.traffic = report.traffic
        self.loop_lag = report.loop_lag
        self.resident = report.resident
        self.cpu = report.cpu
        self.remembered = report.remembered
        self.relay = report.relay
        self.memory_limit = report.memory_limit
        self.memory_level = report.memory_level
        for view in report.buckets:
            address = (view.id, view.values)
            if self._shared:
                self._record_demand(address, view)
            self.buckets[address] = view
        if len(self.buckets) > self._limit:
            self._make_room()

    def _record_demand(self, address: BucketKey, view: BucketView) -> None:
        before = self.buckets.get(address)
        new = asked(view) - (asked(before) if before else 0)
        # A bucket evicted and opened again counts from zero.
        self.asked[address] = self.asked.get(address, 0) + (new if new >= 0 else asked(view))

    def take_asked(self) -> dict[BucketKey, int]:
        """Requests per bucket since the previous call, admitted or not."""
        taken, self.asked = self.asked, {}
        return taken

    def age(self, now: float) -> float | None:
        """Seconds since the worker's last report, None before its first."""
        return None if self.reported_at is None else now - self.reported_at

    def excuse(self, now: float) -> None:
        """The supervisor itself stood still: silence until ``now`` is not the worker's."""
        if self.reported_at is not None:
            self.reported_at = now

    def _make_room(self) -> None:
        """Frees a tenth at once, so that the sort is paid once per so many new buckets."""
        latest = sorted(self.buckets.items(), key=lambda item: item[1].last_seen, reverse=True)
        self.buckets = dict(latest[: self._limit * 9 // 10])
