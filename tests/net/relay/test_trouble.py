"""Upstream goes away, comes back, forgets: readers of the relay go on and never see less."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.faults import Fault
from apiguard.demo.resources import PODS
from apiguard.policy.relayconfig import RelayedResource
from tests.net.traffic.waiting import eventually

from .conftest import StartRelay
from .guarding import Relayed, pod
from .streams import Stream

LIST = "/api/v1/pods?resourceVersion=0"


async def test_reads_go_on_while_upstream_is_away(
    server: EmbeddedApiServer, relayed: Relayed
) -> None:
    """Lists carry a warning, watches stay open and resume without a relist."""
    before = await relayed.through(LIST)
    target = f"/api/v1/pods?watch=true&resourceVersion={server.store.revision}"
    stream = await Stream.open(relayed.url, target)
    feed = next(iter(relayed.desk.feeds.values()))
    await server.kill()
    await eventually(lambda: feed.lost_at, "upstream missed")
    feed.lost_at -= 2.0
    for _ in range(5):
        found = await relayed.through(LIST)
        assert found.body == before.body
        assert "is away" in (found.value("Warning") or "")
    another = await Stream.open(relayed.url, target)
    await server.listen()
    await eventually(lambda: not feed.lost_at, "upstream heard again", within=15)
    server.create(PODS, pod("later"), "default")
    for one in (stream, another):
        event = await one.event()
        assert event["object"]["metadata"]["name"] == "later"
        one.close()
    assert relayed.upstream_counts("pods")["list", "json"] == 1
    assert (await relayed.through(LIST)).value("Warning") is None


async def test_answers_too_old_go_upstream(start: StartRelay) -> None:
    relayed = await start(resources=(RelayedResource("", "v1", "pods", stale_seconds=5),))
    server = relayed.server
    await relayed.through(LIST)
    feed = next(iter(relayed.desk.feeds.values()))
    await server.kill()
    await eventually(lambda: feed.lost_at, "upstream missed")
    assert feed.cache is not None
    feed.lost_at -= 10.0
    feed.cache.refreshed_at -= 10.0
    found = await relayed.through(LIST)
    assert found.code == 503
    assert found.value("Retry-After")


async def test_a_compacted_history_is_bridged_by_the_difference(
    server: EmbeddedApiServer, relayed: Relayed
) -> None:
    """410 for the relay is a relist of its own; its streams hear what changed, in order."""
    await relayed.through(LIST)
    target = f"/api/v1/pods?watch=true&resourceVersion={server.store.revision}"
    stream = await Stream.open(relayed.url, target)
    feed = next(iter(relayed.desk.feeds.values()))
    await server.kill()
    await eventually(lambda: feed.lost_at, "upstream missed")
    server.store.delete(PODS, "default/web-001")
    server.create(PODS, pod("missed-1"), "default")
    server.create(PODS, pod("missed-2"), "default")
    server.store.compact(server.store.revision)
    await server.listen()
    events = [await stream.event() for _ in range(3)]
    told = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
    assert sorted(told) == [("ADDED", "missed-1"), ("ADDED", "missed-2"), ("DELETED", "web-001")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    direct, through = await relayed.direct(LIST), await relayed.through(LIST)
    assert json.loads(through.body)["items"] == json.loads(direct.body)["items"]
    stream.close()


async def test_a_restored_storage_ends_everything_with_410(
    server: EmbeddedApiServer, relayed: Relayed
) -> None:
    backup = server.control.backup()
    server.create(PODS, pod("lost"), "default")
    await relayed.through(LIST)
    target = f"/api/v1/pods?watch=true&resourceVersion={server.store.revision}"
    stream = await Stream.open(relayed.url, target)
    feed = next(iter(relayed.desk.feeds.values()))
    assert feed.reflector is not None
    reflector = feed.reflector
    server.control.restore(backup)
    await server.kill()
    await server.listen()
    await eventually(lambda: reflector.breaks, "the contradiction seen", within=60)
    event = await stream.event()
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert await stream.frame() == b""
    direct = await relayed.direct(LIST)
    through = await relayed.through(LIST)
    assert json.loads(through.body)["items"] == json.loads(direct.body)["items"]
    stream.close()


async def test_a_cache_that_was_never_filled_answers_nothing(
    server: EmbeddedApiServer, stack: AsyncExitStack
) -> None:
    """Upstream that fails its lists: its own answer, never an empty list."""
    relayed = Relayed(server, wait_seconds=1)
    stack.push_async_callback(relayed.close)
    server.faults.add(Fault(verbs=("list",), code=500))
    found = await relayed.through("/api/v1/pods?resourceVersion=0")
    assert found.code in (429, 500)
    assert b'"items":[]' not in found.body


async def test_a_digest_that_differs_rebuilds_the_cache(
    server: EmbeddedApiServer, relayed: Relayed
) -> None:
    await relayed.through(LIST)
    feed = next(iter(relayed.desk.feeds.values()))
    assert feed.cache is not None
    assert feed.reflector is not None
    feed.cache._items.remove("default/web-001")
    feed.cache._advance(feed.cache.revision, feed.cache.refreshed_at)
    feed.digest_at = 1.0
    reflector = feed.reflector
    await eventually(lambda: feed.counts.mismatches == 1 and reflector.breaks, "noticed")
    await eventually(lambda: feed.cache and feed.cache.count == 30, "filled anew", within=20)
    direct, through = await relayed.direct(LIST), await relayed.through(LIST)
    assert json.loads(through.body)["items"] == json.loads(direct.body)["items"]
