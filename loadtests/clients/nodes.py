"""What runs on every node: kubelet and kube-proxy. Their load is multiplied by the nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from loadtests.naming import node_name

from .client import Client
from .leases import Lease
from .queries import KUBELET_ACCEPT, kube_proxy_collections, kubelet_collections, mounted

_PATCH = {
    "Accept": KUBELET_ACCEPT,
    "Content-Type": "application/strategic-merge-patch+json",
}
_HEARTBEAT_SECONDS = 10.0  # deadline of a kubelet's heartbeats: nodeStatusUpdateFrequency
_LEASE_SECONDS = 40


class Kubelet(Client):
    """Renews its lease on connections of their own, reports status, and follows what it needs."""

    agent = "kubelet/v1.36.2 (linux/amd64) kubernetes/abc1234"
    options: Mapping[str, Any] = {
        "leaseEvery": 10.0,
        "statusEvery": 300.0,
        "watches": True,
        "watchList": True,
        "listSeconds": 60.0,
        "mounts": 0,  # secrets and configmaps its pods refer to: a watch each
    }

    @property
    def node(self) -> str:
        return node_name(self.number)

    @property
    def user(self) -> str:
        return f"system:node:{self.node}"

    def live(self) -> None:
        self.spawn(self._heartbeat)
        if self.given["watches"]:
            rest = self.rest()
            mounts = (
                mounted("default", ("secrets", "configmaps")[n % 2], f"mounted-{n}")
                for n in range(self.given["mounts"])
            )
            self.follow(
                rest,
                *kubelet_collections(self.node),
                *mounts,
                watch_list=self.given["watchList"],
                list_seconds=self.given["listSeconds"],
            )
            self.spawn(self._report)

    def _heartbeat(self) -> None:
        lease = Lease(
            self.rest(), self.recorder, "kube-node-lease", self.node,
            seconds=_HEARTBEAT_SECONDS, duration=_LEASE_SECONDS,
        )  # fmt: skip
        # A fresh kubelet renews at once; a cluster's kubelets did not start together.
        self.every(self.given["leaseEvery"], lease.renew, jitter=0.04)

    def _report(self) -> None:
        rest = self.rest()
        target = f"/api/v1/nodes/{self.node}/status"

        def report() -> None:
            beat = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            ready = {"type": "Ready", "lastHeartbeatTime": beat}
            body = json.dumps({"status": {"conditions": [ready]}}).encode()
            rest.do("node status", "PATCH", target, _PATCH, body, seconds=_HEARTBEAT_SECONDS)

        self.every(self.given["statusEvery"], report)


class KubeProxy(Client):
    """Follows services and endpoint slices; writes nothing but its node's health."""

    agent = "kube-proxy/v1.36.2 (linux/amd64) kubernetes/abc1234"
    options: Mapping[str, Any] = {"watchList": True}

    @property
    def user(self) -> str:
        return "system:serviceaccount:kube-system:kube-proxy"

    def live(self) -> None:
        collections = kube_proxy_collections(node_name(self.number))
        self.follow(self.rest(), *collections, watch_list=self.given["watchList"])
