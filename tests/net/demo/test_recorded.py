"""The double answers recorded requests as kube-apiserver did, byte for byte where nothing in the
body is random."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from apiguard.demo import protobuf
from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.resources import NAMESPACES, PODS, SECRETS

from .raw import Answer, parse_response, send

RECORDED = Path(__file__).parents[2] / "data" / "exchanges"
HEADERS = ("Content-Type", "Cache-Control", "Retry-After", "X-Content-Type-Options")

# Asked by somebody else than the administrator.
TOKENS = {
    "anonymous-403": "",
    "bad-token-401": "",
    "forbidden-403-named": "alice-token",
    "forbidden-403-protobuf": "alice-token",
    "forbidden-403-user": "alice-token",
    "watch-forbidden-403": "alice-token",
}
EXACT = (
    "anonymous-403",
    "bad-token-401",
    "delete-405",
    "forbidden-403-named",
    "forbidden-403-protobuf",
    "forbidden-403-user",
    "get-404",
    "head-get",
    "list-406",
    "list-cbor",
    "list-continue-garbage",
    "list-field-selector-unsupported",
    "list-label-selector-invalid",
    "list-rv-exact-old",
    "list-rv-invalid",
    "list-rv0-exact-422",
    "list-rvmatch-without-rv",
    "patch-415",
    "post-415",
    "post-bad-json-400",
    "post-exists-409",
    "post-invalid-422",
    "put-conflict-409",
    "unknown-group-404",
    "version",
    "watch-forbidden-403",
    "watch-rv-future",
    "watch-rv-invalid",
    "watch-selector-invalid",
    "watchlist-missing-match",
)
# Equal once revisions, uids, times and managedFields (which the double does not keep) are equal.
ALIKE = (
    "create-pod",
    "deletecollection-empty",
    "discovery-api",
    "list-empty",
    "list-json",
    "list-label-selector",
    "list-name-selector-empty",
    "list-page-1",
    "list-partial-metadata",
    "list-partial-metadata-protobuf",
    "list-protobuf",
    "list-protobuf-fallback-accept",
    "list-rv-too-large",
    "list-secrets-type-selector",
    "sar-node-get-own-node",
    "sar-node-list-pods-no-selector",
    "sar-node-watch-pods-other-node",
    "sar-node-watch-pods-own-node-selector",
    "subjectaccessreview",
    "tokenreview-bad",
)


def _pod(name: str, app: str, node: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "busybox"}]},
    }


def _populate(server: EmbeddedApiServer, name: str) -> None:
    for namespace in ("golden25", "matrix434", "matrix508"):
        server.create(NAMESPACES, {"metadata": {"name": namespace}})
        if name != "create-pod":
            server.create(PODS, _pod("a", "x", "node-a"), namespace)
            server.create(PODS, _pod("b", "x", "node-b"), namespace)
            server.create(PODS, _pod("c", "y", "node-a"), namespace)
    secret = {"metadata": {"name": "s1"}, "data": {"k": "dg=="}, "type": "example.com/t"}
    server.create(SECRETS, secret, "matrix434")


async def _replay(server: EmbeddedApiServer, name: str) -> tuple[Answer, Answer]:
    _populate(server, name)
    request = (RECORDED / f"{name}.request").read_bytes()
    token = TOKENS.get(name, "admin-token")
    if token:
        line = f"Authorization: Bearer {token}\r\n".encode()
        request = request.replace(b"Host: localhost\r\n", b"Host: localhost\r\n" + line, 1)
    recorded = parse_response((RECORDED / f"{name}.response").read_bytes())
    return recorded, await send(server.url, request)


@pytest.mark.parametrize("name", EXACT)
async def test_error_bodies_are_those_recorded(server: EmbeddedApiServer, name: str) -> None:
    server.store.compact(server.store.revision)
    recorded, answer = await _replay(server, name)
    assert answer.code == recorded.code
    assert answer.body == recorded.body
    for header in HEADERS:
        assert answer.values(header) == recorded.values(header), header


@pytest.mark.parametrize("name", ALIKE)
async def test_bodies_differ_in_nothing_but_what_the_server_invents(
    server: EmbeddedApiServer, name: str
) -> None:
    recorded, answer = await _replay(server, name)
    assert answer.code == recorded.code
    assert _normalised(answer.body) == _normalised(recorded.body)
    for header in HEADERS:
        assert answer.values(header) == recorded.values(header), header


def _normalised(body: bytes) -> str:
    """Text with field order kept: it is part of the claim."""
    value = protobuf.decode_body(body) if body.startswith(protobuf.MAGIC) else json.loads(body)
    _strip(value)
    text = json.dumps(value)
    text = re.sub(
        r'"(resourceVersion|uid|creationTimestamp|continue)": "[^"]*"', r'"\1": "?"', text
    )
    text = re.sub(r'"serverAddress": "[^"]*"', '"serverAddress": "?"', text)
    return re.sub(r"current: \d+", "current: ?", text)


def _strip(value: Any) -> None:
    if isinstance(value, dict):
        value.pop("managedFields", None)
        for part in value.values():
            _strip(part)
    elif isinstance(value, list):
        for part in value:
            _strip(part)
