"""At the ceiling of requests upstream: cheap ones pass, expensive ones wait their turn."""

from __future__ import annotations

import asyncio

import pytest

from apiguard.telemetry import bounds

from .client import Client, request
from .conftest import StartGuard, StartUpstream
from .guard import Guard
from .upstreams import CHUNKED_OK, Connection, Received, chunk, ok
from .waiting import eventually

PODS = "/api/v1/pods"
WATCH_LIST = (
    f"{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    "&allowWatchBookmarks=true"
)
LISTS = [PODS, f"{PODS}?limit=500", f"{PODS}?labelSelector=a%3Db", WATCH_LIST]
SLOW = frozenset(LISTS)
CHEAP = [
    ("POST", "/api/v1/namespaces/a/pods"),
    ("PATCH", "/api/v1/namespaces/a/pods/p"),
    ("GET", "/api/v1/namespaces/a/pods/p"),
    ("GET", f"{PODS}?fieldSelector=metadata.name%3Dp"),
]
OBJECT = b'{"type":"ADDED","object":{"metadata":{"name":"p"}}}\n'
BOOKMARK = (
    b'{"type":"BOOKMARK","object":{"metadata":{"annotations":'
    b'{"k8s.io/initial-events-end":"true"}}}}\n'
)


class ApiServer:
    """Lists begin and do not end before ``go``; everything else is answered at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: list[tuple[bytes, bytes]] = []
        self.done: list[tuple[bytes, bytes]] = []
        self.watches: list[Connection] = []

    async def script(self, connection: Connection, received: Received) -> None:
        what = received.method, received.target
        self.begun.append(what)
        if b"watch=1" in received.target:
            connection.send(CHUNKED_OK + chunk(OBJECT))
            self.watches.append(connection)
            await connection.gone()
            return
        if received.target.decode() in SLOW or b"?limit=" in received.target:
            await self.go.wait()
        self.done.append(what)
        connection.send(ok())


async def waiting(guard: Guard, count: int) -> None:
    await eventually(lambda: guard.traffic.upstream.pool.waiting == count)


async def lists_under_way(guard: Guard, server: ApiServer, targets: list[str]) -> list[Client]:
    """Clients whose lists have all been submitted, one after the other."""
    clients = []
    for target in targets:
        client = await Client.open(guard.port)
        client.send(request(target))
        clients.append(client)
        await eventually(
            lambda: len(server.begun) + guard.traffic.upstream.pool.waiting == len(clients)
        )
    return clients


@pytest.mark.parametrize("kind", LISTS)
async def test_a_storm_of_collection_reads_keeps_nothing_else_waiting(
    upstream: StartUpstream, guard: StartGuard, kind: str
) -> None:
    """Of four places two may be theirs; they take no more, though nobody else is there."""
    server = ApiServer()
    started = await guard((await upstream(server.script)).url, requests_per_upstream=4)
    clients = await lists_under_way(started, server, [kind] * 6)
    assert len(server.begun) == 2
    for method, target in CHEAP * 2:
        client = await Client.open(started.port)
        assert (await client.ask(target, method=method)).status == 200
        await client.close()
    await waiting(started, 4)
    assert len(server.done) == 2 * len(CHEAP), "all of them before any list"
    server.go.set()
    for client in clients:
        client.reset()


async def test_what_waits_is_served_in_turn_and_writes_before_the_lists_in_front_of_them(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = ApiServer()
    started = await guard((await upstream(server.script)).url, requests_per_upstream=2)
    lists = await lists_under_way(started, server, [f"{PODS}?limit={n}" for n in range(1, 5)])
    writes = [await Client.open(started.port) for _ in range(3)]
    for n, client in enumerate(writes):
        client.send(request(f"/api/v1/namespaces/a/pods/{n}", method="DELETE"))
    for client in writes:
        assert (await client.response("DELETE")).status == 200
    assert [method for method, _ in server.done] == [b"DELETE"] * 3
    server.go.set()
    for client in lists:
        assert (await client.response()).status == 200
    order = [target for method, target in server.begun if method == b"GET"]
    assert order == [f"{PODS}?limit={n}".encode() for n in range(1, 5)]
    for client in (*lists, *writes):
        await client.close()


async def test_a_watch_list_is_a_list_until_its_objects_are_there_and_then_a_watch(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = ApiServer()
    started = await guard((await upstream(server.script)).url, requests_per_upstream=2)
    clients = await lists_under_way(started, server, [WATCH_LIST] * 3)
    assert len(server.watches) == 1
    assert started.traffic.view().watches == 0
    for count in range(1, 4):
        server.watches[count - 1].send(chunk(BOOKMARK))
        await eventually(lambda count=count: started.traffic.view().watches == count)  # type: ignore[misc]  # mypy cannot type a lambda's default
        await eventually(lambda count=count: len(server.watches) == min(3, count + 1))  # type: ignore[misc]  # as above
    for client in clients:
        assert (await client.head()).status == 200
        told = await client.chunk()
        if told != OBJECT + BOOKMARK:  # they may have arrived together, and go on so
            told += await client.chunk()
        assert told == OBJECT + BOOKMARK
        client.reset()


async def test_at_the_ceiling_of_watches_a_watch_list_is_refused_as_a_watch_is(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = ApiServer()
    started = await guard((await upstream(server.script)).url, watches_per_upstream=1)
    watcher = await Client.open(started.port)
    watcher.send(request(f"{PODS}?watch=1"))
    await eventually(lambda: started.traffic.view().watches == 1)
    client = await Client.open(started.port)
    refused = await client.ask(WATCH_LIST)
    assert (refused.status, started.hits(bounds.WATCHES)) == (429, 1)
    assert refused.get(b"retry-after")
    await client.close()
    watcher.reset()
