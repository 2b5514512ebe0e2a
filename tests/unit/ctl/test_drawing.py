"""The live screen keeps its figures on any terminal, whatever clients call themselves."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from apiguard.ctl.live.drawing import draw
from apiguard.ctl.live.state import Screen, Shown

NAMES = ("x" * 500, "漢字" * 40, "\U0001f525" * 90, "\x1b[31mred\x1b]0;owned\x07" * 9, "a")


def drawn(width: int, by: str, guards: int) -> list[str]:
    """The lines of a screen with a row of 4,711 requests for each name."""
    figures = {"requests": 4711, "share": {"requests": 0.57}, "requestsPerSecond": 1, "new": True}
    rows = [
        Shown("guard-1", {"key": dict.fromkeys(by.split(","), name), **figures}) for name in NAMES
    ]
    screen = Screen(by=by)
    screen.show(rows, {}, ())
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(draw(screen, "top", 40, width, guards=guards))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("by", ["userAgent", "userAgent,user"])
@pytest.mark.parametrize("guards", [1, 2])
def test_a_long_name_takes_no_figure_off_the_screen(width: int, by: str, guards: int) -> None:
    rows = [line for line in drawn(width, by, guards) if "4711" in line]
    assert len(rows) == len(NAMES)
    assert all("57%" in row and row.count("…") <= 3 for row in rows)


def test_a_wide_terminal_shows_every_figure() -> None:
    header = next(line for line in drawn(140, "userAgent", 1) if "USER-AGENT" in line)
    assert header.split()[-2:] == ["RV-LESS", "FIRST-SEEN"]


def test_names_that_differ_in_their_end_can_be_told_apart() -> None:
    """At 80 columns, a thousand of them."""
    rows = [
        Shown("g", {"key": {"userAgent": f"node-agent-of-the-platform-{n}"}, "requests": 4711})
        for n in range(1_000)
    ]
    screen = Screen(by="userAgent")
    screen.show(rows, {}, ())
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(draw(screen, "top", 24, 80, guards=1))
    lines = capture.get().splitlines()
    named = [line.split()[0] for line in lines if "4711" in line]
    assert len(lines) <= 24
    assert len(set(named)) == len(named) > 10
