"""The supervisor against workers that fail, babble or do not listen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from apiguard.errors import StartupError
from apiguard.policy.config import AdminConfig, GuardConfig, ListenConfig, UpstreamConfig
from apiguard.runtime.actor import Actor
from apiguard.runtime.fleet import ACKNOWLEDGE_SECONDS, State
from apiguard.runtime.keeper import Changed, PolicyKeeper
from apiguard.runtime.log import StreamLog
from apiguard.runtime.statestore import StateStore
from apiguard.runtime.supervisor import Supervisor

POLICY = """\
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules: []
default: {limits: [{requestsPerSecond: 1}]}
"""
ALICE = Actor("alice", "admin", "127.0.0.1", "token")
STUB = Path(__file__).with_name("stub_worker.py")


@contextlib.asynccontextmanager
async def supervised(
    folder: Path,
    behaviour: str,
    workers: int = 1,
    servers: tuple[str, ...] = ("http://127.0.0.1:1",),
) -> AsyncIterator[tuple[Supervisor, asyncio.Task[int]]]:
    """A supervisor that runs stub workers, and its task."""
    (folder / "policy.yaml").write_text(POLICY)
    config = GuardConfig(
        listen=ListenConfig("127.0.0.1:0"),
        upstream=UpstreamConfig(servers),
        admin=AdminConfig("127.0.0.1:0", "token"),
        state_dir=str(folder / "state"),
        policy_file=str(folder / "policy.yaml"),
        workers=workers,
    )
    null = os.open(os.devnull, os.O_WRONLY)
    log = StreamLog(null)
    store = StateStore(config.state_dir)
    keeper = PolicyKeeper(store, config.policy_file, log)
    keeper.start()
    command = (sys.executable, str(STUB), behaviour)
    supervisor = Supervisor(config, "", "guard.yaml", keeper, log, command)
    supervisor.open()
    running = asyncio.create_task(supervisor.run())
    try:
        yield supervisor, running
    finally:
        supervisor.stop()
        supervisor.stop()
        await asyncio.gather(running, return_exceptions=True)
        store.close()
        log.close()
        os.close(null)


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_first_worker_that_cannot_serve_ends_the_start(tmp_path: Path) -> None:
    async with supervised(tmp_path, "fail") as (_, running):
        with pytest.raises(StartupError, match="no such thing"):
            await running


@pytest.mark.parametrize("behaviour", ["garbage", "mismatched"])
async def test_a_worker_that_babbles_is_replaced(tmp_path: Path, behaviour: str) -> None:
    marker = tmp_path / "babbled"
    async with supervised(tmp_path, f"{behaviour}:{marker}") as (supervisor, _):
        await eventually(lambda: supervisor.slots[0].state is State.SERVING)
        assert marker.exists()
        assert supervisor.restarts["died"] == 1


async def test_reports_of_all_workers_add_up(tmp_path: Path) -> None:
    async with supervised(tmp_path, "good", workers=2) as (supervisor, _):
        key = ("forwarded", "read", "200")
        await eventually(lambda: supervisor.totals.requests.get(key) == 2)
        assert [slot.mirror.traffic.connections for slot in supervisor.slots] == [1, 2]


async def test_a_worker_that_does_not_acknowledge_is_named_and_holds_nobody_up(
    tmp_path: Path,
) -> None:
    async with supervised(tmp_path, "deaf") as (supervisor, _):
        await eventually(lambda: supervisor.slots[0].state is State.SERVING)
        begun = time.monotonic()
        change, (told,) = await supervisor.operations.put_policy(
            POLICY + "# 2\n", "policy", generation=1, actor=ALICE, dry_run=False
        )
        assert time.monotonic() - begun < ACKNOWLEDGE_SECONDS + 0.5
        assert isinstance(change, Changed)
        assert "no answer" in told.problem


async def test_draining_waits_for_workers_and_exits_0(tmp_path: Path) -> None:
    async with supervised(tmp_path, "good") as (supervisor, running):
        await eventually(lambda: supervisor.slots[0].state is State.SERVING)
        supervisor.stop()
        assert await running == 0
