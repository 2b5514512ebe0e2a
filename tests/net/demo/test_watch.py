"""Watches on the wire: what arrives, in which order, and how a stream ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest.mock import create_autospec

import aiohttp
import pytest
from aiohttp.abc import AbstractStreamWriter

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.encoding import Object
from apiguard.demo.negotiation import PLAIN
from apiguard.demo.options import parse_watch_options
from apiguard.demo.resources import PODS
from apiguard.demo.target import Query
from apiguard.demo.watchstream import Watch, WatchStream

from .raw import ask

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


def pod(name: str, app: str = "x", node: str = "n1") -> Object:
    return {
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }


def relabel(server: EmbeddedApiServer, name: str, app: str) -> None:
    item = server.store.collections[PODS].get(f"default/{name}")
    assert item is not None
    metadata = {**item.value["metadata"], "labels": {"app": app}}
    server.store.update(PODS, {**item.value, "metadata": metadata})


class Stream:
    """One watch over aiohttp, read event by event."""

    def __init__(self, server: EmbeddedApiServer, query: str, accept: str = "") -> None:
        self._url = f"{server.url}/api/v1/pods?watch=1&{query}"
        self._accept = accept

    async def __aenter__(self) -> Stream:
        self._session = aiohttp.ClientSession()
        headers = {"Accept": self._accept} if self._accept else {}
        self._response = await self._session.get(self._url, headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._response.close()
        await self._session.close()

    async def next(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self._response.content.readline(), 10)
        assert line, "the stream ended"
        found: dict[str, Any] = json.loads(line)
        return found

    async def ended(self) -> bool:
        return not await asyncio.wait_for(self._response.content.readline(), 10)


def short(event: dict[str, Any]) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"].get("name", "")


async def test_selector_transitions_become_added_and_deleted(
    open_server: EmbeddedApiServer,
) -> None:
    """DELETED carries the object as it was, with the revision of the change."""
    open_server.create(PODS, pod("a"), "default")
    start = open_server.store.revision
    async with Stream(open_server, f"resourceVersion={start}&labelSelector=app%3Dx") as stream:
        relabel(open_server, "a", "y")
        gone = await stream.next()
        relabel(open_server, "a", "z")
        relabel(open_server, "a", "x")
        back = await stream.next()
        open_server.store.delete(PODS, "default/a")
        deleted = await stream.next()
    assert short(gone) == ("DELETED", "a")
    assert gone["object"]["metadata"]["labels"] == {"app": "x"}
    assert gone["object"]["metadata"]["resourceVersion"] == str(start + 1)
    assert short(back) == ("ADDED", "a")
    assert short(deleted) == ("DELETED", "a")
    assert deleted["object"]["metadata"]["resourceVersion"] == str(start + 4)


async def test_indexed_selectors_hear_their_own_changes_only(
    open_server: EmbeddedApiServer,
) -> None:
    start = open_server.store.revision
    query = f"resourceVersion={start}&fieldSelector=spec.nodeName%3Dn2"
    async with Stream(open_server, query) as stream:
        open_server.create(PODS, pod("other", node="n1"), "default")
        open_server.create(PODS, pod("mine", node="n2"), "default")
        assert short(await stream.next()) == ("ADDED", "mine")


async def test_watch_list_sends_items_then_the_end_bookmark(
    open_server: EmbeddedApiServer,
) -> None:
    for name in ("b", "a"):
        open_server.create(PODS, pod(name), "default")
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with Stream(open_server, query) as stream:
        events = [await stream.next() for _ in range(3)]
    assert [short(event) for event in events] == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")]
    metadata = events[2]["object"]["metadata"]
    assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert metadata["resourceVersion"] == str(open_server.store.revision)


async def test_a_deadline_is_a_bookmark_and_a_clean_end(open_server: EmbeddedApiServer) -> None:
    start = open_server.store.revision
    query = f"resourceVersion={start}&allowWatchBookmarks=true&timeoutSeconds=3"
    async with Stream(open_server, query) as stream:
        event = await stream.next()
        assert event["type"] == "BOOKMARK"
        assert event["object"] == {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(start)},
            "spec": {"containers": None},
            "status": {},
        }
        assert await stream.ended()


async def test_too_old_a_revision_is_an_error_event(open_server: EmbeddedApiServer) -> None:
    open_server.create(PODS, pod("a"), "default")
    open_server.store.compact(open_server.store.revision)
    async with Stream(open_server, "resourceVersion=1") as stream:
        event = await stream.next()
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert await stream.ended()


async def test_a_future_revision_waits_and_hides_what_lies_below(
    open_server: EmbeddedApiServer,
) -> None:
    start = open_server.store.revision
    async with Stream(open_server, f"resourceVersion={start + 1}") as stream:
        open_server.create(PODS, pod("below"), "default")
        open_server.create(PODS, pod("above"), "default")
        assert short(await stream.next()) == ("ADDED", "above")


async def test_only_the_first_table_event_has_columns(open_server: EmbeddedApiServer) -> None:
    open_server.create(PODS, pod("a"), "default")
    async with Stream(open_server, "resourceVersion=0", TABLE) as stream:
        first = await stream.next()
        open_server.create(PODS, pod("b"), "default")
        second = await stream.next()
    assert first["object"]["columnDefinitions"][0]["name"] == "Name"
    assert second["object"]["columnDefinitions"] is None
    assert second["object"]["rows"][0]["cells"][:3] == ["b", "0/1", "Pending"]


async def test_metadata_only_watches_leave_out_spec_and_status(
    open_server: EmbeddedApiServer,
) -> None:
    open_server.create(PODS, pod("a"), "default")
    async with Stream(open_server, "resourceVersion=0", PARTIAL) as stream:
        event = await stream.next()
    assert event["object"]["kind"] == "PartialObjectMetadata"
    assert set(event["object"]) == {"kind", "apiVersion", "metadata"}


@pytest.mark.parametrize("size", [400])
async def test_a_stalled_watcher_misses_nothing_and_delays_nobody(
    open_server: EmbeddedApiServer, size: int
) -> None:
    """The stalled one reads on from the log when it drains; the other got every event live."""
    start = open_server.store.revision
    query = f"resourceVersion={start}"
    async with Stream(open_server, query) as stalled, Stream(open_server, query) as quick:
        for number in range(size):
            body = pod(f"p{number:04d}")
            body["metadata"]["annotations"] = {"padding": "x" * 32768}
            open_server.create(PODS, body, "default")
            assert short(await quick.next()) == ("ADDED", f"p{number:04d}")
        names = [short(await stalled.next())[1] for _ in range(size)]
    assert names == [f"p{number:04d}" for number in range(size)]


async def test_the_deprecated_prefix_watches(open_server: EmbeddedApiServer) -> None:
    open_server.create(PODS, pod("a"), "default")
    answer = await ask(open_server.url, "GET", "/api/v1/watch/pods?timeoutSeconds=1")
    assert [short(json.loads(line)) for line in answer.body.splitlines()] == [("ADDED", "a")]


async def test_history_is_bounded() -> None:
    """A watch from before the log's reach is told so."""
    server = EmbeddedApiServer(ApiServerOptions(everybody=True, history=10))
    await server.start()
    try:
        start = server.store.revision
        for number in range(20):
            server.create(PODS, pod(f"p{number}"), "default")
        async with Stream(server, f"resourceVersion={start}") as stream:
            assert (await stream.next())["object"]["code"] == 410
    finally:
        await server.stop()


class ClosedTransport(asyncio.WriteTransport):
    """As uvloop's after the peer reset it: still held by a watch, raising on write."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise RuntimeError("unable to perform operation; the handler is closed")


async def test_a_watch_whose_client_vanished_ends_and_disturbs_nobody(
    open_server: EmbeddedApiServer,
) -> None:
    open_server.create(PODS, pod("a"), "default")
    options = parse_watch_options(PODS, Query("resourceVersion=0"), prefix=False)
    stream = WatchStream(
        Watch(PODS, "", options, PLAIN, 60.0),
        open_server.store,
        open_server.hubs[PODS],
        create_autospec(AbstractStreamWriter),
        ClosedTransport(),
        lambda: 0.0,
    )
    await asyncio.wait_for(stream.run(), 5)
    assert open_server.watchers == 0
