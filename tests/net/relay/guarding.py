"""A guard with a relay before an embedded API server, in the test's own loop; and its clients."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import ssl
import time
from collections.abc import Mapping
from typing import Any

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import read_tokens
from apiguard.demo.resources import CONFIGMAPS, PODS, SECRETS
from apiguard.policy.identityconfig import IdentityConfig, TokenReviewConfig
from apiguard.policy.relayconfig import RelayAuthorization, RelayConfig, RelayedResource
from apiguard.runtime.drivers import ApiClient, Reviewer
from apiguard.runtime.identities import make_authenticator
from apiguard.runtime.relayclient import RelayClient
from apiguard.runtime.relaying import Relaying
from tests.net.demo.raw import Answer, send
from tests.net.traffic.guard import Guard

GUARD_TOKEN = "guard-token"
TOKENS = read_tokens(
    'guard-token,guard,0,"system:masters"\n'
    'admin-token,admin,1,"system:masters"\n'
    'alice-token,alice,2,"devs"\n'
    'bob-token,bob,3,"ops"\n'
    'node-token,system:node:n1,4,"system:nodes"\n'
)
RESOURCES = (
    RelayedResource("", "v1", "pods"),
    RelayedResource("", "v1", "secrets"),
    RelayedResource("", "v1", "configmaps"),
    RelayedResource("", "v1", "nodes"),
    RelayedResource("", "v1", "events"),
    RelayedResource("apps", "v1", "*"),
)
PROTOBUF = "application/vnd.kubernetes.protobuf"
JSON = "application/json"
_META = "g=meta.k8s.io;v=v1"
JSON_META_LIST = f"{JSON};as=PartialObjectMetadataList;{_META}"
PROTOBUF_META_LIST = f"{PROTOBUF};as=PartialObjectMetadataList;{_META}"
JSON_META = f"{JSON};as=PartialObjectMetadata;{_META}"
PROTOBUF_META = f"{PROTOBUF};as=PartialObjectMetadata;{_META}"


class Relayed:
    """Server, guard and relay together. ``relay`` fields override the configuration's."""

    def __init__(self, server: EmbeddedApiServer, **relay: Any) -> None:
        self.server = server
        self.guard = Guard([server.url])
        values: dict[str, Any] = {"resources": RESOURCES} | relay
        values.setdefault("authorization", RelayAuthorization(reviews_per_second=200))
        self.config = RelayConfig(**values)
        identity = IdentityConfig(
            token_review=TokenReviewConfig(enabled=True, reviews_per_second=1_000)
        )
        config = dataclasses.replace(self.guard.config, identity=identity)
        authenticator = make_authenticator(config, self.guard.files, 1, time.monotonic())
        self.guard.gateway.set_authenticator(authenticator)
        self.client = ApiClient(ssl.create_default_context(), GUARD_TOKEN)
        reviews = authenticator.reviews
        assert reviews is not None
        self._reviewing = asyncio.get_running_loop().create_task(
            Reviewer(reviews, self.client, self).run()
        )
        self.relaying = Relaying(
            self.config,
            carrier=self.guard.traffic,
            servers=self,
            client=RelayClient(ssl.create_default_context(), GUARD_TOKEN),
            reviews=lambda: reviews,
            workers=1,
            rng=random.Random(1),
        )
        self.desk = self.relaying.desk
        self.guard.gateway.set_relay(self.desk)

    def fit(self) -> list[str]:
        return [self.server.url]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.guard.port}"

    async def direct(self, target: str, **options: Any) -> Answer:
        return await ask_url(self.server.url, target, **options)

    async def through(self, target: str, **options: Any) -> Answer:
        return await ask_url(self.url, target, **options)

    def upstream_counts(self, resource: str) -> Mapping[tuple[str, str], int]:
        """(verb, form) -> requests for ``resource`` that reached the server."""
        return {
            (verb, form): number
            for (verb, name, form), number in self.server.counts.items()
            if name == resource
        }

    async def close(self) -> None:
        self._reviewing.cancel()
        await asyncio.gather(self._reviewing, return_exceptions=True)
        self.guard.traffic.close()
        await self.relaying.close()
        await self.client.close()
        await self.guard.close()


async def ask_url(
    url: str, target: str, *, token: str = "admin-token", accept: str = "", **headers: str
) -> Answer:
    """One GET; keyword headers are spelled with underscores for hyphens."""
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if accept:
        lines.append(f"Accept: {accept}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return await send(url, "\r\n".join((*lines, "", "")).encode())


async def started_server(**options: Any) -> EmbeddedApiServer:
    server = EmbeddedApiServer(ApiServerOptions(tokens=TOKENS, **options))
    await server.start()
    return server


def pod(name: str, *, node: str = "n1", phase: str = "Running", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels or {"app": "web"}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "registry.example/c:1"}],
        },
        "status": {"phase": phase},
    }


def populate(server: EmbeddedApiServer, pods: int = 30) -> None:
    """Pods over two namespaces (whose names etcd orders unusually) and nodes, and some secrets."""
    for number in range(pods):
        namespace = "default" if number % 3 else "kube-system"
        value = pod(
            f"web-{number:03}",
            node=f"n{number % 4}",
            phase="Running" if number % 5 else "Pending",
            app="web" if number % 2 else "db",
        )
        server.create(PODS, value, namespace)
    for namespace in ("default", "kube-system"):
        secret = {"metadata": {"name": "canary"}, "data": {"key": "Y2FuYXJ5"}, "type": "Opaque"}
        server.create(SECRETS, secret, namespace)
        server.create(
            CONFIGMAPS, {"metadata": {"name": "settings"}, "data": {"a": "<b>"}}, namespace
        )
