"""A virtual CPU: how long a request takes on a server that can be overloaded.

Requests share the cores (processor sharing): with k jobs on c cores each runs at
``min(1, c/k)`` of a core. In virtual time, which advances at that rate, a job of w CPU-seconds
that starts at V ends at V + w however many come and go, so one heap suffices.

Memory follows the answers being built: a LIST holds about five times its bytes while in flight.
Beyond the limit the server collapses as an apiserver does when it is killed for memory: every
connection is cut, nothing is served for ``restart`` seconds, and afterwards it is slow until its
caches are warm again, which is how a restarted server meets the clients it lost.

Calibrated on a kube-apiserver 1.36 with 10,000 pods of 4 KB (two cores): LIST of 40 MB as JSON
0.6 CPU-seconds, as gzip 0.37 per 40 MB before compression; a delivered watch event 50 µs; 2.3 GB
resident. Pure functions of time: ``now`` is monotonic seconds and never decreases.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count


@dataclass(frozen=True, slots=True)
class CapacitySpec:
    """What the modelled server can do. CPU figures in CPU-seconds, sizes in bytes."""

    cores: float = 2.0
    per_request: float = 0.0005
    per_write: float = 0.001
    per_list_byte: float = 0.6 / 40e6
    per_gzip_byte: float = 0.37 / 40e6
    per_watch_event: float = 50e-6
    memory_base: int = 600 << 20
    memory_limit: int = 4 << 30
    memory_per_list_byte: float = 5.0
    max_inflight: int = 600  # beyond: 429, as max-requests-inflight (400 + 200)
    restart: float = 5.0  # seconds of nothing after a collapse
    recovery: float = 30.0  # seconds until a restarted server is as fast as before
    cold_speed: float = 0.2  # speed right after the restart


# Parts a warm-up is cut into: the speed counts as constant within one.
_WARM_UP_STEPS = 64


@dataclass(slots=True, eq=False)
class Job:
    """One request on the virtual CPU; ``finish`` is in virtual time."""

    finish: float
    memory: int
    started: float
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Live figures: ``busy`` in cores, ``latency`` the mean of recent jobs in seconds."""

    busy: float
    inflight: int
    memory: int
    latency: float
    speed: float
    collapses: int
    cpu_seconds: float
    down: bool


class VirtualCpu:
    """The state of the modelled server."""

    def __init__(self, spec: CapacitySpec) -> None:
        self.spec = spec
        self.collapses = 0
        self.cpu_seconds = 0.0
        self._virtual = 0.0
        self._at = 0.0
        self._heap: list[tuple[float, int, Job]] = []
        self._order = count()
        self._active = 0
        self._memory = spec.memory_base
        self._latency = 0.0
        self._up_since: float | None = None  # None: never collapsed, at full speed
        self._down_until = 0.0

    def list_cost(self, size: int, *, gzip: bool) -> float:
        """CPU-seconds of a LIST whose body has ``size`` bytes before compression."""
        rate = self.spec.per_gzip_byte if gzip else self.spec.per_list_byte
        return self.spec.per_request + size * rate

    def down(self, now: float) -> bool:
        return now < self._down_until

    def overloaded(self) -> bool:
        """Whether a further request gets 429."""
        return self._active >= self.spec.max_inflight

    def submit(self, now: float, work: float, size: int = 0) -> Job | None:
        """Starts a job of ``work`` CPU-seconds building ``size`` bytes; None is a collapse."""
        self.advance(now)
        memory = int(size * self.spec.memory_per_list_byte)
        if self._memory + memory > self.spec.memory_limit:
            self._collapse(now)
            return None
        job = Job(self._virtual + work, memory, now)
        heappush(self._heap, (job.finish, next(self._order), job))
        self._active += 1
        self._memory += memory
        self.cpu_seconds += work
        return job

    def cancel(self, now: float, job: Job) -> None:
        """The client left: its job stops using the CPU. Does nothing for a finished job."""
        self.advance(now)
        if not job.cancelled:
            self.cpu_seconds -= max(job.finish - self._virtual, 0.0)
            self._drop(job)

    def advance(self, now: float) -> list[Job]:
        """Runs the CPU up to ``now``; the jobs that ended, in order."""
        ended: list[Job] = []
        while self._at < now:
            self._skip_cancelled()
            rate = self._rate()
            left = min(now - self._at, self._steady())
            if not self._heap or rate <= 0.0:
                self._at += left
                continue
            need = (self._heap[0][0] - self._virtual) / rate
            if need > left:
                self._virtual += left * rate
                self._at += left
                continue
            self._at += max(need, 0.0)
            finish, _, job = heappop(self._heap)
            self._virtual = max(self._virtual, finish)
            self._drop(job)
            self._latency += 0.1 * (self._at - job.started - self._latency)
            ended.append(job)
        return ended

    def next_end(self) -> float | None:
        """When to ``advance`` next: the next job ends then, or the speed changes."""
        self._skip_cancelled()
        rate = self._rate()
        if not self._heap or rate <= 0.0:
            return None
        need = max(self._heap[0][0] - self._virtual, 0.0) / rate
        return self._at + min(need, self._steady())

    def load(self, now: float) -> Load:
        """Figures as of the last ``advance``."""
        return Load(
            min(float(self._active), self.spec.cores),
            self._active,
            self._memory,
            self._latency,
            self._speed(),
            self.collapses,
            self.cpu_seconds,
            self.down(now),
        )

    def _rate(self) -> float:
        """Virtual seconds per second."""
        if not self._active:
            return 1.0
        return min(1.0, self.spec.cores / self._active) * self._speed()

    def _steady(self) -> float:
        """Seconds for which the present speed may be taken as constant."""
        if self._up_since is None or self._at >= self._up_since + self.spec.recovery:
            return float("inf")
        if self._at < self._up_since:
            return self._up_since - self._at
        return self.spec.recovery / _WARM_UP_STEPS

    def _speed(self) -> float:
        if self._up_since is None:
            return 1.0
        warm = (self._at - self._up_since) / self.spec.recovery
        cold = self.spec.cold_speed
        return cold + (1.0 - cold) * min(max(warm, 0.0), 1.0)

    def _collapse(self, now: float) -> None:
        self.collapses += 1
        self._down_until = now + self.spec.restart
        self._up_since = self._down_until
        for _, _, job in self._heap:
            job.cancelled = True
        self._heap.clear()
        self._active = 0
        self._memory = self.spec.memory_base

    def _drop(self, job: Job) -> None:
        job.cancelled = True
        self._active -= 1
        self._memory -= job.memory

    def _skip_cancelled(self) -> None:
        while self._heap and self._heap[0][2].cancelled:
            heappop(self._heap)
