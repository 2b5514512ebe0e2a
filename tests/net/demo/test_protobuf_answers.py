"""Protobuf over HTTP says what JSON says, for every verb, and errors come in it too."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from apiguard.demo import protobuf
from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.cluster import Cluster, ClusterSpec

from .raw import Answer, ask

PROTOBUF = "application/vnd.kubernetes.protobuf"
PARTIAL = f"{PROTOBUF};as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = f"{PROTOBUF};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
MAPS = "/api/v1/namespaces/default/configmaps"


def populate(server: EmbeddedApiServer) -> None:
    spec = ClusterSpec(nodes=2, namespaces=2, pods=6, services=2, configmaps=2, events=3)
    Cluster(server.store, spec).populate(1_790_000_000.0)


def decoded(answer: Answer) -> Any:
    assert answer.value("Content-Type") == PROTOBUF
    return protobuf.decode_body(answer.body)


def without_zeros(value: Any) -> Any:
    """JSON names zero values that protobuf cannot tell from absent ones: ``null`` and ``""``."""
    if isinstance(value, dict):
        parts = {name: without_zeros(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part not in (None, "", 0, False)}
    return [without_zeros(part) for part in value] if isinstance(value, list) else value


LISTS = (
    "/api/v1/pods",
    "/api/v1/nodes",
    "/api/v1/namespaces",
    "/api/v1/services",
    "/api/v1/configmaps?limit=1",
    "/api/v1/events",
    "/api/v1/serviceaccounts",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/coordination.k8s.io/v1/leases",
    "/apis/discovery.k8s.io/v1/endpointslices",
)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("partial", [False, True])
async def test_lists_say_the_same_in_both_forms(
    open_server: EmbeddedApiServer, path: str, partial: bool
) -> None:
    populate(open_server)
    binary = PARTIAL_LIST if partial else PROTOBUF
    plain = binary.replace(PROTOBUF, "application/json")
    listed = decoded(await ask(open_server.url, "GET", path, Accept=binary))
    expected = json.loads((await ask(open_server.url, "GET", path, Accept=plain)).body)
    if partial:  # rows name their kind in JSON, and are bare messages in protobuf
        for item in expected["items"]:
            assert (item.pop("kind"), item.pop("apiVersion")) == (
                "PartialObjectMetadata",
                "meta.k8s.io/v1",
            )
    assert listed["items"]
    assert without_zeros(listed) == without_zeros(expected)


async def test_writes_are_read_and_answered_in_protobuf(open_server: EmbeddedApiServer) -> None:
    url = open_server.url
    value = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}, "data": {"k": "1"}}
    made = await ask(url, "POST", MAPS, protobuf.encode_body(value), "", PROTOBUF, Accept=PROTOBUF)
    assert (made.code, decoded(made)["data"]) == (201, {"k": "1"})
    changed = {**decoded(made), "data": {"k": "2"}}
    body = protobuf.encode_body(changed)
    put = await ask(url, "PUT", f"{MAPS}/m", body, "", PROTOBUF, Accept=PROTOBUF)
    assert decoded(put)["data"] == {"k": "2"}
    merge = "application/merge-patch+json"
    patched = await ask(
        url, "PATCH", f"{MAPS}/m", b'{"data":{"k":"3"}}', "", merge, Accept=PROTOBUF
    )
    assert decoded(patched)["data"] == {"k": "3"}
    assert decoded(await ask(url, "GET", f"{MAPS}/m", Accept=PARTIAL))["metadata"]["name"] == "m"
    gone = decoded(await ask(url, "DELETE", f"{MAPS}/m", Accept=PROTOBUF))
    assert (gone["kind"], gone["status"], gone["details"]["name"]) == ("Status", "Success", "m")
    missing = await ask(url, "GET", f"{MAPS}/m", Accept=f"{PROTOBUF},application/json")
    assert (missing.code, decoded(missing)["reason"]) == (404, "NotFound")


@pytest.mark.parametrize("accept", [PROTOBUF, PARTIAL])
async def test_watches_are_framed_in_protobuf(open_server: EmbeddedApiServer, accept: str) -> None:
    """Initial events and the end bookmark: each the object its JSON twin shows."""
    url = open_server.url
    populate(open_server)
    query = (
        "watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        "&allowWatchBookmarks=true"
    )
    twin = accept.replace(PROTOBUF, "application/json")
    target = f"/api/v1/pods?{query}"
    binary, text = await asyncio.gather(
        ask(url, "GET", target, Accept=accept), ask(url, "GET", target, Accept=twin)
    )
    assert binary.value("Content-Type") == f"{PROTOBUF};stream=watch"
    frames = protobuf.decode_frames(binary.body)
    found = [(kind, protobuf.decode_body(body)) for kind, body in frames]
    events = [json.loads(line) for line in text.body.splitlines()]
    expected = [(event["type"], event["object"]) for event in events]
    assert [kind for kind, _ in found] == ["ADDED"] * 6 + ["BOOKMARK"]
    assert [without_zeros(value) for _, value in found] == [
        without_zeros(value) for _, value in expected
    ]


async def test_a_watch_from_before_history_gets_its_status_in_a_frame(
    open_server: EmbeddedApiServer,
) -> None:
    populate(open_server)
    open_server.store.compact(open_server.store.revision)
    answer = await ask(
        open_server.url, "GET", "/api/v1/pods?watch=1&resourceVersion=1", Accept=PROTOBUF
    )
    ((kind, body),) = protobuf.decode_frames(answer.body)
    assert (kind, protobuf.decode_body(body)["code"]) == ("ERROR", 410)
