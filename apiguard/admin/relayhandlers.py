"""The relay over HTTP: all caches at a glance, and one resource with what stands out in it."""

from __future__ import annotations

import time

from aiohttp import web

from apiguard.admin import relaying
from apiguard.admin.replies import refuse, reply
from apiguard.kube.status import Status
from apiguard.runtime.relayreport import CacheName
from apiguard.runtime.supervisor import Supervisor


class RelayHandlers:
    """Routes under ``/v1/relay``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def get_relay(self, request: web.Request) -> web.Response:
        """From the workers' last reports."""
        return reply(relaying.relay(self._supervisor, time.monotonic()))

    async def get_relayed(self, request: web.Request) -> web.Response:
        """``{resource}`` is ``pods`` or, with its group, ``deployments.apps``. Workers are asked
        for the largest objects and those that change most; one that is silent is left out."""
        asked = request.match_info["resource"]
        chosen = [
            one
            for one in relaying.caches(self._supervisor)
            if asked in (one.name.resource, relaying.qualified(one.name))
        ]
        if not chosen:
            return refuse(Status(404, "NotFound", _unknown(self._supervisor, asked)))
        found: dict[CacheName, dict[str, object]] = {}
        for group, resource in dict.fromkeys((c.name.group, c.name.resource) for c in chosen):
            answers = await self._supervisor.operations.standouts(group, resource)
            found |= relaying.standing_out(answers)
        now = time.monotonic()
        nothing: dict[str, object] = {"elephants": [], "hotKeys": []}
        return reply(
            {
                "resource": asked,
                "caches": [
                    {
                        **relaying.cache(self._supervisor, one, now),
                        **found.get(one.name, nothing),
                    }
                    for one in chosen
                ],
            }
        )


def _unknown(supervisor: Supervisor, asked: str) -> str:
    names = dict.fromkeys(relaying.qualified(one.name) for one in relaying.caches(supervisor))
    if not names:
        return "the relay is off: relay.resources in the configuration names none"
    known = ", ".join(list(names)[:20])
    return f"the relay holds no {asked[:64]!r}; it knows {known}"
