"""Controllers with their leader election, people with kubectl, and a client with a bug."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import gevent

from .client import Client
from .leases import Lease
from .queries import (
    JSON_ACCEPT,
    KUBELET_ACCEPT,
    PAGE,
    TABLE_ACCEPT,
    UNFINISHED_PODS,
    Collection,
    target,
)

_MERGE = {"Accept": JSON_ACCEPT, "Content-Type": "application/merge-patch+json"}


class Controller(Client):
    """Leads by a lease, follows what it controls, and writes.

    ``writes`` a second go to a configmap of its own: one write costs upstream as much as another.
    """

    agent = "kube-controller-manager/v1.36.2 (linux/amd64) kubernetes/abc1234/leader-election"
    options: Mapping[str, Any] = {
        "name": "kube-controller-manager",
        "writes": 2.0,
        "watchList": True,
        "paths": ["/api/v1/pods", "/api/v1/nodes", "/apis/apps/v1/replicasets"],
    }

    @property
    def user(self) -> str:
        return f"system:{self.given['name']}"

    def live(self) -> None:
        self.spawn(self._lead)
        selectors = UNFINISHED_PODS if self.given["name"] == "kube-scheduler" else {}
        collections = (
            Collection(path, selectors if path.endswith("/pods") else {}, KUBELET_ACCEPT)
            for path in self.given["paths"]
        )
        self.follow(self.rest(), *collections, watch_list=self.given["watchList"])
        if self.given["writes"]:
            self.spawn(self._write)

    def _lead(self) -> None:
        """retryPeriod 2 s, renewDeadline 10 s, leaseDuration 15 s."""
        name = f"{self.given['name']}-{self.number}"
        lease = Lease(self.rest(), self.recorder, "kube-system", name, seconds=5.0, duration=15)
        self.every(2.0, lease.renew)

    def _write(self) -> None:
        rest = self.rest()
        base = "/api/v1/namespaces/kube-system/configmaps"
        name = f"written-by-{self.given['name']}-{self.number}"
        made = json.dumps({"metadata": {"name": name}}).encode()
        rest.do("create", "POST", base, _MERGE | {"Content-Type": JSON_ACCEPT}, made, seconds=30.0)
        turns = itertools.count()

        def write() -> None:
            body = json.dumps({"data": {"turn": str(next(turns))}}).encode()
            rest.do("write", "PATCH", f"{base}/{name}", _MERGE, body, seconds=30.0)

        self.every(1.0 / self.given["writes"], write)


class KubectlUser(Client):
    """Looks at pods as a table, then at one namespace, then at one pod; thinks in between."""

    agent = "kubectl/v1.36.2 (linux/amd64) kubernetes/abc1234"
    options: Mapping[str, Any] = {"every": 5.0, "namespace": "default"}

    @property
    def user(self) -> str:
        return "alice"

    def live(self) -> None:
        self.spawn(self._work)

    def _work(self) -> None:
        rest = self.rest()
        headers = {"Accept": TABLE_ACCEPT, "Accept-Encoding": "gzip"}
        namespace = self.given["namespace"]
        commands = itertools.cycle(
            (
                target("/api/v1/pods", {"limit": str(PAGE)}),
                target(f"/api/v1/namespaces/{namespace}/pods", {"limit": str(PAGE)}),
                target("/api/v1/nodes", {"limit": str(PAGE)}),
            )
        )

        def command() -> None:
            rest.do("kubectl", "GET", next(commands), headers, seconds=30.0, keep=False)

        self.every(self.given["every"], command)


class BrokenClient(Client):
    """GETs without end on many connections: a loop without a pause, deaf to Retry-After."""

    agent = "buggy-operator/0.9.1"
    options: Mapping[str, Any] = {
        "path": "/api/v1/namespaces/default/configmaps/settings",
        "connections": 16,
        "pause": 0.0,
        "seconds": 30.0,
    }

    @property
    def user(self) -> str:
        return "system:serviceaccount:shop:buggy-operator"

    def live(self) -> None:
        for _ in range(self.given["connections"]):
            self.spawn(self._ask)

    def _ask(self) -> None:
        rest = self.rest(retries=0)
        headers = {"Accept": JSON_ACCEPT}
        while True:
            answer = rest.do(
                "storm", "GET", self.given["path"], headers, seconds=self.given["seconds"]
            )
            # Even a loop with a bug needs a moment to fail to connect.
            gevent.sleep(self.given["pause"] if answer is not None else 0.1)
