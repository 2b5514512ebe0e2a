"""Asking each API server how it is, without any request of a client.

It runs in the supervisor: a worker whose loop is busy would take its own delay for the server's,
and readiness must be known while workers are busy or being replaced. Each server is asked on its
own connection, TLS included, at its own pace; what follows from the answers is ``Health``'s, and
workers are told of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from apiguard.runtime.drivers import ApiClient, CallError, first_fit
from apiguard.upstream.health import Health
from apiguard.upstream.readyz import LONGEST_BODY, LONGEST_DETAIL, Condition, Finding, read_answer

PATH: Final = "/readyz?verbose"
DEADLINE_SECONDS: Final = 2.0
"""A server slower than this to say that it is ready is not; kube-apiserver gives etcd 2 s."""


class Server:
    """One API server as the supervisor sees it. ``drained`` is the operator's word."""

    __slots__ = ("drained", "health", "probed_at", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.health = Health()
        self.drained = False
        self.probed_at = 0.0

    @property
    def usable(self) -> bool:
        """Found fit, and not drained; before the first probe nothing is known."""
        return self.health.probes > 0 and self.health.verdict.fit and not self.drained

    @property
    def state(self) -> str:
        """In one word: ``telemetry.names.UPSTREAM_STATES``."""
        if self.drained:
            return "drained"
        if not self.health.probes:
            return "unprobed"
        return "fit" if self.health.verdict.fit else "unfit"


class Prober:
    """Probes ``urls`` in their order; ``changed`` is called when what is known of a server changes,
    with whether that changed its fitness."""

    def __init__(
        self,
        urls: Sequence[str],
        client: ApiClient,
        changed: Callable[[Server, bool], None] = lambda server, turned: None,
    ) -> None:
        self.servers = tuple(Server(url) for url in urls)
        self.changed = changed
        self._client = client

    @property
    def any_usable(self) -> bool:
        return any(server.usable for server in self.servers)

    def fit(self) -> list[str]:
        """Servers for the guard's own calls, best first."""
        return first_fit(
            (s.url, s.health.verdict.fit and not s.drained, True) for s in self.servers
        )

    async def run(self) -> None:
        """Probes until cancelled, each server at its own pace."""
        async with asyncio.TaskGroup() as group:
            for server in self.servers:
                group.create_task(self._follow(server))

    async def round(self) -> None:
        """Probes every server once."""
        await asyncio.gather(*(self.probe(server) for server in self.servers))

    async def _follow(self, server: Server) -> None:
        while True:
            begun = time.monotonic()
            await self.probe(server)
            due = begun + server.health.interval
            await asyncio.sleep(max(0.05, due - time.monotonic()))

    async def probe(self, server: Server) -> None:
        before = server.health.verdict
        turned = server.health.probed(await self._find(server.url))
        server.probed_at = time.monotonic()
        if server.health.verdict != before:
            self.changed(server, turned)

    async def _find(self, url: str) -> Finding:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await self._client.get(url, PATH, most=LONGEST_BODY, fresh=True)
        except TimeoutError:
            return Finding(Condition.SILENT, f"no answer within {DEADLINE_SECONDS:g} s")
        except CallError as error:
            return Finding(Condition.SILENT, str(error)[:LONGEST_DETAIL])
        return read_answer(answer.status, answer.body)
