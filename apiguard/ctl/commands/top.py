"""``apiguard top``: who asks for most, and since when; live in a terminal."""

from __future__ import annotations

import argparse
import os
import sys

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.commands.reads import look, watched
from apiguard.ctl.durations import exact
from apiguard.ctl.guard import Guard
from apiguard.ctl.hints import did_you_mean
from apiguard.ctl.options import Session, in_seconds, on_guards, whole
from apiguard.ctl.parsing import Command, Given
from apiguard.ctl.views import DIMENSIONS, SORTS, WINDOWS, top_view

if TYPE_CHECKING:
    from typing import Any


def top(command: Command) -> None:
    """Show who asks for most; in a terminal live, and B bans the selected client.

    Printed once when -o is given or this is no terminal. SHARE is of what is sorted by; UNPAGED
    and RV-LESS count LISTs without limit and without resourceVersion, the expensive ones.

    Examples:
      apiguard top
      apiguard top --by userAgent,user --sort upstreamSeconds --over 10m
      apiguard top --since 5m -o table
    """
    by = command.add_argument(
        "--by",
        default=DIMENSIONS[0],
        type=_dimensions,
        metavar="WHAT",
        help=f"{', '.join(DIMENSIONS)}, or two of them.  [default: %(default)s]",
    )
    vars(by)["completer"] = lambda **_: DIMENSIONS  # where argcomplete looks for it
    command.add_argument(
        "--over",
        choices=WINDOWS,
        default=WINDOWS[1],
        metavar="WINDOW",
        help=f"{', '.join(WINDOWS)}.  [default: %(default)s]",
    )
    command.add_argument(
        "--sort",
        choices=SORTS,
        default=SORTS[0],
        metavar="WHAT",
        help=f"{', '.join(SORTS)}.  [default: %(default)s]",
    )
    command.add_argument(
        "--since", type=in_seconds, metavar="DURATION", help="Mark who was first seen within it."
    )
    command.add_argument(
        "--limit",
        type=whole(1, 1_000),
        default=20,
        metavar="N",
        help="At most so many.  [default: %(default)s]",
    )
    watched(command)
    on_guards(command, _top)


def _dimensions(value: str) -> str:
    """One or two different dimensions with a comma between them."""
    names = value.split(",")
    for name in names:
        if name not in DIMENSIONS:
            hint = did_you_mean(name, DIMENSIONS)
            raise argparse.ArgumentTypeError(
                f"{name[:64]!r} is none of {', '.join(DIMENSIONS)}{hint}"
            )
    if len(names) > 2 or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("one of them, or two with a comma, as in userAgent,user")
    return value


def _top(session: Session, given: Given) -> None:
    marked = "" if given.since is None else exact(given.since)

    def ask(guard: Guard, by: str, over: str, sort: str, most: int) -> Any:
        query = {"by": by, "over": over, "sort": sort, "limit": str(most), "since": marked}
        return guard.get("/v1/top", query)

    wanted = (given.by, given.over, given.sort)
    if given.watching or session.chosen or not _is_terminal():
        view = top_view(given.by, given.sort)
        look(session, given, lambda guard: ask(guard, *wanted, given.limit), view)
    else:
        _live(session, ask, *wanted)


def _is_terminal() -> bool:
    usable = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return usable and sys.stdin.isatty() and sys.stdout.isatty()


def _live(session: Session, ask: Any, by: str, over: str, sort: str) -> None:
    # 60 ms of CPU for rich, which printing once need not pay.
    from apiguard.ctl.acting import INTERRUPTED
    from apiguard.ctl.commands.overrides import laid
    from apiguard.ctl.live.loop import MOST_ROWS, Top
    from apiguard.ctl.live.state import Screen
    from apiguard.ctl.preview import describe

    title = "apiguard top  " + ", ".join(guard.name for guard in session.guards)
    run = Top(
        session,
        Screen(by, over, sort),
        title,
        lambda guard, by, over, sort: ask(guard, by, over, sort, MOST_ROWS),
        describe,
        laid,
    )
    try:
        run.run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
