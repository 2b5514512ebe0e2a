"""Two runs side by side: what a change cost or saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests.bench.figures import Figure
from loadtests.bench.report import table
from loadtests.bench.results import Run
from loadtests.bench.targets import Target, judge


def lines(targets: Sequence[Target], base: Run, other: Run) -> Iterator[str]:
    """Every target measured in both runs; differences within the spread are named as such.

    Ratios to a peer are compared, never absolute figures: the machine may have been another one.
    """
    for label, run in (("base", base), ("other", other)):
        yield f"{label}: {run.environment.get('commit', '?')} at {run.started}"
    rows = [["target", "base", "other", "change", ""]]
    for target in targets:
        before = judge(target, base.samples).figure
        after = judge(target, other.samples).figure
        if before and after:
            rows.append([target.name, str(before), str(after), *_change(target, before, after)])
    yield from table(rows)


def _change(target: Target, before: Figure, after: Figure) -> tuple[str, str]:
    """Relative change of the median, and what it means."""
    share = f"{after.median / before.median - 1:+.1%}" if before.median else "-"
    if before.least <= after.median <= before.greatest:
        return share, "within spread"
    fell = after.median < before.median
    return share, "better" if fell == (target.better == "lower") else "WORSE"
