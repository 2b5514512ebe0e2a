"""Rules laid above the policy for a while: ban, limit, scale, exempt, and what became of them."""

from __future__ import annotations

import argparse
import sys

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.acting import act, finish, write_encoded, write_table
from apiguard.ctl.commands.reads import look, watched
from apiguard.ctl.durations import exact
from apiguard.ctl.errors import RefusedError, UsageError
from apiguard.ctl.fleet import Answer, ask_all
from apiguard.ctl.guard import Guard
from apiguard.ctl.hints import did_you_mean
from apiguard.ctl.matching import given_match, match_flags
from apiguard.ctl.options import EXIT_CODES, Session, in_seconds, on_guards
from apiguard.ctl.output import FORMATS, align, complain, write
from apiguard.ctl.parsing import Command, Given, here
from apiguard.ctl.preview import describe
from apiguard.ctl.printable import printable
from apiguard.ctl.reading import clock, items, number, text
from apiguard.ctl.views import OVERRIDES, limit_text, override_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Body = dict[str, Any]

DRY_RUN_REASON = "dry run"


def _common(command: Command) -> None:
    """What every override has: an end, a reason, a preview."""
    command.add_argument(
        "--for",
        dest="ttl",
        type=in_seconds,
        metavar="DURATION",
        help="How long, as in 30m, 1h30m.  [default: the guard's, 30m]",
    )
    command.add_argument(
        "--reason", default="", metavar="TEXT", help="Kept with it and in the audit."
    )
    command.add_argument(
        "--dry-run", action="store_true", help="Say what it would have done; do nothing."
    )


def _end_watches(command: Command) -> None:
    command.add_argument(
        "--end-watches",
        nargs="?",
        type=in_seconds,
        const="10s",
        metavar="DURATION",
        help="End matching open watches too, spread over DURATION.  [default: 10s]",
    )


def ban(command: Command) -> None:
    """Refuse every matching request, for a while.

    Examples:
      apiguard ban --user-agent 'telemetry/*' --for 30m --reason 'INC-7 unpaged lists' --dry-run
      apiguard ban --user-agent 'telemetry/*' --verb list --resource pods --unpaged --reason INC-7
      apiguard ban --service-account monitoring/agent --end-watches=30s --reason INC-7
    """
    _common(command)
    _end_watches(command)
    match_flags(command)
    on_guards(command, _ban)


def _ban(session: Session, given: Given) -> None:
    _lay(session, {"action": "ban", "match": _some_match(given), **_ending(given)}, given)


def limit(command: Command) -> None:
    """Hold matching requests to a rate, for a while.

    Examples:
      apiguard limit --user-agent 'telemetry/*' --rps 5 --burst 10 --for 1h --reason INC-7
      apiguard limit --verb list --unpaged --rps 1 --per user --reason INC-7
    """
    command.add_argument(
        "--rps", type=_rate, required=True, metavar="NUMBER", help="Requests per second."
    )
    command.add_argument("--burst", type=_rate, metavar="NUMBER", help="At once.  [default: --rps]")
    command.add_argument(
        "--per",
        action="append",
        metavar="FIELD",
        help="A bucket for each: user, userAgentFamily, source.",
    )
    _common(command)
    _end_watches(command)
    match_flags(command)
    on_guards(command, _limit)


def _limit(session: Session, given: Given) -> None:
    entry: Body = {"requestsPerSecond": given.rps}
    if given.burst is not None:
        entry["burst"] = given.burst
    if given.per:
        entry["per"] = [field for value in given.per for field in value.split(",")]
    body = {"action": "limit", "match": _some_match(given), "limits": [entry]}
    _lay(session, body | _ending(given), given)


def _rate(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{value[:64]!r} is no rate, write 5 or 0.5")
    return number


def as_factor(value: str) -> float:
    """``0.5`` or ``50%`` -> 0.5."""
    digits, percent, rest = value.partition("%")
    try:
        factor = float(digits) / (100 if percent else 1)
    except ValueError:
        factor = -1.0
    if rest or not 0 <= factor < float("inf"):
        raise argparse.ArgumentTypeError(f"{value[:64]!r} is no factor, write 0.5 or 50%")
    return factor


def scale(command: Command) -> None:
    """Multiply the rates of one RULE or of all, for a while.

    Examples:
      apiguard scale telemetry-lists --factor 50% --for 1h --reason INC-7
      apiguard scale --all --factor 0.25 --reason 'INC-7: etcd is slow'
    """
    command.add_argument("rule", metavar="RULE", nargs="?", default="")
    command.add_argument(
        "--all", dest="everything", action="store_true", help="Every rule that is not exempt."
    )
    command.add_argument("--factor", type=as_factor, required=True, help="0.5 or 50%%.")
    _common(command)
    on_guards(command, _scale, "[RULE]")


def _scale(session: Session, given: Given) -> None:
    if bool(given.rule) == given.everything:
        raise UsageError("name one RULE, or --all")
    body: Body = {"action": "scale", "factor": given.factor}
    if given.rule:
        body["rule"] = given.rule
    _lay(session, body, given)


def exempt(command: Command) -> None:
    """Lift every limit from a verified identity, for a while.

    Needs --user, --group or --service-account: what cannot be verified cannot be exempt.

    Example:
      apiguard exempt --service-account kube-system/rescue --for 15m --reason INC-7
    """
    _common(command)
    match_flags(command)
    on_guards(command, _exempt)


def _exempt(session: Session, given: Given) -> None:
    match = _some_match(given)
    if not {"users", "groups", "serviceAccounts"} & match.keys():
        raise UsageError("an exemption needs --user, --group or --service-account")
    _lay(session, {"action": "exempt", "match": match}, given)


def _some_match(given: Given) -> Body:
    match = given_match(given)
    if not match:
        raise UsageError("say whom: at least one of --user-agent, --user, --source, --verb …")
    return match


def _ending(given: Given) -> Body:
    seconds: int | None = given.end_watches
    return {} if seconds is None else {"endWatches": True, "endWatchesSeconds": seconds}


def _lay(session: Session, body: Body, given: Given) -> None:
    """Sends the override to every guard, or asks every guard what it would do."""
    if not given.reason and not given.dry_run:
        raise UsageError("--reason is required: whoever finds this override must know why")
    body |= {"reason": given.reason or DRY_RUN_REASON}
    if given.ttl is not None:
        body["ttlSeconds"] = given.ttl
    if given.dry_run:
        show_preview(session, lambda guard: _post(guard, body, {"dryRun": "All"}))
    else:
        act(session, lambda guard: _post(guard, body, {}), laid)


def _post(guard: Guard, body: Body, query: dict[str, str]) -> Any:
    try:
        return guard.send("POST", "/v1/overrides", body, query)
    except RefusedError as error:
        rule = body.get("rule")
        if not rule or error.code not in (404, 422):
            raise
        known = [text(row, "rule") for row in items(guard.get("/v1/flows"), "rules")]
        if rule in known:
            raise
        hint = did_you_mean(rule, known)
        raise RefusedError(
            error.code, f"there is no rule {rule!r}{hint}; apiguard flows lists them"
        ) from None


def show_preview(session: Session, ask: Callable[[Guard], Any]) -> None:
    """What each guard says a change would have done."""
    answers = ask_all(session.guards, ask)
    if session.tabular:
        for answer in answers:
            if answer.error is None:
                if len(answers) > 1:
                    write(f"== {answer.guard.name}\n")
                write(describe(answer.value))
    else:
        write_encoded(session, answers)
    finish(session, answers)


NAME = "name"
"""kubectl's form for pipes: ``apiguard overrides -o name | xargs apiguard overrides delete``."""

_DONE = {"ban": "banned", "limit": "limited", "scale": "scaled", "exempt": "exempted"}


def laid(answer: Any) -> str:
    """``override/7f3a banned userAgents=telemetry/*, expires in 30m (04:52:10)``."""
    action = text(answer, "action")
    limits = ", ".join(limit_text(entry) for entry in items(answer, "limits"))
    end = f"expires in {exact(number(answer, 'remainingSeconds'))} ({clock(answer, 'expires')})"
    parts = [
        f"override/{text(answer, 'id')} {_DONE.get(action, action)} {override_target(answer)}",
        *([f"to {limits}"] if limits else []),
    ]
    return f"{' '.join(parts)}, {end}{_not_applied(answer)}"


def _not_applied(answer: Any) -> str:
    """Workers that have not confirmed, none usually."""
    late = [text(w, "worker") for w in items(answer, "workers") if w.get("applied") is False]
    return f"; not yet confirmed by worker {', '.join(late)}" if late else ""


# -- those there are


def overrides(command: Command) -> None:
    """List, extend and delete what ban, limit, scale and exempt have laid.

    Examples:
      apiguard overrides --watch
      apiguard overrides extend 7f3a --for 1h
      apiguard overrides delete 7f3a
      apiguard overrides -o name | xargs apiguard overrides delete
    """
    _lists(command)
    commands = {
        "list": here(_list),
        "get": here(_get),
        "extend": here(_extend),
        "delete": here(_delete),
    }
    command.holds({"Commands": commands}, epilog=EXIT_CODES)


def _lists(command: Command) -> None:
    watched(command)
    on_guards(command, _look_at_all, formats=(*FORMATS, NAME))


def _look_at_all(session: Session, given: Given) -> None:
    if session.form != NAME:
        look(session, given, _all, OVERRIDES)
    elif given.watching:
        raise UsageError("--watch prints tables, json or yaml")
    else:
        _name_all(session)


def _name_all(session: Session) -> None:
    """As ``delete`` and ``extend`` take them; once what several guards have."""
    answers = ask_all(session.guards, _all)
    rows = [row for answer in answers for row in items(answer.value, "overrides")]
    names = dict.fromkeys(f"override/{printable(text(row, 'id'))}\n" for row in rows)
    write("".join(names))
    finish(session, answers)


def _list(command: Command) -> None:
    """List all, newest first."""
    _lists(command)


def _all(guard: Guard) -> Any:
    return guard.get("/v1/overrides")


def _get(command: Command) -> None:
    """Show one."""
    command.add_argument("id", metavar="ID")
    on_guards(command, lambda session, given: _show_one(session, given.id), "ID")


def _show_one(session: Session, id_: str) -> None:
    answers = _everywhere(session, (id_,), lambda guard, path: guard.get(path))
    found = [Answer(answer.guard, answer.value[0]) for answer in answers if _has(answer, 0)]
    if session.tabular:
        write_table(session, OVERRIDES, found)
    else:
        write_encoded(session, found)
    _finish(session, (id_,), answers)


def _extend(command: Command) -> None:
    """Let overrides end DURATION from now."""
    command.add_argument("ids", metavar="ID", nargs="+")
    command.add_argument(
        "--for",
        dest="ttl",
        type=in_seconds,
        metavar="DURATION",
        required=True,
        help="From now on.",
    )
    on_guards(
        command,
        lambda session, given: _extend_all(session, given.ids, given.ttl),
        "ID...",
        gathers="ids",
    )


def _extend_all(session: Session, ids: list[str], ttl: int) -> None:
    answers = _everywhere(
        session, ids, lambda guard, path: guard.send("PATCH", path, {"ttlSeconds": ttl})
    )
    _say(session, ids, answers, lambda answer: f"extended, ends at {clock(answer, 'expires')}")


def _delete(command: Command) -> None:
    """Delete overrides: the policy rules again at once.

    Each guard of a context has IDs of its own, so --with-reason is what undoes one incident.

    Examples:
      apiguard overrides delete 7f3a
      apiguard overrides delete --with-reason INC-7
    """
    command.add_argument("ids", metavar="ID", nargs="*", default=[])
    command.add_argument(
        "--all", dest="everything", action="store_true", help="Every override there is."
    )
    command.add_argument(
        "--with-reason", default="", metavar="TEXT", help="Those laid for this reason."
    )
    on_guards(command, _delete_some, "[ID...]", gathers="ids")


def _delete_some(session: Session, given: Given) -> None:
    ids, everything, with_reason = given.ids, given.everything, given.with_reason
    if sum((bool(ids), everything, bool(with_reason))) != 1:
        raise UsageError("name an ID or several, or --with-reason, or --all")
    if ids:
        answers = _everywhere(session, ids, lambda guard, path: guard.send("DELETE", path, {}))
        _say(session, ids, answers, lambda answer: "deleted")
        return

    def ask(guard: Guard) -> Any:
        rows = items(_all(guard), "overrides")
        doomed = [text(r, "id") for r in rows if everything or text(r, "reason") == with_reason]
        return [id_ for id_ in doomed if _deletes(guard, id_)]

    act(session, ask, _deleted)


def _deletes(guard: Guard, id_: str) -> bool:
    """False for one that has ended meanwhile: the others still have to go."""
    try:
        guard.send("DELETE", f"/v1/overrides/{id_}", {})
    except RefusedError as error:
        if error.code != 404:
            raise
        return False
    return True


def _deleted(ids: list[str]) -> str:
    return f"{' '.join(f'override/{id_}' for id_ in ids) or 'nothing'} deleted"


def _everywhere(
    session: Session, ids: Sequence[str], send: Callable[[Guard, str], Any]
) -> list[Answer]:
    """Does one thing to every override on every guard; None stands for "not on this guard"."""

    def one(guard: Guard, id_: str) -> Any:
        try:
            return send(guard, f"/v1/overrides/{id_.removeprefix('override/')}")
        except RefusedError as error:
            if error.code != 404:
                raise
            return None

    return ask_all(session.guards, lambda guard: [one(guard, id_) for id_ in ids])


def _has(answer: Answer, index: int) -> bool:
    return answer.error is None and answer.value[index] is not None


def _say(
    session: Session, ids: Sequence[str], answers: list[Answer], said: Callable[[Any], str]
) -> None:
    """A line per override and guard that had it."""
    if not session.tabular:
        write_encoded(session, answers)
    for answer in answers if session.tabular else []:
        for index, id_ in enumerate(ids):
            if _has(answer, index):
                line = f"override/{id_.removeprefix('override/')} {said(answer.value[index])}"
                write(align([[session.prefix(answer.guard) + line]]))
    _finish(session, ids, answers)


def _finish(session: Session, ids: Sequence[str], answers: list[Answer]) -> None:
    """Exit 1 if a guard failed, or if no guard knows one of the overrides."""
    answered = [answer for answer in answers if answer.error is None]
    unknown = [
        id_
        for index, id_ in enumerate(ids)
        if answered and not any(_has(answer, index) for answer in answered)
    ]
    if unknown:
        known = [
            text(row, "id")
            for answer in ask_all([answer.guard for answer in answered], _all)
            for row in items(answer.value, "overrides")
        ]
        for id_ in unknown:
            hint = did_you_mean(id_, known)
            complain(f"Error: there is no override {id_!r}{hint}; apiguard overrides lists them")
    finish(session, answers)
    if unknown:
        sys.exit(1)
