"""Deployments made by clients get pods and a status, so that waiting for them ends."""

from __future__ import annotations

import asyncio
import time

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.cluster import Cluster, ClusterSpec
from apiguard.demo.command import keep_changing
from apiguard.demo.resources import PODS, REPLICASETS

from .conftest import TlsServer
from .test_clients import kubectl


def pods(server: EmbeddedApiServer, prefix: str) -> list[str]:
    items = server.store.collections[PODS].items()
    return [item.name for item in items if item.name.startswith(prefix)]


async def test_kubectl_waits_for_rollouts_scales_and_deletes(tls: TlsServer) -> None:
    """Also for deployments the cluster came with."""
    spec = ClusterSpec(nodes=2, namespaces=1, pods=4, services=2, pod_updates=0, pod_replacements=0)
    cluster = Cluster(tls.server.store, spec)
    cluster.populate(time.time())
    ending = asyncio.Event()
    changing = asyncio.create_task(keep_changing(cluster, ending))
    wait = "rollout status deployment --timeout=30s"
    try:
        for command, expected, count in (
            ("create deployment mine --image=nginx:1 --replicas=3", "created", None),
            (f"{wait} mine", "successfully rolled out", 3),
            ("scale deployment mine --replicas=1", "scaled", None),
            (f"{wait} mine", "successfully rolled out", 1),
            ("rollout restart deployment mine", "restarted", None),
            (f"{wait} mine", "successfully rolled out", 1),
            (f"{wait} -n shop api-0", "successfully rolled out", None),
            ("delete deployment mine", "deleted", None),
        ):
            code, out = await kubectl(tls, *command.split(" "))
            assert (code, expected in out) == (0, True), (command, out)
            if count is not None:
                assert len(pods(tls.server, "mine-")) == count, command
        while pods(tls.server, "mine-"):  # noqa: ASYNC110 - the cluster tells nobody
            await asyncio.sleep(0.02)
        owned = tls.server.store.collections[REPLICASETS].items()
        assert [item.name for item in owned if item.name.startswith("mine-")] == []
    finally:
        ending.set()
        await changing
