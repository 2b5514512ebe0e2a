"""Field selectors of custom resources: answered here where the CRD says what they are."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.faults import Fault
from apiguard.policy.relayconfig import RelayedResource
from tests.net.demo.raw import Answer, send
from tests.net.demo.test_custom_resources import DEFINITION, DEFINITIONS
from tests.net.traffic.waiting import eventually

from .conftest import StartRelay
from .guarding import JSON, PROTOBUF_META_LIST, Relayed
from .streams import Stream
from .test_lists import visible

WIDGETS = "/apis/example.org/v1/namespaces/default/widgets"
FIELDS = [{"jsonPath": f".spec.{name}"} for name in ("color", "size", "on")]
SELECTORS = (
    "spec.color%3Dred",
    "spec.color!%3Dred",
    "spec.color%3D",
    "spec.size%3D2",
    "spec.size!%3D0",
    "spec.on%3Dtrue,spec.color%3Dgreen",
    "spec.on%3Dfalse",
    "metadata.name%3Dw1,spec.color%3Dgreen",
    "spec.nothing%3D1",
)


async def write(server: EmbeddedApiServer, method: str, path: str, value: object) -> Answer:
    body = json.dumps(value).encode()
    kind = "application/merge-patch+json" if method == "PATCH" else JSON
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer admin-token\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    answer = await send(server.url, head.encode() + body)
    assert answer.code in (200, 201), answer.body
    return answer


def versions(fields: list[dict[str, str]]) -> list[dict[str, Any]]:
    (version,) = copy.deepcopy(DEFINITION["spec"]["versions"])
    return [version | {"selectableFields": fields}]


@pytest.fixture
async def custom(start: StartRelay) -> Relayed:
    relayed = await start(resources=(RelayedResource("example.org", "v1", "*"),))
    definition = copy.deepcopy(DEFINITION)
    definition["spec"]["versions"] = versions(FIELDS)
    await write(relayed.server, "POST", DEFINITIONS, definition)
    for at, spec in enumerate(
        ({}, {"color": "green", "size": 2, "on": True}, {"color": "red", "size": 0, "on": False})
    ):
        widget = {"apiVersion": "example.org/v1", "kind": "Widget", "spec": spec}
        await write(relayed.server, "POST", WIDGETS, widget | {"metadata": {"name": f"w{at}"}})
    return relayed


@pytest.mark.parametrize("suffix", ["&resourceVersion=0", ""])
async def test_lists_are_equal_and_served(custom: Relayed, suffix: str) -> None:
    for selector in SELECTORS:
        target = f"{WIDGETS}?fieldSelector={selector}{suffix}"
        assert visible(await custom.through(target)) == visible(await custom.direct(target))
    feed = next(iter(custom.desk.feeds.values()))
    assert feed.counts.lists == len(SELECTORS) - 1
    assert feed.counts.bypasses == {"selector": 1}


async def test_watches_tell_transitions(custom: Relayed) -> None:
    target = f"{WIDGETS}?watch=true&fieldSelector=spec.color%3Dred&resourceVersion="
    target += str(custom.server.store.revision)
    streams = [await Stream.open(url, target) for url in (custom.server.url, custom.url)]
    for color in ("red", "blue"):
        await write(custom.server, "PATCH", f"{WIDGETS}/w1", {"spec": {"color": color}})
    direct, through = [await stream.frames(2) for stream in streams]
    assert direct == through
    assert [json.loads(frame)["type"] for frame in through] == ["ADDED", "DELETED"]
    for stream in streams:
        stream.close()


async def test_metadata_cannot_be_selected_by_them_here(custom: Relayed) -> None:
    """It does not hold them, so upstream answers."""
    target = f"{WIDGETS}?fieldSelector=spec.color%3Dred&resourceVersion=0"
    for _ in range(2):
        direct = await custom.direct(target, accept=PROTOBUF_META_LIST)
        assert visible(await custom.through(target, accept=PROTOBUF_META_LIST)) == visible(direct)
    assert custom.desk.bypasses["selector"] == 2


async def test_without_the_right_to_read_definitions_upstream_answers(custom: Relayed) -> None:
    custom.server.faults.add(
        Fault(verbs=("get",), resources=("customresourcedefinitions",), code=403)
    )
    target = f"{WIDGETS}?fieldSelector=spec.color%3Dred&resourceVersion=0"
    for asked in (target, f"{WIDGETS}?resourceVersion=0"):
        assert visible(await custom.through(asked)) == visible(await custom.direct(asked))
    feed = next(iter(custom.desk.feeds.values()))
    assert (feed.counts.lists, feed.counts.bypasses) == (1, {"selector": 1})


async def test_a_definition_that_changes_is_noticed_with_the_watch_it_ends(
    custom: Relayed,
) -> None:
    """A field that cannot be selected by any more is an error again, in upstream's words."""
    target = f"{WIDGETS}?fieldSelector=spec.size%3D2&resourceVersion=0"
    assert (await custom.through(target)).code == 200
    feed = next(iter(custom.desk.feeds.values()))
    patch = {"spec": {"versions": versions(FIELDS[:1])}}
    await write(custom.server, "PATCH", f"{DEFINITIONS}/widgets.example.org", patch)
    custom.server.control.end_watches()
    await eventually(lambda: feed.rests == "redefined", "noticed")
    direct = await custom.direct(target)
    assert direct.code == 400
    still = f"{WIDGETS}?fieldSelector=spec.color%3Dred&resourceVersion=0"
    for asked in (target, still):
        assert visible(await custom.through(asked)) == visible(await custom.direct(asked))
    assert not custom.desk.feeds, "left alone until every API server knows"


async def test_a_schema_that_changes_is_noticed_too(custom: Relayed) -> None:
    """Its defaults show in objects whose revisions stay."""
    await custom.through(f"{WIDGETS}?resourceVersion=0")
    feed = next(iter(custom.desk.feeds.values()))
    schema = {"openAPIV3Schema": {"type": "object", "description": "defaults and all"}}
    patch = {"spec": {"versions": [version | {"schema": schema} for version in versions(FIELDS)]}}
    await write(custom.server, "PATCH", f"{DEFINITIONS}/widgets.example.org", patch)
    custom.server.control.end_watches()
    await eventually(lambda: feed.rests == "redefined", "noticed")
