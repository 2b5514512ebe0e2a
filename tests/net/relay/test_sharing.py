"""Many readers cost upstream one LIST and one WATCH per form, and reviews within their budget."""

from __future__ import annotations

import asyncio
import time

import pytest

from apiguard.demo.faults import Fault
from apiguard.demo.resources import PODS
from apiguard.policy.relayconfig import RelayedResource
from apiguard.runtime.relayviews import relay_report
from tests.net.traffic.client import Client
from tests.net.traffic.waiting import eventually

from .conftest import StartRelay
from .guarding import JSON, PROTOBUF, pod
from .streams import Stream

READERS = 2_000
PROOF_SECONDS = 0.25
LINES = "Host: guard\r\nAuthorization: Bearer admin-token\r\nAccept: %s\r\n"


async def read(port: int, target: str, accept: str) -> bytes:
    """One reader with a connection of its own; the body it got."""
    client = await Client.open(port)
    client.send(f"GET {target} HTTP/1.1\r\n{LINES % accept}\r\n".encode())
    answer = await asyncio.wait_for(client.response(), 60)
    assert answer.status == 200, answer.body
    client.reset()
    return answer.body


@pytest.mark.parametrize("query", ["?resourceVersion=0", ""])
async def test_two_thousand_readers_cost_one_list_and_one_watch_per_form(
    start: StartRelay, query: str
) -> None:
    """At once and cold. Those without a revision share what began after they came: one proof at a
    time and form, however many ask meanwhile."""
    relayed = await start(pods=200)
    delay = Fault(verbs=("list",), user_agent="apiguard-relay", delay=PROOF_SECONDS)
    relayed.server.faults.add(delay)
    begun = time.monotonic()
    gate = asyncio.Semaphore(500)

    async def reader(accept: str) -> bytes:
        async with gate:
            return await read(relayed.guard.port, f"/api/v1/pods{query}", accept)

    bodies = await asyncio.gather(
        *(reader(JSON if number % 2 else PROTOBUF) for number in range(READERS))
    )
    assert len(set(bodies)) == 2
    counts = relayed.upstream_counts("pods")
    for form in ("json", "protobuf"):
        assert counts["list", form] == 1
        assert counts["watch", form] == 1
    proofs = counts.get(("list", "json-metadata"), 0)
    at_most = 2 * (1 + (time.monotonic() - begun) / PROOF_SECONDS)
    assert proofs == 0 if query else proofs <= at_most, (proofs, at_most, counts)
    reviews = relayed.relaying.authorizer.counts.reviews
    assert reviews <= 2, reviews


async def test_many_watchers_hear_of_a_change_in_one_watch(start: StartRelay) -> None:
    relayed = await start(pods=20)
    server = relayed.server
    target = f"/api/v1/pods?watch=true&resourceVersion={server.store.revision}"
    streams = [await Stream.open(relayed.url, target) for _ in range(300)]
    server.create(PODS, pod("news"), "default")
    frames = await asyncio.gather(*(stream.frame() for stream in streams))
    assert len(set(frames)) == 1
    assert b"news" in frames[0]
    assert relayed.upstream_counts("pods") == {("list", "json"): 1, ("watch", "json"): 1}
    report = relay_report(relayed.desk, time.monotonic())
    assert [
        (one.name.resource, one.name.form, one.state, one.watchers) for one in report.caches
    ] == [("pods", "json", "ready", 300)]
    for stream in streams:
        stream.close()
    feed = next(iter(relayed.desk.feeds.values()))
    await eventually(lambda: feed.watchers == 0, "watchers gone")


async def test_too_many_waiting_readers_are_told_when_to_come_back(start: StartRelay) -> None:
    """429 with Retry-After while a cache fills, never 503."""
    relayed = await start(waiting=5)
    server = relayed.server
    await relayed.through("/api/v1/pods?resourceVersion=0")  # who asks is known, and that he may
    server.faults.add(Fault(verbs=("list",), user_agent="apiguard-relay", delay=0.5, times=1))
    answers = await asyncio.gather(
        *(relayed.through("/api/v1/pods?resourceVersion=0", accept=PROTOBUF) for _ in range(20))
    )
    codes = sorted(answer.code for answer in answers)
    assert codes.count(429) == 15
    assert codes.count(200) == 5
    waits = {int(a.value("Retry-After") or "0") for a in answers if a.code == 429}
    assert min(waits) >= 1
    assert len(waits) > 1


async def test_an_idle_cache_is_dropped_and_comes_back(start: StartRelay) -> None:
    relayed = await start(resources=(RelayedResource("", "v1", "pods", idle_seconds=1),))
    server = relayed.server
    assert (await relayed.through("/api/v1/pods?resourceVersion=0")).code == 200
    feed = next(iter(relayed.desk.feeds.values()))
    await eventually(lambda: not feed.ready, "the cache dropped")
    await eventually(lambda: server.watchers == 0, "its watch ended")
    assert (await relayed.through("/api/v1/pods?resourceVersion=0")).code == 200
    assert relayed.upstream_counts("pods")["list", "json"] == 2


async def test_a_resource_above_its_ceiling_goes_upstream(start: StartRelay) -> None:
    relayed = await start(resources=(RelayedResource("", "v1", "pods", memory_bytes=2_000),))
    answer = await relayed.through("/api/v1/pods?resourceVersion=0")
    direct = await relayed.direct("/api/v1/pods?resourceVersion=0")
    assert answer.body == direct.body
    assert relayed.desk.bypasses["ceiling"] == 1


async def test_ending_streams_ends_those_of_the_relay_too(start: StartRelay) -> None:
    """As a drain and an override do: cleanly, and at once where asked so."""
    relayed = await start()
    server = relayed.server
    target = f"/api/v1/pods?watch=true&resourceVersion={server.store.revision}"
    stream = await Stream.open(relayed.url, target)
    assert relayed.guard.traffic.view().watches == 1
    relayed.guard.traffic.end_matching(lambda info, caller: info.resource == "pods", 0.1)
    assert await stream.frame() == b""
