"""What is served: group-versions, resources, subresources and their selectable fields.

Field labels follow pkg/apis/*/v1/conversion.go and pkg/registry/*/*/strategy.go of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from apiguard.demo.encoding import Object, encode

CRUD = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

Getter = Callable[[Object], Any]


@dataclass(frozen=True, slots=True)
class Subresource:
    """``kind`` and its group-version as discovery lists them."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One served resource of one group-version; compared by identity.

    ``fields``    selectable fields beside metadata.name (and metadata.namespace)
    ``has_conversion``  the kind converts field labels itself, which words the error of unknown ones
    ``cached``    lists come from a watch cache, where revision 0 ignores limits
    ``custom``    defined by a CRD: list items carry kind and apiVersion, keys are sorted
    ``returned``  DELETE answers with the object instead of a Status
    ``warning``   what whoever uses it is told
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    verbs: tuple[str, ...] = CRUD
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    fields: Mapping[str, Getter] = field(default_factory=dict)
    has_conversion: bool = False
    returned: bool = False
    cached: bool = True
    custom: bool = False
    singular: str = ""
    list_kind: str = ""
    warning: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def prefix(self) -> bytes:
        """The first bytes of every encoded object of a built-in kind."""
        return b'{"kind":"%s","apiVersion":"%s",' % (self.kind.encode(), self.api_version.encode())

    def key(self, namespace: str, name: str) -> str:
        return f"{namespace}/{name}" if self.namespaced else name

    def selectable(self, value: Object) -> dict[str, str]:
        """Field label -> value, as field selectors compare them."""
        metadata = value["metadata"]
        found = {"metadata.name": metadata["name"]}
        if self.namespaced:
            found["metadata.namespace"] = metadata.get("namespace", "")
        for label, getter in self.fields.items():
            found[label] = _text(getter(value))
        return found

    def accepts_field(self, label: str) -> bool:
        if label == "metadata.name" or label in self.fields:
            return True
        return label == "metadata.namespace" and self.namespaced


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def at(path: str, default: Any = None) -> Getter:
    """A getter of a dotted path; whatever is missing on the way is ``default``."""
    names = path.split(".")

    def get(value: Object) -> Any:
        current: Any = value
        for name in names:
            if not isinstance(current, dict) or name not in current:
                return default
            current = current[name]
        return current

    return get


def _paths(*paths: str, **defaults: Any) -> dict[str, Getter]:
    return {path: at(path, defaults.get(path.rsplit(".", 1)[1])) for path in paths}


def _pod_ip(value: Object) -> str:
    ips = at("status.podIPs")(value) or []
    return str(ips[0].get("ip", "")) if ips else _text(at("status.podIP")(value))


def _event_source(value: Object) -> Any:
    return at("source.component")(value) or value.get("reportingComponent", "")


_POD_FIELDS: dict[str, Getter] = {
    **_paths(
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.nominatedNodeName",
        hostNetwork=False,
    ),
    "spec.host": at("spec.nodeName"),
    "status.podIP": _pod_ip,
    "status.podIPs": lambda _value: "",  # parses, yet only the empty value ever matches
}
_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT_FIELDS: dict[str, Getter] = {
    **{f"involvedObject.{name}": at(f"involvedObject.{name}") for name in _INVOLVED},
    "reason": at("reason"),
    "reportingComponent": at("reportingComponent"),
    "source": _event_source,
    "type": at("type"),
}

_STATUS_VERBS = ("get", "patch", "update")


def _status(kind: str) -> Subresource:
    return Subresource("status", kind, _STATUS_VERBS)


_SCALE = Subresource("scale", "Scale", _STATUS_VERBS, "autoscaling", "v1")
_POD_SUBRESOURCES = (
    Subresource("attach", "PodAttachOptions", ("create", "get")),
    Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
    Subresource("exec", "PodExecOptions", ("create", "get")),
    Subresource("log", "Pod", ("get",)),
    Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
    _status("Pod"),
)


def _workload(plural: str, kind: str, short: str, *subresources: Subresource) -> Resource:
    return Resource(
        "apps",
        "v1",
        plural,
        kind,
        short_names=(short,),
        categories=("all",),
        subresources=(*subresources, _status(kind)),
    )


PODS = Resource(
    "",
    "v1",
    "pods",
    "Pod",
    short_names=("po",),
    categories=("all",),
    subresources=_POD_SUBRESOURCES,
    fields=_POD_FIELDS,
    has_conversion=True,
    returned=True,
)
NODES = Resource(
    "",
    "v1",
    "nodes",
    "Node",
    namespaced=False,
    short_names=("no",),
    subresources=(_status("Node"),),
    fields=_paths("spec.unschedulable", unschedulable=False),
    has_conversion=True,
)
NAMESPACES = Resource(
    "",
    "v1",
    "namespaces",
    "Namespace",
    namespaced=False,
    verbs=tuple(verb for verb in CRUD if verb != "deletecollection"),
    short_names=("ns",),
    subresources=(Subresource("finalize", "Namespace", ("update",)), _status("Namespace")),
    fields=_paths("status.phase"),
    has_conversion=True,
    returned=True,
)
SERVICES = Resource(
    "",
    "v1",
    "services",
    "Service",
    short_names=("svc",),
    categories=("all",),
    subresources=(_status("Service"),),
    fields=_paths("spec.clusterIP", "spec.type"),
    has_conversion=True,
    returned=True,
)
ENDPOINTS = Resource(
    "",
    "v1",
    "endpoints",
    "Endpoints",
    short_names=("ep",),
    warning="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
)
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap", short_names=("cm",))
SECRETS = Resource("", "v1", "secrets", "Secret", fields={"type": at("type")}, has_conversion=True)
# Events have no watch cache upstream: resourceVersion 0 with a limit does page.
EVENTS = Resource(
    "",
    "v1",
    "events",
    "Event",
    short_names=("ev",),
    fields=_EVENT_FIELDS,
    has_conversion=True,
    cached=False,
)
SERVICEACCOUNTS = Resource(
    "",
    "v1",
    "serviceaccounts",
    "ServiceAccount",
    short_names=("sa",),
    returned=True,
    subresources=(
        Subresource("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1"),
    ),
)
DEPLOYMENTS = _workload("deployments", "Deployment", "deploy", _SCALE)
REPLICASETS = _workload("replicasets", "ReplicaSet", "rs", _SCALE)
DAEMONSETS = _workload("daemonsets", "DaemonSet", "ds")
STATEFULSETS = _workload("statefulsets", "StatefulSet", "sts", _SCALE)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
ENDPOINTSLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")


def _rbac(plural: str, kind: str, *, namespaced: bool) -> Resource:
    return Resource("rbac.authorization.k8s.io", "v1", plural, kind, namespaced=namespaced)


def _review(group: str, plural: str, kind: str, *, namespaced: bool = False) -> Resource:
    return Resource(group, "v1", plural, kind, namespaced=namespaced, verbs=("create",))


CLUSTERROLEBINDINGS = _rbac("clusterrolebindings", "ClusterRoleBinding", namespaced=False)
CLUSTERROLES = _rbac("clusterroles", "ClusterRole", namespaced=False)
ROLEBINDINGS = _rbac("rolebindings", "RoleBinding", namespaced=True)
ROLES = _rbac("roles", "Role", namespaced=True)
TOKENREVIEWS = _review("authentication.k8s.io", "tokenreviews", "TokenReview")
SELFSUBJECTREVIEWS = _review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview")
SUBJECTACCESSREVIEWS = _review(
    "authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"
)
SELFSUBJECTACCESSREVIEWS = _review(
    "authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"
)
LOCALSUBJECTACCESSREVIEWS = _review(
    "authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", namespaced=True
)
CUSTOMRESOURCEDEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    subresources=(_status("CustomResourceDefinition"),),
)
# Served for one thing only: the answer to a method a resource does not have.
COMPONENTSTATUSES = Resource(
    "",
    "v1",
    "componentstatuses",
    "ComponentStatus",
    namespaced=False,
    verbs=("get", "list"),
    short_names=("cs",),
)

BUILT_IN: tuple[Resource, ...] = (
    COMPONENTSTATUSES,
    CONFIGMAPS,
    ENDPOINTS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
    DAEMONSETS,
    DEPLOYMENTS,
    REPLICASETS,
    STATEFULSETS,
    SELFSUBJECTREVIEWS,
    TOKENREVIEWS,
    LOCALSUBJECTACCESSREVIEWS,
    SELFSUBJECTACCESSREVIEWS,
    SUBJECTACCESSREVIEWS,
    LEASES,
    ENDPOINTSLICES,
    CUSTOMRESOURCEDEFINITIONS,
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    ROLEBINDINGS,
    ROLES,
)


class Catalogue:
    """The resources served right now, by group-version and plural name."""

    def __init__(self, resources: Iterable[Resource] = BUILT_IN) -> None:
        self._served: dict[tuple[str, str, str], Resource] = {}
        for resource in resources:
            self.add(resource)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._served.values())

    def add(self, resource: Resource) -> None:
        self._served[resource.group, resource.version, resource.plural] = resource

    def remove(self, resource: Resource) -> None:
        self._served.pop((resource.group, resource.version, resource.plural), None)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._served.get((group, version, plural))

    def by_kind(self, group: str, kind: str) -> Resource | None:
        for resource in self._served.values():
            if resource.kind == kind and resource.group == group:
                return resource
        return None

    def group_versions(self) -> list[tuple[str, str]]:
        """Group and version pairs in serving order, the core group first."""
        return list(dict.fromkeys((r.group, r.version) for r in self._served.values()))

    def of(self, group: str, version: str) -> list[Resource]:
        return [r for r in self._served.values() if (r.group, r.version) == (group, version)]


def list_body(
    resource: Resource, revision: int, bodies: list[bytes], token: str, remaining: int | None
) -> bytes:
    """A whole list answer from the bodies of its items."""
    list_kind = resource.list_kind or f"{resource.kind}List"
    if resource.custom:
        metadata: Object = {"continue": token, "resourceVersion": str(revision)}
        if remaining is not None:
            metadata = {
                "continue": token,
                "remainingItemCount": remaining,
                "resourceVersion": str(revision),
            }
        head = b'{"apiVersion":%s,"items":[' % encode(resource.api_version)
        tail = b'],"kind":%s,"metadata":%s}' % (encode(list_kind), encode(metadata))
        return b"".join((head, b",".join(bodies), tail, b"\n"))
    metadata = {"resourceVersion": str(revision)}
    if token:
        metadata["continue"] = token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
    head = b'{"kind":%s,"apiVersion":%s,"metadata":%s,"items":[' % (
        encode(list_kind),
        encode(resource.api_version),
        encode(metadata),
    )
    return b"".join((head, b",".join(bodies), b"]}\n"))
