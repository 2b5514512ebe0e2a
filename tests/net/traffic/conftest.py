"""Every test of the traffic path runs on uvloop, as in production, and on asyncio's own loop.

``guard`` and ``upstream`` start what a test needs; when the test ends each guard must let go of
every connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest
import uvloop

from apiguard.runtime import traffic
from tests.conftest import Certificates

from .client import OPENED
from .faults import FaultProxy
from .guard import Guard, client_context, upstream_server_context
from .upstreams import EchoUpstream, Script, Upstream

_BEFORE_TIMEOUT = 10.0  # seconds


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
async def bounded(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Ends a test that hangs, and says where its tasks are.

    pytest-timeout raises from a signal's handler; uvloop hands that to the exception handler of the
    loop and waits on, for good.
    """
    loop = asyncio.get_running_loop()
    marker = request.node.get_closest_marker("timeout")
    limit = float(marker.args[0] if marker else request.config.getini("timeout"))

    def give_up() -> None:
        for task in asyncio.all_tasks(loop):
            task.print_stack()
        loop.stop()  # the test fails: its loop ended before it did

    handle = loop.call_later(limit - _BEFORE_TIMEOUT, give_up)
    yield
    handle.cancel()


@pytest.fixture(autouse=True)
def fine_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines are looked at ten times as often, so that tests of them are as short."""
    monkeypatch.setattr(traffic, "TICK_SECONDS", 0.05)


class StartUpstream(Protocol):
    async def __call__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, heads_only: bool = False
    ) -> Upstream: ...


class StartGuard(Protocol):
    async def __call__(self, *servers: str, **options: Any) -> Guard: ...


class StartProxy(Protocol):
    async def __call__(self, port: int) -> FaultProxy: ...


class StartEcho(Protocol):
    async def __call__(self, upstream: EchoUpstream) -> EchoUpstream: ...


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Ends what was started, last first; an exception no coroutine took fails the test."""
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    async with AsyncExitStack() as stack:
        yield stack
        while OPENED:
            OPENED.pop().reset()
    for _ in range(50):  # closed transports leave their loop in a few turns
        await asyncio.sleep(0)
    assert not failures, failures


@pytest.fixture
def upstream(stack: AsyncExitStack) -> StartUpstream:
    async def start(
        script: Script, *, tls: ssl.SSLContext | None = None, heads_only: bool = False
    ) -> Upstream:
        server = await Upstream(script, heads_only=heads_only).start(tls)
        stack.push_async_callback(server.close)
        return server

    return start


@pytest.fixture
def echo(stack: AsyncExitStack) -> StartEcho:
    async def start(upstream: EchoUpstream) -> EchoUpstream:
        await upstream.start()
        stack.push_async_callback(upstream.close)
        return upstream

    return start


@pytest.fixture
def guard(stack: AsyncExitStack) -> StartGuard:
    async def start(*servers: str, **options: Any) -> Guard:
        guard = Guard(servers, **options)
        stack.push_async_callback(guard.close)
        return guard

    return start


@pytest.fixture
def proxy(stack: AsyncExitStack) -> StartProxy:
    async def start(port: int) -> FaultProxy:
        proxy = await FaultProxy(port).start()
        stack.push_async_callback(proxy.close)
        return proxy

    return start


@pytest.fixture
def upstream_tls(certificates: Certificates) -> ssl.SSLContext:
    return upstream_server_context(certificates)


@pytest.fixture
def client_tls(certificates: Certificates) -> ssl.SSLContext:
    return client_context(certificates)
