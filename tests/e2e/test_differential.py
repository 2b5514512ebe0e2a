"""The same requests sent directly and through the guard get the same answers, byte for byte."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field

import pytest

from tests.e2e.guard import until
from tests.e2e.relaycompare import CURRENT
from tests.e2e.stands import ADMIN, VIEWER, Reply, Stand, Way

pytestmark = pytest.mark.e2e

NAMESPACE = "compared"
MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
HOP = frozenset(("connection", "transfer-encoding", "keep-alive"))
CHANGING = frozenset(("date",))
AUDIT_ID = "0d1c2b3a-0000-4000-8000-000000000000"
PROTOBUF = "application/vnd.kubernetes.protobuf"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_MADE = re.compile(rb'"(uid|creationTimestamp|time)":"[^"]+"')


@dataclass(frozen=True, slots=True)
class Case:
    """``code`` is what both must answer; ``{rv}`` in a target is the revision of the fixture."""

    name: str
    code: int
    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    token: str = ADMIN


def _json(kind: str = "json") -> dict[str, str]:
    return {"Content-Type": f"application/{kind}"}


def _map(name: str, **more: object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more})


EXACT = "resourceVersion={rv}&resourceVersionMatch=Exact"
STALE = '{"metadata":{"name":"m0","resourceVersion":"1"}}'
CASES = (
    Case("object", 200, "GET", f"{MAPS}/m0"),
    Case("yaml", 200, "GET", f"{MAPS}/m0", {"Accept": "application/yaml"}),
    Case("pretty", 200, "GET", f"{MAPS}/m0?pretty=true"),
    Case("protobuf", 200, "GET", f"{MAPS}/m0", {"Accept": PROTOBUF}),
    Case("list", 200, "GET", f"{MAPS}?{EXACT}"),
    Case("list-protobuf", 200, "GET", f"{MAPS}?{EXACT}", {"Accept": PROTOBUF}),
    Case("list-gzip", 200, "GET", f"{MAPS}?{EXACT}", {"Accept-Encoding": "gzip"}),
    Case("list-table", 200, "GET", f"{MAPS}?{EXACT}&includeObject=None", {"Accept": TABLE}),
    Case("list-partial", 200, "GET", f"{MAPS}?{EXACT}", {"Accept": PARTIAL}),
    Case("list-paged", 200, "GET", f"{MAPS}?{EXACT}&limit=2"),
    Case("list-selected", 200, "GET", f"{MAPS}?{EXACT}&labelSelector=odd%20in%20(1,+2)"),
    Case("list-by-field", 200, "GET", f"{MAPS}?{EXACT}&fieldSelector=metadata.name%3Dm1"),
    Case("watch", 200, "GET", f"{MAPS}?watch=1&resourceVersion={{rv}}&timeoutSeconds=1"),
    Case("watch-initial", 200, "GET", f"{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1"),
    Case("discovery", 200, "GET", "/apis"),
    Case("version", 200, "GET", "/version"),
    Case("health", 200, "GET", "/readyz/ping?verbose"),
    Case("dry-run-create", 201, "POST", f"{MAPS}?dryRun=All", _json(), _map("new")),
    Case("dry-run-delete", 200, "DELETE", f"{MAPS}/m0?dryRun=All"),
    Case(
        "dry-run-patch", 200, "PATCH", f"{MAPS}/m0?dryRun=All", _json("merge-patch+json"),
        '{"data":{"k":"patched"}}',
    ),
    Case("bad-selector", 400, "GET", f"{MAPS}?labelSelector=a+in"),
    Case("bad-field", 400, "GET", f"{MAPS}?fieldSelector=spec.x%3D1"),
    Case("bad-limit", 400, "GET", f"{MAPS}?limit=x"),
    Case("bad-body", 400, "POST", MAPS, _json(), "{"),
    Case("bad-token", 401, "GET", f"{MAPS}/m0", token="nobodys"),
    Case("forbidden", 403, "DELETE", f"{MAPS}/m0", token=VIEWER),
    Case("missing-object", 404, "GET", f"{MAPS}/absent"),
    Case("missing-resource", 404, "GET", "/api/v1/namespaces/compared/nonsense"),
    Case("missing-group", 404, "GET", "/apis/none.example/v1/things"),
    Case("missing-path", 404, "GET", "/nonsense"),
    Case("head-object", 405, "HEAD", f"{MAPS}/m0"),
    Case("post-to-object", 405, "POST", f"{MAPS}/m0", _json(), _map("m0")),
    Case("post-without-namespace", 405, "POST", "/api/v1/configmaps", _json(), _map("m0")),
    Case("put-to-collection", 405, "PUT", MAPS, _json(), _map("m0")),
    Case("not-acceptable", 406, "GET", f"{MAPS}/m0", {"Accept": "image/png"}),
    Case("exists", 409, "POST", MAPS, _json(), _map("m0")),
    Case("stale", 409, "PUT", f"{MAPS}/m0", _json(), STALE),
    Case("continue-unreadable", 400, "GET", f"{MAPS}?continue=xxx"),
    Case("body-too-large", 413, "POST", MAPS, _json(), _map("large", data={"k": "x" * (3 << 20)})),
    Case("media-type", 415, "POST", MAPS, {"Content-Type": "text/plain"}, _map("new")),
    Case("invalid-name", 422, "POST", MAPS, _json(), _map("Not_A_Name")),
    Case("match-without-revision", 422, "GET", f"{MAPS}?resourceVersionMatch=Exact"),
    Case("revision-too-large", 504, "GET", f"{MAPS}?resourceVersion=999999999999"),
)  # fmt: skip

LESS = {("embedded", "yaml"): 406}
"""Where the embedded server knows less: it says so in upstream's own form, which passes too."""


@pytest.fixture(scope="module")
def revision(stand: Stand) -> str:
    """Three quiet objects, large enough that a list is compressed, and the revision after them."""
    stand.namespace(NAMESPACE)
    for number in range(3):
        made = stand.direct.send(
            "POST", MAPS,
            {
                "metadata": {"name": f"m{number}", "labels": {"odd": str(number % 2)}},
                "data": {"k": f"{number}" * 80_000},
            },
        )  # fmt: skip
        assert made.code == 201, made.body
    listed = stand.direct.ask("GET", MAPS)
    return str(listed.json["metadata"]["resourceVersion"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers_are_the_same(stand: Stand, revision: str, case: Case) -> None:
    direct, guarded = both(stand, case, case.target.replace("{rv}", revision))
    assert direct.code == LESS.get((stand.name, case.name), case.code), direct.body[:500]
    assert guarded.code == direct.code
    assert lines(guarded) == lines(direct)
    if case.name.startswith("dry-run"):
        assert _MADE.sub(b"", guarded.body) == _MADE.sub(b"", direct.body)
    elif case.name == "revision-too-large":
        assert CURRENT.sub(b"", guarded.body) == CURRENT.sub(b"", direct.body)
    else:
        assert guarded.body == direct.body


def test_a_compressed_list_stays_compressed(stand: Stand, revision: str) -> None:
    """The case of that name compares what it is called."""
    listed = f"{MAPS}?{EXACT}".replace("{rv}", revision)
    zipped = stand.guarded.ask("GET", listed, {"Accept-Encoding": "gzip"})
    assert (zipped.header("content-encoding"), zipped.body[:2]) == ("gzip", b"\x1f\x8b")


@pytest.mark.real
def test_protobuf_bodies_pass(real: Stand) -> None:
    """An object as upstream sent it, sent back."""
    binary = {"Accept": PROTOBUF, "Content-Type": PROTOBUF}
    target = "/api/v1/namespaces/kube-system"
    body = real.direct.ask("GET", target, binary).body
    assert body[:4] == b"k8s\0"
    answers = [
        way.ask("PUT", f"{target}?dryRun=All", binary, body) for way in (real.direct, real.guarded)
    ]
    assert [answer.code for answer in answers] == [200, 200], answers
    assert answers[0].body == answers[1].body == body


@pytest.mark.real
def test_a_watch_from_before_history_is_told_so(real: Stand) -> None:
    """A resource that is new knows nothing of the revisions before it."""
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    definition = {
        "metadata": {"name": "things.example.org"},
        "spec": {
            "group": "example.org", "scope": "Cluster", "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }  # fmt: skip
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert real.direct.send("POST", crds, definition).code == 201
    target = "/apis/example.org/v1/things"
    until("it is served", lambda: real.direct.ask("GET", target).code == 200)
    answers = [
        way.ask("GET", f"{target}?watch=1&resourceVersion=1&timeoutSeconds=1")
        for way in (real.direct, real.guarded)
    ]
    assert answers[0].json["object"]["code"] == 410
    assert answers[0].body == answers[1].body


def both(stand: Stand, case: Case, target: str) -> tuple[Reply, Reply]:
    """Asked at the same time: some answers are slow on purpose."""
    replies: dict[str, Reply] = {}

    def ask(way: Way) -> None:
        body = case.body.encode() if case.body else None
        headers = {"Audit-Id": AUDIT_ID, **case.headers}
        replies[way.name] = way.ask(case.method, target, headers, body, case.token)

    threads = [threading.Thread(target=ask, args=(way,)) for way in (stand.direct, stand.guarded)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies["direct"], replies["guarded"]


def lines(reply: Reply) -> list[tuple[str, str]]:
    """Every header line in order but those of one connection and one moment."""
    return [line for line in reply.headers if line[0] not in HOP | CHANGING]
