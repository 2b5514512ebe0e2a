"""The benchmark's arithmetic: medians, ratios within rounds, verdicts. No claim about speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.bench.cases.catalogue import CASES
from loadtests.bench.comparison import lines as comparison_lines
from loadtests.bench.figures import differences, figure, quantile, ratios
from loadtests.bench.interleave import CaseError, Plan, Samples, derive
from loadtests.bench.report import case_lines, surroundings_lines, target_lines
from loadtests.bench.results import Run, begin, read, save
from loadtests.bench.targets import Target, Verdict, judge, load


def target(**changes: object) -> Target:
    fields: dict[str, object] = {
        "name": "t",
        "case": "c",
        "row": "ours",
        "peer": "theirs",
        "compare": "ratio",
        "figure": "cpu_us",
        "unit": "CPU",
        "better": "lower",
        "gate": 2.5,
        "goal": 2.0,
    }
    return Target(**{**fields, **changes})  # type: ignore[arg-type]  # the values are fields'


def samples(ours: list[float], theirs: list[float]) -> dict[str, Samples]:
    rows = {"ours": ours, "theirs": theirs}
    return {"c": {row: [{"cpu_us": value} for value in values] for row, values in rows.items()}}


def a_run(ours: list[float], theirs: list[float]) -> Run:
    run = begin({"commit": "abc1234", "cpu": "some"}, Plan(len(ours), 2.0))
    run.samples = samples(ours, theirs)
    return run


def test_a_figure_is_the_median_with_its_extremes() -> None:
    found = figure([3.0, 1.0, 2.0])
    assert (found.median, found.least, found.greatest) == (2.0, 1.0, 3.0)


def test_ratios_are_taken_within_a_round_so_that_drift_cancels() -> None:
    """A machine that halves its speed half-way leaves every ratio at 2."""
    assert ratios([20.0, 40.0], [10.0, 20.0]) == [2.0, 2.0]
    assert differences([5.0, 9.0], [4.0, 8.0]) == [1.0, 1.0]


def test_rounds_of_unequal_number_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 50), (0.99, 99), (1.0, 99)])
def test_a_quantile_is_an_observed_value(share: float, expected: int) -> None:
    assert quantile(range(100), share) == expected


def test_cpu_per_unit_follows_from_cpu_and_units() -> None:
    found = derive({"units": 1000, "cpu_seconds": 0.02, "seconds": 2.0})
    assert found["cpu_us"] == pytest.approx(20.0)
    assert found["busy"] == pytest.approx(0.01)
    assert found["per_second"] == 500
    assert found["per_cpu_second"] == 50_000


def test_a_window_without_work_is_a_failure_not_a_zero() -> None:
    with pytest.raises(CaseError):
        derive({"units": 0, "cpu_seconds": 0.1, "seconds": 2.0})


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(2.0, Verdict.GOAL), (2.4, Verdict.GATE), (2.6, Verdict.SHORT)],
)
def test_a_target_is_judged_by_its_median(ours: float, verdict: Verdict) -> None:
    outcome = judge(target(), samples([ours, ours, 100.0], [1.0, 1.0, 1.0]))
    assert outcome.verdict is verdict


def test_more_can_be_better() -> None:
    found = judge(target(better="higher", gate=0.7, goal=0.9), samples([8.0], [10.0]))
    assert found.verdict is Verdict.GATE


def test_a_target_without_its_peer_is_not_measured_rather_than_failed() -> None:
    assert judge(target(), samples([2.0], [])).verdict is Verdict.UNMEASURED
    assert judge(target(), {}).verdict is Verdict.UNMEASURED


def test_a_value_needs_no_peer() -> None:
    found = judge(target(compare="value", peer=""), samples([2.1], []))
    assert found.verdict is Verdict.GATE


def test_every_target_names_rows_and_figures_that_its_case_has() -> None:
    cases = {case.name: case for case in CASES}
    for entry in load():
        rows = {row.name for row in cases[entry.case].rows}
        assert {entry.row, entry.peer} - {""} <= rows
        assert entry.figure in cases[entry.case].columns
        assert _reaches(entry), f"{entry.name}: the goal is behind the gate"


def _reaches(entry: Target) -> bool:
    return entry.goal <= entry.gate if entry.better == "lower" else entry.goal >= entry.gate


def test_rows_of_a_case_have_names_of_their_own() -> None:
    for case in CASES:
        names = [row.name for row in case.rows]
        assert len(names) == len(set(names))


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    run = a_run([2.0], [1.0])
    path = save(run, tmp_path)
    assert read(path) == run


def test_the_report_names_figure_spread_gate_and_verdict() -> None:
    outcome = judge(target(), samples([2.6, 2.7, 2.8], [1.0, 1.0, 1.0]))
    text = "\n".join(target_lines([outcome]))
    for part in ("2.7 (2.6-2.8)", "<= 2.5", "<= 2", "FALLS SHORT"):
        assert part in text


def test_the_report_says_what_was_left_out_and_what_failed() -> None:
    run = a_run([1.0], [1.0])
    run.absent["haproxy"] = "haproxy is not installed: apt install haproxy"
    run.failed["watch"] = "wrong status"
    text = "\n".join(surroundings_lines(run))
    assert "apt install haproxy" in text
    assert "FAILED: watch: wrong status" in text


def test_a_case_shows_a_line_per_row() -> None:
    numbers = derive({"units": 100, "cpu_seconds": 0.01, "seconds": 1.0})
    lines = list(case_lines(CASES[0], {"apiguard": [numbers], "haproxy": [numbers]}))
    assert [line.split()[0] for line in lines[3:]] == ["apiguard", "haproxy"]


@pytest.mark.parametrize(
    ("after", "words"),
    [(2.05, "within spread"), (3.0, "WORSE"), (1.0, "better")],
)
def test_a_comparison_calls_only_what_leaves_the_spread_a_change(after: float, words: str) -> None:
    base = a_run([2.0, 1.9, 2.1], [1.0, 1.0, 1.0])
    other = a_run([after] * 3, [1.0, 1.0, 1.0])
    assert words in "\n".join(comparison_lines([target()], base, other))
