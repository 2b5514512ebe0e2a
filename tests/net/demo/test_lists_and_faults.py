"""Paging, resourceVersion rules, faults and the capacity model, over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.capacity import CapacitySpec
from apiguard.demo.cluster import Cluster, ClusterSpec
from apiguard.demo.faults import Fault
from apiguard.demo.resources import CONFIGMAPS, PODS

from .raw import ask

PODS_PATH = "/api/v1/pods"


def populate(server: EmbeddedApiServer, seed: int = 7) -> Cluster:
    spec = ClusterSpec(nodes=3, namespaces=2, pods=30, services=3, configmaps=2, seed=seed)
    cluster = Cluster(server.store, spec)
    cluster.populate(1_790_000_000.0)
    return cluster


async def listed(server: EmbeddedApiServer, query: str) -> dict[str, Any]:
    answer = await ask(server.url, "GET", f"{PODS_PATH}?{query}")
    assert answer.code == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def names(page: dict[str, Any]) -> list[str]:
    return [f"{i['metadata']['namespace']}/{i['metadata']['name']}" for i in page["items"]]


async def test_pages_show_one_state_however_the_cluster_changes(
    open_server: EmbeddedApiServer,
) -> None:
    cluster = populate(open_server)
    whole = await listed(open_server, "")
    paged: list[str] = []
    page = await listed(open_server, "limit=7")
    assert page["metadata"]["remainingItemCount"] == 23
    now = 1_790_000_000.0
    while True:
        paged += names(page)
        for _ in range(20):
            now += 0.5
            cluster.churn(now)
        token = page["metadata"].get("continue")
        if not token:
            break
        page = await listed(open_server, f"limit=7&continue={token}")
        assert page["metadata"]["resourceVersion"] == whole["metadata"]["resourceVersion"]
    assert paged == names(whole)
    assert names(await listed(open_server, "")) != paged


async def test_an_expired_page_says_where_to_go_on(open_server: EmbeddedApiServer) -> None:
    populate(open_server)
    page = await listed(open_server, "limit=7")
    open_server.store.delete(PODS, names(page)[0])
    open_server.store.compact(open_server.store.revision)
    token = page["metadata"]["continue"]
    answer = await ask(open_server.url, "GET", f"{PODS_PATH}?limit=7&continue={token}")
    assert answer.code == 410
    status = json.loads(answer.body)
    fresh = status["metadata"]["continue"]
    rest = await listed(open_server, f"continue={fresh}")
    assert len(rest["items"]) == 23


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("limit=5&resourceVersion=0", 30),  # the watch cache ignores limits at revision 0
        ("limit=5", 5),
        ("fieldSelector=spec.nodeName%3Dnode-0001,status.phase!%3DFailed", None),
        ("labelSelector=app%3Dapi-0", 10),
        ("fieldSelector=metadata.namespace%3Dshop", None),
    ],
)
async def test_what_a_list_selects(
    open_server: EmbeddedApiServer, query: str, count: int | None
) -> None:
    populate(open_server)
    items = (await listed(open_server, query))["items"]
    if count is not None:
        assert len(items) == count
    elif "nodeName" in query:
        assert items
        assert {item["spec"]["nodeName"] for item in items} == {"node-0001"}
    else:
        assert {item["metadata"]["namespace"] for item in items} == {"shop"}


async def test_the_same_seed_makes_the_same_cluster() -> None:
    def bodies(seed: int) -> list[bytes]:
        server = EmbeddedApiServer()
        populate(server, seed)
        return [item.body for item in server.store.collections[PODS].items()]

    assert bodies(1) == bodies(1)
    assert bodies(1) != bodies(2)


async def test_large_lists_are_compressed_only_for_the_exact_token(
    open_server: EmbeddedApiServer,
) -> None:
    Cluster(open_server.store, ClusterSpec(pods=100)).populate(time.time())
    zipped = await ask(open_server.url, "GET", PODS_PATH, Accept_Encoding="deflate, gzip")
    plain = await ask(open_server.url, "GET", PODS_PATH, Accept_Encoding="gzip;q=1.0")
    assert zipped.value("Content-Encoding") == "gzip"
    assert plain.value("Content-Encoding") is None
    assert zipped.body == plain.body


async def test_requests_are_logged_as_received(open_server: EmbeddedApiServer) -> None:
    target = "/api/v1/namespaces/default/pods?labelSelector=a%20in%20(b)&x=%2F"
    await ask(open_server.url, "GET", target, X_One="1", x_one="2")
    received = open_server.requests[-1]
    assert (received.method, received.target) == ("GET", target)
    assert received.values("x-one") == [b"1", b"2"]
    assert [name for name, _ in received.headers][:2] == [b"Host", b"Connection"]


async def test_faults_hit_what_they_name_and_as_often_as_told(
    open_server: EmbeddedApiServer,
) -> None:
    open_server.faults.add(
        Fault(verbs=("list",), resources=("pods",), code=503, retry_after=2, times=1)
    )
    other = await ask(open_server.url, "GET", "/api/v1/nodes")
    hit = await ask(open_server.url, "GET", PODS_PATH)
    after = await ask(open_server.url, "GET", PODS_PATH)
    assert [other.code, hit.code, after.code] == [200, 503, 200]
    assert hit.value("Retry-After") == "2"


async def test_faults_are_set_over_http_and_named_checks_fail(
    open_server: EmbeddedApiServer,
) -> None:
    url = open_server.url
    body = b'{"failingChecks": ["etcd"], "faults": [{"resources": ["nodes"], "reset": true}]}'
    assert (await ask(url, "POST", "/demo/faults", body)).code == 200
    ready = await ask(url, "GET", "/readyz")
    assert ready.code == 500
    assert b"[-]etcd failed: reason withheld" in ready.body
    with pytest.raises((ConnectionResetError, ValueError, IndexError)):
        await ask(url, "GET", "/api/v1/nodes")
    bad = await ask(url, "POST", "/demo/faults", b'{"faults": [{"speed": 1}]}')
    assert bad.code == 400
    assert b"unknown field 'speed'" in bad.body
    await ask(url, "DELETE", "/demo/faults")
    assert (await ask(url, "GET", "/readyz")).body == b"ok"


async def test_a_server_that_stopped_listening_refuses_and_returns() -> None:
    server = EmbeddedApiServer(ApiServerOptions(everybody=True))
    await server.start()
    try:
        await server.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            await ask(server.url, "GET", "/version")
        await server.listen()
        assert (await ask(server.url, "GET", "/version")).code == 200
    finally:
        await server.stop()


async def test_lists_take_as_long_as_the_model_says_and_can_collapse_the_server() -> None:
    capacity = CapacitySpec(
        cores=1.0, per_list_byte=2e-6, memory_base=0, memory_limit=3_000_000, restart=60.0
    )
    server = EmbeddedApiServer(ApiServerOptions(everybody=True, capacity=capacity))
    Cluster(server.store, ClusterSpec(pods=40)).populate(time.time())
    await server.start()
    try:
        started = time.monotonic()
        answer = await ask(server.url, "GET", PODS_PATH)
        assert time.monotonic() - started >= len(answer.body) * 2e-6
        storm = await asyncio.gather(
            *(ask(server.url, "GET", PODS_PATH) for _ in range(8)), return_exceptions=True
        )
        assert any(isinstance(result, Exception) for result in storm)
        load = server.load()
        assert load is not None
        assert (load.collapses, load.down) == (1, True)
    finally:
        await server.stop()


async def test_both_upgrades_get_a_real_101_and_an_echo(open_server: EmbeddedApiServer) -> None:
    open_server.create(
        PODS,
        {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        "default",
    )
    host, port = open_server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/v1/namespaces/default/pods/p/exec?command=x HTTP/1.1\r\nHost: a\r\n"
        b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        b"X-Stream-Protocol-Version: v5.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"SPDY/3.1" in head
    payload = bytes(range(256)) * 4096
    writer.write(payload)
    assert await asyncio.wait_for(reader.readexactly(len(payload)), 10) == payload
    writer.close()
    await writer.wait_closed()


async def test_deleting_a_namespace_takes_its_contents(open_server: EmbeddedApiServer) -> None:
    populate(open_server)
    await ask(open_server.url, "DELETE", "/api/v1/namespaces/shop")
    for resource in (PODS, CONFIGMAPS):
        items = open_server.store.collections[resource].items()
        assert "shop" not in {item.namespace for item in items}
