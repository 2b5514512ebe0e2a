"""The files of ``apiguard demo``: certificates, tokens, kubeconfig, contexts, configuration,
policies."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from apiguard.demo.certs import Authority, write_secret
from apiguard.demo.encoding import Object

_POLICY = """\
# What `apiguard demo` starts with. Edit it and send SIGHUP to the guard, or PUT another one.
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
  - name: node-heartbeats
    match: {groups: ["system:nodes"], resources: ["leases.coordination.k8s.io", "nodes/status"]}
    exempt: true
  - name: telemetry-lists
    match:
      users: ["system:serviceaccount:monitoring:*"]
      verbs: ["list", "watch"]
    limits:
      - {requestsPerSecond: 50, burst: 100}
      - {requestsPerSecond: 20, burst: 40, per: [userAgentFamily, user]}
  - name: probes
    match: {nonResourcePaths: ["/healthz*", "/livez*", "/readyz*", "/version"]}
    limits: [{requestsPerSecond: 20, burst: 50, per: [source]}]
default:
  limits: [{requestsPerSecond: 200, burst: 400, per: [user]}]
"""
_THROTTLE = """\
# The same with one rule in front: noisy-agent gets one request every two seconds.
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
  - name: noisy-agent
    match: {userAgents: ["noisy-agent/*"]}
    limits: [{requestsPerSecond: 0.5, burst: 2}]
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on 127.0.0.1."""

    guard: int = 7443
    admin: int = 7444
    apiserver: int = 7445


@dataclass(frozen=True, slots=True)
class User:
    """``context`` is its name in the kubeconfig."""

    context: str
    name: str
    groups: tuple[str, ...]


USERS = (
    User("admin", "demo-admin", ("system:masters",)),
    User("viewer", "demo-viewer", ("viewers",)),
    User(
        "telemetry",
        "system:serviceaccount:monitoring:telemetry-agent",
        ("system:serviceaccounts", "system:serviceaccounts:monitoring"),
    ),
)

GUARD = User("guard", "apiguard", ("apiguard",))
"""Who the guard is when it asks in its own name."""

RELAYED = (
    ("", "v1", "pods"),
    ("", "v1", "nodes"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("discovery.k8s.io", "v1", "endpointslices"),
)
"""Resources the relay may answer for: group, version, plural name."""


class Workspace:
    """``folder`` and everything in it. Written anew at each start; nothing is kept."""

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.ports = ports
        self.config = folder / "guard.yaml"
        self.policy = folder / "policy.yaml"
        self.throttle = folder / "throttle.yaml"
        self.kubeconfig = folder / "kubeconfig"
        self.contexts = folder / "apiguard.yaml"
        self.tokens = folder / "tokens.csv"
        self.admin_token = folder / "admin.token"
        self.state = folder / "state"
        self.ca = folder / "ca.crt"
        self.server_cert = folder / "server.crt"
        self.server_key = folder / "server.key"

    def prepare(self) -> None:
        """Writes every file; raises OSError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        # A policy accepted in an earlier run would outlive the file this run starts with.
        shutil.rmtree(self.state, ignore_errors=True)
        authority = Authority("apiguard demo", days=30)
        authority.server().write(self.folder, "server")
        self.ca.write_bytes(authority.certificate)
        tokens = {user.context: secrets.token_urlsafe(24) for user in (*USERS, GUARD)}
        self._write_tokens(tokens)
        write_secret(self.admin_token, f"{secrets.token_urlsafe(24)}\n".encode())
        write_secret(self.kubeconfig, _yaml(self._kubeconfig(authority.certificate, tokens)))
        write_secret(self.contexts, json.dumps(self._contexts(), indent=2).encode())
        self.config.write_bytes(_yaml(self._config()))
        self.policy.write_text(_POLICY)
        self.throttle.write_text(_THROTTLE + _without_head(_POLICY))

    def _write_tokens(self, tokens: dict[str, str]) -> None:
        lines = [
            f'{tokens[user.context]},{user.name},{number},"{",".join(user.groups)}"'
            for number, user in enumerate((*USERS, GUARD), start=1)
        ]
        write_secret(self.tokens, "\n".join((*lines, "")).encode())
        for user in (*USERS, GUARD):
            write_secret(self._token_of(user), tokens[user.context].encode())

    def _token_of(self, user: User) -> Path:
        return self.folder / f"{user.context}-user.token"

    def _config(self) -> Object:
        ports = self.ports
        return {
            "apiVersion": "apiguard.io/v1alpha1",
            "kind": "GuardConfig",
            "listen": {
                "address": f"127.0.0.1:{ports.guard}",
                "tls": {"certFile": self.server_cert.name, "keyFile": self.server_key.name},
            },
            "upstream": {
                "servers": [f"https://127.0.0.1:{ports.apiserver}"],
                "caFile": self.ca.name,
                "serverName": "kubernetes.default.svc",
                "credentials": {"tokenFile": self._token_of(GUARD).name},
            },
            # A cached answer needs a caller whom upstream knows.
            "identity": {
                "staticTokensFile": self.tokens.name,
                "tokenReview": {"enabled": True},
            },
            "admin": {
                "address": f"127.0.0.1:{ports.admin}",
                "tokenFile": self.admin_token.name,
            },
            "stateDir": self.state.name,
            "policyFile": self.policy.name,
            "relay": {
                "resources": [
                    {"group": group, "version": version, "resource": resource}
                    for group, version, resource in RELAYED
                ]
            },
        }

    def _contexts(self) -> Object:
        """What the operator's commands read: $APIGUARD_CONFIG; JSON, which they read fastest."""
        guard = {
            "name": "demo",
            "server": f"http://127.0.0.1:{self.ports.admin}",
            "tokenFile": self.admin_token.name,
        }
        return {"currentContext": "demo", "contexts": [{"name": "demo", "guards": [guard]}]}

    def _kubeconfig(self, authority: bytes, tokens: dict[str, str]) -> Object:
        data = base64.b64encode(authority).decode()
        clusters = (("guard", self.ports.guard), ("direct", self.ports.apiserver))
        contexts = [(user.context, "guard", user.context) for user in USERS]
        contexts.append(("direct", "direct", "admin"))
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {
                        "server": f"https://127.0.0.1:{port}",
                        "certificate-authority-data": data,
                    },
                }
                for name, port in clusters
            ],
            "users": [
                {"name": user.context, "user": {"token": tokens[user.context]}} for user in USERS
            ],
            "contexts": [
                {"name": name, "context": {"cluster": cluster, "user": user}}
                for name, cluster, user in contexts
            ],
            "current-context": "admin",
        }


def _yaml(value: Object) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode()


def _without_head(policy: str) -> str:
    """The rules and the default of a policy, without its head."""
    return policy.partition("rules:\n")[2]
