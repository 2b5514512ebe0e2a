"""Watches dropped, expired and stalled, history lost, time turned back, crashes: and the counts."""

from __future__ import annotations

import json

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.resources import CONFIGMAPS, PODS

from .raw import ask
from .test_watch import Stream, pod, short

PROTOBUF = "application/vnd.kubernetes.protobuf"


async def opened(server: EmbeddedApiServer, *streams: Stream) -> None:
    """Until every stream has said its first event: only then has it joined."""
    for stream in streams:
        await stream.next()


async def test_dropped_watches_end_cleanly_and_can_resume(open_server: EmbeddedApiServer) -> None:
    open_server.create(PODS, pod("a"), "default")
    async with Stream(open_server, "resourceVersion=0") as stream:
        await opened(open_server, stream)
        assert open_server.control.end_watches(CONFIGMAPS) == 0
        assert open_server.control.end_watches() == 1
        assert await stream.ended()
    start = open_server.store.revision
    open_server.create(PODS, pod("b"), "default")
    async with Stream(open_server, f"resourceVersion={start}") as stream:
        assert short(await stream.next()) == ("ADDED", "b")


async def test_expired_watches_say_so(open_server: EmbeddedApiServer) -> None:
    open_server.create(PODS, pod("a"), "default")
    async with Stream(open_server, "resourceVersion=0") as stream:
        await opened(open_server, stream)
        open_server.control.expire_watches()
        assert (await stream.next())["object"]["reason"] == "Expired"
        assert await stream.ended()


async def test_compaction_expires_resumes_and_exact_lists(open_server: EmbeddedApiServer) -> None:
    start = open_server.store.revision
    open_server.create(PODS, pod("a"), "default")
    open_server.control.compact()
    async with Stream(open_server, f"resourceVersion={start}") as stream:
        assert (await stream.next())["object"]["code"] == 410
    exact = f"/api/v1/pods?resourceVersion={start}&resourceVersionMatch=Exact"
    assert (await ask(open_server.url, "GET", exact)).code == 410


async def test_stalled_watches_miss_nothing_once_they_go_on(open_server: EmbeddedApiServer) -> None:
    """Among them one that came during the stall."""
    open_server.create(PODS, pod("a"), "default")
    async with Stream(open_server, "resourceVersion=0") as early:
        await opened(open_server, early)
        open_server.control.stall_watches()
        async with Stream(open_server, "resourceVersion=0") as late:
            open_server.create(PODS, pod("b"), "default")
            assert open_server.watchers == 1
            open_server.control.resume_watches()
            assert short(await early.next()) == ("ADDED", "b")
            assert [short(await late.next())[1] for _ in range(2)] == ["a", "b"]
            open_server.create(PODS, pod("c"), "default")
            assert short(await early.next()) == ("ADDED", "c")
            assert short(await late.next()) == ("ADDED", "c")


async def test_an_old_backup_brings_back_objects_and_revisions(
    open_server: EmbeddedApiServer,
) -> None:
    open_server.create(PODS, pod("a"), "default")
    backup = open_server.control.backup()
    open_server.create(PODS, pod("b"), "default")
    lost = open_server.store.revision
    open_server.control.restore(backup)
    listed = json.loads((await ask(open_server.url, "GET", "/api/v1/pods")).body)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
    assert int(listed["metadata"]["resourceVersion"]) == backup.revision < lost
    open_server.create(PODS, pod("c"), "default")
    assert open_server.store.revision == lost


async def test_a_killed_server_returns_on_its_port_with_its_data_or_afresh() -> None:
    server = EmbeddedApiServer(ApiServerOptions(everybody=True))
    await server.start()
    server.create(PODS, pod("a"), "default")
    url, port = server.url, server.port
    try:
        await server.kill()
        await server.listen()
        assert server.url == url
        assert b'"name":"a"' in (await ask(url, "GET", "/api/v1/pods")).body
    finally:
        await server.stop()
    fresh = EmbeddedApiServer(ApiServerOptions(everybody=True, port=port))
    await fresh.start()
    try:
        assert b'"items":[]' in (await ask(url, "GET", "/api/v1/pods")).body
    finally:
        await fresh.stop()


async def test_requests_are_counted_by_verb_resource_and_representation(
    open_server: EmbeddedApiServer,
) -> None:
    url = open_server.url
    open_server.create(PODS, pod("a"), "default")
    for accept in (PROTOBUF, f"{PROTOBUF},application/json", "application/json"):
        await ask(url, "GET", "/api/v1/pods", Accept=accept)
    partial = f"{PROTOBUF};as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    await ask(url, "GET", "/api/v1/pods?watch=1&timeoutSeconds=1", Accept=partial)
    await ask(url, "GET", "/api/v1/namespaces/default/pods/a/status")
    await ask(url, "GET", "/api/v1/pods", Accept="image/png")
    assert open_server.counts == {
        ("list", "pods", "protobuf"): 2,
        ("list", "pods", "json"): 1,
        ("watch", "pods", "protobuf-metadata"): 1,
        ("get", "pods/status", "json"): 1,
        ("list", "pods", ""): 1,
    }
    shown = json.loads((await ask(url, "GET", "/demo/faults")).body)["requests"]
    assert {"verb": "list", "resource": "pods", "representation": "protobuf", "count": 2} in shown


async def test_actions_are_asked_for_over_http(open_server: EmbeddedApiServer) -> None:
    open_server.create(PODS, pod("a"), "default")
    async with Stream(open_server, "resourceVersion=0") as stream:
        await opened(open_server, stream)
        body = b'{"actions": ["endWatches", "compact"]}'
        assert (await ask(open_server.url, "POST", "/demo/faults", body)).code == 200
        assert await stream.ended()
    bad = await ask(open_server.url, "POST", "/demo/faults", b'{"actions": ["dance"]}')
    assert (bad.code, b"unknown action 'dance'" in bad.body) == (400, True)


async def test_bookmarks_come_as_often_as_configured() -> None:
    server = EmbeddedApiServer(ApiServerOptions(everybody=True, bookmark_every=0.05))
    await server.start()
    try:
        start = server.store.revision
        query = f"resourceVersion={start}&allowWatchBookmarks=true"
        async with Stream(server, query) as stream:
            assert [short(await stream.next())[0] for _ in range(3)] == ["BOOKMARK"] * 3
    finally:
        await server.stop()
