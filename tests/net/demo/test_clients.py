"""Real clients work on the double: kubectl, kubernetes, kubernetes_asyncio."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes_asyncio
import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.encoding import Object
from apiguard.demo.resources import CONFIGMAPS, PODS

from .conftest import TlsServer

# Partly annotated, and wrongly: dicts are accepted where models are declared.
SYNCHRONOUS: Any = kubernetes
ASYNCHRONOUS: Any = kubernetes_asyncio
KUBECTL = Path(sys.executable).with_name("kubectl")
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "nginx:1"}]},
}


async def kubectl(tls: TlsServer, *arguments: str, stdin: str = "") -> tuple[int, str]:
    """Exit code and output (both streams) of one kubectl command."""
    process = await asyncio.create_subprocess_exec(
        str(KUBECTL),
        f"--kubeconfig={tls.kubeconfig}",
        f"--cache-dir={tls.folder / 'cache'}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    assert process.returncode is not None
    return process.returncode, out.decode()


def _object(server: EmbeddedApiServer, key: str) -> Object:
    item = server.store.collections[PODS].get(key)
    assert item is not None
    return item.value


async def test_kubectl_creates_reads_patches_and_deletes(tls: TlsServer) -> None:
    """The commands a newcomer types first, typed (protobuf) and untyped (JSON)."""
    steps = [
        ("create configmap a --from-literal=x=1", "configmap/a created"),
        ("create namespace shop", "namespace/shop created"),
        ("create deployment d --image=nginx --replicas=0", "deployment.apps/d created"),
        ("scale deployment d --replicas=3", "deployment.apps/d scaled"),
        ("get deployment d", "0/3"),
        ('patch configmap a --type=merge -p {"data":{"y":"2"}}', "configmap/a patched"),
        (
            'patch configmap a --type=json -p [{"op":"add","path":"/data/z","value":"3"}]',
            "configmap/a patched",
        ),
        ("label configmap a l=v", "configmap/a labeled"),
        ("annotate configmap a n=v", "configmap/a annotated"),
        ("get configmap a -o jsonpath={.data.x}{.data.y}{.data.z}", "123"),
        ("delete configmap a", 'configmap "a" deleted'),
        ("delete namespace shop", 'namespace "shop" deleted'),
        ("auth whoami", "system:masters"),
        ("auth can-i list pods", "yes"),
        ("api-resources --no-headers", "endpointslices"),
        ("get --raw /readyz?verbose", "[+]etcd ok"),
    ]
    for command, expected in steps:
        code, out = await kubectl(tls, *command.split(" "))
        assert (code, expected in out) == (0, True), (command, out)


async def test_kubectl_applies_and_prints_pods(tls: TlsServer) -> None:
    code, out = await kubectl(tls, "apply", "-f", "-", stdin=json.dumps(POD))
    assert (code, out) == (0, "pod/web created\n")
    changed = json.loads(json.dumps(POD))
    changed["metadata"]["labels"] = {"app": "web", "tier": "front"}
    code, out = await kubectl(tls, "apply", "-f", "-", stdin=json.dumps(changed))
    assert (code, out) == (0, "pod/web configured\n")
    stored = _object(tls.server, "default/web")
    assert stored["metadata"]["labels"] == {"app": "web", "tier": "front"}
    assert len(stored["spec"]["containers"]) == 1
    code, out = await kubectl(tls, "get", "pods", "-A", "-o", "wide")
    assert out.splitlines()[1].split()[:4] == ["default", "web", "0/1", "Pending"]
    code, out = await kubectl(tls, "describe", "pod", "web")
    assert code == 0
    assert "nginx:1" in out
    code, out = await kubectl(tls, "logs", "web")
    assert out.startswith("c of default/web started\n")
    code, out = await kubectl(tls, "exec", "-i", "web", "--", "cat", stdin="from stdin")
    assert (code, out) == (0, "cat\nfrom stdin")
    code, out = await kubectl(tls, "--context=alice", "auth", "whoami")
    assert "[devs ops system:authenticated]" in out
    code, out = await kubectl(tls, "--context=alice", "get", "pods")
    assert code == 1
    assert 'User "alice" cannot list resource "pods"' in out


async def test_kubectl_get_watch_prints_changes(tls: TlsServer) -> None:
    tls.server.create(PODS, json.loads(json.dumps(POD)), "default")
    process = await asyncio.create_subprocess_exec(
        str(KUBECTL),
        f"--kubeconfig={tls.kubeconfig}",
        *("get", "pods", "-w", "--no-headers"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first = await asyncio.wait_for(process.stdout.readline(), 30)
        assert b"web" in first
        while not tls.server.watchers:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)
        second = json.loads(json.dumps(POD))
        second["metadata"]["name"] = "later"
        tls.server.create(PODS, second, "default")
        assert b"later" in await asyncio.wait_for(process.stdout.readline(), 30)
    finally:
        process.kill()
        await process.wait()


def _configuration(module: Any, tls: TlsServer) -> Any:
    configuration = module.client.Configuration()
    configuration.host = tls.server.url
    configuration.ssl_ca_cert = str(tls.folder / "ca.crt")
    configuration.api_key = {"authorization": "Bearer admin-token", "BearerToken": "admin-token"}
    configuration.api_key_prefix = {"BearerToken": "Bearer"}
    return configuration


async def test_the_synchronous_python_client_pages_and_watches(tls: TlsServer) -> None:
    for number in range(7):
        tls.server.create(CONFIGMAPS, {"metadata": {"name": f"c{number}"}}, "default")

    def work() -> tuple[list[str], list[str]]:
        with SYNCHRONOUS.client.ApiClient(_configuration(SYNCHRONOUS, tls)) as api_client:
            api = SYNCHRONOUS.client.CoreV1Api(api_client)
            names: list[str] = []
            token = None
            while True:
                page = api.list_namespaced_config_map("default", limit=3, _continue=token)
                names += [item.metadata.name for item in page.items]
                token = page.metadata._continue
                if not token:
                    break
            watch = SYNCHRONOUS.watch.Watch()
            events = watch.stream(
                api.list_namespaced_config_map, "default", timeout_seconds=1, resource_version="0"
            )
            return names, [event["object"].metadata.name for event in events]

    paged, watched = await asyncio.to_thread(work)
    assert paged == [f"c{number}" for number in range(7)]
    assert watched == paged


async def test_the_asynchronous_python_client_follows_a_watch(tls: TlsServer) -> None:
    async with ASYNCHRONOUS.client.ApiClient(_configuration(ASYNCHRONOUS, tls)) as api_client:
        api = ASYNCHRONOUS.client.CoreV1Api(api_client)
        found = await api.create_namespaced_pod("default", POD)
        assert found.status.phase == "Pending"
        listed = await api.list_namespaced_pod("default")
        watch = ASYNCHRONOUS.watch.Watch()
        seen: list[tuple[str, str]] = []
        await api.patch_namespaced_pod("web", "default", {"metadata": {"labels": {"a": "b"}}})
        async with watch.stream(
            api.list_namespaced_pod,
            "default",
            resource_version=listed.metadata.resource_version,
            timeout_seconds=30,
        ) as stream:
            async for event in stream:
                seen.append((event["type"], event["object"].metadata.name))
                if event["type"] == "MODIFIED" and len(seen) == 1:
                    await api.delete_namespaced_pod("web", "default")
                if event["type"] == "DELETED":
                    break
        # Patched, marked for deletion, gone.
        assert seen == [("MODIFIED", "web"), ("MODIFIED", "web"), ("DELETED", "web")]
        with pytest.raises(ASYNCHRONOUS.client.ApiException) as missing:
            await api.read_namespaced_pod("web", "default")
        assert missing.value.status == 404
