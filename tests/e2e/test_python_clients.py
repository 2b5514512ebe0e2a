"""The Python clients, synchronous and asynchronous, through the guard over TLS."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import kubernetes
import kubernetes.informer
import kubernetes_asyncio
import pytest

from tests.e2e.guard import kill, until
from tests.e2e.stands import ADMIN, Stand

pytestmark = pytest.mark.e2e

# Partly annotated, and wrongly: dicts are accepted where models are declared.
SYNCHRONOUS: Any = kubernetes
ASYNCHRONOUS: Any = kubernetes_asyncio
CHANGES = 150


def _configuration(module: Any, stand: Stand) -> Any:
    configuration = module.client.Configuration()
    configuration.host = stand.guarded.url
    configuration.ssl_ca_cert = str(stand.guarded.authority)
    configuration.api_key = {"authorization": f"Bearer {ADMIN}", "BearerToken": ADMIN}
    configuration.api_key_prefix = {"BearerToken": "Bearer"}
    return configuration


@pytest.fixture
def api(stand: Stand) -> Iterator[Any]:
    with SYNCHRONOUS.client.ApiClient(_configuration(SYNCHRONOUS, stand)) as client:
        yield SYNCHRONOUS.client.CoreV1Api(client)


@pytest.fixture
async def async_api(stand: Stand) -> AsyncIterator[Any]:
    async with ASYNCHRONOUS.client.ApiClient(_configuration(ASYNCHRONOUS, stand)) as client:
        yield ASYNCHRONOUS.client.CoreV1Api(client)


def test_the_synchronous_client_creates_reads_changes_and_deletes(stand: Stand, api: Any) -> None:
    namespace = stand.namespace("crud")
    made = api.create_namespaced_config_map(
        namespace, {"metadata": {"name": "a"}, "data": {"x": "1"}}
    )
    stale = made.to_dict()
    made.data = {"x": "2"}
    assert api.replace_namespaced_config_map("a", namespace, made).data == {"x": "2"}
    with pytest.raises(SYNCHRONOUS.client.ApiException) as conflict:
        api.replace_namespaced_config_map(
            "a", namespace,
            {"metadata": {"name": "a", "resourceVersion": stale["metadata"]["resource_version"]}},
        )  # fmt: skip
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")
    patched = api.patch_namespaced_config_map("a", namespace, {"data": {"y": "3"}})
    assert patched.data == {"x": "2", "y": "3"}
    assert api.read_namespaced_config_map("a", namespace).data == {"x": "2", "y": "3"}
    api.delete_namespaced_config_map("a", namespace)
    with pytest.raises(SYNCHRONOUS.client.ApiException) as missing:
        api.read_namespaced_config_map("a", namespace)
    assert missing.value.status == 404


def test_the_synchronous_client_selects_pages_and_watches(stand: Stand, api: Any) -> None:
    namespace = stand.namespace("paged")
    for number in range(7):
        api.create_namespaced_config_map(
            namespace, {"metadata": {"name": f"c{number}", "labels": {"odd": str(number % 2)}}}
        )
    names: list[str] = []
    token = None
    while True:
        page = api.list_namespaced_config_map(
            namespace, limit=2, _continue=token, label_selector="odd in (0,1)"
        )
        assert len(page.items) <= 2
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"c{number}" for number in range(7)]
    odd = api.list_namespaced_config_map(namespace, label_selector="odd=1")
    assert [item.metadata.name for item in odd.items] == ["c1", "c3", "c5"]
    one = api.list_namespaced_config_map(namespace, field_selector="metadata.name=c4")
    assert [item.metadata.name for item in one.items] == ["c4"]
    events = SYNCHRONOUS.watch.Watch().stream(
        api.list_namespaced_config_map, namespace, timeout_seconds=1, resource_version="0",
        label_selector="odd=0",
    )  # fmt: skip
    assert [event["object"].metadata.name for event in events] == ["c0", "c2", "c4", "c6"]


async def test_the_asynchronous_client_watches(stand: Stand, async_api: Any) -> None:
    namespace = stand.namespace("watched")
    listed = await async_api.list_namespaced_config_map(namespace)
    await async_api.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}})
    seen: list[tuple[str, str]] = []
    watch = ASYNCHRONOUS.watch.Watch()
    async with watch.stream(
        async_api.list_namespaced_config_map, namespace,
        resource_version=listed.metadata.resource_version, timeout_seconds=30,
        label_selector="ours!=no",
    ) as stream:  # fmt: skip
        async for event in stream:
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "ADDED":
                await async_api.patch_namespaced_config_map("a", namespace, {"data": {"x": "1"}})
            if event["type"] == "MODIFIED":
                await async_api.delete_namespaced_config_map("a", namespace)
            if event["type"] == "DELETED":
                break
    assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_an_asynchronous_informer_stays_in_sync(
    stand: Stand, async_api: Any, rng: random.Random
) -> None:
    """Its watches end every second, and it goes on from the revision it has seen."""
    namespace = stand.namespace("informed")
    cache: dict[str, str] = {}

    async def follow() -> None:
        listed = await async_api.list_namespaced_config_map(namespace)
        cache.update((item.metadata.name, item.data["n"]) for item in listed.items)
        revision = listed.metadata.resource_version
        while True:
            watch = ASYNCHRONOUS.watch.Watch()
            async with watch.stream(
                async_api.list_namespaced_config_map, namespace,
                resource_version=revision, timeout_seconds=1,
            ) as stream:  # fmt: skip
                async for event in stream:
                    item = event["object"]
                    revision = item.metadata.resource_version
                    if event["type"] == "DELETED":
                        del cache[item.metadata.name]
                    else:
                        cache[item.metadata.name] = item.data["n"]

    informer = asyncio.create_task(follow())
    try:
        wanted = await asyncio.to_thread(change, stand, namespace, rng)
        async with asyncio.timeout(15):
            while cache != wanted:
                assert not informer.done(), informer.exception()
                await asyncio.sleep(0.02)
    finally:
        informer.cancel()
        await asyncio.gather(informer, return_exceptions=True)


def test_an_informer_survives_the_replacement_of_a_worker(
    stand: Stand, api: Any, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection breaks, it resumes at the successor and misses nothing."""
    caplog.set_level(logging.CRITICAL)  # it logs the broken connection with a traceback
    namespace = stand.namespace("resumed")
    informer = SYNCHRONOUS.informer.SharedInformer(
        api.list_namespaced_config_map, namespace=namespace, resync_period=0
    )
    added: list[str] = []
    informer.add_event_handler("ADDED", lambda item: added.append(item.metadata.name))
    informer.start()
    try:
        stand.direct.send("POST", _maps(namespace), {"metadata": {"name": "first"}})
        until("the first object is seen", lambda: added == ["first"])
        (pid,) = stand.guard.worker_pids
        kill(pid)
        wanted = change(stand, namespace, rng)
        until("in sync", lambda: _cached(informer) == wanted | {"first": ""})
        assert stand.guard.worker_pids != [pid]
    finally:
        informer.stop()


def change(stand: Stand, namespace: str, rng: random.Random) -> dict[str, str]:
    """Creates, updates and deletes directly at the server; returns what is there at the end."""
    there: dict[str, str] = {}
    for number in range(CHANGES):
        name, data = f"c{rng.randrange(12)}", {"n": str(number)}
        target = f"{_maps(namespace)}/{name}"
        if name not in there:
            body = {"metadata": {"name": name}, "data": data}
            assert stand.direct.send("POST", _maps(namespace), body).code == 201
            there[name] = data["n"]
        elif rng.random() < 0.3:
            assert stand.direct.ask("DELETE", target).code == 200
            del there[name]
        else:
            body = {"metadata": {"name": name}, "data": data}
            assert stand.direct.send("PUT", target, body).code == 200
            there[name] = data["n"]
    return there


def _maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def _cached(informer: Any) -> dict[str, str]:
    return {item.metadata.name: (item.data or {}).get("n", "") for item in informer.cache.list()}
