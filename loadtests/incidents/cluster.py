"""Who everybody is: one authority for clients, one for front proxies, tokens, and a kubeconfig.

As kubeadm arranges it: kubelets, controllers and people have certificates, what runs in pods has
the token of its service account. Tokens are static ones here, which guard and API server both read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from apiguard.demo.certs import Authority
from loadtests.naming import node_name
from loadtests.scenario import Scenario

PROXY_NAME = "front-proxy"
MASTERS = "system:masters"
ADMIN, GUARD = "admin", "apiguard"
"""Users with everything: the operator's kubectl, and the guard's own requests."""

ACCOUNTS = (
    "kube-system/kube-proxy",
    "kube-system/coredns",
    "kube-system/cni-agent",
    "monitoring/careful-telemetry",
    "monitoring/telemetry-agent",
    "platform/informer",
    "shop/buggy-operator",
)
COMPONENTS = ("system:kube-controller-manager", "system:kube-scheduler")
PEOPLE = ("alice",)


@dataclass(frozen=True, slots=True)
class Files:
    """Everything of one run that is a file."""

    folder: Path
    authority: Path
    server: tuple[Path, Path]
    guard: tuple[Path, Path]
    clients: Path
    proxies: Path
    proxy: tuple[Path, Path]
    tokens: Path
    guard_token: Path


def token_of(user: str) -> str:
    return f"token-of-{user.replace(':', '-').replace('/', '-')}"


class Identities:
    """The files that authorities of clients and of front proxies signed. A real API server brings
    its own of both."""

    def __init__(
        self,
        folder: Path,
        scenario: Scenario,
        clients: Authority | None = None,
        proxies: Authority | None = None,
    ) -> None:
        self.clients = clients or Authority("clients")
        self.proxies = proxies or Authority("front-proxies")
        self._certified = [node_name(number) for number in range(_nodes(scenario))]
        serving = Authority("apiserver")
        self.files = Files(
            folder,
            authority=_write(folder / "ca.crt", serving.certificate),
            server=serving.server().write(folder, "apiserver"),
            guard=serving.server().write(folder, "guard"),
            clients=_write(folder / "clients.crt", self.clients.certificate),
            proxies=_write(folder / "proxies.crt", self.proxies.certificate),
            proxy=self.proxies.client(PROXY_NAME).write(folder, "proxy"),
            tokens=_write(folder / "tokens.csv", tokens().encode()),
            guard_token=_write(folder / "guard.token", token_of(GUARD).encode()),
        )
        self._users = self._credentials()

    def kubeconfig(self, name: str, server: str, authority: Path | None = None) -> Path:
        """One that leads to ``server``; its users are all clients there are."""
        path = self.files.folder / f"{name}.kubeconfig"
        cluster = {
            "server": server,
            "certificate-authority": str(authority or self.files.authority),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": user, "user": entry} for user, entry in self._users.items()],
            "contexts": [{"name": name, "context": {"cluster": name, "user": ADMIN}}],
            "current-context": name,
        }
        # JSON is YAML, and written and read fastest.
        path.write_text(json.dumps(document))
        return path

    def _credentials(self) -> dict[str, dict[str, str]]:
        users = {user: {"token": token_of(user)} for user, _ in _tokened()}
        for node in self._certified:
            users[f"system:node:{node}"] = self._certificate(f"system:node:{node}", "system:nodes")
        for user in COMPONENTS:
            users[user] = self._certificate(user)
        for user in PEOPLE:
            users[user] = self._certificate(user, "developers")
        return users

    def _certificate(self, user: str, *groups: str) -> dict[str, str]:
        name = user.replace(":", "-")
        certificate, key = self.clients.client(user, groups).write(self.files.folder, name)
        return {"client-certificate": str(certificate), "client-key": str(key)}


def tokens() -> str:
    """kube-apiserver's static token file."""
    lines = (
        f'{token_of(user)},{user},{number},"{",".join(groups)}"'
        for number, (user, groups) in enumerate(_tokened(), start=1)
    )
    return "\n".join((*lines, ""))


def _tokened() -> list[tuple[str, tuple[str, ...]]]:
    accounts = (account.split("/") for account in ACCOUNTS)
    return [
        (ADMIN, (MASTERS,)),
        (GUARD, (MASTERS,)),
        *(
            (
                f"system:serviceaccount:{namespace}:{name}",
                ("system:serviceaccounts", f"system:serviceaccounts:{namespace}"),
            )
            for namespace, name in accounts
        ),
    ]


def _nodes(scenario: Scenario) -> int:
    return max((g.count for g in scenario.clients if g.client == "kubelet"), default=0)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
