"""Several API servers: who is asked while some are killed, lose their etcd, stall and return."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from apiguard.runtime import probe
from apiguard.runtime.drivers import ApiClient
from apiguard.runtime.probe import Prober, Server
from apiguard.runtime.tls import plain_context
from apiguard.runtime.traffic import EndpointView
from apiguard.upstream import health
from apiguard.upstream.endpoint import State

from .client import BrokenResponseError, Client
from .conftest import StartGuard
from .guard import Guard
from .upstreams import Connection, Received, Upstream, ok
from .waiting import eventually

CEILING = 3
NO_ETCD = b"[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n"
NOT_READY = b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n%b" % (len(NO_ETCD), NO_ETCD)


class ApiServer:
    """An upstream that says how it is; counts what it was asked and how much at once."""

    def __init__(self) -> None:
        self.upstream = Upstream(self._script)
        self.ready = True
        self.stalls = False
        self.asked = 0
        self.at_once = self.most_at_once = 0

    async def _script(self, connection: Connection, received: Received) -> None:
        if self.stalls:
            await connection.gone()
        elif received.target.startswith(b"/readyz"):
            connection.send(ok() if self.ready else NOT_READY)
        else:
            await self._serve(connection)

    async def _serve(self, connection: Connection) -> None:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.005)
        finally:
            self.at_once -= 1
        connection.send(ok())


class Load:
    """Clients that ask one thing after the other; ``answers`` by status, 0 for a broken one."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(clients)]
        self.answers: Counter[int] = Counter()

    async def _ask(self) -> None:
        client = await Client.open(self._port)
        try:
            while True:
                try:
                    self.answers[(await client.ask("/api/v1/pods")).status] += 1
                except BrokenResponseError:
                    self.answers[0] += 1
                    await client.close()
                    client = await Client.open(self._port)
        finally:
            await client.close()

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.answers.items() if status != 200)

    async def more(self, count: int = 60) -> None:
        """Until so many more requests were answered."""
        goal = self.answers.total() + count
        await eventually(lambda: self.answers.total() >= goal or self._broken(), f"{count} more")

    def _broken(self) -> bool:
        for task in self._tasks:
            if task.done():
                task.result()
        return False

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Cluster:
    """Three servers behind one guard that probes them, under load."""

    def __init__(self, servers: list[ApiServer], guard: Guard, prober: Prober, load: Load) -> None:
        self.servers = servers
        self.guard = guard
        self.prober = prober
        self.load = load

    def view(self, server: ApiServer) -> EndpointView:
        return self.guard.traffic.view().endpoints[self.servers.index(server)]

    def state(self, server: ApiServer) -> State:
        return self.view(server).state

    async def becomes(self, server: ApiServer, *states: State, within: float = 10.0) -> None:
        await eventually(lambda: self.state(server) in states, f"{states}", within=within)

    async def asked_during(self, server: ApiServer, count: int = 60) -> int:
        """How often ``server`` is asked while ``count`` requests are answered."""
        # What was assigned before its state changed is no matter, be it still on the wire.
        if self.state(server) is not State.FIT:
            await eventually(lambda: not self.view(server).open)
        before = server.asked
        await self.load.more(count)
        return server.asked - before


StartCluster = Callable[[], Awaitable[Cluster]]


@asynccontextmanager
async def probing(prober: Prober) -> AsyncIterator[None]:
    task = asyncio.create_task(prober.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def cluster(
    stack: AsyncExitStack, guard: StartGuard, monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    """Faults are found ten times as fast as in production; recovery keeps its own pace."""
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(probe, "DEADLINE_SECONDS", 0.2)
    servers = [ApiServer() for _ in range(3)]
    for server in servers:
        await server.upstream.start()
        stack.push_async_callback(server.upstream.close)
    urls = [server.upstream.url for server in servers]
    started = await guard(*urls, requests_per_upstream=CEILING)
    client = ApiClient(plain_context({}), "")
    stack.push_async_callback(client.close)

    def judged(server: Server, turned: bool) -> None:
        index = urls.index(server.url)
        started.traffic.judge(index, server.health.verdict, drained=server.drained)

    prober = Prober(urls, client, judged)
    await stack.enter_async_context(probing(prober))
    load = Load(started.port, clients=12)
    stack.push_async_callback(load.end)
    await eventually(lambda: all(server.asked > 10 for server in servers), "all are asked")
    return Cluster(servers, started, prober, load)


def drain(cluster: Cluster, server: ApiServer, drained: bool) -> None:
    index = cluster.servers.index(server)
    known = cluster.prober.servers[index]
    known.drained = drained
    cluster.guard.traffic.judge(index, known.health.verdict, drained=drained)


async def test_a_killed_server_costs_only_what_it_had_been_sent(cluster: Cluster) -> None:
    killed = cluster.servers[0]
    await killed.upstream.close()
    await cluster.becomes(killed, State.FAILING, State.UNFIT)
    await cluster.load.more(100)
    # What it had been sent, read or not: one request for each connection there was.
    assert cluster.load.failed <= CEILING
    failed = cluster.load.failed
    await cluster.becomes(killed, State.UNFIT)
    await cluster.load.more(200)
    assert cluster.load.failed == failed
    assert all(server.most_at_once <= CEILING for server in cluster.servers)


async def test_a_killed_server_is_used_again_within_two_seconds_of_its_return(
    cluster: Cluster,
) -> None:
    killed = cluster.servers[0]
    await killed.upstream.close()
    await cluster.becomes(killed, State.UNFIT)
    asked = killed.asked
    await killed.upstream.start(port=killed.upstream.port)
    await eventually(lambda: killed.asked > asked, "asked again", within=2.0)


async def test_nothing_goes_to_a_server_whose_etcd_check_fails(cluster: Cluster) -> None:
    sick = cluster.servers[1]
    sick.ready = False
    await cluster.becomes(sick, State.UNFIT)
    assert await cluster.asked_during(sick, 150) == 0
    assert cluster.load.failed == 0
    sick.ready = True
    asked = sick.asked
    await eventually(lambda: sick.asked > asked, "asked again", within=2.0)


async def test_nothing_more_goes_to_a_server_that_stalls(cluster: Cluster) -> None:
    slow = cluster.servers[2]
    slow.stalls = True
    await cluster.becomes(slow, State.UNFIT)
    await cluster.load.more(30)  # what it had been sent before may still be on its way to it
    taken = len(slow.upstream.requests)
    await cluster.load.more(150)
    probes = [r for r in slow.upstream.requests[taken:] if not r.target.startswith(b"/readyz")]
    assert probes == []
    assert cluster.load.failed == 0


async def test_one_killed_one_without_etcd_one_well(cluster: Cluster) -> None:
    """The one that is left serves all, within its ceiling."""
    killed, sick, well = cluster.servers
    sick.ready = False
    await cluster.becomes(sick, State.UNFIT)
    await killed.upstream.close()
    await cluster.becomes(killed, State.UNFIT)
    failed = cluster.load.failed
    assert await cluster.asked_during(sick, 150) == 0
    assert cluster.load.failed == failed <= CEILING
    assert well.most_at_once <= CEILING


async def test_when_every_server_fails_its_probes_the_least_bad_still_answers(
    cluster: Cluster,
) -> None:
    killed, *sick = cluster.servers
    for server in sick:
        server.ready = False
    await killed.upstream.close()
    for server in cluster.servers:
        await cluster.becomes(server, State.UNFIT)
    failed = cluster.load.failed
    await cluster.load.more(100)
    assert cluster.load.failed == failed


async def test_a_drained_server_gets_nothing_new_until_it_is_undrained(cluster: Cluster) -> None:
    drained = cluster.servers[0]
    drain(cluster, drained, True)
    assert cluster.state(drained) is State.DRAINED
    assert await cluster.asked_during(drained, 150) == 0
    drain(cluster, drained, False)
    assert await cluster.asked_during(drained, 150) > 0
    assert cluster.load.failed == 0
