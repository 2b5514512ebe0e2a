"""A definition makes its resource served: discovery, writes, status, watches, and the end of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from apiguard.demo.apiserver import EmbeddedApiServer

from .conftest import TlsServer
from .raw import Answer, ask
from .test_clients import kubectl

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.org/v1/namespaces/default/widgets"
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}
WIDGET = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w"}}


async def post(server: EmbeddedApiServer, path: str, value: object) -> Answer:
    return await ask(server.url, "POST", path, json.dumps(value).encode())


async def test_a_definition_is_served_until_it_is_deleted(open_server: EmbeddedApiServer) -> None:
    """Its deletion deletes the objects, tells the watches, ends them and forgets the group."""
    url = open_server.url
    assert (await ask(url, "GET", WIDGETS)).code == 404
    assert (await post(open_server, DEFINITIONS, DEFINITION)).code == 201
    made = await post(
        open_server, WIDGETS, {**WIDGET, "status": {"n": 1}, "spec": {"b": 1, "a": 2}}
    )
    assert made.code == 201
    assert list(json.loads(made.body)) == ["apiVersion", "kind", "metadata", "spec"]
    groups = json.loads((await ask(url, "GET", "/apis")).body)["groups"]
    assert "example.org" in {group["name"] for group in groups}
    watching = asyncio.create_task(ask(url, "GET", f"{WIDGETS}?watch=1&timeoutSeconds=60"))
    while not open_server.watchers:  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.01)
    status = await ask(url, "PUT", f"{WIDGETS}/w/status", made.body[:-2] + b',"status":{"n":2}}')
    assert json.loads(status.body)["status"] == {"n": 2}
    await ask(url, "DELETE", f"{DEFINITIONS}/widgets.example.org")
    events = [json.loads(line) for line in (await watching).body.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert (await ask(url, "GET", WIDGETS)).code == 404
    assert (await ask(url, "GET", "/apis/example.org")).code == 404


async def test_a_changed_definition_keeps_its_objects(open_server: EmbeddedApiServer) -> None:
    await post(open_server, DEFINITIONS, DEFINITION)
    await post(open_server, WIDGETS, {**WIDGET, "spec": {"color": "red"}})
    selected = f"{WIDGETS}?fieldSelector=spec.color%3Dred"
    assert (await ask(open_server.url, "GET", selected)).code == 400
    patch = [{"op": "add", "path": "/spec/versions/0/selectableFields", "value": [
        {"jsonPath": ".spec.color"}]}]  # fmt: skip
    await ask(
        open_server.url, "PATCH", f"{DEFINITIONS}/widgets.example.org", json.dumps(patch).encode(),
        "", "application/json-patch+json",
    )  # fmt: skip
    found = await ask(open_server.url, "GET", selected)
    assert [item["metadata"]["name"] for item in json.loads(found.body)["items"]] == ["w"]


async def test_kubectl_works_with_custom_resources(tls: TlsServer) -> None:
    steps = [
        ("create -f -", json.dumps(DEFINITION), "widgets.example.org created"),
        ("wait --for=condition=established crd/widgets.example.org", "", "condition met"),
        ("create -f -", json.dumps(WIDGET), "widget.example.org/w created"),
        ("get wd --no-headers", "", "w "),
        ("delete widget w", "", 'widget.example.org "w" deleted'),
    ]
    for command, stdin, expected in steps:
        code, out = await kubectl(tls, *command.split(" "), stdin=stdin)
        assert (code, expected in out) == (0, True), (command, out)
