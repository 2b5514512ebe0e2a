"""Rules laid above the policy for a while: ban, limit, scale, exempt, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from apiguard.ctl.acting import act, finish, write_encoded, write_table
from apiguard.ctl.commands.reads import look, watched
from apiguard.ctl.durations import exact
from apiguard.ctl.errors import RefusedError
from apiguard.ctl.fleet import Answer, ask_all
from apiguard.ctl.grouping import Commands
from apiguard.ctl.guard import Guard
from apiguard.ctl.hints import did_you_mean
from apiguard.ctl.matching import match_flags, take_match
from apiguard.ctl.options import EXIT_CODES, Session, in_seconds, on_guards
from apiguard.ctl.output import align, complain, write
from apiguard.ctl.preview import describe
from apiguard.ctl.reading import clock, items, number, text
from apiguard.ctl.views import OVERRIDES, limit_text, override_target

Body = dict[str, Any]

DRY_RUN_REASON = "dry run"


def _common(function: Callable[..., None]) -> Callable[..., None]:
    """What every override has: an end, a reason, a preview."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Say what it would have done; do nothing."),
        click.option("--reason", default="", metavar="TEXT", help="Kept with it and in the audit."),
        click.option(
            "--for",
            "ttl",
            callback=in_seconds,
            metavar="DURATION",
            help="How long, as in 30m, 1h30m.  [default: the guard's, 30m]",
        ),
    ):
        function = option(function)
    return function


def _end_watches(function: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--end-watches",
        callback=in_seconds,
        is_flag=False,
        flag_value="10s",
        metavar="[DURATION]",
        help="End matching open watches too, spread over DURATION (10s).",
    )(function)


@click.command(epilog=EXIT_CODES)
@match_flags
@_end_watches
@_common
@on_guards()
def ban(session: Session, end_watches: int | None, **flags: Any) -> None:
    """Refuse every matching request, for a while.

    \b
    Examples:
      apiguard ban --user-agent 'telemetry/*' --for 30m --reason 'INC-7 unpaged lists' --dry-run
      apiguard ban --user-agent 'telemetry/*' --verb list --resource pods --unpaged --reason INC-7
      apiguard ban --service-account monitoring/agent --end-watches=30s --reason INC-7
    """
    body: Body = {"action": "ban", "match": _some_match(flags), **_ending(end_watches)}
    _lay(session, body, flags)


@click.command(epilog=EXIT_CODES)
@match_flags
@click.option("--rps", type=click.FloatRange(min=0), required=True, help="Requests per second.")
@click.option("--burst", type=click.FloatRange(min=0), help="At once.  [default: --rps]")
@click.option(
    "--per",
    multiple=True,
    metavar="FIELD",
    help="A bucket for each: user, userAgentFamily, source.",
)
@_end_watches
@_common
@on_guards()
def limit(
    session: Session,
    rps: float,
    burst: float | None,
    per: tuple[str, ...],
    end_watches: int | None,
    **flags: Any,
) -> None:
    """Hold matching requests to a rate, for a while.

    \b
    Examples:
      apiguard limit --user-agent 'telemetry/*' --rps 5 --burst 10 --for 1h --reason INC-7
      apiguard limit --verb list --unpaged --rps 1 --per user --reason INC-7
    """
    entry: Body = {"requestsPerSecond": rps}
    if burst is not None:
        entry["burst"] = burst
    if per:
        entry["per"] = [field for value in per for field in value.split(",")]
    match = _some_match(flags)
    _lay(
        session,
        {"action": "limit", "match": match, "limits": [entry], **_ending(end_watches)},
        flags,
    )


def as_factor(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """``0.5`` or ``50%`` -> 0.5."""
    digits, percent, rest = value.partition("%")
    try:
        factor = float(digits) / (100 if percent else 1)
    except ValueError:
        factor = -1.0
    if rest or not 0 <= factor < float("inf"):
        raise click.BadParameter(f"{value[:64]!r} is no factor, write 0.5 or 50%")
    return factor


@click.command(epilog=EXIT_CODES)
@click.argument("rule", default="")
@click.option("--all", "everything", is_flag=True, help="Every rule that is not exempt.")
@click.option("--factor", callback=as_factor, required=True, metavar="FACTOR", help="0.5 or 50%.")
@_common
@on_guards()
def scale(session: Session, rule: str, everything: bool, factor: float, **flags: Any) -> None:
    """Multiply the rates of one RULE or of all, for a while.

    \b
    Examples:
      apiguard scale telemetry-lists --factor 50% --for 1h --reason INC-7
      apiguard scale --all --factor 0.25 --reason 'INC-7: etcd is slow'
    """
    if bool(rule) == everything:
        raise click.UsageError("name one RULE, or --all")
    body: Body = {"action": "scale", "factor": factor}
    if rule:
        body["rule"] = rule
    _lay(session, body, flags)


@click.command(epilog=EXIT_CODES)
@match_flags
@_common
@on_guards()
def exempt(session: Session, **flags: Any) -> None:
    """Lift every limit from a verified identity, for a while.

    Needs --user, --group or --service-account: what cannot be verified cannot be exempt.

    \b
    Example:
      apiguard exempt --service-account kube-system/rescue --for 15m --reason INC-7
    """
    match = _some_match(flags)
    if not {"users", "groups", "serviceAccounts"} & match.keys():
        raise click.UsageError("an exemption needs --user, --group or --service-account")
    _lay(session, {"action": "exempt", "match": match}, flags)


def _some_match(flags: dict[str, Any]) -> Body:
    match = take_match(flags)
    if not match:
        raise click.UsageError("say whom: at least one of --user-agent, --user, --source, --verb …")
    return match


def _ending(end_watches: int | None) -> Body:
    return {} if end_watches is None else {"endWatches": True, "endWatchesSeconds": end_watches}


def _lay(session: Session, body: Body, flags: dict[str, Any]) -> None:
    """Sends the override to every guard, or asks every guard what it would do."""
    reason, ttl, dry_run = flags["reason"], flags["ttl"], flags["dry_run"]
    if not reason and not dry_run:
        raise click.UsageError("--reason is required: whoever finds this override must know why")
    body |= {"reason": reason or DRY_RUN_REASON}
    if ttl is not None:
        body["ttlSeconds"] = ttl
    if dry_run:
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


@click.group(cls=Commands, invoke_without_command=True, epilog=EXIT_CODES)
@watched
@on_guards()
def overrides(session: Session, watching: bool, interval: int) -> None:
    """List, extend and delete what ban, limit, scale and exempt have laid.

    \b
    Examples:
      apiguard overrides --watch
      apiguard overrides extend 7f3a --for 1h
      apiguard overrides delete 7f3a
    """
    look(session, _all, OVERRIDES, watching, interval)


def _all(guard: Guard) -> Any:
    return guard.get("/v1/overrides")


@overrides.command("list", epilog=EXIT_CODES)
@watched
@on_guards()
def list_overrides(session: Session, watching: bool, interval: int) -> None:
    """List all, newest first."""
    look(session, _all, OVERRIDES, watching, interval)


@overrides.command("get", epilog=EXIT_CODES)
@click.argument("id_", metavar="ID")
@on_guards()
def get_override(session: Session, id_: str) -> None:
    """Show one."""
    answers = _everywhere(session, (id_,), lambda guard, path: guard.get(path))
    found = [answer._replace(value=answer.value[0]) for answer in answers if _has(answer, 0)]
    if session.tabular:
        write_table(session, OVERRIDES, found)
    else:
        write_encoded(session, found)
    _finish(session, (id_,), answers)


@overrides.command(epilog=EXIT_CODES)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--for", "ttl", callback=in_seconds, metavar="DURATION", required=True, help="From now on."
)
@on_guards()
def extend(session: Session, ids: tuple[str, ...], ttl: int) -> None:
    """Let overrides end DURATION from now."""
    answers = _everywhere(
        session, ids, lambda guard, path: guard.send("PATCH", path, {"ttlSeconds": ttl})
    )
    _say(session, ids, answers, lambda answer: f"extended, ends at {clock(answer, 'expires')}")


@overrides.command(epilog=EXIT_CODES)
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every override there is.")
@click.option("--with-reason", default="", metavar="TEXT", help="Those laid for this reason.")
@on_guards()
def delete(session: Session, ids: tuple[str, ...], everything: bool, with_reason: str) -> None:
    """Delete overrides: the policy rules again at once.

    Each guard of a context has IDs of its own, so --with-reason is what undoes one incident.

    \b
    Examples:
      apiguard overrides delete 7f3a
      apiguard overrides delete --with-reason INC-7
    """
    if sum((bool(ids), everything, bool(with_reason))) != 1:
        raise click.UsageError("name an ID or several, or --with-reason, or --all")
    if ids:
        answers = _everywhere(session, ids, lambda guard, path: guard.send("DELETE", path, {}))
        _say(session, ids, answers, lambda answer: "deleted")
        return

    def ask(guard: Guard) -> Any:
        rows = items(_all(guard), "overrides")
        doomed = [text(r, "id") for r in rows if everything or text(r, "reason") == with_reason]
        return [id_ for id_ in doomed if _delete(guard, id_)]

    act(session, ask, _deleted)


def _delete(guard: Guard, id_: str) -> bool:
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
    session: Session, ids: tuple[str, ...], send: Callable[[Guard, str], Any]
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
    session: Session, ids: tuple[str, ...], answers: list[Answer], said: Callable[[Any], str]
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


def _finish(session: Session, ids: tuple[str, ...], answers: list[Answer]) -> None:
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
        click.get_current_context().exit(1)
