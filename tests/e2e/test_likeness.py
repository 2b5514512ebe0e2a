"""The embedded API server answers reads as kube-apiserver does: one matrix, asked of both.

The same objects are written to both in the same order. What each server invents (revisions, uids,
times, managedFields) is taken out before comparing; nothing else is. Without a real server the
embedded one is still held to the codes written here, which the real one must have too.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from apiguard.demo import protobuf
from tests.e2e.guard import until
from tests.e2e.real import RealApiServer, missing
from tests.e2e.stands import EmbeddedThread, Reply, Way

pytestmark = pytest.mark.e2e

SPACE, OTHER = "likeness", "likeness-a"
MAPS = f"/api/v1/namespaces/{SPACE}/configmaps"
PODS = f"/api/v1/namespaces/{SPACE}/pods"
EVERYWHERE = "/api/v1/pods"
GROUP = "likeness.example.org"
WIDGETS = f"/apis/{GROUP}/v1/namespaces/{SPACE}/widgets"
PROTOBUF = "application/vnd.kubernetes.protobuf"
META = "v=v1;g=meta.k8s.io"
TABLE = f"application/json;as=Table;{META}"
LIST = f"as=PartialObjectMetadataList;{META}"
ONE = f"as=PartialObjectMetadata;{META}"
EXACT, NOT_OLDER = "resourceVersionMatch=Exact", "resourceVersionMatch=NotOlderThan"
INITIAL = f"sendInitialEvents=true&{NOT_OLDER}"
HEADERS = (
    *("content-type", "cache-control", "retry-after", "vary", "content-encoding"),
    *("x-content-type-options", "warning"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """``code`` is what both must answer. In targets ``{rv}`` is the revision after the objects were
    made, ``{end}`` that after they were changed, ``{token}`` a continue token after two items.

    ``pinned``: the revision of the list itself is part of the claim.
    """

    code: int
    target: str
    accept: str = ""
    method: str = "GET"
    pinned: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def token(**fields: object) -> str:
    """A continue token of our own making; ``{rv}`` in it must be a number later."""
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


def selected(path: str, **selectors: str) -> str:
    terms = [f"{name}Selector={quote(text)}" for name, text in selectors.items()]
    return f"{path}?{'&'.join(terms)}"


V1 = "meta.k8s.io/v1"
LISTS = (
    Case(200, MAPS),
    Case(200, f"{MAPS}?limit=2"),
    Case(200, f"{MAPS}?limit=4"),
    Case(200, f"{MAPS}?limit=3"),
    Case(200, f"{MAPS}?limit=0"),
    Case(200, f"{MAPS}?limit=-1"),
    Case(200, f"{MAPS}?limit=2&resourceVersion=0"),
    Case(200, f"{MAPS}?resourceVersion=0"),
    Case(200, f"{MAPS}?resourceVersion=0&{NOT_OLDER}&limit=2"),
    Case(200, f"{MAPS}?resourceVersion={{rv}}"),
    Case(200, f"{MAPS}?resourceVersion={{rv}}&limit=2", pinned=True),
    Case(200, f"{MAPS}?resourceVersion={{rv}}&{EXACT}", pinned=True),
    Case(200, f"{MAPS}?resourceVersion={{rv}}&{EXACT}&limit=2", pinned=True),
    Case(200, f"{MAPS}?resourceVersion={{rv}}&{NOT_OLDER}"),
    Case(200, f"{MAPS}?resourceVersion={{rv}}&{NOT_OLDER}&limit=2"),
    Case(200, f"{MAPS}?resourceVersion={{end}}&{EXACT}", pinned=True),
    Case(200, f"{MAPS}?resourceVersion=01"),
    Case(200, f"{MAPS}?continue={{token}}", pinned=True),
    Case(200, f"{MAPS}?continue={{token}}&limit=2", pinned=True),
    Case(200, f"{MAPS}?continue={{token}}&limit=1", pinned=True),
    Case(200, f"{MAPS}?continue={{token}}&resourceVersion=0", pinned=True),
    Case(400, f"{MAPS}?continue={{token}}&resourceVersion=5"),
    Case(422, f"{MAPS}?continue={{token}}&{EXACT}"),
    Case(422, f"{MAPS}?continue={{token}}&resourceVersion=5&{EXACT}"),
    Case(200, f"{MAPS}?limit=2&continue={token(v=V1, rv=-1, start='m0' + chr(0))}"),
    Case(200, f"{MAPS}?limit=2&continue={token(v=V1, rv=-1, start='/m0' + chr(0))}"),
    Case(200, f"{MAPS}?limit=2&continue={token(v=V1, rv=-9, start='/m1')}"),
    Case(400, f"{MAPS}?limit=2&continue={token(v=V1, rv=0, start='/m1')}"),
    Case(400, f"{MAPS}?limit=2&continue={token(v=V1, rv=7, start='')}"),
    Case(400, f"{MAPS}?limit=2&continue={token(v=V1, rv=7, start='../x')}"),
    Case(400, f"{MAPS}?limit=2&continue={token(v='v9', rv=7, start='/m1')}"),
    Case(400, f"{MAPS}?limit=2&continue={token(rv=7, start='/m1')}"),
    Case(400, f"{MAPS}?limit=2&continue={token(v=V1, rv='7', start='/m1')}"),
    Case(504, f"{MAPS}?limit=2&continue={token(v=V1, rv=99999999, start='/m1')}"),
    Case(400, f"{MAPS}?continue=xx"),
    Case(400, f"{MAPS}?continue=%20"),
    Case(422, f"{MAPS}?{NOT_OLDER}"),
    Case(422, f"{MAPS}?{EXACT}"),
    Case(422, f"{MAPS}?resourceVersionMatch=Bogus"),
    Case(422, f"{MAPS}?resourceVersion=5&resourceVersionMatch=Bogus"),
    Case(422, f"{MAPS}?resourceVersion=0&{EXACT}"),
    Case(422, f"{MAPS}?sendInitialEvents=true"),
    Case(422, f"{MAPS}?sendInitialEvents=false"),
    Case(422, f"{MAPS}?{INITIAL}"),
    Case(400, f"{MAPS}?limit=x"),
    Case(400, f"{MAPS}?limit=99999999999999999999"),
    Case(400, f"{MAPS}?timeoutSeconds=x"),
    Case(400, f"{MAPS}?timeout=1x"),
    Case(400, f"{MAPS}?timeout=x"),
    Case(400, f"{MAPS}?timeout=1"),
    Case(200, f"{MAPS}?timeout=1m30s"),
    Case(200, f"{MAPS}?timeout=0"),
    Case(400, f"{MAPS}?resourceVersion=-1"),
    Case(400, f"{MAPS}?resourceVersion=abc"),
    Case(400, f"{MAPS}?resourceVersion=18446744073709551616"),
    Case(504, f"{MAPS}?resourceVersion=999999999"),
    Case(504, f"{MAPS}?resourceVersion=999999999&limit=1"),
    Case(504, f"{MAPS}?resourceVersion=999999999&{EXACT}"),
    Case(200, f"{MAPS}?allowWatchBookmarks=true&timeoutSeconds=1&watch=0"),
    Case(200, f"{MAPS}?watch=false"),
    Case(200, EVERYWHERE),
    Case(200, f"{EVERYWHERE}?limit=2"),
    Case(200, f"{EVERYWHERE}?limit=1&continue={token(v=V1, rv=-1, start='/likeness-a/z')}"),
    Case(200, "/api/v1/namespaces/nowhere/configmaps"),
    Case(200, f"/api/v1/namespaces/{SPACE}"),
    Case(404, "/api/v1/namespaces/nowhere"),
    Case(404, f"{MAPS}/none"),
    Case(200, f"{MAPS}/m0?resourceVersion=0"),
    Case(500, f"{MAPS}/m0?resourceVersion=x"),
    Case(504, f"{MAPS}/m0?resourceVersion=999999999"),
    Case(200, f"{MAPS}?limit=2", f"application/json;{LIST}"),
    Case(200, f"{MAPS}?limit=2", PROTOBUF),
    Case(200, f"{MAPS}?limit=2", f"{PROTOBUF};{LIST}"),
    Case(200, f"{MAPS}?limit=2", f"{PROTOBUF};{LIST}".replace("v1", "v1beta1")),
    Case(200, PODS, PROTOBUF),
    Case(200, f"{PODS}/p1", f"{PROTOBUF};{ONE}"),
    Case(422, f"{MAPS}?{EXACT}", PROTOBUF),
    Case(504, f"{MAPS}?resourceVersion=999999999", PROTOBUF),
    Case(404, f"{MAPS}/none", PROTOBUF),
    Case(404, f"{MAPS}/none", f"{PROTOBUF};{ONE}"),
)  # fmt: skip

SELECTORS = (
    *(
        Case(code, selected(PODS, field=text))
        for code, text in (
            (200, "metadata.name=p1"),
            (200, "metadata.name==p1,spec.nodeName=n1"),
            (200, "metadata.name!=p1"),
            (200, "metadata.name=p1,metadata.name=p2"),
            (200, "metadata.namespace=other"),
            (200, "spec.nodeName=n1"),
            (200, "spec.nodeName="),
            (200, "spec.host=n1"),
            (200, "spec.restartPolicy=Always,spec.schedulerName=default-scheduler"),
            (200, "spec.hostNetwork=false"),
            (200, "spec.serviceAccountName="),
            (200, "status.phase!=Running"),
            (200, "status.phase=Pending"),
            (200, "status.podIP="),
            (200, "status.podIPs=1.2.3.4"),
            (200, "status.nominatedNodeName="),
            (400, "spec.image=x"),
            (400, "spec.nodeName"),
            (400, " "),
            (400, "a>b"),
            (200, ","),
        )
    ),
    *(
        Case(code, selected(MAPS, label=text))
        for code, text in (
            (200, "odd=1"),
            (200, "odd==1"),
            (200, "odd!=1"),
            (200, "odd in (0,1)"),
            (200, "odd notin (1)"),
            (200, "odd"),
            (200, "!odd"),
            (200, "odd,number>1"),
            (200, "number<2"),
            (200, "odd in ()"),
            (200, "nothing=x"),
            (400, "a b"),
            (400, "odd in 1"),
            (400, "number>x"),
            (400, "-bad=x"),
            (400, "odd=-bad-"),
            (400, ",odd"),
        )
    ),
    Case(200, f"{MAPS}?limit=1&labelSelector=odd"),
    Case(200, f"{MAPS}?limit=1&labelSelector="),
    Case(200, f"{MAPS}?limit=1&fieldSelector=metadata.name%21%3Dm0"),
    Case(200, f"{MAPS}?limit=1&fieldSelector=metadata.name%3Dm1"),
    Case(400, selected(MAPS, field="spec.x=1")),
    Case(200, selected("/api/v1/nodes", field="spec.unschedulable=true")),
    Case(200, selected("/api/v1/namespaces", field=f"status.phase=Active,metadata.name={SPACE}")),
    Case(400, selected("/api/v1/namespaces", field="metadata.namespace=x")),
    Case(200, selected(f"/api/v1/namespaces/{SPACE}/secrets", field="type=Opaque")),
    Case(200, selected(f"/api/v1/namespaces/{SPACE}/services", field="spec.clusterIP=None")),
    Case(200, selected(f"/api/v1/namespaces/{SPACE}/services", field="spec.type=ClusterIP")),
    Case(200, selected(f"/api/v1/namespaces/{SPACE}/events", field="involvedObject.name=x")),
    Case(200, selected(f"/api/v1/namespaces/{SPACE}/events", field="reason=a,type=b,source=c")),
    Case(200, selected(f"/api/v1/namespaces/{SPACE}/events", field="reportingComponent=c")),
    Case(400, selected(f"/api/v1/namespaces/{SPACE}/events", field="regarding.name=x")),
    Case(400, selected("/apis/apps/v1/deployments", field="status.replicas=1")),
    Case(400, selected("/apis/coordination.k8s.io/v1/leases", field="spec.holderIdentity=x")),
)

NOW = "timeoutSeconds=1"
MARKED = "allowWatchBookmarks=true"
NAMED = f"/api/v1/watch/namespaces/{SPACE}/configmaps"


def watched(code: int, path: str, *parts: str, accept: str = "") -> Case:
    return Case(code, f"{path}?{'&'.join(('watch=1', *parts))}", accept)


WATCHES = (
    watched(200, MAPS, NOW),
    Case(200, f"{MAPS}?watch&{NOW}"),
    watched(200, MAPS, NOW, "resourceVersion=0"),
    watched(200, MAPS, NOW, "resourceVersion=0", MARKED),
    watched(200, MAPS, NOW, MARKED),
    watched(200, MAPS, NOW, "resourceVersion={rv}"),
    watched(200, MAPS, NOW, "resourceVersion={end}"),
    watched(200, MAPS, "timeoutSeconds=3", "resourceVersion={end}", MARKED),
    watched(200, MAPS, NOW, "resourceVersion=999999999"),
    watched(200, MAPS, NOW, INITIAL),
    watched(200, MAPS, NOW, INITIAL, MARKED),
    watched(200, MAPS, NOW, INITIAL, MARKED, "resourceVersion=0"),
    watched(200, MAPS, NOW, INITIAL, MARKED, "resourceVersion={rv}"),
    watched(200, MAPS, "timeoutSeconds=5", INITIAL, "resourceVersion=999999999"),
    watched(200, MAPS, NOW, "sendInitialEvents=false", NOT_OLDER),
    watched(200, MAPS, NOW, "sendInitialEvents=false", NOT_OLDER, "resourceVersion=0"),
    watched(200, MAPS, NOW, "sendInitialEvents=false", NOT_OLDER, "resourceVersion={rv}"),
    watched(422, MAPS, NOW, "sendInitialEvents=true"),
    watched(422, MAPS, NOW, "sendInitialEvents=false"),
    watched(422, MAPS, NOW, "sendInitialEvents=true", EXACT),
    watched(422, MAPS, NOW, NOT_OLDER),
    watched(422, MAPS, NOW, EXACT, "resourceVersion={rv}"),
    watched(422, MAPS, NOW, INITIAL, "continue=x"),
    watched(200, MAPS, NOW, "continue=x", "resourceVersion={end}"),
    watched(200, MAPS, NOW, "limit=1"),
    watched(500, MAPS, NOW, "resourceVersion=abc"),
    watched(500, MAPS, NOW, "resourceVersion=-1"),
    watched(400, MAPS, "timeoutSeconds=x"),
    watched(400, MAPS, NOW, "labelSelector=a+b"),
    watched(400, MAPS, NOW, "fieldSelector=spec.x%3D1"),
    watched(200, MAPS, NOW, "resourceVersion={rv}", "labelSelector=odd%3D1"),
    watched(200, MAPS, NOW, "resourceVersion={rv}", "labelSelector=odd%3Dno"),
    watched(200, MAPS, NOW, "resourceVersion={rv}", "labelSelector=%21odd"),
    watched(200, MAPS, NOW, "resourceVersion={rv}", "fieldSelector=metadata.name%3Dm1"),
    watched(200, MAPS, NOW, "resourceVersion={rv}", "fieldSelector=metadata.name%21%3Dm1"),
    watched(200, PODS, NOW, "resourceVersion={rv}"),
    watched(200, PODS, NOW, "resourceVersion={rv}", "fieldSelector=status.phase%3DRunning"),
    watched(200, PODS, NOW, "resourceVersion={rv}", "fieldSelector=status.phase%21%3DRunning"),
    watched(200, PODS, NOW, "resourceVersion={rv}", "fieldSelector=spec.nodeName%3Dn1"),
    watched(200, EVERYWHERE, NOW, "resourceVersion=0"),
    Case(200, f"{NAMED}?{NOW}"),
    Case(200, f"{NAMED}?{NOW}&resourceVersion={{rv}}"),
    Case(200, f"{NAMED}/m1?{NOW}"),
    Case(200, f"{NAMED}/m1?{NOW}&resourceVersion={{rv}}"),
    *(
        watched(200, path, *query, MARKED, accept=accept)
        for path in (MAPS, PODS)
        for query in (("timeoutSeconds=3", "resourceVersion={rv}"), (NOW, INITIAL))
        for accept in (
            PROTOBUF,
            f"{PROTOBUF};{ONE}",
            f"application/json;{ONE}",
            f"{PROTOBUF};stream=watch",
        )
    ),
    watched(200, MAPS, NOW, "resourceVersion=0", accept=f"{PROTOBUF};{LIST}"),
    watched(200, MAPS, NOW, "resourceVersion=0", accept=TABLE),
    watched(500, MAPS, NOW, "resourceVersion=abc", accept=PROTOBUF),
    watched(200, MAPS, "timeoutSeconds=5", INITIAL, "resourceVersion=999999999", accept=PROTOBUF),
)

ACCEPTS = tuple(
    Case(code, target, accept)
    for target, codes in (
        (f"{MAPS}?limit=1", "200 406 200 406 200 406 406 200 406 406 406 200 200 406"),
        (f"{MAPS}/m0", "200 406 406 200 200 406 406 200 406 406 406 200 200 406"),
    )
    for code, accept in zip(
        map(int, codes.split()),
        (
            f"{PROTOBUF};q=0.5, application/json;q=0.4, */*;q=0.1",
            "application/*",
            f"{PROTOBUF};{LIST},{PROTOBUF}",
            f"application/json;{ONE},application/json",
            f"{PROTOBUF};as=Table;{META},application/json",
            f"{PROTOBUF};as=Table;{META}",
            f"{PROTOBUF};stream=nope",
            f"text/plain,{PROTOBUF}",
            f"application/json;{META}",
            f"application/json;as=Nope;{META}",
            "application/json;as=Table;v=v2;g=meta.k8s.io",
            "application/json;q=0",
            f"{PROTOBUF};q=0.5,*/*",
            "application/cbor",
        ),
        strict=True,
    )
)


class Side:
    """One server with the objects of the matrix; ``values`` fill the targets."""

    def __init__(self, name: str, url: str, authority: Path) -> None:
        parts = urlsplit(url)
        context = ssl.create_default_context(cafile=str(authority))
        context.check_hostname = False
        assert parts.hostname is not None
        assert parts.port is not None
        self.way = Way(name, (parts.hostname, parts.port), context, authority)
        self.values: dict[str, str] = {}
        self._populate()
        with ThreadPoolExecutor(16) as pool:  # many wait for a deadline
            replies = pool.map(self._ask, ALL)
            self._replies = dict(zip(map(id, ALL), replies, strict=True))

    def _populate(self) -> None:
        for space in (SPACE, OTHER):
            self._made("/api/v1/namespaces", {"metadata": {"name": space}})
        for number in range(4):
            labels = {"odd": str(number % 2), "number": str(number)} if number < 3 else {}
            metadata = {"name": f"m{number}", "labels": labels} if labels else {"name": "m3"}
            self._made(MAPS, {"metadata": metadata, "data": {"k": str(number)}})
        for space, names in ((SPACE, ("p1", "p2")), (OTHER, ("a", "z"))):
            for name, node in zip(names, ("n1", "n2"), strict=True):
                self._made(f"/api/v1/namespaces/{space}/pods", _pod(name, node))
        self._define()
        listed = self.way.ask("GET", f"{MAPS}?limit=2").json["metadata"]
        self.values = {"rv": listed["resourceVersion"], "token": listed["continue"]}
        self._change()
        self.values["end"] = self.way.ask("GET", MAPS).json["metadata"]["resourceVersion"]

    def _define(self) -> None:
        """A custom resource, and one that is withdrawn again."""
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        gone = "/apis/gone.example.org/v1/things"
        self._made(definitions, _definition("gone.example.org", "thing"))
        self._made(definitions, _definition(GROUP, "widget"))
        for path in (gone, WIDGETS):
            self._until(path, 200)
        for name, color in (("w1", "red"), ("w2", "blue")):
            value = {"metadata": {"name": name}, "spec": {"color": color}, "status": {"n": 1}}
            self._made(WIDGETS, {"apiVersion": f"{GROUP}/v1", "kind": "Widget", **value})
        assert self.way.ask("DELETE", f"{definitions}/things.gone.example.org").code == 200
        self._until(gone, 404)

    def _until(self, path: str, code: int) -> None:
        until(f"{path} is answered {code}", lambda: self.way.ask("GET", path).code == code)

    def _change(self) -> None:
        for color in ("blue", "red"):
            self._patched(WIDGET, {"spec": {"color": color}})
        self._patched(f"{WIDGET}/status", {"status": {"n": 2}})
        for odd in ("no", None, "1"):
            self._patched(f"{MAPS}/m1", {"metadata": {"labels": {"odd": odd}}})
        self._patched(f"{PODS}/p1/status", {"status": {"phase": "Running"}})
        self._patched(f"{PODS}/p1/status", {"status": {"phase": "Pending"}})
        self._made(MAPS, {"metadata": {"name": "m9"}})
        for path in (f"{MAPS}/m9", f"{PODS}/p2?gracePeriodSeconds=0"):
            assert self.way.ask("DELETE", path).code == 200
        self._made(PODS, _pod("p2", "n1"))

    def _made(self, path: str, value: object) -> None:
        reply = self.way.send("POST", path, value)
        assert reply.code == 201, reply.body

    def _patched(self, path: str, patch: object) -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        reply = self.way.ask("PATCH", path, headers, json.dumps(patch).encode())
        assert reply.code == 200, reply.body

    def answer(self, case: Case) -> Reply:
        return self._replies[id(case)]

    def _ask(self, case: Case) -> Reply:
        target = case.target
        for name, value in self.values.items():
            target = target.replace(f"{{{name}}}", value)
        headers = {**({"Accept": case.accept} if case.accept else {}), **case.headers}
        return self.way.ask(case.method, target, headers)


def _definition(group: str, singular: str) -> object:
    names = {"plural": f"{singular}s", "kind": singular.capitalize()}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {**schema, "properties": {"color": {"type": "string"}}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "schema": {"openAPIV3Schema": {**schema, "properties": {"spec": spec}}},
    }
    return {
        "metadata": {"name": f"{singular}s.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _pod(name: str, node: str) -> object:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "busybox"}]}
    return {"metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    server = EmbeddedThread(tmp_path_factory.mktemp("likeness"))
    try:
        yield Side("embedded", server.url, server.ca_file)
    finally:
        server.close()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    """A server of its own: lists of all namespaces must hold nothing that other tests made."""
    if missing():
        pytest.skip(missing())
    server = RealApiServer(tmp_path_factory.mktemp("original"))
    try:
        server.wait()
        yield Side("real", server.url, server.ca_file)
    finally:
        server.close()


WIDGET = f"{WIDGETS}/w1"
CUSTOM = (
    Case(200, WIDGETS),
    Case(200, f"{WIDGETS}?limit=1"),
    Case(200, WIDGET),
    Case(404, f"{WIDGETS}/none"),
    Case(200, WIDGETS, f"application/json;{LIST}"),
    Case(200, WIDGETS, f"{PROTOBUF};{LIST}"),
    Case(200, WIDGET, f"{PROTOBUF};{ONE}"),
    Case(200, WIDGETS, f"{PROTOBUF},application/json"),
    Case(200, WIDGETS, "application/*"),
    Case(406, WIDGETS, PROTOBUF),
    Case(406, WIDGET, PROTOBUF),
    Case(406, WIDGETS, "application/cbor"),
    Case(406, WIDGETS, f"application/json;{ONE}"),
    Case(200, selected(WIDGETS, field="spec.color=red")),
    Case(200, selected(WIDGETS, field="spec.color!=red,metadata.name=w2")),
    Case(400, selected(WIDGETS, field="spec.size=1")),
    watched(200, WIDGETS, NOW),
    watched(200, WIDGETS, NOW, INITIAL, MARKED),
    watched(200, WIDGETS, NOW, "resourceVersion={rv}"),
    watched(200, WIDGETS, NOW, "resourceVersion={rv}", "fieldSelector=spec.color%3Dred"),
    watched(200, WIDGETS, NOW, "resourceVersion=1"),
    watched(200, WIDGETS, NOW, "resourceVersion={rv}", accept=f"{PROTOBUF};{ONE}"),
    watched(406, WIDGETS, NOW, accept=PROTOBUF),
    watched(200, WIDGETS, NOW, "resourceVersion=1", accept=f"{PROTOBUF};{ONE}"),
    Case(404, f"/apis/{GROUP}/v1/namespaces/{SPACE}/gadgets"),
    Case(404, f"/apis/{GROUP}/v9/namespaces/{SPACE}/widgets"),
    Case(404, "/apis/gone.example.org/v1/things"),
)
ALL = (*LISTS, *SELECTORS, *WATCHES, *ACCEPTS, *CUSTOM)
each = pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.target} {case.accept}")


@each
def test_the_embedded_server_answers_with_the_code(double: Side, case: Case) -> None:
    answered = double.answer(case)
    assert answered.code == case.code, answered.body


@pytest.mark.real
@each
def test_both_answer_alike(double: Side, original: Side, case: Case) -> None:
    embedded, real = double.answer(case), original.answer(case)
    assert real.code == case.code, real.body
    assert shown(embedded, double, case) == shown(real, original, case)
    assert told(embedded) == told(real)


def told(reply: Reply) -> dict[str, str]:
    return {name: reply.header(name) for name in HEADERS if reply.header(name)}


def shown(reply: Reply, side: Side, case: Case) -> object:
    """The body as values, without what a server invents."""
    media = reply.header("content-type")
    if media == f"{PROTOBUF};stream=watch":
        frames = protobuf.decode_frames(reply.body)
        return _events([(kind, protobuf.decode_body(body)) for kind, body in frames])
    if reply.body.startswith(b'{"type"') or not reply.body:
        events = [json.loads(line) for line in reply.body.splitlines()]
        return _events([(event["type"], event["object"]) for event in events])
    if media.startswith("text/plain"):
        return reply.body
    binary = media == PROTOBUF
    value = protobuf.decode_body(reply.body) if binary else json.loads(reply.body)
    revision = value.get("metadata", {}).get("resourceVersion")
    named = {number: name for name, number in side.values.items()}
    return (named.get(revision) if case.pinned else ""), _plain(value)


def _events(found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Without bookmarks in passing: upstream's depend on when etcd last told it of progress."""
    return [
        (kind, _plain(value))
        for kind, value in found
        if kind != "BOOKMARK" or "annotations" in value["metadata"]
    ]


_INVENTED = frozenset(
    {"resourceVersion", "uid", "creationTimestamp", "deletionTimestamp", "managedFields"}
)
# Revisions in messages, and the age of an object in a table.
_CHANGING = re.compile(r"(?<=current: )\d+|(?<=\()\d+(?=\))|^\d+s$")
# The texts beside a table's columns are upstream's documentation.
_UNSAID = frozenset({"description"})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _position(part) if name == "continue" else _plain(part)
            for name, part in value.items()
            if name not in _INVENTED | _UNSAID
        }
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return _CHANGING.sub("?", value) if isinstance(value, str) else value


def _position(text: str) -> Any:
    if not text:
        return text
    document = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return {**document, "rv": "?"}
