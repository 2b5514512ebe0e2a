"""One function per route of the admin port."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import web

from apiguard.admin import views
from apiguard.admin.answers import Answers
from apiguard.admin.exporter import Exporter
from apiguard.admin.files import AdminFiles
from apiguard.admin.replies import actor_of, plain, refuse, reply
from apiguard.admin.routes import ROUTES
from apiguard.errors import Problem
from apiguard.kube.status import (
    Status,
    StatusCause,
    StatusDetails,
    bad_request,
    conflict,
    gateway_timeout,
    invalid,
)
from apiguard.policy.config import Enforcement
from apiguard.runtime.control import Question
from apiguard.runtime.results import Changed, Invalid, NotStored, Stale, WouldChange
from apiguard.runtime.supervisor import Acknowledgement, LastServer, Supervisor

GROUP: Final = "apiguard.io"
MOST_BUCKETS: Final = 20_000
DEFAULT_BUCKETS: Final = 20


class EnforcementBody(msgspec.Struct, forbid_unknown_fields=True):
    """``enforcement`` null returns to what the configuration says."""

    enforcement: str | None


class ExplainBody(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A request as a client would send it; see ``runtime.control.Question``."""

    method: str
    target: str
    user_agent: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    source: str = "127.0.0.1"
    unverified: bool = False


class Handlers:
    """Routes of one supervisor."""

    def __init__(self, supervisor: Supervisor, files: AdminFiles, answers: Answers) -> None:
        self._supervisor = supervisor
        self._files = files
        self._exporter = Exporter(supervisor, files, answers)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.route(route.method, route.path, getattr(self, route.handler)) for route in ROUTES
        ]

    # -- health and metrics

    async def livez(self, request: web.Request) -> web.Response:
        """The supervisor answers: that is all. A kubelet that restarted the guard for an upstream
        that is away would make matters worse."""
        return plain("ok")

    async def readyz(self, request: web.Request) -> web.Response:
        checks = views.readiness(self._supervisor, time.monotonic())
        ready = all(check.passed for check in checks)
        if ready and "verbose" not in request.query:
            return plain("ok")
        lines = [
            f"[+]{check.name} ok" if check.passed else f"[-]{check.name} failed: {check.reason}"
            for check in (*checks, *views.server_checks(self._supervisor))
        ]
        lines.append("readyz check passed" if ready else "readyz check failed")
        return plain("\n".join(lines) + "\n", code=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        response = plain(self._exporter.text().decode())
        response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
        return response

    # -- state

    async def get_whoami(self, request: web.Request) -> web.Response:
        """Who the guard takes the caller for."""
        return reply(dataclasses.asdict(actor_of(request)))

    async def get_status(self, request: web.Request) -> web.Response:
        return reply(views.status(self._supervisor, self._files, time.monotonic()))

    async def get_flows(self, request: web.Request) -> web.Response:
        """``?rule=NAME`` for one rule, ``?buckets=N`` for up to N buckets per limit."""
        try:
            most = int(request.query.get("buckets", DEFAULT_BUCKETS))
        except ValueError:
            return refuse(bad_request("buckets must be a number"))
        most = max(0, min(most, MOST_BUCKETS))
        rule = request.query.get("rule", "")
        return reply(views.flows(self._supervisor, rule, most, time.monotonic()))

    # -- upstream servers

    async def get_upstreams(self, request: web.Request) -> web.Response:
        return reply(views.upstreams(self._supervisor, time.monotonic()))

    async def post_drain(self, request: web.Request) -> web.Response:
        """No new request goes to the server; what it carries ends by itself."""
        return await self._set_drained(request, drained=True)

    async def post_undrain(self, request: web.Request) -> web.Response:
        return await self._set_drained(request, drained=False)

    async def _set_drained(self, request: web.Request, *, drained: bool) -> web.Response:
        """``{server}`` is its index, or its host and port as configured."""
        name = request.match_info["server"]
        index = _server_index(name, self._supervisor.config.upstream.servers)
        if index is None:
            return refuse(Status(404, "NotFound", "no such upstream server"))
        server = self._supervisor.prober.servers[index]
        change = await self._supervisor.set_drained(server, drained, actor_of(request))
        if isinstance(change, LastServer):
            why = "every other server is drained"
            return refuse(conflict("upstreams", str(index), why, group=GROUP))
        if isinstance(change, NotStored):
            return refuse(_not_stored(change.reason))
        described = views.upstream(self._supervisor, index, time.monotonic())
        return reply({**described, "applied": _workers(change.acknowledged)})

    # -- policy

    async def get_policy(self, request: web.Request) -> web.Response:
        """JSON with everything about it, or with ``Accept: application/yaml`` the text alone."""
        active = self._supervisor.keeper.active
        headers = {"ETag": f'"{active.revision.generation}"'}
        if "application/yaml" in request.headers.get("Accept", ""):
            return plain(active.revision.policy, content_type="application/yaml", headers=headers)
        described = {**views.policy(active), "policy": active.revision.policy}
        return reply(described, headers=headers)

    async def put_policy(self, request: web.Request) -> web.Response:
        """Replaces the policy; ``If-Match: "N"`` or ``?generation=N`` names the one it replaces."""
        try:
            generation = _named_generation(request)
        except ValueError as error:
            return refuse(bad_request(str(error)))
        dry_run = request.query.get("dryRun", "")
        if dry_run not in ("", "All"):
            return refuse(bad_request("dryRun accepts All"))
        text = await _text(request)
        if text is None:
            return refuse(bad_request("the policy is not UTF-8"))
        change, acknowledged = await self._supervisor.put_policy(
            text,
            "policy",
            generation=generation,
            actor=actor_of(request),
            dry_run=bool(dry_run),
        )
        match change:
            case Changed(active):
                body = {**views.policy(active), "workers": _workers(acknowledged)}
                return reply(body, headers={"ETag": f'"{active.revision.generation}"'})
            case WouldChange(policy):
                return reply({"dryRun": True, "digest": policy.digest, "rules": len(policy.rules)})
            case Stale(active=active_generation, named=named):
                why = f"generation {named} is not active any more, {active_generation} is"
                return refuse(conflict("throttlepolicies", "policy", why, group=GROUP))
            case Invalid(problems):
                return refuse(_invalid(problems))
            case NotStored(reason):
                return refuse(_not_stored(reason))

    async def put_enforcement(self, request: web.Request) -> web.Response:
        modes = ", ".join(mode.value for mode in Enforcement)
        try:
            body = msgspec.json.decode(await request.read(), type=EnforcementBody)
            wanted = "" if body.enforcement is None else Enforcement(body.enforcement).value
        except (msgspec.MsgspecError, ValueError, UnicodeDecodeError):
            shape = f'the body must be {{"enforcement": X}}, X one of {modes} or null'
            return refuse(bad_request(shape))
        change, acknowledged = await self._supervisor.set_enforcement(wanted, actor_of(request))
        if isinstance(change, NotStored):
            return refuse(_not_stored(change.reason))
        return reply({**views.enforcement(self._supervisor), "workers": _workers(acknowledged)})

    # -- explain

    async def post_explain(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=ExplainBody)
            # The control channel's own bounds, checked before a worker would be asked.
            question = msgspec.convert(
                msgspec.structs.asdict(body), type=Question, from_attributes=False
            )
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return refuse(bad_request(f"cannot explain this: {error}"))
        answer = await self._supervisor.explain(question)
        if answer is None:
            return refuse(gateway_timeout("no worker serves and answers in time"))
        if answer.answer is None:
            return refuse(bad_request(answer.problem))
        return reply(answer.answer)


def _server_index(name: str, servers: Sequence[str]) -> int | None:
    if name.isascii() and name.isdigit() and len(name) < 4:
        return int(name) if int(name) < len(servers) else None
    named = [index for index, url in enumerate(servers) if url.partition("://")[2] == name]
    return named[0] if named else None


def _named_generation(request: web.Request) -> int | None:
    """The generation a PUT was made against, None when it names none.

    Raises ValueError when it is no number or two are named that differ.
    """
    named: set[int] = set()
    match = request.headers.get("If-Match", "*").strip()
    if match != "*":
        named.add(_number(match.removeprefix("W/").strip('"'), "If-Match"))
    if "generation" in request.query:
        named.add(_number(request.query["generation"], "generation"))
    if len(named) > 1:
        raise ValueError("If-Match and generation name different generations")
    return named.pop() if named else None


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(f"{what} must be a generation's number")
    return int(text)


async def _text(request: web.Request) -> str | None:
    """The body as text that the policy's YAML reader takes; None when it is not UTF-8.

    JSON is YAML except for tabs between tokens; inside JSON strings there are none.
    """
    try:
        text = (await request.read()).decode()
    except UnicodeDecodeError:
        return None
    return text.replace("\t", " ") if request.content_type == "application/json" else text


def _workers(acknowledged: tuple[Acknowledgement, ...]) -> list[dict[str, object]]:
    return [
        {"worker": a.worker, "applied": not a.problem, "problem": a.problem} for a in acknowledged
    ]


def _invalid(problems: tuple[Problem, ...]) -> Status:
    causes = tuple(
        StatusCause(
            "FieldValueInvalid",
            f"line {problem.line}: {problem.reason}" if problem.line else problem.reason,
            problem.field,
        )
        for problem in problems
    )
    return invalid("ThrottlePolicy", "policy", causes, group=GROUP)


def _not_stored(reason: str) -> Status:
    message = f"the change was not accepted: stateDir does not take it: {reason}"
    return Status(507, "InsufficientStorage", message, StatusDetails(retry_after_seconds=5))
