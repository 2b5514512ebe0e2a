"""How samples become figures: nothing that hangs or fails may look fast."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtests.clients.recording import BROKEN, UNFINISHED, Sample
from loadtests.incidents.catalogue import slow_ones
from loadtests.incidents.figures import LOST, figures, p99
from loadtests.incidents.plots import Chart, Line, svg
from loadtests.incidents.stage import Run
from loadtests.scenario import parse

SCENARIO = parse(
    "name: x\nabout: y\nseconds: 30\ntrouble: {begin: 10, end: 20}\n"
    "clients: [{name: a, client: kubelet}]\n"
)
BOUNDS = {"lease": 1.0}


def lease(sent: float, seconds: float = 0.01, code: int = 200) -> Sample:
    return Sample("nodes", "node", "lease", code, sent, seconds)


def run_of(*samples: Sample) -> Run:
    """With a good lease every second beside them."""
    quiet: Sequence[Sample] = [lease(float(at)) for at in range(30)]
    return Run(SCENARIO, guarded=True, model=True, samples=[*quiet, *samples])


def test_a_quiet_run_is_well_throughout() -> None:
    found = figures(run_of(), BOUNDS)
    assert (found.contained, found.recovered, found.failed) == (0.0, 0.0, 0)
    assert found.lease_trouble == 0.01


def test_a_failure_counts_as_a_missed_renewal_however_fast_it_was() -> None:
    found = figures(run_of(lease(12.0, 0.001, BROKEN)), BOUNDS)
    assert found.lease_trouble == LOST
    assert found.failed == 1
    assert found.lease_quiet == 0.01


def test_what_never_ends_is_neither_contained_nor_recovered() -> None:
    found = figures(run_of(lease(12.0, 18.0, UNFINISHED)), BOUNDS)
    assert found.contained is None
    assert found.recovered is None
    assert found.unfinished == 1


def test_times_count_from_the_beginning_and_the_end_of_trouble() -> None:
    found = figures(run_of(lease(11.0, 4.0), lease(18.0, 5.0)), BOUNDS)
    assert found.contained is None
    assert found.recovered == 3.0
    assert figures(run_of(lease(11.0, 4.0)), BOUNDS).contained == 5.0


def test_p99_is_the_nearest_rank() -> None:
    assert p99(range(1, 1001)) == 990
    assert p99([3.0, 1.0]) == 3.0
    assert math.isnan(p99([]))


def test_a_histogram_tells_how_many_waited_longer() -> None:
    text = 'x_bucket{le="0.01"} 5\nx_bucket{le="0.05"} 8\nx_bucket{le="+Inf"} 10\nx_count 10\n'
    assert slow_ones(text, "x", 0.05) == 2
    assert slow_ones("", "x", 0.05) == 0


def test_a_chart_bridges_no_gap_and_survives_having_nothing_to_show() -> None:
    line = Line("a", [(0.0, 1.0), (1.0, 2.0), (9.0, math.nan), (20.0, 3.0)])
    drawn = svg(Chart("t", "s", 30.0, [line], logarithmic=True, shaded=(10.0, 20.0)))
    assert drawn.count("<polyline") == drawn.count("<circle") == 1
    assert "<polyline" not in svg(Chart("t", "s", 30.0, [Line("a", [])]))
