"""Populated API servers and guards with a relay before them; what a test started, its end stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from tests.net.traffic.client import OPENED

from .guarding import Relayed, populate, started_server
from .warping import Warp


class StartRelay(Protocol):
    async def __call__(self, *, pods: int = 30, **relay: Any) -> Relayed: ...


@pytest.fixture
def warp(monkeypatch: pytest.MonkeyPatch) -> Warp:
    """To be asked for before whatever keeps a clock."""
    found = Warp(time.monotonic)
    monkeypatch.setattr(time, "monotonic", found)
    return found


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack
        while OPENED:
            OPENED.pop().reset()
    for _ in range(50):  # closed transports leave their loop in a few turns
        await asyncio.sleep(0)


@pytest.fixture
async def server(stack: AsyncExitStack) -> EmbeddedApiServer:
    return await _server(stack, 30)


@pytest.fixture
async def relayed(server: EmbeddedApiServer, stack: AsyncExitStack) -> Relayed:
    return _relayed(server, stack)


@pytest.fixture
def start(stack: AsyncExitStack) -> StartRelay:
    """For tests that choose their pods or the relay's settings."""

    async def started(*, pods: int = 30, **relay: Any) -> Relayed:
        return _relayed(await _server(stack, pods), stack, **relay)

    return started


async def _server(stack: AsyncExitStack, pods: int) -> EmbeddedApiServer:
    found = await started_server(bookmark_every=0.2)
    stack.push_async_callback(found.stop)
    populate(found, pods)
    return found


def _relayed(server: EmbeddedApiServer, stack: AsyncExitStack, **relay: Any) -> Relayed:
    found = Relayed(server, **relay)
    stack.push_async_callback(found.close)
    return found
