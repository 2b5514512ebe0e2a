"""``python -m loadtests.incidents.server SPEC``: the embedded API server, its load, its accidents.

SPEC is JSON of ``ServerSpec``. Prints ``listening on URL``, then a line of JSON with its load ten
times a second. Lines on standard input are orders: ``{"do": "slow", "factor": 5}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509

from apiguard.demo.admission import new_uid
from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import RequestHeaders, read_tokens
from apiguard.demo.capacity import CapacitySpec
from apiguard.demo.certs import server_context
from apiguard.demo.cluster import Cluster, ClusterSpec
from apiguard.demo.faults import Fault
from apiguard.demo.podshape import padded
from apiguard.demo.resources import CONFIGMAPS, CUSTOMRESOURCEDEFINITIONS, NAMESPACES, SECRETS
from apiguard.demo.store import Item
from loadtests.clients.decoding import STAMP
from loadtests.scenario import ClusterSize

LISTENING = "listening on"
TELL_EVERY = 0.1  # seconds between two lines about its load
CUSTOM_GROUP, CUSTOM_PLURAL = "cni.example.com", "endpoints"
CUSTOM_PATH = f"/apis/{CUSTOM_GROUP}/v1/{CUSTOM_PLURAL}"
FANOUT = "fanout"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """File names are absolute; ``capacity`` holds fields of ``CapacitySpec``, {} for no limit."""

    certificate: str
    key: str
    client_authority: str
    proxy_authority: str
    proxy_name: str
    tokens: str
    cluster: dict[str, int]
    capacity: dict[str, float] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps(asdict(self))


class PlayedServer:
    """The server and what can be ordered of it. ``now`` is wall-clock seconds where it is one."""

    def __init__(self, spec: ServerSpec) -> None:
        self.size = ClusterSize(**spec.cluster)
        self.server = EmbeddedApiServer(_options(spec))
        self.cluster = Cluster(self.server.store, _cluster_spec(self.size))
        self._stamped: list[Item] = []
        self._rate = 0.0  # stamped objects written a second
        self._tasks: set[asyncio.Task[None]] = set()
        self.orders: Mapping[str, Callable[..., object]] = {
            "slow": self._slow,
            "normal": self.server.faults.clear,
            "restart": lambda down: self._start(self._restart(down)),
            "stamp": self._stamp,
        }

    def populate(self) -> None:
        self.cluster.populate(time.time())
        for number in range(self.size.secrets):
            data = {"blob": "A" * self.size.secretBytes}
            value = {"metadata": {"name": f"big-{number}"}, "type": "Opaque", "data": data}
            self.server.create(SECRETS, value, "default")
        if self.size.customObjects:
            self._define_custom()
        if self.size.stamped:
            self.server.create(NAMESPACES, {"metadata": {"name": FANOUT}})
        for number in range(self.size.stamped):
            value = {"metadata": {"name": f"stamped-{number}"}, "data": {}}
            self.server.create(CONFIGMAPS, padded(value, self.size.stampedBytes), FANOUT)
        found = self.server.store.collections[CONFIGMAPS].items()
        self._stamped = [item for item in found if item.namespace == FANOUT]

    def order(self, line: str) -> None:
        given: dict[str, Any] = json.loads(line)
        self.orders[given.pop("do")](**given)

    async def work(self) -> None:
        """Churn, stamps and figures, until the end."""
        loop = asyncio.get_running_loop()
        self._start(self._keep_stamping())
        while True:
            self.cluster.churn(time.time())
            load = self.server.load()
            told = {
                "at": loop.time(),
                "requests": sum(self.server.counts.values()),
                "lists": sum(n for (verb, *_), n in self.server.counts.items() if verb == "list"),
                "watchers": self.server.watchers,
                "busy": load.busy if load else 0.0,
                "inflight": load.inflight if load else 0,
                "cpu": load.cpu_seconds if load else sum(os.times()[:2]),
                "collapses": load.collapses if load else 0,
                "down": bool(load and load.down),
            }
            print(json.dumps(told), flush=True)  # noqa: T201 - its result
            await asyncio.sleep(TELL_EVERY)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _slow(self, factor: float) -> None:
        """Everything takes ``factor`` times as much CPU."""
        self.server.faults.add(Fault(factor=factor))

    async def _restart(self, down: float) -> None:
        """Dies, and comes back with what is stored and no memory of what changed."""
        await self.server.kill()
        await asyncio.sleep(down)
        self.server.control.compact()
        await self.server.listen()

    def _stamp(self, rate: float) -> None:
        self._rate = rate

    async def _keep_stamping(self) -> None:
        turn, due = 0, 0.0
        loop = asyncio.get_running_loop()
        while True:
            if not self._rate or not self._stamped:
                await asyncio.sleep(0.05)
                due = loop.time()
                continue
            due = max(due + 1.0 / self._rate, loop.time() - 0.5)
            await asyncio.sleep(max(0.0, due - loop.time()))
            turn = (turn + 1) % len(self._stamped)
            self._stamped[turn] = self._rewritten(self._stamped[turn])

    def _rewritten(self, item: Item) -> Item:
        metadata = item.value["metadata"]
        stamp = {STAMP: f"{time.monotonic():.6f}"}
        annotations = {**stamp, **metadata.get("annotations", {}), **stamp}
        value = {**item.value, "metadata": {**metadata, "annotations": annotations}}
        return self.server.store.update(CONFIGMAPS, value)

    def _define_custom(self) -> None:
        version = {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": {"type": "object"}},
        }
        names = {"plural": CUSTOM_PLURAL, "kind": "Endpoint", "singular": "endpoint"}
        spec = {"group": CUSTOM_GROUP, "scope": "Cluster", "names": names, "versions": [version]}
        definition = {"metadata": {"name": f"{CUSTOM_PLURAL}.{CUSTOM_GROUP}"}, "spec": spec}
        self.server.create(CUSTOMRESOURCEDEFINITIONS, definition)
        resource = self.server.catalogue.find(CUSTOM_GROUP, "v1", CUSTOM_PLURAL)
        assert resource is not None
        for number in range(self.size.customObjects):
            name = f"endpoint-{number:05d}-{new_uid(self.server.rng)[:5]}"
            value = {"metadata": {"name": name}, "spec": {"address": f"10.0.0.{number % 250}"}}
            self.server.create(resource, padded(value, 2048))


def _options(spec: ServerSpec) -> ApiServerOptions:
    clients = Path(spec.client_authority).read_bytes()
    proxies = Path(spec.proxy_authority).read_bytes()
    load = x509.load_pem_x509_certificates
    tls = server_context(
        Path(spec.certificate), Path(spec.key), client_authorities=clients + proxies
    )
    return ApiServerOptions(
        tls=tls,
        tokens=read_tokens(Path(spec.tokens).read_text()),
        # Who may do what is not what incidents are about.
        everybody=True,
        clients=tuple(load(clients)),
        front_proxy=RequestHeaders(tuple(load(proxies)), frozenset({spec.proxy_name})),
        capacity=CapacitySpec(**_capacity(spec.capacity)) if spec.capacity else None,
    )


def _capacity(given: Mapping[str, float]) -> dict[str, Any]:
    """JSON does not tell integers that were floats."""
    whole = {"memory_base", "memory_limit", "max_inflight"}
    return {name: int(value) if name in whole else value for name, value in given.items()}


def _cluster_spec(size: ClusterSize) -> ClusterSpec:
    return ClusterSpec(
        nodes=size.nodes,
        pods=size.pods,
        pod_bytes=size.podBytes,
        services=size.services,
        configmaps=size.configmaps,
        pod_updates=size.updates,
        pod_replacements=size.replacements,
        renew_leases=False,
    )


async def _main(spec: ServerSpec) -> None:
    played = PlayedServer(spec)
    played.populate()
    await played.server.start()
    print(f"{LISTENING} {played.server.url}", flush=True)  # noqa: T201 - what a stage waits for
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    working = loop.create_task(played.work())
    try:
        while line := await orders.readline():
            played.order(line.decode())
    finally:
        working.cancel()
        await played.server.stop()


if __name__ == "__main__":
    uvloop.run(_main(ServerSpec(**json.loads(Path(sys.argv[1]).read_text()))))
