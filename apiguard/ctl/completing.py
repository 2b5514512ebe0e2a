"""What a shell asks while somebody types; argcomplete speaks its language."""

from __future__ import annotations

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.parsing import Command

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "_ARGCOMPLETE"
"""In the environment when a shell asks."""


def complete(root: Command, environment: Mapping[str, str]) -> None:
    """Prints what may follow and ends the process.

    Declares first: argcomplete watches the options that it finds when it begins.
    """
    import argcomplete  # 20 ms, which only the Tab key pays

    line, point = environment.get("COMP_LINE", ""), environment.get("COMP_POINT", "")
    before = line[: int(point)] if point.isdigit() else line
    root.prepare(before.split()[1:])
    argcomplete.autocomplete(root, always_complete_options=False, print_suppressed=True)
