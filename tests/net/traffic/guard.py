"""Guard: a TrafficServer put together as a worker puts it together, inside the test's own loop."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from apiguard.gateway.gateway import Gateway
from apiguard.limiter.limiter import Limiter
from apiguard.policy.compile import compile_policy
from apiguard.policy.config import (
    AdminConfig,
    Bounds,
    Enforcement,
    GuardConfig,
    ListenConfig,
    UpstreamConfig,
)
from apiguard.policy.identityconfig import FrontProxyConfig
from apiguard.runtime import files, tls
from apiguard.runtime.identities import make_authenticator
from apiguard.runtime.traffic import TrafficServer
from apiguard.telemetry.counters import Counters
from apiguard.wire.frontproxy import FrontProxyNames
from tests.conftest import Certificates

from .waiting import eventually

TOKENS = 'alice-token,alice,1,"devs"\nbob-token,bob,2,"devs"\n'

UNLIMITED = """
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
- name: banned
  match: {userAgents: ["bad-agent/*"]}
  limits: [{requestsPerSecond: 0}]
default:
  limits: [{requestsPerSecond: 1000000, burst: 1000000, per: [user]}]
"""
"""Everything passes but bad-agent."""


def bounds(**values: int) -> Bounds:
    """The default bounds but for those named, in whichever group they are."""
    result = Bounds()
    for group in dataclasses.fields(Bounds):
        part = getattr(result, group.name)
        names = {field.name for field in dataclasses.fields(part)}
        chosen: dict[str, Any] = {name: values.pop(name) for name in names & values.keys()}
        result = dataclasses.replace(result, **{group.name: dataclasses.replace(part, **chosen)})
    assert not values, f"no such bounds: {values}"
    return result


class Guard:
    """Guards ``servers``; with certificates clients speak TLS to it."""

    def __init__(
        self,
        servers: Sequence[str],
        *,
        certificates: Certificates | None = None,
        asks_certificates: bool = False,
        authority: Certificates | None = None,
        front_proxy: tuple[os.PathLike[str], os.PathLike[str]] | None = None,
        policy: str = UNLIMITED,
        proxies: Sequence[str] = (),
        host: str = "127.0.0.1",
        dual_stack: bool = False,
        **bound_values: int,
    ) -> None:
        self.counters = Counters()
        self.config = GuardConfig(
            listen=ListenConfig("", trusted_proxy_cidrs=tuple(proxies)),
            upstream=UpstreamConfig(
                tuple(servers),
                front_proxy=front_proxy
                and FrontProxyConfig(str(front_proxy[0]), str(front_proxy[1])),
            ),
            admin=AdminConfig("", ""),
            state_dir="",
            policy_file="",
            bounds=bounds(**bound_values),
        )
        content = self.files = _files(certificates, asks_certificates, authority, front_proxy)
        self.gateway = Gateway(
            policy=compile_policy(policy, "policy"),
            limiter=Limiter(self.config.bounds.process.buckets),
            authenticator=make_authenticator(self.config, content, 1, time.monotonic()),
            counters=self.counters,
            random=random.Random(1),
            enforcement=Enforcement.ENFORCE,
            config=self.config,
            wall=time.time,
            front_proxy=FrontProxyNames() if front_proxy else None,
        )
        self.traffic = TrafficServer(
            loop=asyncio.get_running_loop(),
            gateway=self.gateway,
            config=self.config,
            counters=self.counters,
            tls=tls.serving_context(content),
            upstream_tls=tls.upstream_contexts(content) if authority else {},
        )
        self.client_tls = client_context(certificates) if certificates else None
        self.socket = _listening(host, dual_stack)
        self.port: int = self.socket.getsockname()[1]
        self.traffic.listen(self.socket)

    @property
    def idle_upstream(self) -> int:
        """Upstream connections ready for the next request."""
        pool = self.traffic.upstream.pool
        return pool.size - sum(sum(e.active) for e in pool.endpoints)

    @property
    def at_rest(self) -> bool:
        """No client, no exchange, no connection in use or being opened."""
        view = self.traffic.view()
        return not view.connections and not view.exchanges

    def hits(self, bound: str) -> int:
        return self.counters.bounds[bound]

    def count(self, decision: str) -> int:
        """Requests counted under one decision."""
        return sum(n for key, n in self.counters.requests.items() if key[1] == decision)

    async def rest(self, within: float = 10.0) -> None:
        await eventually(lambda: self.at_rest, f"at rest, not {self.traffic.view()}", within=within)

    async def close(self) -> None:
        """Lets go of everything and sees that everything went."""
        self.traffic.close()
        await self.rest()
        await eventually(lambda: not self.traffic.upstream.pool.size, "upstream connections closed")
        self.socket.close()


def client_context(
    certificates: Certificates, *, own: tuple[os.PathLike[str], os.PathLike[str]] | None = None
) -> ssl.SSLContext:
    """A client's side of TLS, perhaps with a certificate of its own."""
    context = ssl.create_default_context(cafile=str(certificates.authority))
    context.set_alpn_protocols(["http/1.1"])
    if own is not None:
        context.load_cert_chain(*own)
    return context


def upstream_server_context(certificates: Certificates) -> ssl.SSLContext:
    return tls.server_context(str(certificates.server[0]), str(certificates.server[1]), None)


def _files(
    certificates: Certificates | None,
    asks_certificates: bool,
    authority: Certificates | None,
    front_proxy: tuple[os.PathLike[str], os.PathLike[str]] | None,
) -> files.Files:
    """What the supervisor would hand to a worker."""
    paths: dict[str, os.PathLike[str]] = {}
    if certificates is not None:
        paths[files.SERVING_CERT], paths[files.SERVING_KEY] = certificates.server
        if asks_certificates:
            paths[files.CLIENT_CA] = certificates.authority
    if authority is not None:
        paths[files.UPSTREAM_CA] = authority.authority
    if front_proxy is not None:
        paths[files.FRONT_PROXY_CERT], paths[files.FRONT_PROXY_KEY] = front_proxy
    read = {name: files.read_file(str(path), name) for name, path in paths.items()}
    return read | {files.STATIC_TOKENS: files.File("tokens.csv", TOKENS.encode())}


def _listening(host: str, dual_stack: bool) -> socket.socket:
    if dual_stack:
        sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        sock = socket.create_server((host, 0), backlog=1024)
    sock.setblocking(False)
    return sock


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
