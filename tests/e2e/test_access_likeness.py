"""Roles, bindings and access reviews mean on the embedded server what they mean on a real one."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.real import RealApiServer
from tests.e2e.stands import VIEWER, EmbeddedThread, Way

pytestmark = pytest.mark.e2e

RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
SPACE = "access"
READ = ["get", "list", "watch"]


def _way(name: str, server: EmbeddedThread | RealApiServer) -> Way:
    parts = urlsplit(server.url)
    context = ssl.create_default_context(cafile=str(server.ca_file))
    context.check_hostname = False
    assert parts.hostname is not None
    assert parts.port is not None
    way = Way(name, (parts.hostname, parts.port), context, server.ca_file)
    _grant(way)
    return way


def _grant(way: Way) -> None:
    here = f"{RBAC}/namespaces/{SPACE}"
    viewers = [{"kind": "Group", "name": "viewers"}]
    bot = {"kind": "ServiceAccount", "name": "bot", "namespace": SPACE}
    for path, value in (
        ("/api/v1/namespaces", {"metadata": {"name": SPACE}}),
        (f"{here}/roles", _role("pods", [_rule(["pods", "pods/log", "*/scale"], READ)])),
        (f"{here}/roles", _role("one", [{**_rule(["secrets"], READ), "resourceNames": ["s"]}])),
        (f"{RBAC}/clusterroles", _role("nodes", [_rule(["nodes"], ["*"]), _rule(["*"], ["peek"])])),
        (f"{RBAC}/clusterroles", _role("paths", [
            {"nonResourceURLs": ["/metrics", "/logs/*"], "verbs": ["get"]}])),
        (f"{here}/rolebindings", _binding("pods", "Role", [*viewers, bot])),
        (f"{here}/rolebindings", _binding("one", "Role", [{"kind": "User", "name": "viewer"}])),
        (f"{here}/rolebindings", _binding("paths", "ClusterRole", viewers)),
        (f"{here}/rolebindings", _binding("nothing", "Role", viewers)),
        (f"{RBAC}/clusterrolebindings", _binding("nodes", "ClusterRole", viewers)),
        (f"{RBAC}/clusterrolebindings", _binding("paths", "ClusterRole", [
            {"kind": "User", "name": "viewer"}])),
    ):  # fmt: skip
        reply = way.send("POST", path, value)
        assert reply.code == 201, reply.body


def _rule(resources: list[str], verbs: list[str]) -> dict[str, object]:
    return {"apiGroups": ["", "apps"], "resources": resources, "verbs": verbs}


def _role(name: str, rules: list[dict[str, Any]]) -> object:
    return {"metadata": {"name": f"likeness-{name}"}, "rules": rules}


def _binding(name: str, kind: str, subjects: list[dict[str, str]]) -> object:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": f"likeness-{name}"}
    return {"metadata": {"name": f"likeness-{name}"}, "roleRef": role, "subjects": subjects}


def about(verb: str, resource: str, **more: object) -> dict[str, object]:
    return {"resourceAttributes": {"verb": verb, "resource": resource, **more}}


def at(path: str, verb: str = "get") -> dict[str, object]:
    return {"nonResourceAttributes": {"path": path, "verb": verb}}


HERE: dict[str, object] = {"namespace": SPACE}
ME = {"user": "viewer", "groups": ["viewers"]}
RAW = {"rawSelector": "spec.nodeName=n1"}
WRITTEN = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]}
QUESTIONS: tuple[dict[str, object], ...] = (
    {**ME, **about("list", "pods", **HERE)},
    {**ME, **about("list", "pods")},
    {**ME, **about("list", "pods", namespace="elsewhere")},
    {**ME, **about("delete", "pods", **HERE)},
    {**ME, **about("get", "pods", subresource="log", **HERE)},
    {**ME, **about("get", "pods", subresource="exec", **HERE)},
    {**ME, **about("get", "deployments", group="apps", subresource="scale", **HERE)},
    {**ME, **about("get", "deployments", group="apps", **HERE)},
    {**ME, **about("list", "pods", group="metrics.k8s.io", **HERE)},
    {**ME, **about("list", "pods", fieldSelector=RAW, **HERE)},
    {**ME, **about("list", "pods", fieldSelector=WRITTEN, labelSelector=WRITTEN, **HERE)},
    {**ME, **about("list", "pods", fieldSelector={**RAW, **WRITTEN}, **HERE)},
    {**ME, **about("list", "pods", fieldSelector={}, **HERE)},
    {**ME, **about("get", "secrets", name="s", **HERE)},
    {**ME, **about("list", "secrets", name="s", **HERE)},
    {**ME, **about("list", "secrets", **HERE)},
    {**ME, **about("get", "secrets", name="t", **HERE)},
    {**ME, **about("delete", "nodes", name="n")},
    {**ME, **about("peek", "pods", **HERE)},
    {"user": "viewer", **about("list", "pods", **HERE)},
    {"groups": ["viewers"], **about("list", "pods", **HERE)},
    {"user": "x", "groups": ["viewers"], "extra": {"k": ["v"]}, **about("list", "pods", **HERE)},
    {"user": f"system:serviceaccount:{SPACE}:bot", **about("list", "pods", **HERE)},
    {"user": "system:serviceaccount:other:bot", **about("list", "pods", **HERE)},
    {"user": "x", "groups": ["system:masters"], **about("delete", "everything")},
    {"user": "viewer", **at("/metrics")},
    {"user": "viewer", **at("/metrics/x")},
    {"user": "viewer", **at("/logs/a/b")},
    {"user": "viewer", **at("/metrics", "post")},
    {"groups": ["viewers"], **at("/metrics")},
    {"groups": ["a"]},
    {**about("list", "pods")},
    {**ME, **about("list", "pods"), **at("/x")},
)


@pytest.fixture(scope="module")
def embedded_way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    server = EmbeddedThread(tmp_path_factory.mktemp("access"))
    try:
        yield _way("embedded", server)
    finally:
        server.close()


@pytest.fixture(scope="module")
def real_way(real_apiserver: RealApiServer) -> Way:
    return _way("real", real_apiserver)


Answer = tuple[int, object]


def _review(way: Way, question: dict[str, object]) -> Answer:
    reply = way.send("POST", REVIEWS, {"kind": "SubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1", "spec": question})  # fmt: skip
    return reply.code, reply.json["status"] if reply.code == 201 else reply.json


@pytest.mark.real
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: json.dumps(question))
def test_reviews_are_answered_alike(
    embedded_way: Way, real_way: Way, question: dict[str, object]
) -> None:
    assert _review(embedded_way, question) == _review(real_way, question)


def _read(way: Way, target: str) -> Answer:
    reply = way.ask("GET", target, token=VIEWER)
    return reply.code, reply.json.get("message") if reply.code != 200 else ""


PATHS = (
    f"/api/v1/namespaces/{SPACE}/pods",
    f"/api/v1/namespaces/{SPACE}/pods?watch=1&timeoutSeconds=1",
    "/api/v1/pods",
    f"/api/v1/namespaces/{SPACE}/secrets",
    f"/api/v1/namespaces/{SPACE}/secrets?fieldSelector=metadata.name%3Ds",
    f"/api/v1/namespaces/{SPACE}/secrets?fieldSelector=metadata.name%3Dt",
    f"/api/v1/namespaces/{SPACE}/secrets/s",
    "/api/v1/nodes",
    f"{RBAC}/clusterroles",
)


@pytest.mark.real
@pytest.mark.parametrize("target", PATHS)
def test_requests_are_allowed_and_refused_alike(
    embedded_way: Way, real_way: Way, target: str
) -> None:
    assert _read(embedded_way, target) == _read(real_way, target)


def test_what_reviews_say_is_what_requests_meet_and_ends_at_once(embedded_way: Way) -> None:
    """A removed binding refuses the next request and the next review."""
    question = {"user": "viewer", "groups": ["viewers"], **about("list", "pods", **HERE)}
    target = f"/api/v1/namespaces/{SPACE}/pods"
    binding = f"{RBAC}/namespaces/{SPACE}/rolebindings/likeness-pods"
    found = embedded_way.ask("GET", binding).json
    _, status = _review(embedded_way, question)
    assert status == {
        "allowed": True,
        "reason": f'RBAC: allowed by RoleBinding "likeness-pods/{SPACE}" of Role "likeness-pods" '
        'to Group "viewers"',
    }
    assert _read(embedded_way, target)[0] == 200
    assert embedded_way.ask("DELETE", binding).code == 200
    missing = 'RBAC: role.rbac.authorization.k8s.io "likeness-nothing" not found'
    assert _review(embedded_way, question) == (201, {"allowed": False, "reason": missing})
    assert _read(embedded_way, target)[0] == 403
    del found["metadata"]["resourceVersion"]
    again = embedded_way.send("POST", binding.rpartition("/")[0], found)
    assert again.code == 201
    assert _read(embedded_way, target)[0] == 200
