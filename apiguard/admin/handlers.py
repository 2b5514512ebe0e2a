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
from apiguard.admin.parameters import (
    ParameterError,
    body_of,
    checked_reason,
    choice,
    integer,
    reason_of,
    seconds,
)
from apiguard.admin.refusals import GROUP, status_of
from apiguard.admin.replies import actor_of, plain, refuse, reply
from apiguard.kube.status import Status, bad_request, conflict, gateway_timeout
from apiguard.policy.config import Enforcement
from apiguard.runtime.control import Question
from apiguard.runtime.results import LastServer, NotStored
from apiguard.runtime.supervisor import Supervisor
from apiguard.telemetry.toptalkers import OVER, SORTS, USER_AGENT

MOST_BUCKETS: Final = 20_000
DEFAULT_BUCKETS: Final = 20


ENFORCEMENT: Final = '{"enforcement": "shadow", "reason": "INC-7"}; null returns to the configured'
EXPLAIN: Final = '{"method": "GET", "target": "/api/v1/pods", "userAgent": "agent/1", "user": "u"}'
DRAIN: Final = '{"reason": "INC-7"}'

DEFAULT_TALKERS: Final = 20
MOST_TALKERS: Final = 1_000
NEW_SECONDS: Final = 600.0
"""Who was first seen within it is new, unless ``since`` says otherwise."""

AUDIT_KINDS: Final = ("actions", "requests")
DEFAULT_EVENTS: Final = 100
MOST_EVENTS: Final = 10_000


class EnforcementBody(msgspec.Struct, forbid_unknown_fields=True):
    """``enforcement`` null returns to what the configuration says."""

    enforcement: str | None
    reason: str = ""


class DrainBody(msgspec.Struct, forbid_unknown_fields=True):
    """Optional altogether."""

    reason: str = ""


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
    """Routes of one supervisor: its state, its servers, what its workers saw."""

    def __init__(self, supervisor: Supervisor, files: AdminFiles, answers: Answers) -> None:
        self._supervisor = supervisor
        self._files = files
        self._exporter = Exporter(supervisor, files, answers)

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
        response = plain(await self._exporter.text())
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
        most = integer(request, "buckets", DEFAULT_BUCKETS, least=0, most=MOST_BUCKETS)
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
        change = await self._supervisor.operations.set_drained(
            self._supervisor.prober.servers[index],
            drained,
            actor=actor_of(request),
            reason=await _reason(request),
        )
        if isinstance(change, LastServer):
            why = "it is the last one that is not drained"
            return refuse(conflict("upstreams", str(index), why, group=GROUP))
        if isinstance(change, NotStored):
            return refuse(status_of(change, "", ""))
        described = views.upstream(self._supervisor, index, time.monotonic())
        return reply({**described, "applied": views.acknowledged(change.acknowledged)})

    # -- enforcement

    async def put_enforcement(self, request: web.Request) -> web.Response:
        body = await body_of(request, EnforcementBody, ENFORCEMENT)
        modes = [mode.value for mode in Enforcement]
        if body.enforcement is not None and body.enforcement not in modes:
            raise ParameterError(f"enforcement must be one of {', '.join(modes)} or null")
        change, acknowledged = await self._supervisor.operations.set_enforcement(
            body.enforcement or "", actor=actor_of(request), reason=checked_reason(body.reason)
        )
        if isinstance(change, NotStored):
            return refuse(status_of(change, "", ""))
        described = views.enforcement(self._supervisor)
        return reply({**described, "workers": views.acknowledged(acknowledged)})

    # -- who is doing this, who did what

    async def get_top(self, request: web.Request) -> web.Response:
        """Clients by what they ask for; those first seen within ``since`` are marked."""
        by = request.query.get("by", "") or USER_AGENT
        over = choice(request, "over", OVER, "1m")
        sort = choice(request, "sort", SORTS, "requests")
        most = integer(request, "limit", DEFAULT_TALKERS, least=1, most=MOST_TALKERS)
        since = time.time() - seconds(request, "since", NEW_SECONDS)
        if not self._supervisor.config.observability.top_talkers:
            return refuse(_not_recorded("topTalkers"))
        operations = self._supervisor.operations
        try:
            top = operations.top(by, over, sort, most)
        except ValueError as error:
            raise ParameterError(str(error)) from error
        return reply(views.top(top, operations.first_seen, since))

    async def get_audit(self, request: web.Request) -> web.Response:
        """Lines of the record, newest last, as they are in the files.

        ``after=ID`` of an action asks for the first ones after it rather than the last ones of all,
        so that whoever asks again and again misses none; ``since`` counts when it is too old.
        """
        kind = choice(request, "kind", AUDIT_KINDS, AUDIT_KINDS[0])
        back = seconds(request, "since", 0.0)
        most = integer(request, "limit", DEFAULT_EVENTS, least=1, most=MOST_EVENTS)
        since = time.time() - back if back else 0.0
        after = request.query.get("after", "")
        if after and kind != "actions":
            raise ParameterError("after is for kind=actions: sampled requests have no id")
        if kind == "requests" and not self._supervisor.config.observability.audit:
            return refuse(_not_recorded("audit"))
        events = self._supervisor.operations.audit(kind, since, most, after)
        return reply({"kind": kind, "events": events})

    # -- explain

    async def post_explain(self, request: web.Request) -> web.Response:
        body = await body_of(request, ExplainBody, EXPLAIN)
        try:
            # The control channel's own bounds, checked before a worker would be asked.
            question = msgspec.convert(
                msgspec.structs.asdict(body), type=Question, from_attributes=False
            )
        except msgspec.MsgspecError as error:
            raise ParameterError(f"cannot explain this: {error}") from error
        answer = await self._supervisor.operations.explain(question)
        if answer is None:
            return refuse(gateway_timeout("no worker serves and answers in time"))
        if answer.answer is None:
            return refuse(bad_request(answer.problem))
        return reply(answer.answer)


def _not_recorded(setting: str) -> Status:
    """No rows at all would read as a guard at rest."""
    why = f"this guard does not record it: observability.{setting} is off in its configuration"
    return Status(409, "Conflict", why)


def _server_index(name: str, servers: Sequence[str]) -> int | None:
    if name.isascii() and name.isdigit() and len(name) < 4:
        return int(name) if int(name) < len(servers) else None
    named = [index for index, url in enumerate(servers) if url.partition("://")[2] == name]
    return named[0] if named else None


async def _reason(request: web.Request) -> str:
    """From the body, or from the query where there is none. Raises ParameterError for either."""
    asked = reason_of(request)
    if not request.can_read_body:
        return asked
    body = await body_of(request, DrainBody, DRAIN)
    return checked_reason(body.reason) or asked
