"""What the relay holds, whom it answers, and what stands out in it."""

from __future__ import annotations

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.acting import finish, write_encoded, write_table
from apiguard.ctl.commands.reads import look, watched
from apiguard.ctl.errors import RefusedError
from apiguard.ctl.fleet import Answer, ask_all
from apiguard.ctl.guard import Guard
from apiguard.ctl.hints import did_you_mean
from apiguard.ctl.options import Session, on_guards
from apiguard.ctl.output import View, align, write
from apiguard.ctl.parsing import Command, Given
from apiguard.ctl.reading import items, text
from apiguard.ctl.relayviews import ELEPHANTS, HOT_KEYS, RELAY, relay_problems, relay_sums

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def relay(command: Command) -> None:
    """Show the caches of the relay, or one RESOURCE with its largest and busiest objects.

    HITS are lists and watches answered from a cache, BYPASSES those that went upstream after all;
    LAG is how long ago upstream said something. -o wide says why reads went upstream.

    Examples:
      apiguard relay
      apiguard relay deployments.apps
      apiguard relay -o wide --watch
    """
    command.add_argument("resource", metavar="RESOURCE", nargs="?", default="")
    watched(command)
    on_guards(command, _relay, "[RESOURCE]")


def _relay(session: Session, given: Given) -> None:
    resource: str = given.resource

    def ask(guard: Guard) -> Any:
        return _one(guard, resource) if resource else guard.get("/v1/relay")

    if given.watching:
        look(session, given, ask, RELAY)
        return
    answers = ask_all(session.guards, ask)
    if session.tabular:
        _tables(session, answers, (ELEPHANTS, HOT_KEYS) if resource else ())
    else:
        write_encoded(session, answers)
    finish(session, answers)


def _tables(session: Session, answers: Sequence[Answer], more: Sequence[View]) -> None:
    write_table(session, RELAY, answers)
    for answer in answers:
        problems = [f"! {session.prefix(answer.guard)}{p}" for p in relay_problems(answer.value)]
        sums = [f"{session.prefix(answer.guard)}{sums}" for sums in relay_sums(answer.value)]
        write(align([[line] for line in problems + sums]))
    for view in more:
        if any(view.rows(answer.value) for answer in answers):
            write("\n")
        write_table(session, view, answers)


def _one(guard: Guard, resource: str) -> Any:
    try:
        return guard.get(f"/v1/relay/{resource}")
    except RefusedError as error:
        if error.code != 404:
            raise
        rows = items(guard.get("/v1/relay"), "caches")
        known = list(dict.fromkeys(text(row, "name") for row in rows))
        if not known:
            raise
        hint = did_you_mean(resource, known)
        raise RefusedError(
            404, f"the relay holds no {resource!r}{hint}; it knows {', '.join(known)}"
        ) from None
