"""What people type, through the guard over TLS."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.e2e.kubelet import POD
from tests.e2e.stands import Stand

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def namespace(stand: Stand) -> str:
    return stand.namespace("typed")


def test_objects_are_created_changed_and_deleted(stand: Stand, namespace: str) -> None:
    steps = (
        ("create configmap a --from-literal=x=1", "configmap/a created"),
        ('patch configmap a --type=merge -p {"data":{"y":"2"}}', "configmap/a patched"),
        ('patch configmap a --type=strategic -p {"data":{"w":"0"}}', "configmap/a patched"),
        (
            'patch configmap a --type=json -p [{"op":"add","path":"/data/z","value":"3"}]',
            "configmap/a patched",
        ),
        ("label configmap a l=v", "configmap/a labeled"),
        ("annotate configmap a n=v", "configmap/a annotated"),
        ("get configmap a -o jsonpath={.data.w}{.data.x}{.data.y}{.data.z}", "0123"),
        ("get configmaps -l l=v -o name", "configmap/a"),
        ("create deployment d --image=i --replicas=0", "deployment.apps/d created"),
        ("scale deployment d --replicas=3", "deployment.apps/d scaled"),
        ("get deployment d", "/3"),  # how many are ready is up to the controller, if there is one
        ("describe configmap a", "Annotations:  n: v"),
        ("delete configmap a", 'configmap "a" deleted'),
        ("delete deployment d", 'deployment.apps "d" deleted'),
    )
    for command, expected in steps:
        out = stand.kubectl("-n", namespace, *command.split(" "))
        assert expected in out, (command, out)


def test_a_manifest_is_applied_twice(stand: Stand, namespace: str) -> None:
    metadata: dict[str, object] = {"name": "applied", "namespace": namespace}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": POD["spec"]}
    out = stand.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    assert out == "pod/applied created\n"
    metadata["labels"] = {"tier": "front"}
    out = stand.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    assert out == "pod/applied configured\n"
    assert "tier=front" in stand.kubectl("-n", namespace, "get", "pods", "--show-labels")
    assert "applied" in stand.kubectl("get", "pods", "-A")
    described = stand.kubectl("-n", namespace, "describe", "pod", "applied")
    assert re.search("Labels: +tier=front", described)


def test_a_node_is_described(stand: Stand) -> None:
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "described"}}
    stand.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    assert "Name:               described" in stand.kubectl("describe", "node", "described")
    assert "described" in stand.kubectl("get", "nodes")
    stand.kubectl("delete", "node", "described")


def test_discovery_identity_and_health_are_asked(stand: Stand) -> None:
    assert "system:masters" in stand.kubectl("auth", "whoami")
    assert stand.kubectl("auth", "can-i", "list", "pods") == "yes\n"
    assert "endpointslices" in stand.kubectl("api-resources", "--no-headers")
    assert "[+]ping ok" in stand.kubectl("get", "--raw", "/readyz?verbose")
    assert "Server Version: v1." in stand.kubectl("version")


def test_errors_read_as_without_a_guard(stand: Stand) -> None:
    """Exit code and message come from upstream, for whoever asks."""
    commands = (
        ("get", "configmap", "missing"),
        ("--context=viewer", "get", "secrets"),
        ("get", "nonsense"),
        ("get", "pods", "--field-selector=spec.nonsense=1"),
    )
    for command in commands:
        guarded = stand.try_kubectl(command)
        others = [argument for argument in command if not argument.startswith("--context")]
        token = "viewer-token" if len(others) < len(command) else "admin-token"
        direct = stand.try_kubectl(("--context=direct", f"--token={token}", *others))
        assert guarded.returncode == direct.returncode == 1
        assert guarded.stderr == direct.stderr


def test_get_watch_prints_changes_as_they_happen(stand: Stand, namespace: str) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    labels = {"watched": "yes"}
    assert (
        stand.direct.send("POST", maps, {"metadata": {"name": "w1", "labels": labels}}).code == 201
    )
    command = stand.command(
        *("-n", namespace, "get", "configmaps", "-l", "watched=yes", "-w"),
        *("--no-headers", "--output-watch-events"),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().split()[:2] == ["ADDED", "w1"]
            made = stand.direct.send("POST", maps, {"metadata": {"name": "w2", "labels": labels}})
            assert made.code == 201
            assert process.stdout.readline().split()[:2] == ["ADDED", "w2"]
            assert stand.direct.ask("DELETE", f"{maps}/w1").code == 200
            assert process.stdout.readline().split()[:2] == ["DELETED", "w1"]
        finally:
            process.kill()
