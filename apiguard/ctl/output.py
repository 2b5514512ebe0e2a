"""Answers as kubectl prints them: plain columns, JSON or YAML.

Columns are aligned here rather than by a library: rich takes 60 ms of CPU to import and tabulate
30 (it looks up its own version among the installed packages), which is as much as a whole command;
these are ten lines.
"""

from __future__ import annotations

import json
import sys

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.fleet import Answer
from apiguard.ctl.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Row = Mapping[str, Any]

FORMATS = ("table", "wide", "json", "yaml")
GAP = "   "  # as kubectl's
MOST_CHOSEN = 40
"""Characters of a text that clients chose, where figures stand beside it."""


class Column:
    """``wide`` columns are shown with ``-o wide`` only.

    What ``chosen`` columns hold was chosen by clients: one long user-agent must not push the
    figures of everybody off the screen. ``-o wide`` shows it whole.
    """

    __slots__ = ("cell", "chosen", "header", "wide")

    def __init__(
        self, header: str, cell: Callable[[Row], str], *, wide: bool = False, chosen: bool = False
    ) -> None:
        self.header = header
        self.cell = cell
        self.wide = wide
        self.chosen = chosen

    def shown(self, row: Row, *, wide: bool) -> str:
        """The printable text of a row's cell."""
        text = printable(self.cell(row))
        return shortened(text, MOST_CHOSEN) if self.chosen and not wide else text


def shortened(text: str, most: int) -> str:
    """At most so many characters of a printable text, its beginning and its end: names of one
    family differ in either."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


class View:
    """How one kind of answer is tabulated.

    ``rows`` takes an answer apart, ``key`` tells rows apart between two looks at the same thing,
    ``none`` is said when there is no row.
    """

    __slots__ = ("columns", "key", "none", "rows")

    def __init__(
        self,
        rows: Callable[[Any], list[Row]],
        columns: tuple[Column, ...],
        key: Callable[[Row], object],
        none: str,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.key = key
        self.none = none

    def shown(self, *, wide: bool) -> tuple[Column, ...]:
        return self.columns if wide else tuple(c for c in self.columns if not c.wide)


def cells(view: View, answers: Iterable[Answer], *, wide: bool) -> dict[object, list[str]]:
    """A line of cells per row, by guard and key. Several guards get a first column of names."""
    answers = list(answers)
    columns = view.shown(wide=wide)
    found: dict[object, list[str]] = {}
    for answer in answers:
        if answer.error is not None:
            continue
        front = [answer.guard.name] if len(answers) > 1 else []
        for row in view.rows(answer.value):
            line = front + [column.shown(row, wide=wide) for column in columns]
            found[answer.guard.name, view.key(row)] = line
    return found


def header(view: View, guards: int, *, wide: bool) -> list[str]:
    front = ["GUARD"] if guards > 1 else []
    return front + [column.header for column in view.shown(wide=wide)]


def align(lines: Sequence[Sequence[str]], widths: list[int] | None = None) -> str:
    """Lines of cells as a table, every cell made printable and "" shown as ``-``.

    ``widths`` are kept and widened, so that a later call lines up with an earlier one.
    """
    widths = [] if widths is None else widths
    shown = [[printable(cell) or "-" for cell in line] for line in lines]
    for line in shown:
        widths.extend([0] * (len(line) - len(widths)))
        for index, cell in enumerate(line):
            widths[index] = max(widths[index], len(cell))
    return "".join(_line(line, widths) for line in shown)


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
    return GAP.join(padded).rstrip() + "\n"


def merged(answers: Sequence[Answer]) -> Any:
    """One guard's answer as it is; several as a list that says whose each is."""
    if len(answers) == 1:
        return answers[0].value
    return {"guards": [_labelled(answer) for answer in answers]}


def _labelled(answer: Answer) -> dict[str, Any]:
    about = {"guard": answer.guard.name, "server": answer.guard.address.text}
    if answer.error is not None:
        return {**about, "error": str(answer.error)}
    return {**about, "answer": answer.value}


def encoded(value: Any, form: str) -> str:
    """``value`` as ``json`` or ``yaml``, ASCII alone, so that nothing in it steers a terminal."""
    if form == "json":
        # DEL is the one control character that JSON leaves as it is.
        return json.dumps(value, indent=2).replace("\x7f", "\\u007f") + "\n"
    import yaml  # 25 ms, for this format only

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=False)
    return text


def write(text: str) -> None:
    """To stdout at once; what its encoding lacks is shown as its code."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line to stderr."""
    encoding = sys.stderr.encoding or "utf-8"
    line = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
