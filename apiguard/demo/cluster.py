"""A synthetic cluster: deterministic by seed, as large as asked for, and never quite still.

``Cluster.populate`` fills a store; ``Cluster.churn`` does what is due by ``now``: kubelets renew
leases and report pod status, deployments replace pods, events appear and expire.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from apiguard.demo.admission import new_uid, timestamp
from apiguard.demo.encoding import Object, ordered
from apiguard.demo.podshape import padded, pod_spec, pod_status
from apiguard.demo.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    SERVICEACCOUNTS,
    SERVICES,
    Resource,
)
from apiguard.demo.rollouts import Rollouts, settled_status
from apiguard.demo.store import Item, Store

_APPS = ("api", "web", "worker", "cache", "billing", "search", "ingest", "mailer", "auth", "feed")
_TEAMS = ("shop", "payments", "data", "identity", "platform", "media", "search", "monitoring")
_LEASE_NAMESPACE = "kube-node-lease"
_LEASE_SECONDS = 10.0
# Churn that is late by more than this many seconds is skipped, not made up for.
_MAX_BACKLOG = 1.0
_Action = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Sizes. ``pod_bytes`` is the JSON size of a pod, about (pods are never cut).

    Rates are per second: ``pod_updates`` status changes, ``pod_replacements`` a pod deleted and
    another created, ``event_rate`` new events; each node renews its lease every 10 s, unless
    ``renew_leases`` leaves that to kubelets played elsewhere.
    """

    nodes: int = 20
    namespaces: int = 8
    pods: int = 400
    services: int = 40
    configmaps: int = 40
    events: int = 100
    pod_bytes: int = 4096
    pod_updates: float = 5.0
    pod_replacements: float = 0.5
    event_rate: float = 1.0
    renew_leases: bool = True
    seed: int = 7


@dataclass(slots=True)
class _Workload:
    name: str
    namespace: str
    owner_uid: str
    image: str


class Cluster:
    """One cluster over a store. ``now`` is wall-clock seconds throughout."""

    def __init__(self, store: Store, spec: ClusterSpec) -> None:
        self.store = store
        self.spec = spec
        self._rng = random.Random(spec.seed)  # noqa: S311 - a synthetic cluster, not secrets
        self._nodes: list[str] = []
        self._namespaces: list[str] = []
        self._workloads: list[_Workload] = []
        self._pods: list[tuple[str, _Workload]] = []  # key and what it belongs to
        self._events: list[str] = []
        self._serial = 0
        self._due: dict[str, float] = {}
        self._lease_turn = 0
        self._deployed: dict[str, _Workload] = {}  # by key of the deployment
        self._rollouts = Rollouts(store, self)

    def populate(self, now: float) -> None:
        """Fills the store. Creation times lie up to a day in the past."""
        for number in range(self.spec.namespaces):
            self._add_namespace(number, now)
        for number in range(self.spec.nodes):
            self._add_node(number, now)
        for number in range(self.spec.services):
            self._add_workload(number, now)
        for number in range(self.spec.pods):
            self._add_pod(self._workloads[number % len(self._workloads)], now, age=86_400)
        for workload in self._workloads:
            self._refresh_endpoints(workload, now)
        for number in range(self.spec.configmaps):
            namespace = self._namespaces[number % len(self._namespaces)]
            body = {"data": {"config.yaml": "level: info\n" * 20}}
            self._create(CONFIGMAPS, f"settings-{number}", namespace, body, now)
        for _ in range(self.spec.events):
            self._add_event(now)

    def churn(self, now: float) -> None:
        """Does whatever is due by ``now``; call it several times a second."""
        spec = self.spec
        if self._pods:
            self._repeat("update", spec.pod_updates, now, self._update_pod)
            self._repeat("replace", spec.pod_replacements, now, self._replace_pod)
            self._repeat("event", spec.event_rate, now, self._rotate_event)
        self._rollouts.settle(now)
        if self._nodes and spec.renew_leases:
            self._repeat("lease", len(self._nodes) / _LEASE_SECONDS, now, self._renew_lease)

    def _repeat(self, what: str, rate: float, now: float, act: _Action) -> None:
        if rate <= 0.0:
            return
        due = max(self._due.get(what, now), now - _MAX_BACKLOG)
        while due <= now:
            act(now)
            due += 1.0 / rate
        self._due[what] = due

    # --- objects ----------------------------------------------------------------------------

    def _create(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        body: Object,
        now: float,
        *,
        age: float = 86_400.0,
        size: int = 0,
    ) -> Item:
        born = timestamp(now - self._rng.random() * age)
        metadata: Object = {"name": name, **({"namespace": namespace} if namespace else {})}
        metadata |= {"uid": new_uid(self._rng), "resourceVersion": "", "creationTimestamp": born}
        if resource in (PODS, DEPLOYMENTS, REPLICASETS, ENDPOINTSLICES):
            metadata["generation"] = 1
        value = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            **body,
            "metadata": metadata | body.get("metadata", {}),
        }
        return self.store.create(resource, ordered(padded(value, size)))

    def _add_namespace(self, number: int, now: float) -> None:
        team = _TEAMS[number % len(_TEAMS)]
        name = team if number < len(_TEAMS) else f"{team}-{number // len(_TEAMS)}"
        labels = {"kubernetes.io/metadata.name": name, "team": team}
        body: Object = {
            "metadata": {"labels": labels},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        }
        self._create(NAMESPACES, name, "", body, now)
        self._create(SERVICEACCOUNTS, "default", name, {}, now)
        self._namespaces.append(name)

    def _add_node(self, number: int, now: float) -> None:
        name = f"node-{number:04d}"
        address = f"10.0.{number // 250}.{number % 250 + 1}"
        capacity = {"cpu": "8", "memory": "32Gi", "pods": "110"}
        beat = timestamp(now)
        body: Object = {
            "metadata": {
                "labels": {
                    "kubernetes.io/arch": "amd64",
                    "kubernetes.io/hostname": name,
                    "kubernetes.io/os": "linux",
                    "topology.kubernetes.io/zone": f"zone-{'abc'[number % 3]}",
                }
            },
            "spec": {"podCIDR": f"10.244.{number % 250}.0/24"},
            "status": {
                "capacity": capacity,
                "allocatable": capacity,
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True",
                        "lastHeartbeatTime": beat,
                        "lastTransitionTime": beat,
                        "reason": "KubeletReady",
                        "message": "kubelet is posting ready status",
                    }
                ],
                "addresses": [
                    {"type": "InternalIP", "address": address},
                    {"type": "Hostname", "address": name},
                ],
                "nodeInfo": {
                    "kernelVersion": "6.12.0",
                    "osImage": "Debian GNU/Linux 13 (trixie)",
                    "containerRuntimeVersion": "containerd://2.1.4",
                    "kubeletVersion": "v1.36.2",
                    "kubeProxyVersion": "v1.36.2",
                    "operatingSystem": "linux",
                    "architecture": "amd64",
                },
            },
        }
        self._create(NODES, name, "", body, now)
        lease = {
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": 40,
                "renewTime": _micro(now),
            }
        }
        self._create(LEASES, name, _LEASE_NAMESPACE, lease, now)
        self._nodes.append(name)

    def _add_workload(self, number: int, now: float) -> None:
        app = _APPS[number % len(_APPS)]
        namespace = self._namespaces[number % len(self._namespaces)]
        name = f"{app}-{number}"
        labels = {"app": name}
        image = f"registry.example.com/{app}:1.{number % 30}.0"
        replicas = max(self.spec.pods // max(self.spec.services, 1), 1)
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": app, "image": image}]},
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        counts = {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}
        common: Object = {"metadata": {"labels": labels}, "spec": spec}
        deployment: Object = {**common, "status": settled_status(1, replicas)}
        self._create(DEPLOYMENTS, name, namespace, deployment, now)
        revision = f"{name}-{self._suffix(9)}"
        owned = self._create(REPLICASETS, revision, namespace, {**common, "status": counts}, now)
        service: Object = {
            "metadata": {"labels": labels},
            "spec": {
                "clusterIP": f"10.96.{number // 250 + 1}.{number % 250 + 1}",
                "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
                "selector": labels,
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
            "status": {"loadBalancer": {}},
        }
        self._create(SERVICES, name, namespace, service, now)
        uid = owned.value["metadata"]["uid"]
        workload = _Workload(revision, namespace, uid, image)
        self._workloads.append(workload)
        self._deployed[f"{namespace}/{name}"] = workload

    # --- deployments of others --------------------------------------------------------------

    def adopt(self, deployment: Item, now: float) -> None:
        """See ``rollouts.Workloads``."""
        if deployment.key in self._deployed:
            return
        spec: Object = deployment.value.get("spec") or {}
        containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or [{}]
        metadata: Object = {"labels": deployment.labels} if deployment.labels else {}
        name = f"{deployment.name}-{self._suffix(9)}"
        body: Object = {"metadata": metadata, "spec": spec}
        owned = self._create(REPLICASETS, name, deployment.namespace, body, now, age=0)
        uid = owned.value["metadata"]["uid"]
        image = str(containers[0].get("image", ""))
        self._deployed[deployment.key] = _Workload(name, deployment.namespace, uid, image)

    def scale(self, key: str, replicas: int, now: float) -> None:
        """See ``rollouts.Workloads``."""
        workload = self._deployed[key]
        mine = [pod for pod in self._pods if pod[1] is workload]
        for pod in mine[replicas:]:
            self._remove_pod(pod)
        for _ in range(replicas - len(mine) if self._nodes else 0):
            self._add_pod(workload, now, age=0)

    def abandon(self, key: str) -> None:
        """See ``rollouts.Workloads``."""
        workload = self._deployed.pop(key, None)
        for pod in [pod for pod in self._pods if pod[1] is workload]:
            self._remove_pod(pod)
        if workload is not None:
            owned = f"{workload.namespace}/{workload.name}"
            if self.store.collections[REPLICASETS].get(owned) is not None:
                self.store.delete(REPLICASETS, owned)

    def _remove_pod(self, pod: tuple[str, _Workload]) -> None:
        self._pods.remove(pod)
        if self.store.collections[PODS].get(pod[0]) is not None:
            self.store.delete(PODS, pod[0])

    def _add_pod(self, workload: _Workload, now: float, *, age: float) -> None:
        app = workload.name.rpartition("-")[0]
        node = self._rng.randrange(len(self._nodes))
        host = f"10.0.{node // 250}.{node % 250 + 1}"
        ip = f"10.244.{node % 250}.{self._rng.randrange(2, 250)}"
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": workload.name,
            "uid": workload.owner_uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        name = f"{workload.name}-{self._suffix(5)}"
        restarts = self._rng.choice((0, 0, 0, 0, 0, 0, 1, 2))
        body: Object = {
            "metadata": {
                "labels": {"app": app, "pod-template-hash": workload.name.rpartition("-")[2]},
                "ownerReferences": [owner],
            },
            "spec": pod_spec(
                app, self._nodes[node], workload.image, f"kube-api-access-{self._suffix(5)}"
            ),
            "status": pod_status(
                app, workload.image, host, ip, timestamp(now), ready=True, restarts=restarts
            ),
        }
        item = self._create(
            PODS, name, workload.namespace, body, now, age=age, size=self.spec.pod_bytes
        )
        self._pods.append((item.key, workload))

    def _refresh_endpoints(self, workload: _Workload, now: float) -> None:
        app = workload.name.rpartition("-")[0]
        pods = [self.store.collections[PODS].get(key) for key, w in self._pods if w is workload]
        endpoints = [
            {
                "addresses": [pod.value["status"]["podIP"]],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": pod.value["spec"]["nodeName"],
            }
            for pod in pods
            if pod is not None
        ]
        body: Object = {
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }
        found = self.store.collections[ENDPOINTSLICES].get(f"{workload.namespace}/{app}-1")
        if found is None:
            body["metadata"] = {"labels": {"kubernetes.io/service-name": app}}
            self._create(ENDPOINTSLICES, f"{app}-1", workload.namespace, body, now)
        else:
            metadata = {**found.value["metadata"], "generation": found.revision}
            self.store.update(ENDPOINTSLICES, {**found.value, **body, "metadata": metadata})

    def _add_event(self, now: float) -> None:
        key, workload = self._rng.choice(self._pods)
        pod = self.store.collections[PODS].get(key)
        if pod is None:
            return
        self._serial += 1
        warning = self._rng.random() < 0.2
        when = timestamp(now)
        body: Object = {
            "involvedObject": {
                "kind": "Pod",
                "namespace": workload.namespace,
                "name": pod.name,
                "uid": pod.value["metadata"]["uid"],
                "apiVersion": "v1",
                "resourceVersion": str(pod.revision),
            },
            "reason": "Unhealthy" if warning else "Pulled",
            "message": "Readiness probe failed: HTTP probe failed with statuscode: 503"
            if warning
            else f'Container image "{workload.image}" already present on machine',
            "source": {"component": "kubelet", "host": pod.value["spec"]["nodeName"]},
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
            "type": "Warning" if warning else "Normal",
            "eventTime": None,
            "reportingComponent": "kubelet",
            "reportingInstance": pod.value["spec"]["nodeName"],
        }
        name = f"{pod.name}.{self._serial:016x}"
        item = self._create(EVENTS, name, workload.namespace, body, now, age=0)
        self._events.append(item.key)

    # --- churn ------------------------------------------------------------------------------

    def _update_pod(self, now: float) -> None:
        key, workload = self._rng.choice(self._pods)
        pod = self.store.collections[PODS].get(key)
        if pod is None:
            self._pods.remove((key, workload))
            return
        status = pod.value.get("status") or {}
        previous = (status.get("containerStatuses") or [{}])[0]
        ready = not previous.get("ready", False)
        fresh = pod_status(
            pod.value["spec"]["containers"][0]["name"],
            workload.image,
            status.get("hostIP", ""),
            status.get("podIP", ""),
            timestamp(now),
            ready=ready,
            restarts=previous.get("restartCount", 0) + (0 if ready else 1),
        )
        value = {**pod.value, "metadata": dict(pod.value["metadata"]), "status": fresh}
        self.store.update(PODS, value)

    def _replace_pod(self, now: float) -> None:
        at = self._rng.randrange(len(self._pods))
        key, workload = self._pods[at]
        self._pods[at] = self._pods[-1]
        self._pods.pop()
        if self.store.collections[PODS].get(key) is not None:
            self.store.delete(PODS, key)
        if self.store.collections[NAMESPACES].get(workload.namespace) is None:
            return
        self._add_pod(workload, now, age=0)
        self._refresh_endpoints(workload, now)

    def _rotate_event(self, now: float) -> None:
        self._add_event(now)
        if len(self._events) > max(self.spec.events, 1):
            key = self._events.pop(0)
            if self.store.collections[EVENTS].get(key) is not None:
                self.store.delete(EVENTS, key)

    def _renew_lease(self, now: float) -> None:
        node = self._nodes[self._lease_turn % len(self._nodes)]
        self._lease_turn += 1
        lease = self.store.collections[LEASES].get(f"{_LEASE_NAMESPACE}/{node}")
        if lease is not None:
            spec = {**lease.value["spec"], "renewTime": _micro(now)}
            metadata = dict(lease.value["metadata"])
            self.store.update(LEASES, {**lease.value, "metadata": metadata, "spec": spec})

    def _suffix(self, length: int) -> str:
        return "".join(self._rng.choices("bcdfghjklmnpqrstvwxz2456789", k=length))


def _micro(now: float) -> str:
    return f"{timestamp(now)[:-1]}.{int(now % 1 * 1e6):06d}Z"
