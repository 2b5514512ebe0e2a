"""Protobuf: what is encoded comes back, and bytes follow the documented layout."""

from __future__ import annotations

import pytest

from apiguard.demo import protobuf
from apiguard.demo.encoding import Object
from apiguard.demo.podshape import pod_spec, pod_status

POD: Object = {
    "metadata": {
        "name": "p",
        "namespace": "n",
        "creationTimestamp": "2026-11-23T00:40:35Z",
        "labels": {"app": "x", "empty": ""},
    },
    "spec": pod_spec("app", "node-1", "image:1", "token"),
    "status": pod_status(
        "app", "image:1", "10.0.0.1", "10.1.0.1", "2026-11-23T00:40:35Z", ready=True, restarts=2
    ),
}


def test_the_layout_is_magic_type_and_message() -> None:
    """Fields 1 apiVersion and 2 kind of the type, the message as field 2."""
    raw = protobuf.encode_message("core.ConfigMap", {"data": {"k": "v"}})
    assert raw == b"\x12\x06\x0a\x01k\x12\x01v"
    body = protobuf.wrap("v1", "ConfigMap", raw)
    assert body == b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x08" + raw + b"\x1a\x00\x22\x00"


def test_a_pod_comes_back() -> None:
    raw = protobuf.encode_message("core.Pod", POD)
    found = protobuf.decode_body(protobuf.wrap("v1", "Pod", raw))
    assert found["metadata"] == POD["metadata"]
    container = found["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["port"] == "http"
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi"}
    assert found["status"]["containerStatuses"][0]["restartCount"] == 2
    again = protobuf.encode_message("core.Pod", found)
    assert protobuf.decode_message("core.Pod", again) == protobuf.decode_message("core.Pod", raw)


def test_a_pointer_to_zero_is_kept_and_a_plain_zero_is_not() -> None:
    raw = protobuf.encode_message("apps.Deployment", {"spec": {"replicas": 0, "paused": False}})
    assert protobuf.decode_message("apps.Deployment", raw) == {"spec": {"replicas": 0}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "magic"),
        (b"k8s\0\x0a\x7f", "EOF"),
        (b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "overflow"),
        (protobuf.wrap("v1", "Nothing", b""), "no such kind"),
        (protobuf.wrap("v1", "Pod", b"\x0b"), "wire type"),
    ],
)
def test_broken_bodies_are_told_apart(body: bytes, message: str) -> None:
    with pytest.raises(protobuf.ProtobufError, match=message):
        protobuf.decode_body(body)


def test_fields_come_in_the_order_of_go() -> None:
    mixed = {"spec": {"nodeName": "n", "x-unknown": 1, "containers": []}, "metadata": {}}
    found = protobuf.in_go_order("core.Pod", mixed)
    assert list(found) == ["metadata", "spec"]
    assert list(found["spec"]) == ["containers", "nodeName", "x-unknown"]
