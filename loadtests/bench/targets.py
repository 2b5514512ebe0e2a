"""Gates and goals of ``loadtests/targets.yaml``, and whether measured rounds meet them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

import yaml

from loadtests.bench.figures import Figure, differences, figure, ratios
from loadtests.bench.interleave import Samples

FILE = Path(__file__).parent.parent / "targets.yaml"


class Verdict(Enum):
    """What became of a target."""

    GOAL = "goal met"
    GATE = "gate met"
    SHORT = "FALLS SHORT"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the file; see its head for the fields."""

    name: str
    case: str
    row: str
    compare: Literal["ratio", "difference", "value"]
    figure: str
    unit: str
    better: Literal["lower", "higher"]
    gate: float
    goal: float
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target with what was measured; ``figure`` is None when it was not."""

    target: Target
    figure: Figure | None
    verdict: Verdict


def load(path: Path = FILE) -> tuple[Target, ...]:
    """Targets of a file. Raises TypeError or KeyError on fields it does not know or lacks."""
    entries = yaml.safe_load(path.read_text())["targets"]
    return tuple(Target(**{"goal": entry["gate"], **entry}) for entry in entries)


def judge(target: Target, measured: Mapping[str, Samples]) -> Outcome:
    """The target's figure over the rounds of its case, judged by their median."""
    rows = measured.get(target.case, {})
    ours = _values(rows, target.row, target.figure)
    theirs = _values(rows, target.peer, target.figure)
    if target.compare == "value":
        values = ours
    elif not ours or not theirs:
        values = []
    elif target.compare == "ratio":
        values = ratios(ours, theirs)
    else:
        values = differences(ours, theirs)
    if not values:
        return Outcome(target, None, Verdict.UNMEASURED)
    found = figure(values)
    return Outcome(target, found, _verdict(target, found.median))


def _values(rows: Samples, row: str, name: str) -> list[float]:
    return [numbers[name] for numbers in rows.get(row, [])]


def _verdict(target: Target, median: float) -> Verdict:
    if _reaches(target, median, target.goal):
        return Verdict.GOAL
    return Verdict.GATE if _reaches(target, median, target.gate) else Verdict.SHORT


def _reaches(target: Target, value: float, bound: float) -> bool:
    return value <= bound if target.better == "lower" else value >= bound
