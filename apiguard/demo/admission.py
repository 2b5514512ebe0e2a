"""What happens to an object on its way into the store: identity, defaults, validation.

Only what clients notice: server-set metadata, pod and service defaults, required fields, the
split between an object and its status.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from typing import Any

from apiguard.demo import problems, rbac
from apiguard.demo.encoding import Object, ordered
from apiguard.demo.protobuf import in_go_order, message_of
from apiguard.demo.resources import Resource
from apiguard.demo.store import Item

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # apimachinery/pkg/util/rand: no vowels
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_FREE_NAMES = frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"})
# Kinds whose generation counts changes of spec.
_GENERATIONS = frozenset(
    {"Pod", "Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "CustomResourceDefinition"}
)
_SERVER_SET = ("uid", "creationTimestamp", "generation", "deletionTimestamp")
_NOT_READY = [
    {
        "key": f"node.kubernetes.io/{state}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }
    for state in ("not-ready", "unreachable")
]


def timestamp(now: float) -> str:
    """``now``, wall-clock seconds, as metav1.Time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def new_uid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def for_create(
    resource: Resource, body: Any, namespace: str, rng: random.Random, now: float
) -> Object:
    """The complete object to store; raises ``ApiError`` 400 or 422."""
    value = _checked_shape(resource, body, namespace)
    metadata = value["metadata"]
    if not metadata.get("name") and metadata.get("generateName"):
        suffix = "".join(rng.choices(_SUFFIX_ALPHABET, k=5))
        metadata["name"] = metadata["generateName"] + suffix
    _check_name(resource, metadata.get("name", ""))
    for name in _SERVER_SET:
        metadata.pop(name, None)
    metadata["uid"] = new_uid(rng)
    metadata["creationTimestamp"] = timestamp(now)
    metadata["resourceVersion"] = ""
    if resource.kind in _GENERATIONS or resource.custom:
        metadata["generation"] = 1
    if resource.custom and _has_status(resource):
        value.pop("status", None)
    _fill_defaults(resource, value)
    _validate(resource, value)
    return ordered_as(resource, value)


def _fill_defaults(resource: Resource, value: Object) -> None:
    if not resource.custom:
        _DEFAULTS.get(resource.kind, _no_defaults)(value)


def ordered_as(resource: Resource, value: Object) -> Object:
    """Field order as kube-apiserver writes it: Go structs, or sorted keys for custom resources."""
    if not resource.custom:
        message = message_of(resource)
        return ordered(in_go_order(message, value) if message is not None else value)
    found: Object = _sorted(value)
    return found


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(part) for name, part in sorted(value.items())}
    return [_sorted(part) for part in value] if isinstance(value, list) else value


def for_update(resource: Resource, body: Any, current: Item) -> Object:
    """``body`` as the successor of ``current``: server-set fields and status stay."""
    value = _checked_shape(resource, body, current.namespace)
    metadata, before = value["metadata"], current.value["metadata"]
    if metadata.setdefault("name", current.name) != current.name:
        raise problems.bad_request(
            f"the name of the object ({metadata['name']}) does not match "
            f"the name on the URL ({current.name})"
        )
    if metadata.get("uid", before["uid"]) != before["uid"]:
        why = (
            f"Precondition failed: UID in precondition: {metadata['uid']}, "
            f"UID in object meta: {before['uid']}"
        )
        raise problems.conflict(resource, current.name, why)
    for name in _SERVER_SET:
        metadata.pop(name, None)
        if name in before:
            metadata[name] = before[name]
    metadata["resourceVersion"] = str(current.revision)
    if _has_status(resource):
        value.pop("status", None)
        if "status" in current.value:
            value["status"] = current.value["status"]
    _fill_defaults(resource, value)
    _validate(resource, value)
    if "generation" in before and value.get("spec") != current.value.get("spec"):
        metadata["generation"] = before["generation"] + 1
    return ordered_as(resource, value)


def for_status(resource: Resource, body: Any, current: Item) -> Object:
    """``current`` with the status of ``body``, and its labels and annotations."""
    value = _checked_shape(resource, body, current.namespace)
    result = {**current.value, "metadata": dict(current.value["metadata"])}
    for name in ("labels", "annotations"):
        if name in value["metadata"]:
            result["metadata"][name] = value["metadata"][name]
    result["status"] = value.get("status") or {}
    return ordered_as(resource, result)


def _has_status(resource: Resource) -> bool:
    return any(sub.name == "status" for sub in resource.subresources)


def _checked_shape(resource: Resource, body: Any, namespace: str) -> Object:
    if not isinstance(body, dict):
        raise problems.bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): "
            "couldn't get version/kind; json parse error: "
            "json: cannot unmarshal value into Go value of type struct"
        )
    kind = body.get("kind") or resource.kind
    version = body.get("apiVersion") or resource.api_version
    if (kind, version) != (resource.kind, resource.api_version):
        raise problems.bad_request(
            f'{kind} in version "{version}" cannot be handled as a {resource.kind}'
        )
    metadata = body.get("metadata")
    value = {
        **body,
        "kind": kind,
        "apiVersion": version,
        "metadata": dict(metadata) if isinstance(metadata, dict) else {},
    }
    value["metadata"].pop("managedFields", None)
    if resource.namespaced:
        if value["metadata"].setdefault("namespace", namespace) != namespace:
            raise problems.bad_request(
                "the namespace of the provided object does not match "
                "the namespace sent on the request"
            )
    else:
        value["metadata"].pop("namespace", None)
    return value


def _check_name(resource: Resource, name: Any) -> None:
    where = "metadata.name"
    if not name:
        message = "Required value: name or generateName is required"
        cause = ("FieldValueRequired", message, where)
        raise problems.invalid(resource.kind, resource.group, "", [cause])
    plain = resource.kind in _FREE_NAMES or _NAME.fullmatch(str(name))
    if not plain or len(str(name)) > 253:
        cause = ("FieldValueInvalid", f'Invalid value: "{name}": {_NAME_RULE}', where)
        raise problems.invalid(resource.kind, resource.group, str(name), [cause])


def _validate(resource: Resource, value: Object) -> None:
    if resource.custom:
        return
    required = _REQUIRED.get(resource.kind, ())
    causes = []
    for path in required:
        current: Any = value
        for name in path.split("."):
            current = current.get(name) if isinstance(current, dict) else None
        if not current:
            causes.append(("FieldValueRequired", "Required value", path))
    if causes:
        name = value["metadata"]["name"]
        raise problems.invalid(resource.kind, resource.group, name, causes)


_REQUIRED: dict[str, tuple[str, ...]] = {
    "Pod": ("spec.containers",),
    "Service": ("spec.ports",),
    "Deployment": ("spec.selector", "spec.template"),
    "ReplicaSet": ("spec.selector",),
    "DaemonSet": ("spec.selector", "spec.template"),
    "StatefulSet": ("spec.selector", "spec.template"),
    "CustomResourceDefinition": ("spec.group", "spec.names", "spec.versions"),
}


def _pod_defaults(value: Object) -> None:
    spec = value.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("containers"), list):
        return
    filled = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "tolerations": _NOT_READY,
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        **spec,
    }
    filled["containers"] = [_container_defaults(c) for c in spec["containers"]]
    value["spec"] = filled
    value.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})


def _container_defaults(container: Any) -> Any:
    if not isinstance(container, dict):
        return container
    image = str(container.get("image", ""))
    tagged = ":" in image.rpartition("/")[2] and not image.endswith(":latest")
    defaults = {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent" if tagged else "Always",
    }
    return container | {name: v for name, v in defaults.items() if name not in container}


def _namespace_defaults(value: Object) -> None:
    labels = value["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = value["metadata"].get("name", "")
    value.setdefault("spec", {"finalizers": ["kubernetes"]})
    value.setdefault("status", {"phase": "Active"})


def _service_defaults(value: Object) -> None:
    spec = value.get("spec")
    if not isinstance(spec, dict):
        return
    spec = dict(spec)
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    spec.setdefault("type", "ClusterIP")
    if spec["type"] != "ExternalName":
        spec.setdefault("clusterIP", _cluster_ip(value["metadata"]))
    spec.setdefault("sessionAffinity", "None")
    value["spec"] = spec
    value.setdefault("status", {"loadBalancer": {}})


def _cluster_ip(metadata: Object) -> str:
    """An address of the service network, the same for the same uid."""
    number = uuid.UUID(metadata["uid"]).int
    return f"10.97.{number % 254 + 1}.{number // 254 % 254 + 1}"


def _secret_defaults(value: Object) -> None:
    value.setdefault("type", "Opaque")


def _workload_defaults(value: Object) -> None:
    spec = value.get("spec")
    if isinstance(spec, dict):
        value["spec"] = {"replicas": 1, **spec}
    value.setdefault("status", {})


def _definition_defaults(value: Object) -> None:
    """Accepted and established at once: there is no controller to wait for."""
    spec = value.get("spec")
    names = spec.get("names") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(names, dict) or not names.get("kind"):
        return
    kind = str(names["kind"])
    accepted = {"singular": kind.lower(), "listKind": f"{kind}List", **names}
    value["spec"] = {"conversion": {"strategy": "None"}, **spec, "names": accepted}
    if "status" in value:
        return
    when = value["metadata"]["creationTimestamp"]
    value["status"] = {
        "conditions": [
            {
                "type": kind_of,
                "status": "True",
                "lastTransitionTime": when,
                "reason": reason,
                "message": message,
            }
            for kind_of, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ],
        "acceptedNames": accepted,
        "storedVersions": [
            version["name"] for version in spec.get("versions") or () if version.get("storage")
        ],
    }


def _no_defaults(_value: Object) -> None:
    """Most kinds have none."""


_DEFAULTS = {
    "Pod": _pod_defaults,
    "Namespace": _namespace_defaults,
    "Service": _service_defaults,
    "Secret": _secret_defaults,
    "Deployment": _workload_defaults,
    "ReplicaSet": _workload_defaults,
    "StatefulSet": _workload_defaults,
    "CustomResourceDefinition": _definition_defaults,
    "ClusterRoleBinding": rbac.defaulted,
    "RoleBinding": rbac.defaulted,
}
