"""Field selectors of custom resources, as kube-apiserver judges them and as the relay does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.e2e.guard import until
from tests.e2e.real import RealApiServer
from tests.e2e.stands import ADMIN, SERVER_NAME, Reply, Stand, Way

pytestmark = [pytest.mark.e2e, pytest.mark.real]

GROUP = "selected.example.org"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LAMPS = f"/apis/{GROUP}/v1/lamps"
SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"color": "red", "size": 0, "on": False},
    {"color": "green", "size": 2, "on": True},
    {"color": "", "size": -7},
)
SELECTORS = (
    *("spec.color%3Dred", "spec.color!%3Dred", "spec.color%3D", "spec.color!%3D"),
    *("spec.size%3D0", "spec.size!%3D0", "spec.size%3D-7", "spec.size%3D", "spec.size%3D02"),
    *("spec.on%3Dtrue", "spec.on%3Dfalse", "spec.on!%3Dtrue", "spec.on%3D"),
    *("spec.on%3Dtrue,spec.color%3Dgreen", "metadata.name%3Dl2,spec.size%3D2"),
    *("spec.nothing%3D1", "spec%3D1", ".spec.color%3Dred"),
)


@pytest.fixture(scope="module")
def stand(
    real_apiserver: RealApiServer,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("custom")
    own = folder / "own-token"
    own.write_text(ADMIN)
    settings = {
        "upstream": {
            "servers": [real_apiserver.url],
            "caFile": str(real_apiserver.ca_file),
            "serverName": SERVER_NAME,
            "credentials": {"tokenFile": str(own)},
        },
        "identity": {"tokenReview": {"enabled": True}},
        "relay": {"resources": [{"group": GROUP, "version": "v1", "resource": "*"}]},
    }
    made = Stand("custom", folder, real_apiserver, certificates, settings=settings)
    try:
        populate(made)
        yield made
        made.direct.ask("DELETE", f"{DEFINITIONS}/lamps.{GROUP}")
    finally:
        made.close()


def populate(stand: Stand) -> None:
    spec = {"color": {"type": "string"}, "size": {"type": "integer"}, "on": {"type": "boolean"}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": spec}},
            }
        },
        "selectableFields": [{"jsonPath": f".spec.{name}"} for name in spec],
    }
    names = {"plural": "lamps", "singular": "lamp", "kind": "Lamp", "listKind": "LampList"}
    definition = {
        "metadata": {"name": f"lamps.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
    }
    assert stand.direct.send("POST", DEFINITIONS, definition).code == 201
    until("lamps are served", lambda: stand.direct.ask("GET", LAMPS).code == 200)
    for at, value in enumerate(SPECS):
        lamp = {"apiVersion": f"{GROUP}/v1", "kind": "Lamp", "metadata": {"name": f"l{at}"}}
        assert stand.direct.send("POST", LAMPS, lamp | {"spec": value}).code == 201


def said(reply: Reply) -> tuple[int, str, object]:
    """All but the revision of the list: others write to this cluster too."""
    body = reply.json
    if reply.code == 200:
        metadata = body["metadata"]
        body["metadata"] = sorted(metadata)  # names only: a token tells the revision too
    return reply.code, reply.header("content-type"), body


@pytest.mark.parametrize("suffix", ["&resourceVersion=0", "", "&limit=1"])
def test_every_selector_selects_what_upstream_selects(stand: Stand, suffix: str) -> None:
    served = 0
    for selector in SELECTORS:
        target = f"{LAMPS}?fieldSelector={selector}{suffix}"
        direct, through = stand.direct.ask("GET", target), stand.guarded.ask("GET", target)
        assert said(through) == said(direct), target
        served += not through.header("x-kubernetes-pf-flowschema-uid")
    assert served == len(SELECTORS) - 3


def test_a_changed_schema_shows_in_objects_that_were_held(stand: Stand) -> None:
    """A new default is in every object, under the revisions they had."""
    target = f"{LAMPS}?resourceVersion=0"
    assert held(stand.guarded, target) == held(stand.direct, target)
    path = f"{DEFINITIONS}/lamps.{GROUP}"
    definition = stand.direct.ask("GET", path).json
    root = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    root["properties"]["spec"]["properties"]["glow"] = {"type": "string", "default": "warm"}
    assert stand.direct.send("PUT", path, definition).code == 200
    until("upstream fills it in", lambda: b"warm" in stand.direct.ask("GET", target).body)
    expected = held(stand.direct, target)
    until("so does the guard", lambda: held(stand.guarded, target) == expected)


def held(way: Way, target: str) -> list[object]:
    """The objects of a list; none while upstream builds its storage anew."""
    reply = way.ask("GET", target)
    items: list[object] = reply.json["items"] if reply.code == 200 else []
    return items
