"""Many readers at once: upstream is asked once, the others wait or are told when to come."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.faults import Fault
from apiguard.demo.resources import PODS
from apiguard.gateway.lobby import LONGEST_RETRY, PASSED_TOGETHER
from apiguard.kube.status import Representation
from tests.net.traffic.client import Client
from tests.net.traffic.waiting import eventually

from .conftest import StartRelay
from .guarding import JSON, PROTOBUF, Relayed, pod
from .streams import Stream

LIST = "/api/v1/pods"
CACHED = LIST + "?resourceVersion=0"
OWN = "apiguard-relay"


async def warm(relayed: Relayed) -> None:
    """Who asks is known, that he may, and the cache is there."""
    assert (await relayed.through(CACHED)).code == 200


@pytest.mark.parametrize("accept", [JSON, PROTOBUF])
async def test_who_waited_long_enough_is_told_429_like_the_guards_other_refusals(
    start: StartRelay, accept: str
) -> None:
    relayed = await start(wait_seconds=1)
    relayed.server.faults.add(Fault(verbs=("list",), user_agent=OWN, hang=True))
    begun = time.monotonic()
    answers = await asyncio.gather(*(relayed.through(CACHED, accept=accept) for _ in range(12)))
    assert time.monotonic() - begun < 5.0
    assert {answer.code for answer in answers} == {429}
    assert {answer.value("content-type") for answer in answers} == {accept}
    waits = {int(answer.value("retry-after") or 0) for answer in answers}
    assert waits <= set(range(1, LONGEST_RETRY + 1))
    assert len(waits) > 1
    if accept == JSON:
        status = json.loads(answers[0].body)
        assert (status["kind"], status["code"]) == ("Status", 429)
        assert status["reason"] == "TooManyRequests"
        assert str(status["details"]["retryAfterSeconds"]) == answers[0].value("retry-after")
    assert relayed.desk.refusals[429] == 12


async def test_being_told_to_come_back_is_no_offence(start: StartRelay) -> None:
    """Ten in a second on one connection, which a rule's refusals would have slowed down."""
    relayed = await start(waiting=1)
    await warm(relayed)
    relayed.server.faults.add(Fault(verbs=("list",), user_agent=OWN, delay=1.0, times=1))
    first = asyncio.ensure_future(relayed.through(CACHED, accept=PROTOBUF))
    await eventually(lambda: relayed.desk.waiting == 1, "somebody waits")
    client = await Client.open(relayed.guard.port)
    headers = f"Authorization: Bearer admin-token\r\nAccept: {PROTOBUF}\r\n".encode()
    begun = time.monotonic()
    codes = [(await client.ask(CACHED, headers=headers)).status for _ in range(10)]
    assert codes == [429] * 10
    assert time.monotonic() - begun < 1.0
    assert (await first).code == 200
    assert (await client.ask(CACHED, headers=headers)).status == 200


async def test_consistent_readers_share_a_list_that_began_after_they_came(
    server: EmbeddedApiServer, relayed: Relayed
) -> None:
    """Whoever comes while one is under way sees what was written before he came."""
    await warm(relayed)
    server.faults.add(Fault(verbs=("list",), user_agent=OWN, delay=0.5, times=1))
    early = [asyncio.ensure_future(relayed.through(LIST)) for _ in range(20)]
    feed = next(iter(relayed.desk.feeds.values()))
    await eventually(lambda: len(feed.freshness) == 20, "all wait")
    server.create(PODS, pod("between"), "default")
    late = [asyncio.ensure_future(relayed.through(LIST)) for _ in range(20)]
    answers = await asyncio.gather(*early, *late)
    assert {answer.code for answer in answers} == {200}
    assert all(b"between" in answer.body for answer in answers[20:])
    assert feed.counts.proofs <= 3
    assert relayed.upstream_counts("pods")["list", "json"] == 1


async def test_each_scope_and_selector_is_proven_by_a_list_of_its_own(
    server: EmbeddedApiServer, relayed: Relayed
) -> None:
    await warm(relayed)
    target = "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb"
    direct = await relayed.direct(target)
    answers = await asyncio.gather(*(relayed.through(target) for _ in range(30)))
    assert {answer.body for answer in answers} == {direct.body}
    asked = [r.target for r in server.requests if r.values("user-agent") == [OWN.encode()]]
    proofs = [one for one in asked if "pods" in one and "watch" not in one and one != LIST]
    assert proofs
    assert all(one.startswith("/api/v1/namespaces/default/pods?labelSelector=") for one in proofs)


@pytest.mark.parametrize("form", list(Representation))
async def test_watch_lists_without_a_revision_share_proofs_too(
    server: EmbeddedApiServer, relayed: Relayed, form: Representation
) -> None:
    """What informers send at start: all events, the end bookmark, for a handful of lists."""
    await warm(relayed)
    query = "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    target = LIST + query + "&allowWatchBookmarks=true"
    accept = form.value + (";stream=watch" if form is Representation.PROTOBUF else "")
    streams = await asyncio.gather(
        *(Stream.open(relayed.url, target, accept=accept) for _ in range(60))
    )
    assert {stream.head.status for stream in streams} == {200}
    seen = await asyncio.gather(*(stream.frames(31) for stream in streams))
    assert len({tuple(frames) for frames in seen}) == 1
    assert b"initial-events-end" in seen[0][-1]
    counts = relayed.upstream_counts("pods")
    word = "json" if form is Representation.JSON else "protobuf"
    assert counts["list", word] == 1
    assert counts["watch", word] == 1
    assert counts.get(("list", "json-metadata"), 0) <= 10
    for stream in streams:
        stream.close()


async def test_a_proof_that_fails_sends_only_a_few_upstream(
    server: EmbeddedApiServer, relayed: Relayed
) -> None:
    """What refused one list is not asked for a hundred."""
    await warm(relayed)
    server.faults.add(Fault(verbs=("list",), user_agent=OWN, delay=0.5, code=500))
    before = server.counts.copy()
    tasks = [asyncio.ensure_future(relayed.through(LIST)) for _ in range(100)]
    answers = await asyncio.gather(*tasks)
    codes = [answer.code for answer in answers]
    assert set(codes) == {200, 429}
    feed = next(iter(relayed.desk.feeds.values()))
    assert codes.count(200) <= PASSED_TOGETHER * feed.counts.proofs
    key = ("list", "pods", "json")
    assert server.counts[key] - before[key] == codes.count(200) == feed.counts.bypasses["unproven"]
