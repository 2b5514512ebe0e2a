"""The same WATCH directly and through the relay: the same events, byte for byte."""

from __future__ import annotations

import asyncio

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.resources import PODS
from tests.net.traffic.waiting import eventually

from .guarding import JSON, JSON_META, PROTOBUF, PROTOBUF_META, Relayed, pod
from .streams import Stream

FORMS = (JSON, PROTOBUF, JSON_META, PROTOBUF_META)
QUERIES = (
    "resourceVersion={rv}",
    "resourceVersion={rv}&labelSelector=app%3Dweb",
    "resourceVersion={rv}&fieldSelector=metadata.name%3Dfresh",
    "resourceVersion=0",
    "resourceVersion=0&allowWatchBookmarks=true",
    "",
    "allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    "allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    "&labelSelector=app%3Dweb",
    "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={rv}",
)
ERRORS = (
    "resourceVersion=bogus",
    "sendInitialEvents=true",
    "resourceVersionMatch=NotOlderThan",
    "labelSelector=a%3D%3D%3Db",
    "fieldSelector=no.such.field%3Dx",
    "resourceVersion=1",
)


def change(server: EmbeddedApiServer) -> None:
    """Creations, updates, a label that moves an object out of a selection and back, deletions."""
    server.create(PODS, pod("fresh", node="n1", app="web"), "default")
    for app in ("db", "web", "none"):
        found = server.store.collections[PODS].get("default/fresh")
        assert found is not None
        value = dict(found.value)
        value["metadata"] = dict(value["metadata"], labels={"app": app})
        server.store.update(PODS, value)
    server.store.delete(PODS, "default/fresh")
    server.store.delete(PODS, "default/web-001")
    server.create(PODS, pod("last", node="n3", app="web"), "kube-system")


async def drained(stream: Stream) -> list[bytes]:
    """Events up to the one that mentions the last object."""
    found: list[bytes] = []
    while True:
        frame = await stream.frame()
        if b"BOOKMARK" in frame and b"initial-events-end" not in frame:
            continue  # when they come is nobody's promise
        found.append(frame)
        if not frame or b"last" in frame:
            return found


async def bookmarked(relayed: Relayed) -> None:
    """The shape of a kind's bookmarks is learnt from upstream's first."""
    cache = next(iter(relayed.desk.feeds.values())).cache
    assert cache is not None
    before = cache.refreshed_at
    await eventually(lambda: cache.refreshed_at > before, "a bookmark from upstream")


@pytest.mark.parametrize("accept", FORMS)
async def test_events_are_equal(relayed: Relayed, accept: str) -> None:
    server = relayed.server
    await relayed.through("/api/v1/pods?resourceVersion=0", accept=_listed(accept))
    await bookmarked(relayed)
    for scope in ("/api/v1/pods", "/api/v1/namespaces/kube-system/pods"):
        version = server.store.revision
        pairs = []
        for query in QUERIES:
            target = f"{scope}?watch=true&{query.format(rv=version)}"
            if "metadata.name" in query:
                continue
            pairs.append(
                (
                    query,
                    await Stream.open(server.url, target, accept=accept),
                    await Stream.open(relayed.url, target, accept=accept),
                )
            )
        change(server)
        for query, direct, through in pairs:
            expected = await drained(direct)
            assert await drained(through) == expected, f"{scope} {query}"
            assert through.head.status == direct.head.status == 200
            assert through.head.get(b"content-type") == direct.head.get(b"content-type")
            direct.close()
            through.close()
        server.store.delete(PODS, "kube-system/last")
        server.create(PODS, pod("web-001"), "default")
    feed = next(iter(relayed.desk.feeds.values()))
    assert feed.counts.watches == 2 * (len(QUERIES) - 1), relayed.desk.bypasses


async def test_one_object_is_watched_by_name(relayed: Relayed) -> None:
    server = relayed.server
    target = (
        "/api/v1/namespaces/default/pods?watch=true&fieldSelector=metadata.name%3Dfresh"
        f"&resourceVersion={server.store.revision}"
    )
    direct = await Stream.open(server.url, target)
    through = await Stream.open(relayed.url, target)
    change(server)
    assert await through.frames(5) == await direct.frames(5)
    direct.close()
    through.close()


@pytest.mark.parametrize("accept", [JSON, PROTOBUF])
async def test_errors_are_equal(relayed: Relayed, accept: str) -> None:
    server = relayed.server
    await relayed.through("/api/v1/pods?resourceVersion=0", accept=accept)
    server.store.compact(server.store.revision)
    for query in ERRORS:
        target = f"/api/v1/pods?watch=true&{query}"
        if query == "resourceVersion=1":
            direct = await Stream.open(server.url, target, accept=accept)
            through = await Stream.open(relayed.url, target, accept=accept)
            assert await through.frames(2) == await direct.frames(2)
            direct.close()
            through.close()
            continue
        plain = await relayed.direct(target, accept=accept)
        found = await relayed.through(target, accept=accept)
        assert (found.code, found.body) == (plain.code, plain.body), query


async def test_a_stream_ends_at_its_deadline_after_a_bookmark(relayed: Relayed) -> None:
    target = (
        f"/api/v1/pods?watch=true&resourceVersion={relayed.server.store.revision}"
        "&allowWatchBookmarks=true&timeoutSeconds=3"
    )
    stream = await Stream.open(relayed.url, target)
    event = await stream.event()
    assert event["type"] == "BOOKMARK"
    assert await stream.frame() == b""
    stream.close()


async def test_a_resume_below_history_goes_upstream(relayed: Relayed) -> None:
    """Never 410 by the relay while upstream can serve it: a restarted guard makes nobody relist."""
    server = relayed.server
    version = server.store.revision
    server.create(PODS, pod("between"), "default")
    await relayed.through("/api/v1/pods?resourceVersion=0")
    stream = await Stream.open(relayed.url, f"/api/v1/pods?watch=true&resourceVersion={version}")
    event = await stream.event()
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "between")
    assert relayed.desk.bypasses["history"] == 1
    stream.close()


async def test_a_slow_watcher_hurts_nobody_and_catches_up(relayed: Relayed) -> None:
    """It lags by a position in the log, and reads on from there."""
    server = relayed.server
    version = server.store.revision
    target = f"/api/v1/pods?watch=true&resourceVersion={version}"
    slow = await Stream.open(relayed.url, target, receive_buffer=4096)
    quick = await Stream.open(relayed.url, target)
    names = [f"big-{number:03}" for number in range(120)]
    for name in names:
        value = pod(name)
        value["metadata"]["annotations"] = {"pad": "x" * 30_000}
        server.create(PODS, value, "default")
        await asyncio.sleep(0)
    expected = [name.encode() in await quick.frame() for name in names]
    assert all(expected)
    feed = next(iter(relayed.desk.feeds.values()))
    assert feed.fanout is not None
    assert feed.fanout.lagged >= 1
    assert all([name.encode() in await slow.frame() for name in names])
    slow.close()
    quick.close()
    await eventually(lambda: feed.watchers == 0, "watchers gone")


def _listed(accept: str) -> str:
    return accept.replace("as=PartialObjectMetadata;", "as=PartialObjectMetadataList;")
