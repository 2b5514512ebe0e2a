"""A guard's admin port in this process, over a worker that carries no traffic."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp

from apiguard.admin.app import AdminServer
from apiguard.policy.adminconfig import AdminConfig, Role, TokenConfig
from apiguard.runtime.control import Report, Traffic
from apiguard.runtime.log import StreamLog
from apiguard.runtime.relayreport import RelayReport
from apiguard.runtime.supervisor import Supervisor
from apiguard.telemetry.counters import Delta
from tests.net.admin.described import as_described
from tests.net.test_supervisor import supervised

TOKENS = {role: f"token-of-{role.value}" for role in Role}
Headers = Mapping[str, str]


def token_configs(folder: Path) -> tuple[TokenConfig, ...]:
    """One token for each role, its file written."""
    for role, token in TOKENS.items():
        (folder / role.value).write_text(token + "\n")
    return tuple(TokenConfig(role.value, role, str(folder / role.value)) for role in Role)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What a Status says."""
        assert self.json["kind"] == "Status"
        return str(self.json["message"])


@dataclass(slots=True)
class Door:
    """One way to the admin port; what comes back is as ``/openapi.json`` says, or the test
    fails."""

    base: str
    session: aiohttp.ClientSession
    ssl: ssl.SSLContext | bool = True
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(
        self,
        method: str,
        target: str,
        headers: Headers | None = None,
        body: str | BytesIO | None = None,
    ) -> Answer:
        async with self.session.request(
            method,
            self.base + target,
            headers={**self.headers, **(headers or {})},
            data=body,
            ssl=self.ssl,
        ) as response:
            answer = Answer(response.status, dict(response.headers), await response.read())
        as_described(method, target, answer.code, answer.headers, answer.body)
        return answer

    async def send(
        self, method: str, target: str, document: object, headers: Headers | None = None
    ) -> Answer:
        """A write with a JSON body."""
        return await self.ask(
            method,
            target,
            {"Content-Type": "application/json", **(headers or {})},
            json.dumps(document),
        )

    def holding(self, role: Role) -> Door:
        """The same door for whoever holds the token of ``role``."""
        return Door(self.base, self.session, self.ssl, bearer(TOKENS[role]))


def tell(supervisor: Supervisor, relay: RelayReport) -> None:
    """The first worker reports ``relay``."""
    slot, report = supervisor.slots[0], Report(Delta(), (), Traffic(), relay=relay)
    supervisor.on_report(slot, report)
    slot.mirror.receive(report, time.monotonic())


@dataclass(frozen=True, slots=True)
class Admin:
    server: AdminServer
    supervisor: Supervisor
    door: Door


@contextlib.asynccontextmanager
async def serving(
    folder: Path, config: AdminConfig, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Admin]:
    """``tls`` is the client's side, where the port speaks TLS."""
    null = os.open(os.devnull, os.O_WRONLY)
    log = StreamLog(null)
    try:
        async with supervised(folder, "good") as (supervisor, _):
            server = AdminServer(config, supervisor, log)
            server.open()
            await server.start()
            host, port = server.address
            scheme = "https" if config.tls else "http"
            try:
                async with aiohttp.ClientSession() as session:
                    door = Door(f"{scheme}://{host}:{port}", session, tls or True)
                    yield Admin(server, supervisor, door)
            finally:
                await server.stop()
    finally:
        log.close()
        os.close(null)


@contextlib.asynccontextmanager
async def through_socket(path: str) -> AsyncIterator[Door]:
    """The Unix socket as a door."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
        yield Door("http://whatever.example", session)
