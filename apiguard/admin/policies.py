"""The policy over HTTP: read, replace, try, roll back."""

from __future__ import annotations

import msgspec
from aiohttp import web

from apiguard.admin import views
from apiguard.admin.parameters import (
    ParameterError,
    body_of,
    checked_reason,
    dry_run,
    reason_of,
    text_of,
)
from apiguard.admin.refusals import POLICY, status_of
from apiguard.admin.replies import actor_of, as_json, plain, refuse, reply
from apiguard.kube.status import Status
from apiguard.runtime.results import (
    Acks,
    Changed,
    NoSuchGeneration,
    WouldChange,
)
from apiguard.runtime.supervisor import Supervisor

NAME = "policy"
ROLLBACK = '{"reason": "INC-7", "generation": 3}; without generation it is the one before'


class RollbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """``generation`` null: the one before the active one."""

    reason: str
    generation: int | None = None


class PolicyHandlers:
    """Routes under ``/v1/policy``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

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
        trying, reason = dry_run(request), reason_of(request)
        change, acknowledged = await self._supervisor.operations.put_policy(
            await text_of(request),
            NAME,
            generation=_named_generation(request),
            actor=actor_of(request),
            reason=reason,
            dry_run=trying,
        )
        match change:
            case Changed():
                return self._changed(acknowledged)
            case WouldChange(policy, preview):
                return reply(
                    {
                        "dryRun": True,
                        "digest": policy.digest,
                        "rules": len(policy.rules),
                        "preview": as_json(preview),
                    }
                )
            case _:
                return refuse(status_of(change, POLICY, NAME))

    async def get_history(self, request: web.Request) -> web.Response:
        """Accepted policies, newest first."""
        generations = self._supervisor.operations.history()
        return reply({"generations": [views.generation(one) for one in generations]})

    async def get_generation(self, request: web.Request) -> web.Response:
        """The text of one, as it was put."""
        named = request.match_info["generation"]
        found = await self._supervisor.operations.generation_text(_number(named, "generation"))
        if found is None:
            return refuse(_no_generation(named))
        return plain(found, content_type="application/yaml")

    async def post_rollback(self, request: web.Request) -> web.Response:
        """Takes a policy of the history up again, as a new generation."""
        body = await body_of(request, RollbackBody, ROLLBACK)
        reason = checked_reason(body.reason)
        if not reason:
            raise ParameterError("a rollback needs a reason")
        change, acknowledged = await self._supervisor.operations.rollback(
            body.generation, actor=actor_of(request), reason=reason
        )
        match change:
            case Changed():
                return self._changed(acknowledged)
            case NoSuchGeneration():
                return refuse(_no_generation(body.generation))
            case _:
                return refuse(status_of(change, POLICY, NAME))

    def _changed(self, acknowledged: Acks) -> web.Response:
        active = self._supervisor.keeper.active
        body = {**views.policy(active), "workers": views.acknowledged(acknowledged)}
        return reply(body, headers={"ETag": f'"{active.revision.generation}"'})


def _no_generation(named: object) -> Status:
    message = (
        "there is no generation before the active one"
        if named is None
        else f"generation {named} is not among the last ones; see /v1/policy/history"
    )
    return Status(404, "NotFound", message)


def _named_generation(request: web.Request) -> int | None:
    """The generation a PUT was made against, None when it names none.

    Raises ParameterError when it is no number or two are named that differ.
    """
    named: set[int] = set()
    match = request.headers.get("If-Match", "*").strip()
    if match != "*":
        named.add(_number(match.removeprefix("W/").strip('"'), "If-Match"))
    if request.query.get("generation"):
        named.add(_number(request.query["generation"], "generation"))
    if len(named) > 1:
        raise ParameterError("If-Match and generation name different generations")
    return named.pop() if named else None


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ParameterError(f"{what} must be a generation's number")
    return int(text)
