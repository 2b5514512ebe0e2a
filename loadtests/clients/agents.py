"""Programs in pods: CoreDNS, a CNI agent, telemetry of both kinds, informers of one resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gevent

from loadtests.naming import node_name

from .client import Client
from .queries import (
    JSON_ACCEPT,
    PAGE,
    Collection,
    cni_collections,
    coredns_collections,
    target,
)


class CoreDns(Client):
    """Names of services: what it does not hear of, the cluster cannot resolve."""

    agent = "coredns/v0.0.0 (linux/amd64) kubernetes/$Format"
    options: Mapping[str, Any] = {"watchList": True}

    @property
    def user(self) -> str:
        return "system:serviceaccount:kube-system:coredns"

    def live(self) -> None:
        self.follow(self.rest(), *coredns_collections(), watch_list=self.given["watchList"])


class CniAgent(Client):
    """On every node, all nodes, namespaces, services and endpoint slices, and its own resource.

    ``resource`` is the path of custom resources, "" for none. Older agents start with LISTs.
    """

    agent = "cni-agent/1.18.0 go/go1.24 linux/amd64"
    options: Mapping[str, Any] = {"watchList": False, "resource": "", "builtIn": True}

    @property
    def user(self) -> str:
        return "system:serviceaccount:kube-system:cni-agent"

    def live(self) -> None:
        wanted = cni_collections() if self.given["builtIn"] else ()
        if self.given["resource"]:
            wanted += (Collection(self.given["resource"], {}, JSON_ACCEPT),)
        self.follow(self.rest(), *wanted, watch_list=self.given["watchList"])


class CarefulTelemetry(Client):
    """The pods of its own node, listed and then watched."""

    agent = "careful-telemetry/2.3.0 (linux/amd64)"
    options: Mapping[str, Any] = {"watchList": True}

    @property
    def user(self) -> str:
        return "system:serviceaccount:monitoring:careful-telemetry"

    def live(self) -> None:
        mine = {"fieldSelector": f"spec.nodeName={node_name(self.number)}"}
        collection = Collection("/api/v1/pods", mine, JSON_ACCEPT)
        self.follow(self.rest(), collection, watch_list=self.given["watchList"])


class CarelessTelemetry(Client):
    """All pods every few seconds: no version, no limit, no selector, in JSON.

    Whatever goes wrong, it asks again at once; Retry-After means nothing to it. ``pause`` seconds
    stand for its own work between two attempts.
    """

    agent = "telemetry-agent/1.4.2"
    options: Mapping[str, Any] = {
        "every": 10.0,
        "seconds": 10.0,
        "pause": 0.1,
        "path": "/api/v1/pods",
    }

    @property
    def user(self) -> str:
        return "system:serviceaccount:monitoring:telemetry-agent"

    def live(self) -> None:
        self.spawn(self._look)

    def _look(self) -> None:
        rest = self.rest(retries=0)
        headers = {"Accept": JSON_ACCEPT}

        def collect() -> None:
            while True:
                answer = rest.do(
                    "storm", "GET", self.given["path"], headers,
                    seconds=self.given["seconds"], keep=False,
                )  # fmt: skip
                if answer is not None and answer.code == 200:
                    return
                gevent.sleep(self.given["pause"])

        # A fresh agent's first thought is to look; it is the rollout that spreads them.
        self.every(self.given["every"], collect, at_once=True)


class Informers(Client):
    """One program with an informer for one collection, as many are.

    ``stalled`` of a hundred never read what their watch says.
    """

    agent = "informer/1.0.0 (linux/amd64)"
    options: Mapping[str, Any] = {
        "path": "/api/v1/configmaps",
        "accept": JSON_ACCEPT,
        "watchList": False,
        "listSeconds": 60.0,
        "gzip": True,
        "stalledPercent": 0,
    }

    @property
    def user(self) -> str:
        return "system:serviceaccount:platform:informer"

    def live(self) -> None:
        share = self.given["stalledPercent"]
        stalled = share > 0 and self.number % max(1, 100 // share) == 0
        if stalled:
            # Healthy is who reads: those that do not are counted apart.
            self.recorder.group += " stalled"
        collection = Collection(self.given["path"], {}, self.given["accept"])
        self.follow(
            self.rest(),
            collection,
            watch_list=self.given["watchList"],
            list_seconds=self.given["listSeconds"],
            gzip=self.given["gzip"],
            stalled=stalled,
        )


class Readers(Client):
    """Polls a collection as it is cached (resourceVersion=0) and counts what it got."""

    agent = "reader/1.0.0 (linux/amd64)"
    options: Mapping[str, Any] = {"path": "/api/v1/pods", "every": 1.0, "seconds": 10.0}

    @property
    def user(self) -> str:
        return "system:serviceaccount:platform:informer"

    def live(self) -> None:
        self.spawn(self._poll)

    def _poll(self) -> None:
        rest = self.rest()
        wanted = target(self.given["path"], {"limit": str(PAGE), "resourceVersion": "0"})
        headers = {"Accept": JSON_ACCEPT}

        def read() -> None:
            seconds = self.given["seconds"]
            answer = rest.do("read", "GET", wanted, headers, seconds=seconds)
            if answer is not None and answer.code == 200 and b'"items":[]' in answer.body:
                self.recorder.note("emptied")

        self.every(self.given["every"], read)
