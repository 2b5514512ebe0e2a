"""How a guard goes: who is still served, what it waits for, and what it does not wait for."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from apiguard.admin.views import readiness
from apiguard.runtime.fleet import State
from apiguard.runtime.supervisor import Supervisor
from tests.net.guarded import Client, ask, eventually, guarded, serving

LONG = 600
"""Seconds nobody here would wait for."""


def gone(supervisor: Supervisor) -> bool:
    return all(slot.state is State.GONE for slot in supervisor.slots)


def ready(supervisor: Supervisor) -> bool:
    now = asyncio.get_running_loop().time()
    return all(check.passed for check in readiness(supervisor, now) if check.name != "upstream")


async def watching(supervisor: Supervisor) -> Client:
    """A client with an open watch."""
    client = await Client.connect(supervisor)
    assert await client.ask("/api/v1/pods?watch=true") == 200
    await client.reader.readuntil(b"\n")
    return client


async def test_everybody_is_served_while_readiness_fails(tmp_path: Path) -> None:
    bounds = {"shutdownDelaySeconds": LONG}
    async with guarded(tmp_path, settings={"bounds": bounds}) as supervisor:
        assert ready(supervisor)
        watch = await watching(supervisor)
        supervisor.stop()
        await eventually(lambda: not ready(supervisor))
        assert supervisor.draining
        assert await ask(supervisor) == 200
        assert not watch.reader.at_eof()


async def test_a_worker_that_dies_meanwhile_has_a_successor(tmp_path: Path) -> None:
    bounds = {"shutdownDelaySeconds": LONG}
    async with guarded(tmp_path, settings={"bounds": bounds}) as supervisor:
        supervisor.stop()
        await eventually(lambda: supervisor.draining)
        worker = supervisor.slots[0].worker
        assert worker is not None
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda: supervisor.restarts["died"] == 1 and serving(supervisor))
        assert await ask(supervisor) == 200


async def test_a_second_signal_ends_the_wait_at_once(tmp_path: Path) -> None:
    bounds = {"shutdownDelaySeconds": LONG, "drainSeconds": LONG}
    async with guarded(tmp_path, settings={"bounds": bounds}) as supervisor:
        await watching(supervisor)
        supervisor.stop()
        await eventually(lambda: supervisor.draining)
        supervisor.stop()
        await eventually(lambda: gone(supervisor))


async def test_then_the_port_closes(tmp_path: Path) -> None:
    bounds = {"shutdownDelaySeconds": 1, "drainSeconds": LONG}
    async with guarded(tmp_path, settings={"bounds": bounds}) as supervisor:
        address = supervisor.address
        supervisor.stop()
        await eventually(lambda: gone(supervisor))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


async def test_watches_and_idle_connections_hold_no_restart_up(tmp_path: Path) -> None:
    """The watches end as ones that are over, so that their clients go on where they were."""
    bounds = {"drainSeconds": LONG, "drainWatchSeconds": 1}
    async with guarded(tmp_path, settings={"bounds": bounds}) as supervisor:
        idle = await Client.connect(supervisor)
        assert await idle.ask() == 200
        watches = [await watching(supervisor) for _ in range(5)]
        supervisor.stop()
        for watch in watches:
            assert (await watch.reader.read()).endswith(b"0\r\n\r\n")
        await eventually(lambda: gone(supervisor))


async def test_what_is_neither_watch_nor_short_is_cut_in_the_end(tmp_path: Path) -> None:
    bounds = {"drainSeconds": 1}
    async with guarded(tmp_path, settings={"bounds": bounds}) as supervisor:
        log = await Client.connect(supervisor)
        assert await log.ask("/api/v1/namespaces/a/pods/b/log?follow=true") == 200
        supervisor.stop()
        assert not (await log.reader.read()).endswith(b"0\r\n\r\n")
        await eventually(lambda: gone(supervisor))
        assert supervisor.totals.bounds["drain"] == 1
