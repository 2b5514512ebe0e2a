"""Line charts as SVG, without a library: a report is one file that opens anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 22, 30
COLOURS = ("#c0392b", "#1f77b4", "#7f8c8d", "#27ae60")


@dataclass(frozen=True, slots=True)
class Line:
    """``points`` are (seconds, value); ``step`` gaps longer than that are not bridged."""

    name: str
    points: Sequence[tuple[float, float]]
    step: float = 3.0


@dataclass(frozen=True, slots=True)
class Chart:
    """``shaded`` is the time of trouble; ``marks`` are moments."""

    title: str
    unit: str
    seconds: float
    lines: Sequence[Line]
    logarithmic: bool = False
    shaded: tuple[float, float] | None = None
    marks: Sequence[tuple[float, str]] = ()


def svg(chart: Chart) -> str:
    """One ``<svg>`` element."""
    axis = _Axis(chart)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg" role="img">',
        f"<title>{escape(chart.title)}</title>",
        f'<text x="{LEFT}" y="14" class="title">{escape(chart.title)}</text>',
    ]
    if chart.shaded:
        left, right = map(axis.x, chart.shaded)
        parts.append(
            f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}" class="trouble"/>'
        )
    parts += _grid(chart, axis)
    for at, text in chart.marks:
        x = axis.x(at)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="mark">'
            f"<title>{escape(text)}</title></line>"
        )
    for line, colour in zip(chart.lines, COLOURS, strict=False):
        parts += _path(line, axis, colour)
    parts += _legend(chart)
    return "\n".join([*parts, "</svg>"])


class _Axis:
    """Values to pixels."""

    def __init__(self, chart: Chart) -> None:
        values = [value for line in chart.lines for _, value in line.points if value == value]
        self._seconds = chart.seconds or 1.0
        self._log = chart.logarithmic
        if self._log:
            positive = [value for value in values if value > 0.0]
            low = math.floor(math.log10(min(positive, default=0.01)))
            high = max(math.ceil(math.log10(max(positive, default=1.0))), low + 1)
            self._low, self._high = float(low), float(high)
            self.ticks = [10.0**power for power in range(low, high + 1)]
        else:
            self._low, self._high = 0.0, _round_up(max(values, default=1.0))
            self.ticks = [self._high * part / 4 for part in range(5)]

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at / self._seconds, 0.0), 1.0)

    def y(self, value: float) -> float:
        found = math.log10(max(value, 10.0**self._low)) if self._log else value
        share = (found - self._low) / (self._high - self._low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= value)


def _grid(chart: Chart, axis: _Axis) -> list[str]:
    parts = []
    for tick in axis.ticks:
        y = axis.y(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="tick">'
            f"{tick:g} {escape(chart.unit)}</text>"
        )
    every = _round_up(chart.seconds / 8)
    for number in range(int(chart.seconds / every) + 1):
        at = number * every
        parts.append(
            f'<text x="{axis.x(at):.1f}" y="{HEIGHT - BOTTOM + 14}" class="time">{at:g} s</text>'
        )
    return parts


def _path(line: Line, axis: _Axis, colour: str) -> list[str]:
    """Points too far apart stand alone, as a dot where nothing else would show them."""
    pieces: list[list[tuple[float, float]]] = []
    last = -math.inf
    for at, value in line.points:
        if value != value:
            continue
        if at - last > line.step:
            pieces.append([])
        pieces[-1].append((axis.x(at), axis.y(value)))
        last = at
    drawn = []
    for piece in pieces:
        if len(piece) == 1:
            x, y = piece[0]
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.5" fill="{colour}"/>')
        else:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)
            drawn.append(f'<polyline points="{points}" stroke="{colour}"/>')
    return drawn


def _legend(chart: Chart) -> list[str]:
    parts, x = [], LEFT
    for line, colour in zip(chart.lines, COLOURS, strict=False):
        parts.append(f'<rect x="{x}" y="{HEIGHT - 11}" width="10" height="3" fill="{colour}"/>')
        parts.append(
            f'<text x="{x + 14}" y="{HEIGHT - 6}" class="legend">{escape(line.name)}</text>'
        )
        x += 24 + 7 * len(line.name)
    return parts
