"""Samples -> what became of those who were to be protected.

A protected operation keeps its promise if it succeeds within its bound; while one does not, the
cluster is unwell. An operation that failed counts as ``LOST`` seconds, since it was not done when
it was needed: a refused connection after a millisecond must not look like a fast answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loadtests.clients.recording import NOTED, UNFINISHED, Sample

from .stage import Run

LOST = 10.0  # seconds: a node's lease is renewed as often
STORM = "storm"
WRITES = frozenset({"write", "create", "node status"})
MIB = 1 << 20


def fine(sample: Sample) -> bool:
    return 200 <= sample.code < 300


def burden(sample: Sample) -> float:
    """Seconds an operation took, as its client felt it; of one without an end, its age."""
    return (
        sample.seconds if fine(sample) or sample.code == UNFINISHED else max(sample.seconds, LOST)
    )


def p99(values: Iterable[float]) -> float:
    """The nearest rank: the greatest of fewer than a hundred; NaN of none."""
    ranked = sorted(values)
    return ranked[math.ceil(0.99 * len(ranked)) - 1] if ranked else math.nan


@dataclass(frozen=True, slots=True)
class Span:
    begin: float
    end: float

    def holds(self, sample: Sample) -> bool:
        """Whether it was sent in here."""
        return self.begin <= sample.sent < self.end


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. Seconds, unless named otherwise; NaN for what did not occur; ``contained`` and
    ``recovered`` are None if the cluster was unwell to the end."""

    lease_quiet: float
    lease_trouble: float
    lease_after: float
    write_quiet: float
    write_trouble: float
    failed: int
    unfinished: int
    refused: int
    cores: float
    collapses: int
    storm_admitted: int
    storm_refused: int
    contained: float | None
    recovered: float | None
    guard_mib: float
    guard_cores: float


def spans(run: Run) -> tuple[Span, Span, Span]:
    """Quiet, trouble, afterwards."""
    trouble = run.scenario.trouble
    if trouble is None:
        whole = Span(0.0, run.scenario.seconds)
        return whole, whole, whole
    # Whoever connects in the first moments meets cold caches and unmade handshakes.
    return (
        Span(0.6 * trouble.begin, trouble.begin),
        Span(trouble.begin, trouble.end),
        Span(trouble.end, run.scenario.seconds),
    )


def figures(run: Run, bounds: Mapping[str, float]) -> Figures:
    """``bounds`` says within how many seconds each protected operation has to succeed."""
    quiet, trouble, after = spans(run)
    real = [s for s in run.samples if s.code != NOTED]
    leases = [s for s in real if s.operation == "lease"]
    writes = [s for s in real if s.operation in WRITES]
    protected = [s for s in real if s.operation in bounds]
    storm = [s for s in real if s.operation == STORM]
    unwell = unwell_spans(protected, bounds)
    disturbed = [s for s in protected if not quiet.holds(s) or quiet == trouble]
    return Figures(
        lease_quiet=_p99_in(leases, quiet),
        lease_trouble=_p99_in(leases, trouble),
        lease_after=_p99_in(leases, after),
        write_quiet=_p99_in(writes, quiet),
        write_trouble=_p99_in(writes, trouble),
        failed=sum(not fine(s) and s.code != UNFINISHED for s in disturbed),
        # One that began a moment before the end had no time to end.
        unfinished=sum(s.code == UNFINISHED and s.seconds > bounds[s.operation] for s in disturbed),
        refused=sum(s.refusals for s in disturbed),
        cores=_cores(run, trouble),
        collapses=max((load["collapses"] for load in run.loads), default=0),
        storm_admitted=sum(map(fine, storm)),
        storm_refused=sum(s.code == 429 for s in storm),
        contained=_until_well(unwell, trouble.begin, trouble.end),
        recovered=_until_well(unwell, trouble.end, run.scenario.seconds),
        guard_mib=max((use.resident for use in run.usage), default=0) / MIB,
        guard_cores=_guard_cores(run, trouble),
    )


def unwell_spans(samples: Iterable[Sample], bounds: Mapping[str, float]) -> list[Span]:
    """When each operation was late or not done: from when its bound was over to its end."""
    found = []
    for sample in samples:
        bound = bounds[sample.operation]
        felt = sample.seconds if fine(sample) else max(sample.seconds, bound)
        if sample.code == UNFINISHED and sample.seconds <= bound:
            continue
        if felt > bound or not fine(sample):
            late = sample.sent + min(bound, sample.seconds)
            found.append(Span(late, sample.sent + felt))
    return found


def _until_well(unwell: Sequence[Span], begin: float, end: float) -> float | None:
    """Seconds from ``begin`` until nobody suffers any more before ``end``; None: not by then."""
    suffered = [span for span in unwell if span.end > begin and span.begin < end]
    if not suffered:
        return 0.0
    last = max(span.end for span in suffered)
    return last - begin if last < end else None


def _p99_in(samples: Iterable[Sample], span: Span) -> float:
    return p99(
        burden(s)
        for s in samples
        if span.holds(s) and not (s.code == UNFINISHED and s.seconds < 1.0)
    )


def _cores(run: Run, span: Span) -> float:
    """CPU-seconds the API server used per second, modelled or measured."""
    inside = [load for load in run.loads if span.begin <= load["at"] < span.end]
    if len(inside) < 2:
        return math.nan
    took: float = inside[-1]["at"] - inside[0]["at"]
    # Work whose client left is taken back, so a moment may show less than none.
    used: float = inside[-1]["cpu"] - inside[0]["cpu"]
    return max(0.0, used / took)


def _guard_cores(run: Run, span: Span) -> float:
    inside = [use for use in run.usage if span.begin <= use.at < span.end]
    if len(inside) < 2:
        return math.nan
    return (inside[-1].cpu - inside[0].cpu) / (inside[-1].at - inside[0].at)


# -- single questions of single incidents


def noted(run: Run, what: str, group: str = "", since: float = 0.0) -> list[Sample]:
    """What clients saw, see ``Recorder.note``."""
    return [
        s
        for s in run.samples
        if s.code == NOTED and s.operation == what and s.sent >= since
        and (not group or s.group == group)
    ]  # fmt: skip


def of(run: Run, operation: str, group: str = "") -> list[Sample]:
    return [
        s
        for s in run.samples
        if s.code != NOTED and s.operation == operation and (not group or s.group == group)
    ]


def per_second(
    samples: Iterable[Sample], value: Callable[[Sequence[Sample]], float], seconds: float
) -> list[tuple[float, float]]:
    """``value`` of the samples sent in each second."""
    slots: dict[int, list[Sample]] = {}
    for sample in samples:
        slots.setdefault(int(sample.sent), []).append(sample)
    return [(s + 0.5, value(slots[s])) for s in range(int(seconds) + 1) if s in slots]
