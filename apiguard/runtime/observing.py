"""What workers report of requests, put where operators look for it.

Fed five times a second by every worker, on the supervisor's loop: sums and bounded structures
only, whatever touches a disk is handed to its thread.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from apiguard.policy.operatorconfig import ObservabilityConfig
from apiguard.runtime.control import Report
from apiguard.runtime.memory import Memory
from apiguard.runtime.record import Record, line_of
from apiguard.telemetry.activity import ActivityRow
from apiguard.telemetry.audit import RequestEvent
from apiguard.telemetry.counters import OVERRIDE_PREFIX
from apiguard.telemetry.sample import Sample
from apiguard.telemetry.samplering import SampleRing
from apiguard.telemetry.toptalkers import Top, TopTalkers

LINES_PER_SECOND: Final = 5
"""Requests on record a second: so many refused, and so many admitted."""

SLICE: Final = 250
MOST_SLICES: Final = 64
"""Rows taken in at a time, and how many times as many may wait: seven full reports."""


class Observing:
    """``clock`` is monotonic, ``wall_clock`` tells Unix seconds.

    ``dropped_rows`` counts rows this process had no time for.
    """

    def __init__(
        self,
        config: ObservabilityConfig,
        memory: Memory,
        record: Record,
        wall_clock: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._memory = memory
        self._record = record
        self._wall_clock = wall_clock
        self._clock = clock
        self._talkers = TopTalkers()
        self._samples = SampleRing(random.Random())  # noqa: S311  chooses samples
        self._slices: deque[tuple[ActivityRow, ...]] = deque()
        self._stepping = False
        self.dropped_rows = 0
        self._second = 0.0
        self._lines = {True: 0, False: 0}

    def receive(self, report: Report) -> None:
        now = self._clock()
        if report.activity:
            self._take_in(report.activity)
        if report.samples:
            if self._config.samples:
                self._samples.add(report.samples, now)
            if self._config.audit:
                self._put_on_record(report.samples, now)
        for (rule, decision, _verb, _code), number in report.delta.requests.items():
            if rule.startswith(OVERRIDE_PREFIX):
                refused = number if decision == "refused" else 0
                override = rule.removeprefix(OVERRIDE_PREFIX)
                self._memory.hit(override, admitted=number - refused, refused=refused)
            elif decision == "would_refuse" and rule:
                self._memory.would_refuse(rule, number)

    def _take_in(self, rows: tuple[ActivityRow, ...]) -> None:
        """In slices, so that admin is answered between them: 1,000 rows cost 12 ms and more."""
        for at in range(0, len(rows), SLICE):
            if len(self._slices) >= MOST_SLICES:
                self.dropped_rows += len(rows) - at
                break
            self._slices.append(rows[at : at + SLICE])
        if not self._stepping:
            self._step()

    def _step(self) -> None:
        rows = self._slices.popleft()
        self._talkers.add(rows, self._clock())
        self._memory.first_seen.add(rows, self._wall_clock())
        self._stepping = bool(self._slices)
        if self._stepping:
            asyncio.get_running_loop().call_soon(self._step)

    def _put_on_record(self, samples: tuple[Sample, ...], now: float) -> None:
        """One admitted and one refused of each report while the second's lines last, so that no
        worker has them all."""
        if now - self._second >= 1.0:
            self._second = now
            self._lines = {True: 0, False: 0}
        behind = self._wall_clock() - now
        lines = b""
        for admitted in (True, False):
            chosen = next((one for one in samples if one.admitted is admitted), None)
            if chosen is not None and self._lines[admitted] < LINES_PER_SECOND:
                self._lines[admitted] += 1
                lines += line_of(RequestEvent(behind + chosen.at, chosen))
        if lines:
            self._record.write_later("requests", lines)

    def top(self, by: str, over: str, sort: str, limit: int) -> Top:
        """Raises ValueError, fit for the operator, for names there are not."""
        return self._talkers.top(by, over, sort, limit, self._clock())

    def samples(self) -> tuple[Sample, ...]:
        """What previews replay. Takes 50 ms of the loop at worst: off it, reports would come in
        between."""
        return self._samples.recent(self._clock()).samples
