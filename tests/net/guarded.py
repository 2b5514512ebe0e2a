"""A supervisor with real workers before a little upstream, in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar

from apiguard.runtime.actor import Actor
from apiguard.runtime.fleet import State
from apiguard.runtime.keeper import PolicyKeeper
from apiguard.runtime.log import StreamLog
from apiguard.runtime.settings import parse_settings
from apiguard.runtime.statestore import StateStore
from apiguard.runtime.supervisor import Supervisor

ALICE = Actor("alice", "operator", "127.0.0.1", "token")

POLICY = """\
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
- name: telemetry
  match: {userAgents: ["telemetry/*"]}
  mode: %s
  limits: [{requestsPerSecond: %g, burst: %g}]
default: {limits: [{requestsPerSecond: 10000, burst: 10000}]}
"""


def policy(rate: float = 1_000, mode: str = "enforce") -> str:
    return POLICY % (mode, rate, rate)


class Upstream:
    """Answers everything with an empty list; a watch with one event, and then goes on open."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return "http://127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]  # noqa: UP031

    async def close(self) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(_answer(head))
        writer.close()
        self._open.discard(task)


def _answer(head: bytes) -> bytes:
    if b"watch=true" in head or b"/log" in head:
        event = b'{"type":"BOOKMARK"}\n'
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def guarded(
    folder: Path, *, workers: int = 1, settings: dict[str, object] | None = None
) -> AsyncIterator[Supervisor]:
    """A guard that serves; what it keeps stays in ``folder`` for the next one."""
    upstream = Upstream()
    config = {
        "apiVersion": "apiguard.io/v1alpha1",
        "kind": "GuardConfig",
        "listen": {"address": "127.0.0.1:0"},
        "upstream": {"servers": [await upstream.start()]},
        "admin": {"address": "127.0.0.1:0", "tokenFile": "token"},
        "stateDir": "state",
        "policyFile": "policy.yaml",
        "workers": workers,
        "bounds": {"drainSeconds": 1},
        **(settings or {}),
    }
    text, name = json.dumps(config), str(folder / "guard.yaml")
    if not (folder / "policy.yaml").exists():
        (folder / "policy.yaml").write_text(policy())
    null = os.open(os.devnull, os.O_WRONLY)
    log = StreamLog(null)
    parsed = parse_settings(text, name)
    store = StateStore(parsed.state_dir)
    keeper = PolicyKeeper(store, parsed.policy_file, log)
    keeper.start()
    supervisor = Supervisor(parsed, text, name, keeper, log)
    supervisor.open()
    running = asyncio.create_task(supervisor.run())
    try:
        await eventually(lambda: len(supervisor.fleet.serving) == workers)
        yield supervisor
    finally:
        await Client.close_all()
        supervisor.stop()
        supervisor.stop()
        await asyncio.gather(running, return_exceptions=True)
        await upstream.close()
        store.close()
        log.close()
        os.close(null)


async def eventually(condition: Callable[[], object], seconds: float = 15.0) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline
        await asyncio.sleep(0.01)


class Client:
    """One connection that asks one request after the other; closed with the guard."""

    _open: ClassVar[list[asyncio.StreamWriter]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self._open.append(writer)

    @classmethod
    async def close_all(cls) -> None:
        for writer in cls._open:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        cls._open.clear()

    @classmethod
    async def connect(cls, supervisor: Supervisor) -> Client:
        return cls(*await asyncio.open_connection(*supervisor.address))

    async def ask(self, target: str = "/api/v1/pods", agent: str = "telemetry/1") -> int:
        """The status code."""
        head = f"GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n"
        self._writer.write(head.encode())
        answer = await self.reader.readuntil(b"\r\n\r\n")
        for line in answer.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                await self.reader.readexactly(int(line.split(b":")[1]))
        return int(answer.split()[1])

    def close(self) -> None:
        self._writer.close()


async def ask(supervisor: Supervisor, agent: str = "telemetry/1") -> int:
    """The status code of one request on a connection of its own."""
    client = await Client.connect(supervisor)
    try:
        return await client.ask(agent=agent)
    finally:
        client.close()


def serving(supervisor: Supervisor) -> bool:
    return all(slot.state is State.SERVING for slot in supervisor.slots)
