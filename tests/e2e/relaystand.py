"""Stands whose guard relays everything, before a cluster of what makes answers differ."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from tests.conftest import Certificates
from tests.e2e.guard import until
from tests.e2e.stands import ADMIN, SERVER_NAME, ApiServer, Reply, Stand

NAMESPACES = ("relay-a", "relay-a-b", "relay-empty")
"""Etcd puts what is in the second before what is in the first."""

WIDGETS, GADGETS = "/apis/relay.example.org/v1/widgets", "/apis/relay.example.org/v1/gadgets"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_GROUPS = (
    ("", "v1"),
    ("apps", "v1"),
    ("batch", "v1"),
    ("certificates.k8s.io", "v1"),
    ("coordination.k8s.io", "v1"),
    ("discovery.k8s.io", "v1"),
    ("events.k8s.io", "v1"),
    ("relay.example.org", "v1"),
    ("resource.k8s.io", "v1"),
)
OPEN = (
    "apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\nrules: []\n"
    "default:\n  limits: [{requestsPerSecond: 100000, burst: 100000}]\n"
)


def relay_stand(name: str, folder: Path, server: ApiServer, certificates: Certificates) -> Stand:
    """A guard that relays every group named here, with reviews enough for any test."""
    token = folder / "own-token"
    token.write_text(ADMIN)
    resources = [{"group": g, "version": v, "resource": "*"} for g, v in _GROUPS]
    settings = {
        "upstream": {
            "servers": [server.url],
            "caFile": str(server.ca_file),
            "serverName": SERVER_NAME,
            "credentials": {"tokenFile": str(token)},
        },
        "bounds": {"drainSeconds": 1},
        "identity": {"tokenReview": {"enabled": True, "reviewsPerSecond": 1_000}},
        "relay": {"resources": resources, "authorization": {"reviewsPerSecond": 1_000}},
    }
    return Stand(name, folder, server, certificates, policy=OPEN, settings=settings)


def relayed(reply: Reply) -> bool:
    """Whether the relay answered: what comes from upstream names the flow schema it was in."""
    return not reply.header("x-kubernetes-pf-flowschema-uid")


# -- what there is to read ---------------------------------------------------------------------


def populate(stand: Stand) -> None:
    """Of every resource some, with names, labels and texts that are easily got wrong. Once: tests
    share kube-apiserver."""
    if stand.direct.ask("GET", f"/api/v1/namespaces/{NAMESPACES[0]}").code == 200:
        return
    for namespace in NAMESPACES:
        stand.namespace(namespace)
    for definition in (_definition("widgets", "Widget"), _definition("gadgets", "Gadget")):
        made = stand.direct.send("POST", _CRDS, definition)
        assert made.code == 201, made.body
    for target in (WIDGETS, GADGETS):
        until(f"{target} is served", functools.partial(_served, stand, target))
    for target, body in _objects():
        made = stand.direct.send("POST", target, body)
        if made.code == 404:  # the embedded server serves fewer resources
            assert stand.name == "embedded", (target, made.body)
            continue
        assert made.code == 201, (target, made.body)
        if "status" in body:
            patched = stand.direct.ask(
                "PATCH",
                f"{target}/{body['metadata']['name']}/status",
                {"Content-Type": "application/merge-patch+json"},
                json.dumps({"status": body["status"]}).encode(),
            )
            assert patched.code == 200, (target, patched.body)


def _served(stand: Stand, target: str) -> bool:
    return stand.direct.ask("GET", target).code == 200


def _definition(plural: str, kind: str) -> dict[str, Any]:
    spec = {"color": {"type": "string"}, "size": {"type": "integer"}, "on": {"type": "boolean"}}
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": spec},
            "note": {"type": "string"},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "selectableFields": [
            {"jsonPath": ".spec.color"},
            {"jsonPath": ".spec.size"},
            {"jsonPath": ".spec.on"},
        ],
    }
    return {
        "metadata": {"name": f"{plural}.relay.example.org"},
        "spec": {
            "group": "relay.example.org",
            "scope": "Namespaced" if plural == "widgets" else "Cluster",
            "names": {
                "plural": plural,
                "singular": kind.lower(),
                "kind": kind,
                "listKind": f"{kind}List",
            },
            "versions": [version],
        },
    }


AWKWARD = {
    "quoted": '{"resourceVersion":"17"} },{"metadata":{"name":"x"}}',
    "escaped": "<a href='x'>&</a> \u2028 \u2029 \x7f é 猫 \U0001f600 \\ \" / \t",
    "empty": "",
}
"""Annotations that look like what stands around them."""


def pod(name: str, *, node: str = "", app: str = "web", **spec: Any) -> dict[str, Any]:
    """A pod that runs nowhere; ``node`` says where it would."""
    return {
        "metadata": {"name": name, "labels": {"app": app} if app else {}},
        "spec": {
            "containers": [{"name": "c", "image": "registry.example/c:1"}],
            **({"nodeName": node} if node else {}),
            **spec,
        },
    }


def _objects() -> list[tuple[str, dict[str, Any]]]:
    made: list[tuple[str, dict[str, Any]]] = [*_pods(), *_core(), *_others()]
    for target in (WIDGETS.replace("/widgets", "/namespaces/relay-a/widgets"), GADGETS):
        for at, color in enumerate(("red", "green", "red")):
            body: dict[str, Any] = {
                "apiVersion": "relay.example.org/v1",
                "kind": "Widget" if "widgets" in target else "Gadget",
                "metadata": {"name": f"w{at}", "labels": {"app": color}, "annotations": AWKWARD},
                "spec": {"color": color, "size": at, "on": bool(at % 2)} if at else {},
                "note": AWKWARD["quoted"],
            }
            made.append((target, body))
    return made


def _pods() -> list[tuple[str, dict[str, Any]]]:
    made = []
    for number in range(13):
        body = pod(
            f"p-{number:02}",
            node=f"n{number % 3}" if number % 4 else "",
            app=("web", "db", "")[number % 3],
            **({"restartPolicy": "Never"} if number % 5 == 1 else {}),
            **({"schedulerName": "other"} if number % 5 == 2 else {}),
            **({"hostNetwork": True} if number % 5 == 3 else {}),
        )
        body["metadata"]["labels"] |= {"n": str(number), "example.org/odd": str(number % 2)}
        body["metadata"]["labels"] |= {"bare": ""} if number % 4 == 0 else {}
        body["metadata"]["annotations"] = AWKWARD
        body["status"] = {"phase": ("Pending", "Running", "Succeeded")[number % 3]}
        if number % 3 == 1:
            ips = [{"ip": f"10.1.0.{number}"}, {"ip": "fd00::9"}]
            body["status"] |= {"podIP": ips[0]["ip"], "podIPs": ips}
        if number == 7:
            body["metadata"]["finalizers"] = ["relay.example.org/kept"]
        namespace = "relay-a-b" if number % 4 == 3 else "relay-a"
        made.append((f"/api/v1/namespaces/{namespace}/pods", body))
    return made


def _core() -> list[tuple[str, dict[str, Any]]]:
    core = "/api/v1/namespaces/relay-a"
    made: list[tuple[str, dict[str, Any]]] = []
    for at in range(3):
        made += [
            ("/api/v1/nodes", {
                "metadata": {"name": f"relay-n{at}", "labels": {"app": "web"}},
                "spec": {"unschedulable": True} if at == 1 else {},
            }),
            (f"{core}/configmaps", {
                "metadata": {"name": f"c.{at}", "labels": {"app": "web"}, "annotations": AWKWARD},
                "data": {"key": f"{at}" * 60_000, "b": "<&>"},
            }),
            (f"{core}/secrets", {
                "metadata": {"name": f"s{at}"},
                "type": ("Opaque", "example.org/own", "Opaque")[at],
                "data": {"key": "Y2FuYXJ5"},
            }),
            (f"{core}/services", {
                "metadata": {"name": f"v{at}"},
                "spec": {
                    "ports": [{"port": 80}],
                    **({"clusterIP": "None"} if at == 1 else {}),
                    **({"type": "NodePort"} if at == 2 else {}),
                },
            }),
            (f"{core}/events", {
                "metadata": {"name": f"e{at}"},
                "involvedObject": {
                    "kind": "Pod", "namespace": "relay-a", "name": f"p-0{at}", "uid": f"u{at}",
                    "apiVersion": "v1", "resourceVersion": "5", "fieldPath": "spec.containers{c}",
                },
                "reason": ("Started", "Killed", "Started")[at],
                "type": ("Normal", "Warning", "Normal")[at],
                "message": AWKWARD["quoted"],
                **({"source": {"component": "kubelet"}} if at else {}),
                **({"reportingComponent": "tests", "reportingInstance": "i",
                    "action": "a", "eventTime": "2026-01-01T00:00:00.000000Z"} if at != 1 else {}),
            }),
            (f"{core}/replicationcontrollers", {
                "metadata": {"name": f"r{at}"},
                "spec": {"replicas": at, "selector": {"app": "x"}, "template": {
                    "metadata": {"labels": {"app": "x"}}, "spec": pod("x")["spec"],
                }},
                **({"status": {"replicas": at}} if at else {}),
            }),
        ]  # fmt: skip
    return made


def _others() -> list[tuple[str, dict[str, Any]]]:
    made: list[tuple[str, dict[str, Any]]] = []
    template = {"metadata": {"labels": {"app": "x"}}, "spec": pod("x")["spec"]}
    for at in range(2):
        made += [
            ("/apis/apps/v1/namespaces/relay-a/deployments", {
                "metadata": {"name": f"d{at}"},
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": {"app": "x"}},
                    "template": template,
                },
            }),
            ("/apis/batch/v1/namespaces/relay-a/jobs", {
                "metadata": {"name": f"j{at}"},
                "spec": {"template": {"spec": {**pod("x")["spec"], "restartPolicy": "Never"}}},
                **({"status": {"succeeded": 1, "startTime": "2026-01-01T00:00:00Z"}} if at else {}),
            }),
            ("/apis/coordination.k8s.io/v1/namespaces/relay-a/leases", {
                "metadata": {"name": f"l{at}"}, "spec": {"holderIdentity": "h"},
            }),
            ("/apis/discovery.k8s.io/v1/namespaces/relay-a/endpointslices", {
                "metadata": {"name": f"x{at}"}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.1.2.3"]}],
            }),
            ("/apis/resource.k8s.io/v1/resourceslices", {
                "metadata": {"name": f"q{at}"},
                "spec": {
                    "driver": f"driver{at}.example.org", "nodeName": f"n{at}",
                    "pool": {"name": f"p{at}", "generation": 1, "resourceSliceCount": 1},
                },
            }),
        ]  # fmt: skip
    return made
