"""Tables for readers: what each row cost, and each target with its figure and spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests.bench.cases.case import Case
from loadtests.bench.figures import Figure, figure
from loadtests.bench.interleave import Samples
from loadtests.bench.results import Run
from loadtests.bench.targets import Outcome

_HEADINGS = {
    "cpu_us": "CPU µs/{unit}",
    "per_cpu_second": "{unit}s/CPU s",
    "p50_ms": "P50 ms",
    "p99_ms": "P99 ms",
    "p999_ms": "P99.9 ms",
    "growth_kib": "KiB/{unit}",
    "idle_ms": "idle, CPU ms/s",
    "callback_ms": "longest callback, CPU ms",
    "lag_ms": "loop lag P99.9, CPU ms",
    "bodies_share": "built bodies/ceiling",
    "log_share": "log/ceiling",
    "share": "resident by bytes",
    "connection_kib": "KiB/idle connection",
}
_SPREAD = "  (least-greatest)"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, columns as wide as they must be; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()
        if not number:
            yield "  ".join("-" * width for width in widths)


def case_lines(case: Case, samples: Samples) -> Iterator[str]:
    """One case: median and spread of each row, how busy its proxy was, how much it did."""
    yield f"{case.name}: {case.title}"
    headings = [_HEADINGS[name].format(unit=case.unit) + _SPREAD for name in case.columns]
    rows = [["", *headings, "busy", f"{case.unit}s/s"]]
    for name, numbers in samples.items():
        cells = [str(_figure(numbers, column)) for column in case.columns]
        busy, pace = _figure(numbers, "busy"), _figure(numbers, "per_second")
        rows.append([name, *cells, f"{busy.median:.0%}", f"{pace.median:,.0f}"])
    for line in table(rows):
        yield f"  {line}".rstrip()


def target_lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Every target: figure, spread, gate, goal, verdict."""
    rows = [["target", "beside", "measured" + _SPREAD, "gate", "goal", "unit", ""]]
    for outcome in outcomes:
        target = outcome.target
        sign = "<=" if target.better == "lower" else ">="
        rows.append(
            [
                target.name,
                target.peer or "-",
                str(outcome.figure) if outcome.figure else "-",
                f"{sign} {target.gate:g}",
                f"{sign} {target.goal:g}",
                target.unit,
                outcome.verdict.value,
            ]
        )
    yield from table(rows)


def surroundings_lines(run: Run) -> Iterator[str]:
    """Environment, peers left out, cases that failed."""
    known = (f"{name} {value}" for name, value in run.environment.items() if value)
    yield "; ".join(known)
    rounds = str(run.runs) if run.runs else "one to three"
    yield f"{rounds} interleaved rounds, windows of {run.seconds:g} s"
    for peer, reason in run.absent.items():
        yield f"left out: {peer} ({reason})"
    for case, reason in run.failed.items():
        yield f"FAILED: {case}: {reason}"


def _figure(numbers: Sequence[dict[str, float]], column: str) -> Figure:
    return figure([sample[column] for sample in numbers])
