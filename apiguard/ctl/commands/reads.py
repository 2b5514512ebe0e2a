"""What the guard says: status, flows, upstreams, enforcement, audit, whoami."""

from __future__ import annotations

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.acting import act, finish, show, watch, write_table
from apiguard.ctl.durations import exact
from apiguard.ctl.errors import RefusedError
from apiguard.ctl.fleet import ask_all
from apiguard.ctl.guard import Guard
from apiguard.ctl.hints import did_you_mean
from apiguard.ctl.options import EXIT_CODES, Session, in_seconds, on_guards, whole
from apiguard.ctl.output import View, align, write
from apiguard.ctl.parsing import Command, Given, here
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MODES = ("enforce", "shadow", "off")


def watched(command: Command) -> None:
    """Adds ``--watch`` and ``--interval``."""
    command.add_argument(
        "-w",
        "--watch",
        dest="watching",
        action="store_true",
        help="Print what changes, until Ctrl-C.",
    )
    command.add_argument(
        "--interval",
        default="2s",
        type=in_seconds,
        metavar="DURATION",
        help="With --watch.  [default: %(default)s]",
    )


def look(session: Session, given: Given, ask: Callable[[Guard], Any], view: View) -> None:
    """Once, or until Ctrl-C."""
    if given.watching:
        watch(session, ask, view, given.interval)
    else:
        show(session, ask, view)


def status(command: Command) -> None:
    """Show whether the guard serves, under which policy, and what is wrong with it.

    Examples:
      apiguard status
      apiguard status -o wide --watch
      apiguard status --server unix:/run/apiguard/admin.sock
    """
    watched(command)
    on_guards(command, _status)


def _status(session: Session, given: Given) -> None:
    if given.watching or not session.tabular:
        look(session, given, _get("/v1/status"), STATUS)
        return
    answers = ask_all(session.guards, _get("/v1/status"))
    write_table(session, STATUS, answers)
    for answer in answers:
        for problem in status_problems(answer.value):
            write(align([[f"! {session.prefix(answer.guard)}{problem}"]]))
    finish(session, answers)


def _get(path: str) -> Callable[[Guard], Any]:
    return lambda guard: guard.get(path)


def flows(command: Command) -> None:
    """Show what each rule let through and refused, or the buckets of one RULE.

    Examples:
      apiguard flows
      apiguard flows telemetry-lists --buckets 5
    """
    command.add_argument("rule", metavar="RULE", nargs="?", default="")
    command.add_argument(
        "--buckets",
        type=whole(0),
        default=20,
        metavar="N",
        help="Buckets per limit, with RULE.  [default: %(default)s]",
    )
    watched(command)
    on_guards(command, _flows, "[RULE]")


def _flows(session: Session, given: Given) -> None:
    rule: str = given.rule
    if not rule:
        query = {"buckets": "0"} if session.tabular else {}
        look(session, given, lambda guard: guard.get("/v1/flows", query), FLOWS)
        return

    def ask(guard: Guard) -> Any:
        answer = guard.get("/v1/flows", {"rule": rule, "buckets": str(given.buckets)})
        if not items(answer, "rules"):
            known = [text(row, "rule") for row in items(guard.get("/v1/flows"), "rules")]
            hint = did_you_mean(rule, known)
            raise RefusedError(404, f"there is no rule {rule!r}{hint}; apiguard flows lists them")
        return answer

    look(session, given, ask, BUCKETS)


def upstreams(command: Command) -> None:
    """Show the API servers behind the guard, or drain one.

    Examples:
      apiguard upstreams
      apiguard upstreams drain 10.0.0.1:6443
    """
    watched(command)
    on_guards(
        command, lambda session, given: look(session, given, _get("/v1/upstreams"), UPSTREAMS)
    )
    command.holds(
        {"Commands": {"drain": here(_drain), "undrain": here(_undrain)}}, epilog=EXIT_CODES
    )


def _drain(command: Command) -> None:
    """Send SERVER, an index or HOST:PORT, no new request; what it carries ends by itself.

    It stays drained until it is undrained, also when the guard is restarted.
    """
    _takes_server(command, "drain")


def _undrain(command: Command) -> None:
    """Send SERVER requests again."""
    _takes_server(command, "undrain")


def _takes_server(command: Command, verb: str) -> None:
    command.add_argument("server_name", metavar="SERVER")
    command.add_argument("--reason", default="", metavar="TEXT", help="For the audit.")
    on_guards(
        command,
        lambda session, given: _set_drained(session, given.server_name, verb, given.reason),
        "SERVER",
    )


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


def enforcement(command: Command) -> None:
    """Show or switch what the guard does about requests over their limit.

    enforce refuses them, shadow lets them pass and counts, off does not look.

    Examples:
      apiguard enforcement
      apiguard enforcement set shadow --reason 'INC-7: rule too tight'
      apiguard enforcement reset --reason 'INC-7: over'
    """
    on_guards(command, _show_enforcement)
    commands = {"get": here(_get_enforcement), "set": here(_set), "reset": here(_reset)}
    command.holds({"Commands": commands}, epilog=EXIT_CODES)


def _get_enforcement(command: Command) -> None:
    """Show the switch, what the configuration says and what was set over it."""
    on_guards(command, _show_enforcement)


def _show_enforcement(session: Session, given: Given) -> None:
    show(session, _enforcement, ENFORCEMENT)


def _enforcement(guard: Guard) -> Any:
    answer = guard.get("/v1/status").get("enforcement", {})
    return answer if isinstance(answer, dict) else {"enforcement": answer}


def _set(command: Command) -> None:
    """Switch every guard of the context to MODE; it survives restarts."""
    command.add_argument("mode", metavar="MODE", choices=MODES, help=", ".join(MODES))
    _audited(command)
    on_guards(
        command,
        lambda session, given: _set_enforcement(session, given.mode, given.reason),
        "MODE",
    )


def _reset(command: Command) -> None:
    """Return to what the configuration says."""
    _audited(command)
    on_guards(command, lambda session, given: _set_enforcement(session, None, given.reason))


def _audited(command: Command) -> None:
    command.add_argument("--reason", required=True, metavar="TEXT", help="Kept in the audit.")


def _set_enforcement(session: Session, mode: str | None, reason: str) -> None:
    act(
        session,
        lambda guard: guard.send("PUT", "/v1/enforcement", {"enforcement": mode, "reason": reason}),
        lambda answer: f"enforcement is {text(answer, 'enforcement')}",
    )


def audit(command: Command) -> None:
    """Show who did what and why, or requests as they were decided.

    Examples:
      apiguard audit --since 2h
      apiguard audit --kind requests --follow
    """
    command.add_argument(
        "--kind",
        choices=("actions", "requests"),
        default="actions",
        metavar="WHAT",
        help="Admin actions, or sampled requests.  [default: %(default)s]",
    )
    command.add_argument(
        "--since",
        default="1h",
        type=in_seconds,
        metavar="DURATION",
        help="How far back.  [default: %(default)s]",
    )
    command.add_argument(
        "--limit",
        default=200,
        type=whole(1, 10_000),
        metavar="N",
        help="At most so many.  [default: %(default)s]",
    )
    command.add_argument(
        "-f",
        "--follow",
        dest="watching",
        action="store_true",
        help="Go on with what comes, until Ctrl-C.",
    )
    command.set_defaults(interval=1)
    on_guards(command, _audit)


def _audit(session: Session, given: Given) -> None:
    query = {"kind": given.kind, "since": exact(given.since), "limit": str(given.limit)}
    actions = given.kind == "actions"
    last: dict[str, str] = {}  # by guard, the last action shown

    def ask(guard: Guard) -> Any:
        answer = guard.get("/v1/audit", {**query, "after": last.get(guard.name, "")})
        events = items(answer, "events")
        if events and given.watching and session.tabular and actions:
            last[guard.name] = text(events[-1], "id")
        return answer

    look(session, given, ask, ACTIONS if actions else REQUESTS)


def whoami(command: Command) -> None:
    """Show under which name and role the guard knows you."""
    on_guards(command, lambda session, given: show(session, _get("/v1/whoami"), WHOAMI))
