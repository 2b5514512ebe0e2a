"""Request targets as the clients of Kubernetes 1.36 send them.

Go's ``url.Values.Encode`` sorts parameters by name and escapes as ``query`` does. Sources:
pkg/kubelet/kubelet.go, pkg/kubelet/config/apiserver.go, cmd/kube-proxy/app/server.go,
client-go/tools/cache/reflector.go, client-go/metadata, kubectl's get.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus

PROTOBUF = "application/vnd.kubernetes.protobuf"
KUBELET_ACCEPT = f"{PROTOBUF},application/json"
COMPONENT_ACCEPT = f"{PROTOBUF}, */*"
JSON_ACCEPT = "application/json"
TABLE_ACCEPT = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
NODE_LEASES = LEASES.format(namespace="kube-node-lease")

NOT_HEADLESS = {"fieldSelector": "spec.clusterIP!=None"}
PROXIED_SERVICES = NOT_HEADLESS | {"labelSelector": "!service.kubernetes.io/service-proxy-name"}
PROXIED_SLICES = {"labelSelector": "!service.kubernetes.io/headless"}
RUNNING_PODS = {
    "fieldSelector": "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Unknown"
}
UNFINISHED_PODS = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
PAGE = 500  # items: the limit reflectors and kubectl send


def query(parameters: Mapping[str, str]) -> str:
    """``url.Values.Encode``: sorted by name, blanks as ``+``."""
    return "&".join(
        f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(parameters.items())
    )


def target(path: str, parameters: Mapping[str, str]) -> str:
    return f"{path}?{query(parameters)}" if parameters else path


@dataclass(frozen=True, slots=True)
class Collection:
    """What a reflector follows. ``accept`` differs between clients; ``client_timeout`` is whether
    it repeats its deadline as ``timeout=``, which the kubelet's source of pods does not."""

    path: str
    selectors: Mapping[str, str] = field(default_factory=dict)
    accept: str = JSON_ACCEPT
    client_timeout: bool = True
    seconds: tuple[int, int] = (300, 600)
    """A watch's life is drawn from these."""

    def list(self, version: str) -> str:
        """A reflector's first LIST asks for version "0"; one after an expired page for ""."""
        given = {"resourceVersion": version} if version else {}
        return target(self.path, {**self.selectors, **given, "limit": str(PAGE)})

    def watch(self, version: str, seconds: int) -> str:
        return target(self.path, self._watch(seconds) | {"resourceVersion": version})

    def watch_list(self, seconds: int) -> str:
        """The first request of client-go 1.35 and later; the version is left out."""
        initial = {"resourceVersionMatch": "NotOlderThan", "sendInitialEvents": "true"}
        return target(self.path, self._watch(seconds) | initial)

    def _watch(self, seconds: int) -> dict[str, str]:
        common = {"allowWatchBookmarks": "true", "timeoutSeconds": str(seconds), "watch": "true"}
        if self.client_timeout:
            common["timeout"] = duration(seconds)
        return {**self.selectors, **common}


def duration(seconds: int) -> str:
    """Go's ``Duration.String`` of whole seconds: ``7m16s``, ``1h0m0s``."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"


def kubelet_collections(node: str) -> tuple[Collection, ...]:
    """Of every kubelet, whatever runs on it."""
    pods = {"fieldSelector": f"spec.nodeName={node}"}
    own = {"fieldSelector": f"metadata.name={node}"}
    return (
        Collection("/api/v1/pods", pods, KUBELET_ACCEPT, client_timeout=False),
        Collection("/api/v1/nodes", own, KUBELET_ACCEPT),
        Collection("/api/v1/services", NOT_HEADLESS, KUBELET_ACCEPT),
    )


def mounted(namespace: str, resource: str, name: str) -> Collection:
    """A secret or configmap a pod refers to: kubelet's watch-based manager, a watch each."""
    path = f"/api/v1/namespaces/{namespace}/{resource}"
    only = {"fieldSelector": f"metadata.name={name}"}
    return Collection(path, only, KUBELET_ACCEPT, seconds=(1800, 3600))


def kube_proxy_collections(node: str) -> tuple[Collection, ...]:
    own = {"fieldSelector": f"metadata.name={node}"}
    return (
        Collection("/api/v1/services", PROXIED_SERVICES, COMPONENT_ACCEPT),
        Collection("/apis/discovery.k8s.io/v1/endpointslices", PROXIED_SLICES, COMPONENT_ACCEPT),
        Collection("/api/v1/nodes", own, COMPONENT_ACCEPT),
    )


def coredns_collections() -> tuple[Collection, ...]:
    return tuple(
        Collection(path, {}, COMPONENT_ACCEPT)
        for path in (
            "/api/v1/services",
            "/apis/discovery.k8s.io/v1/endpointslices",
            "/api/v1/namespaces",
        )
    )


def cni_collections() -> tuple[Collection, ...]:
    """Typed clients for what is built in; custom resources are always JSON."""
    return (
        Collection("/api/v1/nodes", {}, KUBELET_ACCEPT),
        Collection("/api/v1/namespaces", {}, KUBELET_ACCEPT),
        Collection("/api/v1/services", {}, KUBELET_ACCEPT),
        Collection("/apis/discovery.k8s.io/v1/endpointslices", {}, KUBELET_ACCEPT),
    )
