"""Median, spread and ratios of rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """Median of rounds with their least and greatest."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.least:.3g}-{self.greatest:.3g})"


def figure(values: Sequence[float]) -> Figure:
    """Summary of one value per round; there is at least one."""
    return Figure(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours by theirs, round by round.

    Windows of one round lie seconds apart, rounds lie minutes apart: pairing them cancels what
    the machine did meanwhile, which dividing two medians does not.
    """
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours less theirs, round by round."""
    return [mine - other for mine, other in zip(ours, theirs, strict=True)]


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of ``ordered`` (ascending, not empty) lies: nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
