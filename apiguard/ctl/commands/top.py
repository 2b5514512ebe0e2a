"""``apiguard top``: who asks for most, and since when; live in a terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from apiguard.ctl.commands.reads import look, watched
from apiguard.ctl.durations import exact
from apiguard.ctl.guard import Guard
from apiguard.ctl.hints import did_you_mean
from apiguard.ctl.options import EXIT_CODES, Session, in_seconds, on_guards
from apiguard.ctl.views import DIMENSIONS, SORTS, WINDOWS, top_view


def _dimensions(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """One or two different dimensions with a comma between them."""
    names = value.split(",")
    for name in names:
        if name not in DIMENSIONS:
            hint = did_you_mean(name, DIMENSIONS)
            raise click.BadParameter(f"{name[:64]!r} is none of {', '.join(DIMENSIONS)}{hint}")
    if len(names) > 2 or len(set(names)) < len(names):
        raise click.BadParameter("one of them, or two with a comma, as in userAgent,user")
    return value


@click.command(epilog=EXIT_CODES)
@click.option(
    "--by",
    default=DIMENSIONS[0],
    show_default=True,
    callback=_dimensions,
    metavar="WHAT",
    help=f"{', '.join(DIMENSIONS)}, or two of them.",
)
@click.option("--over", type=click.Choice(WINDOWS), default=WINDOWS[1], show_default=True)
@click.option("--sort", type=click.Choice(SORTS), default=SORTS[0], show_default=True)
@click.option(
    "--since", callback=in_seconds, metavar="DURATION", help="Mark who was first seen within it."
)
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True)
@watched
@on_guards()
def top(
    session: Session,
    by: str,
    over: str,
    sort: str,
    since: int | None,
    limit: int,
    watching: bool,
    interval: int,
) -> None:
    """Show who asks for most; in a terminal live, and B bans the selected client.

    Printed once when -o is given or this is no terminal. SHARE is of what is sorted by; UNPAGED
    and RV-LESS count LISTs without limit and without resourceVersion, the expensive ones.

    \b
    Examples:
      apiguard top
      apiguard top --by userAgent,user --sort upstreamSeconds --over 10m
      apiguard top --since 5m -o table
    """
    marked = "" if since is None else exact(since)

    def ask(guard: Guard, by: str, over: str, sort: str, most: int) -> Any:
        query = {"by": by, "over": over, "sort": sort, "limit": str(most), "since": marked}
        return guard.get("/v1/top", query)

    if watching or session.chosen or not _is_terminal():
        view = top_view(by, sort)
        look(session, lambda guard: ask(guard, by, over, sort, limit), view, watching, interval)
    else:
        _live(session, ask, by, over, sort)


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
        click.get_current_context().exit(INTERRUPTED)
