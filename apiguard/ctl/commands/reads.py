"""What the guard says: status, flows, upstreams, enforcement, audit, whoami."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from apiguard.ctl.acting import act, finish, show, watch, write_table
from apiguard.ctl.durations import exact
from apiguard.ctl.errors import RefusedError
from apiguard.ctl.fleet import ask_all
from apiguard.ctl.grouping import Commands
from apiguard.ctl.guard import Guard
from apiguard.ctl.hints import did_you_mean
from apiguard.ctl.options import EXIT_CODES, Session, in_seconds, on_guards
from apiguard.ctl.output import View, align, write
from apiguard.ctl.reading import items, text
from apiguard.ctl.views import (
    ACTIONS,
    BUCKETS,
    ENFORCEMENT,
    FLOWS,
    REQUESTS,
    STATUS,
    UPSTREAMS,
    WHOAMI,
    status_problems,
)

MODES = ("enforce", "shadow", "off")


def watched(function: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--watch`` and ``--interval``."""
    function = click.option(
        "--interval", default="2s", callback=in_seconds, metavar="DURATION", help="With --watch."
    )(function)
    return click.option(
        "-w", "--watch", "watching", is_flag=True, help="Print what changes, until Ctrl-C."
    )(function)


def look(
    session: Session, ask: Callable[[Guard], Any], view: View, watching: bool, interval: int
) -> None:
    """Once, or until Ctrl-C."""
    if watching:
        watch(session, ask, view, interval)
    else:
        show(session, ask, view)


@click.command(epilog=EXIT_CODES)
@watched
@on_guards()
def status(session: Session, watching: bool, interval: int) -> None:
    """Show whether the guard serves, under which policy, and what is wrong with it.

    \b
    Examples:
      apiguard status
      apiguard status -o wide --watch
      apiguard status --server unix:/run/apiguard/admin.sock
    """
    if watching or not session.tabular:
        look(session, _get("/v1/status"), STATUS, watching, interval)
        return
    answers = ask_all(session.guards, _get("/v1/status"))
    write_table(session, STATUS, answers)
    for answer in answers:
        for problem in status_problems(answer.value):
            write(align([[f"! {session.prefix(answer.guard)}{problem}"]]))
    finish(session, answers)


def _get(path: str) -> Callable[[Guard], Any]:
    return lambda guard: guard.get(path)


@click.command(epilog=EXIT_CODES)
@click.argument("rule", default="")
@click.option("--buckets", default=20, show_default=True, help="Buckets per limit, with RULE.")
@watched
@on_guards()
def flows(session: Session, rule: str, buckets: int, watching: bool, interval: int) -> None:
    """Show what each rule let through and refused, or the buckets of one RULE.

    \b
    Examples:
      apiguard flows
      apiguard flows telemetry-lists --buckets 5
    """
    if not rule:
        query = {"buckets": "0"} if session.tabular else {}
        look(session, lambda guard: guard.get("/v1/flows", query), FLOWS, watching, interval)
        return

    def ask(guard: Guard) -> Any:
        answer = guard.get("/v1/flows", {"rule": rule, "buckets": str(buckets)})
        if not items(answer, "rules"):
            known = [text(row, "rule") for row in items(guard.get("/v1/flows"), "rules")]
            hint = did_you_mean(rule, known)
            raise RefusedError(404, f"there is no rule {rule!r}{hint}; apiguard flows lists them")
        return answer

    look(session, ask, BUCKETS, watching, interval)


@click.group(cls=Commands, invoke_without_command=True, epilog=EXIT_CODES)
@watched
@on_guards()
def upstreams(session: Session, watching: bool, interval: int) -> None:
    """Show the API servers behind the guard, or drain one.

    \b
    Examples:
      apiguard upstreams
      apiguard upstreams drain 10.0.0.1:6443
    """
    look(session, _get("/v1/upstreams"), UPSTREAMS, watching, interval)


@upstreams.command(epilog=EXIT_CODES)
@click.argument("name", metavar="SERVER")
@click.option("--reason", default="", metavar="TEXT", help="For the audit.")
@on_guards()
def drain(session: Session, name: str, reason: str) -> None:
    """Send SERVER, an index or HOST:PORT, no new request; what it carries ends by itself."""
    _set_drained(session, name, "drain", reason)


@upstreams.command(epilog=EXIT_CODES)
@click.argument("name", metavar="SERVER")
@click.option("--reason", default="", metavar="TEXT", help="For the audit.")
@on_guards()
def undrain(session: Session, name: str, reason: str) -> None:
    """Send SERVER requests again."""
    _set_drained(session, name, "undrain", reason)


def _set_drained(session: Session, name: str, verb: str, reason: str) -> None:
    def ask(guard: Guard) -> Any:
        try:
            return guard.send("POST", f"/v1/upstreams/{name}/{verb}", {"reason": reason})
        except RefusedError as error:
            if error.code != 404:
                raise
            rows = items(guard.get("/v1/upstreams"), "upstreams")
            known = [text(row, "server").partition("://")[2] for row in rows]
            raise RefusedError(
                404, f"there is no upstream {name!r}{did_you_mean(name, known)}"
                f"; there are {', '.join(known)}",
            ) from None  # fmt: skip

    act(session, ask, lambda answer: f"upstream/{text(answer, 'server')} {verb}ed")


@click.group(cls=Commands, invoke_without_command=True, epilog=EXIT_CODES)
@on_guards()
def enforcement(session: Session) -> None:
    """Show or switch what the guard does about requests over their limit.

    enforce refuses them, shadow lets them pass and counts, off does not look.

    \b
    Examples:
      apiguard enforcement
      apiguard enforcement set shadow --reason 'INC-7: rule too tight'
      apiguard enforcement reset --reason 'INC-7: over'
    """
    show(session, _enforcement, ENFORCEMENT)


def _enforcement(guard: Guard) -> Any:
    answer = guard.get("/v1/status").get("enforcement", {})
    return answer if isinstance(answer, dict) else {"enforcement": answer}


@enforcement.command("get", epilog=EXIT_CODES)
@on_guards()
def enforcement_get(session: Session) -> None:
    """Show the switch, what the configuration says and what was set over it."""
    show(session, _enforcement, ENFORCEMENT)


@enforcement.command("set", epilog=EXIT_CODES)
@click.argument("mode", type=click.Choice(MODES))
@click.option("--reason", required=True, metavar="TEXT", help="Kept in the audit.")
@on_guards()
def enforcement_set(session: Session, mode: str, reason: str) -> None:
    """Switch every guard of the context to MODE; it survives restarts."""
    _set_enforcement(session, mode, reason)


@enforcement.command("reset", epilog=EXIT_CODES)
@click.option("--reason", required=True, metavar="TEXT", help="Kept in the audit.")
@on_guards()
def enforcement_reset(session: Session, reason: str) -> None:
    """Return to what the configuration says."""
    _set_enforcement(session, None, reason)


def _set_enforcement(session: Session, mode: str | None, reason: str) -> None:
    act(
        session,
        lambda guard: guard.send("PUT", "/v1/enforcement", {"enforcement": mode, "reason": reason}),
        lambda answer: f"enforcement is {text(answer, 'enforcement')}",
    )


@click.command(epilog=EXIT_CODES)
@click.option(
    "--kind",
    type=click.Choice(["actions", "requests"]),
    default="actions",
    show_default=True,
    help="Admin actions, or sampled requests.",
)
@click.option("--since", default="1h", callback=in_seconds, metavar="DURATION", show_default=True)
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000))
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@on_guards()
def audit(session: Session, kind: str, since: int, limit: int, follow: bool) -> None:
    """Show who did what and why, or requests as they were decided.

    \b
    Examples:
      apiguard audit --since 2h
      apiguard audit --kind requests --follow
    """
    query = {"kind": kind, "since": exact(since), "limit": str(limit)}
    view = ACTIONS if kind == "actions" else REQUESTS
    last: dict[str, str] = {}  # by guard, the last action shown

    def ask(guard: Guard) -> Any:
        answer = guard.get("/v1/audit", {**query, "after": last.get(guard.name, "")})
        events = items(answer, "events")
        if events and follow and session.tabular and kind == "actions":
            last[guard.name] = text(events[-1], "id")
        return answer

    look(session, ask, view, follow, 1)


@click.command(epilog=EXIT_CODES)
@on_guards()
def whoami(session: Session) -> None:
    """Show under which name and role the guard knows you."""
    show(session, _get("/v1/whoami"), WHOAMI)
