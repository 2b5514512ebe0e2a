"""Subresources that are neither status nor streams: scale, eviction, token, finalize, log."""

from __future__ import annotations

from typing import Any

from apiguard.demo import admission, problems
from apiguard.demo.encoding import Object
from apiguard.demo.serviceaccounts import AUDIENCE, TokenIssuer
from apiguard.demo.store import Item
from apiguard.demo.target import Target
from apiguard.demo.verbs import Verbs, apply_patch, check_preconditions, dry_run


def scale_of(item: Item) -> Object:
    """autoscaling/v1 Scale of a workload."""
    metadata = item.value["metadata"]
    spec, status = item.value.get("spec") or {}, item.value.get("status") or {}
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            name: metadata[name]
            for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        },
        "spec": {"replicas": spec.get("replicas", 0)},
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        },
    }


def rescale(verbs: Verbs, item: Item, target: Target, scale: Any) -> Object:
    """Sets spec.replicas; raises ``ApiError`` 409 on a stale revision, 422 on a bad number."""
    resource = item.resource
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        message = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = ("FieldValueInvalid", message, "spec.replicas")
        raise problems.invalid("Scale", "autoscaling", item.name, [cause])
    expected = (scale.get("metadata") or {}).get("resourceVersion", "")
    if expected and expected != str(item.revision):
        raise problems.conflict(resource, item.name)
    value = {**item.value, "spec": {**item.value.get("spec", {}), "replicas": replicas}}
    value["metadata"] = dict(item.value["metadata"])
    value["metadata"]["generation"] = value["metadata"].get("generation", 0) + 1
    if dry_run(target):
        return scale_of(item)
    return scale_of(verbs.store.update(resource, value))


def patched_scale(item: Item, content_type: str, body: bytes) -> Any:
    return apply_patch(item.resource, scale_of(item), content_type, body)


def evict(verbs: Verbs, item: Item, body: Any, target: Target, now: float) -> Object:
    """Deletes the pod as ``kubectl drain`` asks for it."""
    given = body.get("deleteOptions") or {} if isinstance(body, dict) else {}
    check_preconditions(item.resource, item, given)
    if not dry_run(target):
        verbs.remove(item.resource, item, now)
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    }


def token_request(item: Item, body: Any, issuer: TokenIssuer, now: float) -> Object:
    """A TokenRequest with its token; raises ``ApiError`` 404 or 409 for a missing bound object."""
    spec = dict(body.get("spec") or {}) if isinstance(body, dict) else {}
    seconds = int(spec.setdefault("expirationSeconds", 3600))
    audiences = [str(name) for name in spec.get("audiences") or (AUDIENCE,)]
    spec["audiences"] = audiences
    bound: Object = dict(spec.get("boundObjectRef") or {})
    if bound:
        found = issuer.finds(bound, item.namespace)
        if found is None:
            raise problems.not_found_text(str(bound.get("kind")), str(bound.get("name")))
        uid = found.value["metadata"]["uid"]
        if bound.setdefault("uid", uid) != uid:
            why = f"the UID in the bound object reference ({bound['uid']}) does not match the UID"
            raise problems.conflict(found.resource, found.name, why)
    end = int(now) + seconds
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": item.name,
            "namespace": item.namespace,
            "creationTimestamp": admission.timestamp(now),
        },
        "spec": spec,
        "status": {
            "token": issuer.issue(item, audiences, bound, now, end),
            "expirationTimestamp": admission.timestamp(end),
        },
    }


def log_lines(item: Item, target: Target) -> list[bytes]:
    """What ``kubectl logs`` shows; raises ``ApiError`` 400 for an unknown container."""
    names = [c["name"] for c in item.value["spec"]["containers"]]
    wanted = target.query.get("container") or names[0]
    if wanted not in names:
        raise problems.bad_request(f"container {wanted} is not valid for pod {item.name}")
    lines = [
        f"{wanted} of {item.namespace}/{item.name} started",
        f"listening on {item.value.get('status', {}).get('podIP', '0.0.0.0')}:8080",  # noqa: S104 - text of a log line
        "ready",
    ]
    tail = target.query.get("tailLines")
    if tail.isdigit():
        lines = lines[len(lines) - min(int(tail), len(lines)) :]
    return [f"{line}\n".encode() for line in lines]
