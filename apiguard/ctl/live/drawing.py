"""The live screen as rich draws it; every text made printable first, no markup."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from apiguard.ctl.live.state import Mode, Screen, Shown
from apiguard.ctl.output import Column, shortened
from apiguard.ctl.printable import printable, printable_lines
from apiguard.ctl.reading import number, seconds, size
from apiguard.ctl.views import match_text, top_view

HELP = "↑↓ select  s sort  b by  w window  B ban  q quit"
MOST_KEY = 48  # cells of a client's name: figures must stay on the screen
LEAST_KEY = 16
GAP = 2
DISPENSABLE = ("RV-LESS", "REFUSED", "REQ/S", "UNPAGED", "BYTES", "UPSTREAM", "FIRST-SEEN")
"""Figures that a narrow terminal does without, the first of them first."""
CHROME = 6  # lines around the rows


def draw(screen: Screen, title: str, height: int, width: int, *, guards: int) -> Group:
    """All of the screen, at most ``height`` lines of ``width`` cells."""
    parts: list[Text | Table] = [_head(screen, title)]
    if screen.mode in (Mode.CONFIRM, Mode.BANNING):
        parts += [Text(_about(screen), style="bold"), _clipped(screen.preview, height - CHROME)]
    else:
        parts.append(_table(screen, max(1, height - CHROME), width, guards=guards))
    parts += [Text(printable(error), style="red") for error in screen.errors[:2]]
    if screen.message:
        parts.append(Text(printable(screen.message), style="yellow"))
    parts.append(_foot(screen))
    return Group(*parts)


def _head(screen: Screen, title: str) -> Text:
    totals = screen.totals
    figures = (
        f"{number(totals, 'requests'):.0f} requests, {number(totals, 'refused'):.0f} refused,"
        f" {size(totals, 'bytes')} bytes, {seconds(totals, 'upstreamSeconds')} upstream"
    )
    clock = time.strftime("%H:%M:%S")
    line = f"{title}  by {screen.by} over {screen.over}, by {screen.sort}  {clock}\n{figures}"
    return Text(printable_lines(line), no_wrap=True, overflow="ellipsis")


def _about(screen: Screen) -> str:
    return printable(f"ban {match_text(screen.match)}  ({screen.reason})")


def _clipped(text: str, lines: int) -> Text:
    """``text`` was made printable where its cells were written."""
    return Text("\n".join(text.splitlines()[: max(1, lines)]), no_wrap=True, overflow="ellipsis")


def _table(screen: Screen, height: int, width: int, *, guards: int) -> Table:
    columns, most_key = _fitting(
        top_view(screen.by, screen.sort).shown(wide=False),
        width - (LEAST_KEY + GAP) * (guards > 1),
    )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    if guards > 1:
        table.add_column("GUARD", no_wrap=True, overflow="ellipsis", max_width=LEAST_KEY)
    for column in columns:
        most, least = (most_key, None) if column.chosen else (None, len(column.header))
        table.add_column(
            column.header, no_wrap=True, overflow="ellipsis", max_width=most, min_width=least
        )
    position = screen.position or 0
    first = max(0, position - height + 1)
    for index, shown in enumerate(screen.rows[first : first + height], start=first):
        style = "reverse" if index == position else _style(shown)
        front = [Text(printable(shown.guard))] if guards > 1 else []
        table.add_row(*front, *(_cell(column, shown, most_key) for column in columns), style=style)
    return table


def _fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], int]:
    """The columns there is room for, and the cells that leaves for each name: left to itself the
    table would shrink every figure to nothing for the sake of one long name."""
    kept = list(columns)
    names = sum(column.chosen for column in columns)
    for header in DISPENSABLE:
        if _figures(kept) + names * (LEAST_KEY + GAP) <= width:
            break
        kept = [column for column in kept if column.header != header]
    room = (width - _figures(kept)) // max(1, names) - GAP
    return kept, min(MOST_KEY, max(LEAST_KEY, room))


def _figures(columns: Sequence[Column]) -> int:
    return sum(len(column.header) + GAP for column in columns if not column.chosen)


def _cell(column: Column, shown: Shown, most_key: int) -> Text:
    text = printable(column.cell(shown.row)) or "-"
    return Text(shortened(text, most_key) if column.chosen else text)


def _style(shown: Shown) -> str:
    return "bold" if shown.row.get("new") else ""


def _foot(screen: Screen) -> Text:
    if screen.mode is Mode.BROWSE:
        return Text(HELP, style="dim", no_wrap=True, overflow="ellipsis")
    typing = screen.mode in (Mode.REASON, Mode.FOR)
    who = f"ban {match_text(screen.match)}\n" if typing else ""
    cursor = "▏" if typing else ""
    return Text(printable_lines(f"{who}{screen.question}{screen.typed}{cursor}"), style="bold")
