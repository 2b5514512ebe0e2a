"""Informers behind the relay hold what the API server holds, whatever breaks in between."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import kubernetes
import kubernetes.informer
import kubernetes_asyncio
import pytest

from apiguard.kube.status import Representation
from tests.conftest import Certificates
from tests.e2e.cutting import Cuttable
from tests.e2e.guard import until
from tests.e2e.real import RealApiServer
from tests.e2e.reflector import Reflector
from tests.e2e.relaycompare import QUIET
from tests.e2e.relaystand import WIDGETS, pod, populate, relay_stand
from tests.e2e.stands import ADMIN, EmbeddedProcess, Stand

pytestmark = pytest.mark.e2e

# Partly annotated, and wrongly: dicts are accepted where models are declared.
SYNCHRONOUS: Any = kubernetes
ASYNCHRONOUS: Any = kubernetes_asyncio

CHANGES = 240
NAMES = 15
NAMESPACE = "informed-by-relay"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
OBJECTS = WIDGETS.replace("/widgets", f"/namespaces/{NAMESPACE}/widgets")


@dataclass(frozen=True, slots=True)
class Relayed:
    """A stand whose guard reaches the server over connections that can be cut."""

    stand: Stand
    cuttable: Cuttable

    def restart(self) -> None:
        """The guard ends as an operator ends it, and begins again at the same address."""
        guard = self.stand.guard
        guard.signal(signal.SIGTERM)
        guard.exit_code()
        guard.start()


@dataclass(frozen=True, slots=True)
class _Behind:
    url: str
    ca_file: Path
    tokens_file: Path


@pytest.fixture(scope="module", params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def relayed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> Iterator[Relayed]:
    name: str = request.param
    server: RealApiServer | EmbeddedProcess
    if name == "real":
        server = request.getfixturevalue("real_apiserver")
    else:
        server = EmbeddedProcess(tmp_path_factory.mktemp("server"), certificates, QUIET)
    cuttable = Cuttable(server.url)
    behind = _Behind(cuttable.url, server.ca_file, server.tokens_file)
    stand = relay_stand(name, tmp_path_factory.mktemp(f"guard-{name}"), behind, certificates)
    try:
        parts = urlsplit(server.url)
        assert parts.port is not None
        stand.direct = dataclasses.replace(stand.direct, address=("127.0.0.1", parts.port))
        stand.guard.settings["listen"]["address"] = "{}:{}".format(*stand.guarded.address)
        populate(stand)
        stand.namespace(NAMESPACE)
        yield Relayed(stand, cuttable)
    finally:
        stand.close()
        cuttable.close()
        if isinstance(server, EmbeddedProcess):
            server.close()


# -- what changes ----------------------------------------------------------------------------------


def _made(collection: str, name: str, rng: random.Random) -> dict[str, Any]:
    labels = {"app": rng.choice(("web", "db"))}
    if collection == PODS:
        made = pod(name, node=rng.choice(("n1", "n2")))
        return {**made, "metadata": {"name": name, "labels": labels}}
    if collection == MAPS:
        return {"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}}
    head = {"apiVersion": "relay.example.org/v1", "kind": "Widget"}
    return {**head, "metadata": {"name": name, "labels": labels}, "spec": {"color": "red"}}


def churn(stand: Stand, rng: random.Random, between: Mapping[int, Callable[[], object]]) -> None:
    """Creates, updates and deletes at the server; ``between`` says what happens beside it when."""
    there = {
        (collection, key.partition("/")[2])
        for collection in (PODS, MAPS, OBJECTS)
        for key in held(stand, collection)
    }
    for number in range(CHANGES):
        if number in between:
            between[number]()
        key = collection, name = rng.choice((PODS, MAPS, OBJECTS)), f"x{rng.randrange(NAMES)}"
        target = f"{collection}/{name}"
        if key not in there:
            made = stand.direct.send("POST", collection, _made(collection, name, rng))
            assert made.code == 201, made.body
            there.add(key)
        elif rng.random() < 0.3:
            gone = stand.direct.ask("DELETE", f"{target}?gracePeriodSeconds=0")
            assert gone.code == 200, gone.body
            there.remove(key)
        else:
            labels = {"app": rng.choice(("web", "db")), "n": str(number)}
            patch = json.dumps({"metadata": {"labels": labels}}).encode()
            kind = {"Content-Type": "application/merge-patch+json"}
            patched = stand.direct.ask("PATCH", target, kind, patch)
            assert patched.code == 200, patched.body
    for collection, name in sorted(there)[::2]:
        stand.direct.ask("DELETE", f"{collection}/{name}?gracePeriodSeconds=0")


def held(stand: Stand, collection: str, selectors: dict[str, str] | None = None) -> dict[str, int]:
    """What a store that follows ``collection`` must hold."""
    query = f"?{urlencode(selectors)}" if selectors else ""
    items = stand.direct.ask("GET", collection + query).json["items"]
    return {
        f"{item['metadata']['namespace']}/{item['metadata']['name']}": int(
            item["metadata"]["resourceVersion"]
        )
        for item in items
    }


# -- reflectors ------------------------------------------------------------------------------------

JSON, PROTOBUF = Representation.JSON, Representation.PROTOBUF
WEB, NODE = {"labelSelector": "app=web"}, {"fieldSelector": "spec.nodeName=n1"}
FOLLOWED: tuple[tuple[str, dict[str, Any]], ...] = (
    (PODS, {}),
    (PODS, {"form": PROTOBUF, "watch_list": True}),
    (PODS, {"form": PROTOBUF, "selectors": NODE}),
    (PODS, {"watch_list": True, "selectors": NODE | WEB}),
    (MAPS, {"metadata": True, "selectors": WEB, "seconds": 3}),
    (MAPS, {"form": PROTOBUF, "metadata": True, "watch_list": True}),
    (OBJECTS, {"watch_list": True, "selectors": WEB, "seconds": 3}),
    (OBJECTS, {"form": PROTOBUF, "metadata": True}),
)


def test_reflectors_stay_in_sync(relayed: Relayed, rng: random.Random) -> None:
    """Through cut connections to upstream and a restarted guard, and none has to start over."""
    stand = relayed.stand
    reflectors = [
        Reflector(stand.guarded, collection, rng=random.Random(rng.random()), **options)
        for collection, options in FOLLOWED
    ]
    try:
        for one in reflectors:
            until(f"{one} is synced", one.synced.is_set)
        between = {CHANGES // 3: relayed.cuttable.cut, 2 * CHANGES // 3: relayed.restart}
        churn(stand, rng, between)
        for one, (collection, options) in zip(reflectors, FOLLOWED, strict=True):
            wanted = held(stand, collection, options.get("selectors"))
            until(f"{one} holds {wanted}", functools.partial(_holds, one, wanted))
    finally:
        for one in reflectors:
            one.close()
    assert [str(one) for one in reflectors if one.violations] == [], [
        one.violations[:5] for one in reflectors
    ]
    assert [str(one) for one in reflectors if one.lists != 1 or one.expired] == []


def _holds(reflector: Reflector, wanted: dict[str, int]) -> bool:
    return reflector.store == wanted


# -- real clients ----------------------------------------------------------------------------------


def _configuration(module: Any, stand: Stand) -> Any:
    configuration = module.client.Configuration()
    configuration.host = stand.guarded.url
    configuration.ssl_ca_cert = str(stand.guarded.authority)
    configuration.api_key = {"authorization": f"Bearer {ADMIN}", "BearerToken": ADMIN}
    configuration.api_key_prefix = {"BearerToken": "Bearer"}
    return configuration


async def _follow(stand: Stand, cache: dict[str, int], started: threading.Event) -> None:
    """The asynchronous client's list and watch, begun anew behind the last revision it saw."""
    async with ASYNCHRONOUS.client.ApiClient(_configuration(ASYNCHRONOUS, stand)) as client:
        api = ASYNCHRONOUS.client.CoreV1Api(client)
        listed = await api.list_namespaced_pod(NAMESPACE, resource_version="0")
        revision = listed.metadata.resource_version
        cache.update({_name(item): int(item.metadata.resource_version) for item in listed.items})
        started.set()
        while True:
            try:
                watch = ASYNCHRONOUS.watch.Watch()
                async with watch.stream(
                    api.list_namespaced_pod, NAMESPACE,
                    resource_version=revision, timeout_seconds=60,
                ) as stream:  # fmt: skip
                    async for event in stream:
                        item = event["object"]
                        revision = item.metadata.resource_version
                        if event["type"] == "DELETED":
                            del cache[_name(item)]
                        else:
                            cache[_name(item)] = int(revision)
            except (OSError, TimeoutError, ASYNCHRONOUS.client.ApiException):
                await asyncio.sleep(0.1)  # between attempts; what is waited for is the guard


def _name(item: Any) -> str:
    return f"{item.metadata.namespace}/{item.metadata.name}"


def _events(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Type and object of the events kubectl printed, as far as they are whole."""
    if name == "table":
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                kind, subject = line.split()[:2]
                yield kind, subject
        return
    decoder = json.JSONDecoder()
    with contextlib.suppress(json.JSONDecodeError):
        while text := text.lstrip():
            event, end = decoder.raw_decode(text)
            yield event["type"], event["object"]["metadata"]["name"]
            text = text[end:]


async def test_real_clients_stay_in_sync(
    relayed: Relayed, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    """kubectl as a table and as JSON, the synchronous informer and the asynchronous watch."""
    caplog.set_level(logging.CRITICAL)  # the informer logs its own end with a traceback
    stand = relayed.stand
    printed: dict[str, list[str]] = {"table": [], "json": []}
    common = ("-n", NAMESPACE, "get", "configmaps", "-w", "--output-watch-events")
    commands = {
        "table": stand.command(*common, "--no-headers"),
        "json": stand.command(*common, "-o", "json"),
    }
    cache: dict[str, int] = {}
    started = threading.Event()
    following = asyncio.create_task(_follow(stand, cache, started))
    client = SYNCHRONOUS.client.ApiClient(_configuration(SYNCHRONOUS, stand))
    informer = SYNCHRONOUS.informer.SharedInformer(
        SYNCHRONOUS.client.CoreV1Api(client).list_namespaced_config_map,
        namespace=NAMESPACE, resync_period=0,
    )  # fmt: skip
    informer.start()
    processes = [_run(command, printed[name]) for name, command in commands.items()]
    try:
        assert await asyncio.to_thread(started.wait, 15)
        await asyncio.to_thread(churn, stand, rng, {})
        pods, maps = held(stand, PODS), held(stand, MAPS)
        names = {key.partition("/")[2] for key in maps}
        await asyncio.to_thread(until, "asynchronous", lambda: following.done() or cache == pods)
        assert cache == pods
        await asyncio.to_thread(until, "synchronous", lambda: _informed(informer) == maps)
        for name, lines in printed.items():
            shown = functools.partial(_shows, name, lines, names)
            await asyncio.to_thread(until, "kubectl printed it", shown)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await asyncio.to_thread(informer.stop)
        client.close()
        for process in processes:
            process.kill()
            process.wait()


def _shows(name: str, lines: list[str], names: set[str]) -> bool:
    """Whether the events printed lead to ``names``."""
    there: set[str] = set()
    for kind, subject in _events(name, "".join(lines)):
        (there.discard if kind == "DELETED" else there.add)(subject)
    return there == names


def _informed(informer: Any) -> dict[str, int]:
    return {_name(item): int(item.metadata.resource_version) for item in informer.cache.list()}


def _run(command: list[str], lines: list[str]) -> subprocess.Popen[str]:
    """A command whose output is collected line by line."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def collect() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.append(line)  # noqa: PERF402  seen while the process runs, not at its end

    threading.Thread(target=collect, daemon=True).start()
    return process
