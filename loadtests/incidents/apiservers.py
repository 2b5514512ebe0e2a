"""The API server of a run: the embedded one with its capacity model, or a real kube-apiserver."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from loadtests.bench.procfs import cpu_seconds
from loadtests.scenario import Scenario
from tests.e2e.real import TOKENS, RealApiServer, missing

from .cluster import ADMIN, PROXY_NAME, Files, Identities, token_of, tokens
from .processes import Child
from .server import LISTENING, ServerSpec

Load = dict[str, Any]
"""What ``server`` says of itself ten times a second, ``at`` being CLOCK_MONOTONIC."""

SERVERS = ("embedded", "real")
ACCIDENTS = frozenset({"slow", "normal", "stamp"})
"""Orders that need the embedded server."""


class ApiServer(Protocol):
    """``model`` says whether load is that of the capacity model or CPU as measured."""

    model: bool
    url: str
    authority: Path
    identities: Identities
    loads: list[Load]

    def order(self, do: str, **details: Any) -> None: ...

    def sample(self) -> None:
        """Called a few times a second."""

    def close(self) -> None: ...


class Embedded:
    """``server.py`` as a process."""

    model = True

    def __init__(self, folder: Path, scenario: Scenario, capacity: Mapping[str, float]) -> None:
        self.identities = Identities(folder, scenario)
        files = self.identities.files
        self.authority = files.authority
        self.loads: list[Load] = []
        self.url = ""
        spec = folder / "server.json"
        spec.write_text(_spec(files, scenario, capacity).text())
        command = ["loadtests.incidents.server", str(spec)]
        self._child = Child("API server", command, folder / "apiserver.log", self._take)
        try:
            self._child.until("the API server listens", lambda: self.url)
        except BaseException:
            self._child.close()
            raise

    def order(self, do: str, **details: Any) -> None:
        self._child.send(json.dumps({"do": do, **details}))

    def sample(self) -> None:
        """It tells by itself."""

    def close(self) -> None:
        self._child.hang_up()
        self._child.close()

    def _take(self, line: str) -> None:
        if line.startswith("{"):
            self.loads.append(json.loads(line))
        elif line.startswith(LISTENING):
            self.url = line.removeprefix(LISTENING).strip()


class Real:
    """kube-apiserver and etcd on loopback, filled with as many objects as the scenario says.

    Accidents of the capacity model (``slow``, ``stamp``) do not exist here; ``restart`` does.
    """

    model = False

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self._server = RealApiServer(folder, tokens=TOKENS + tokens())
        self.loads: list[Load] = []
        try:
            self._server.wait()
            self.identities = Identities(
                folder, scenario, self._server.clients, self._server.proxies
            )
            self.authority = self._server.ca_file
            self.url = self._server.url
            self._fill(scenario)
        except BaseException:
            self._server.close()
            raise

    def order(self, do: str, **details: Any) -> None:
        if do == "restart":
            self._server.stop()
            time.sleep(details["down"])
            self._server.start_again()

    def sample(self) -> None:
        used = sum(cpu_seconds(pid) for pid in self._server.pids)
        self.loads.append({"at": time.monotonic(), "cpu": used, "down": False, "collapses": 0})

    def close(self) -> None:
        self._server.close()

    def _fill(self, scenario: Scenario) -> None:
        """Everybody may do everything: who may do what is not what incidents are about."""
        size = scenario.cluster
        send = _Sender(self.url, self.authority)
        send("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", _EVERYBODY)
        for number in range(size.nodes):
            send("/api/v1/nodes", {"metadata": {"name": f"node-{number:04d}"}})
        for number in range(size.pods):
            pod = {
                "metadata": {
                    "name": f"pod-{number}",
                    "annotations": {"padding": "x" * max(0, size.podBytes - 1_200)},
                },
                "spec": {
                    "containers": [{"name": "web", "image": "web"}],
                    "nodeName": f"node-{number % size.nodes:04d}",
                },
            }
            send("/api/v1/namespaces/default/pods", pod)
        for number in range(size.secrets):
            secret = {"metadata": {"name": f"big-{number}"}, "stringData": {"a": "A" * 700_000}}
            send("/api/v1/namespaces/default/secrets", secret)
        send(
            "/api/v1/namespaces/default/configmaps",
            {"metadata": {"name": "settings"}, "data": {"level": "info"}},
        )


_EVERYBODY = {
    "metadata": {"name": "loadtest-everybody"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "cluster-admin",
    },
    "subjects": [
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}
    ],
}


class _Sender:
    """POSTs on one connection, as the admin."""

    def __init__(self, url: str, authority: Path) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        tls = ssl.create_default_context(cafile=str(authority))
        self._connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=tls)
        self._headers = {
            "Authorization": f"Bearer {token_of(ADMIN)}",
            "Content-Type": "application/json",
        }

    def __call__(self, target: str, document: Mapping[str, Any]) -> None:
        self._connection.request("POST", target, json.dumps(document), self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status in (201, 409), (target, body)


def start(kind: str, folder: Path, scenario: Scenario, capacity: Mapping[str, float]) -> ApiServer:
    """Raises ``StageError``, or ``AssertionError`` from a real server that does not start."""
    return Real(folder, scenario) if kind == "real" else Embedded(folder, scenario, capacity)


def absent(kind: str) -> str:
    """Why that server cannot be had, "" if it can."""
    return missing() if kind == "real" else ""


def _spec(files: Files, scenario: Scenario, capacity: Mapping[str, float]) -> ServerSpec:
    return ServerSpec(
        certificate=str(files.server[0]),
        key=str(files.server[1]),
        client_authority=str(files.clients),
        proxy_authority=str(files.proxies),
        proxy_name=PROXY_NAME,
        tokens=str(files.tokens),
        cluster=asdict(scenario.cluster),
        capacity=dict(capacity),
    )
