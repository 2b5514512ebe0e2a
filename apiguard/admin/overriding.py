"""Overrides over HTTP: lay one over the policy, try it, extend it, take it back."""

from __future__ import annotations

import time

import msgspec
from aiohttp import web

from apiguard.admin import views
from apiguard.admin.parameters import body_of, dry_run, text_of
from apiguard.admin.refusals import OVERRIDE, status_of
from apiguard.admin.replies import actor_of, as_json, refuse, reply
from apiguard.runtime.results import (
    NoSuchOverride,
    OverrideAdded,
    OverrideDeleted,
    OverrideExtended,
    OverrideView,
    WouldAdd,
)
from apiguard.runtime.supervisor import Supervisor
from apiguard.telemetry.counters import OverrideHits

EXTENSION = '{"ttlSeconds": 1800}: it ends so many seconds from now'


class ExtensionBody(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """``ttl_seconds`` from now."""

    ttl_seconds: float


class OverrideHandlers:
    """Routes under ``/v1/overrides``. What a body may hold is policy.overrides' to say."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def get_overrides(self, request: web.Request) -> web.Response:
        """Those in force, newest first."""
        overrides = self._supervisor.operations.overrides()
        return reply({"overrides": [self._described(one) for one in overrides]})

    async def post_override(self, request: web.Request) -> web.Response:
        answer = await self._supervisor.operations.put_override(
            await text_of(request), actor_of(request), dry_run=dry_run(request)
        )
        match answer:
            case OverrideAdded(override, workers):
                described = {**self._described(override), "workers": views.acknowledged(workers)}
                where = {"Location": f"/v1/overrides/{override.id}"}
                return reply(described, code=201, headers=where)
            case WouldAdd(document, preview):
                return reply({"dryRun": True, "override": document, "preview": as_json(preview)})
            case _:
                return refuse(status_of(answer, OVERRIDE, ""))

    async def get_override(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        override = self._supervisor.operations.override(id_)
        if override is None:
            return refuse(status_of(NoSuchOverride(id_), OVERRIDE, id_))
        return reply(self._described(override))

    async def patch_override(self, request: web.Request) -> web.Response:
        """Another end; everything else about it is fixed, since it is on record as it is."""
        id_ = request.match_info["id"]
        body = await body_of(request, ExtensionBody, EXTENSION)
        answer = await self._supervisor.operations.extend_override(
            id_, body.ttl_seconds, actor_of(request)
        )
        if isinstance(answer, OverrideExtended):
            return reply(self._described(answer.override))
        return refuse(status_of(answer, OVERRIDE, id_))

    async def delete_override(self, request: web.Request) -> web.Response:
        """Answers what it was."""
        id_ = request.match_info["id"]
        answer = await self._supervisor.operations.delete_override(id_, actor_of(request))
        if isinstance(answer, OverrideDeleted):
            workers = views.acknowledged(answer.workers)
            return reply({**self._described(answer.override), "workers": workers})
        return refuse(status_of(answer, OVERRIDE, id_))

    def _described(self, override: OverrideView) -> dict[str, object]:
        return views.override(override, self._hits(override.id), time.monotonic())

    def _hits(self, id_: str) -> OverrideHits | None:
        found = self._supervisor.operations.override_hits(id_)
        if found is None:
            return None
        ago = max(0.0, time.time() - found.last)
        return OverrideHits(found.admitted, found.refused, time.monotonic() - ago)
