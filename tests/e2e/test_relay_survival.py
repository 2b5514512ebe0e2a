"""The relay as a whole guard: a herd, a restart, and a long history in which everything happens.

``python -m tests.e2e.relayhistory --events 1000000`` takes the history further.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import read_tokens
from apiguard.demo.resources import PODS
from tests.e2e.guard import Guard
from tests.e2e.relayhistory import POLICY, TOKENS, run
from tests.e2e.witness import History, Selection, Told, Violation, Witness
from tests.net.traffic.client import OPENED, Client

pytestmark = pytest.mark.e2e

READERS = 2_000
WATCHES = 1_000
EVENTS, WATCHERS = 10_000, 30
PODS_HELD = 200
AT_ONCE = 500
"""Connections opened at the same time: a kernel's queue is no part of what is shown."""

TARGET = "/api/v1/pods?resourceVersion=0"
JSON, PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
HEAD = "Host: guard\r\nAuthorization: Bearer client-token\r\nAccept: {}\r\n\r\n"


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedApiServer]:
    """200 pods."""
    found = EmbeddedApiServer(ApiServerOptions(tokens=read_tokens(TOKENS)))
    await found.start()
    for number in range(PODS_HELD):
        found.create(PODS, pod(number), "default")
    yield found
    while OPENED:
        OPENED.pop().reset()
    await found.stop()


def pod(number: int) -> dict[str, object]:
    return {
        "metadata": {"name": f"pod-{number}"},
        "spec": {"containers": [{"name": "c", "image": "registry.example/c:1"}]},
    }


@contextlib.asynccontextmanager
async def relaying(folder: Path, server: EmbeddedApiServer) -> AsyncIterator[Guard]:
    """A guard with everything as it comes but the address."""
    guard = Guard(folder, server.url)
    guard.write_policy(POLICY)
    (folder / "own").write_text("guard-token")
    guard.settings["upstream"] |= {"credentials": {"tokenFile": "own"}}
    guard.settings["identity"] = {"tokenReview": {"enabled": True}}
    guard.settings["relay"] = {"resources": [{"version": "v1", "resource": "pods"}]}
    await asyncio.to_thread(guard.start)
    try:
        yield guard
    finally:
        await asyncio.to_thread(guard.close)


def asked(server: EmbeddedApiServer, resource: str) -> Counter[tuple[str, str]]:
    """(verb, form) -> requests that reached the server."""
    found: Counter[tuple[str, str]] = Counter()
    for (verb, name, form), number in server.counts.items():
        if name == resource:
            found[verb, form] += number
    return found


async def test_two_thousand_readers_cost_upstream_one_list_and_one_watch_per_form(
    tmp_path: Path, server: EmbeddedApiServer
) -> None:
    """At once and cold, and none to prove freshness. Reviews are few: one token, one question."""
    async with relaying(tmp_path, server) as guard:
        gate = asyncio.Semaphore(AT_ONCE)
        port = guard.address[1]

        async def read(accept: str) -> bytes:
            async with gate:
                client = await Client.open(port)
                client.send(f"GET {TARGET} HTTP/1.1\r\n{HEAD.format(accept)}".encode())
                answer = await asyncio.wait_for(client.response(), 60)
                client.reset()
            assert answer.status == 200, answer
            return answer.body

        forms = (JSON, PROTOBUF) * (READERS // 2)
        bodies = await asyncio.gather(*map(read, forms))
        assert len(set(bodies)) == 2
        counts = asked(server, "pods")
        for form in ("json", "protobuf"):
            assert counts["list", form] == 1
            assert counts["watch", form] == 1
        assert counts["list", "json-metadata"] == 0
        reviews = asked(server, "subjectaccessreviews") + asked(server, "tokenreviews")
        assert 2 <= reviews.total() <= 4


async def test_a_guard_that_is_restarted_under_a_thousand_watches_makes_nobody_list(
    tmp_path: Path, server: EmbeddedApiServer
) -> None:
    """Each client resumes where it was, though the new guard's history begins later: what it
    does not know, upstream is asked for; nobody hears 410, nobody misses an event."""
    began = server.store.revision
    async with relaying(tmp_path, server) as guard:
        watches = await watched(guard, [began] * WATCHES)
        server.create(PODS, pod(1_000), "default")
        assert Counter(await heard(watches)) == {b"pod-1000": WATCHES}
        seen = server.store.revision
        guard.settings["listen"] = {"address": f"127.0.0.1:{guard.address[1]}"}
    for watch in watches:
        watch.reset()
    server.create(PODS, pod(1_001), "default")
    before = asked(server, "pods")
    async with relaying(tmp_path, server) as guard:
        watches = await watched(guard, [seen] * WATCHES)
        assert Counter(await heard(watches)) == {b"pod-1001": WATCHES}
        late = await watched(guard, [server.store.revision])
        server.create(PODS, pod(1_002), "default")
        assert Counter(await heard(late + watches)) == {b"pod-1002": WATCHES + 1}
    after = asked(server, "pods") - before
    assert after["list", "json"] == 1  # the new guard's own
    assert after["watch", "json"] == WATCHES + 1  # from then on its history serves


async def watched(guard: Guard, revisions: list[int]) -> list[Client]:
    """Watches from these revisions, each with its 200 received."""
    gate = asyncio.Semaphore(AT_ONCE)
    port = guard.address[1]

    async def opened(revision: int) -> Client:
        target = f"/api/v1/pods?watch=true&resourceVersion={revision}&timeoutSeconds=600"
        async with gate:
            client = await Client.open(port)
            client.send(f"GET {target} HTTP/1.1\r\n{HEAD.format(JSON)}".encode())
            head = await asyncio.wait_for(client.head(), 60)
        assert head.status == 200, head
        return client

    return list(await asyncio.gather(*map(opened, revisions)))


async def heard(watches: list[Client]) -> list[bytes]:
    """The name in each one's next event, which must be of a pod that was added."""

    async def one(client: Client) -> bytes:
        event = await asyncio.wait_for(client.chunk(), 60)
        assert event.startswith(b'{"type":"ADDED"'), event
        return event.partition(b'"name":"')[2].partition(b'"')[0]

    return list(await asyncio.gather(*map(one, watches)))


def test_a_history_with_everything_in_it_is_told_truly(
    tmp_path: Path, rng: random.Random, record_property: Callable[[str, object], None]
) -> None:
    """Kills, stalls, 410s, slow and vanishing clients, a worker that dies: 0 violations."""
    figures = run(tmp_path, EVENTS, WATCHERS, rng.getrandbits(32))
    for line in figures.lines():
        print(line)  # noqa: T201 - shown with a failure
    record_property("delivered", figures.delivered)
    assert figures.violations == []
    assert figures.delivered >= EVENTS
    assert min(figures.troubles.values()) >= 1
    assert len(figures.troubles) == 6


# -- who judges the judge ----------------------------------------------------------------------

Word = Told | int
"""What a client is told: an event, or a bookmark's revision."""


def skipping(words: list[Word]) -> list[Word]:
    return [*words[:2], *words[3:]]


def repeating(words: list[Word]) -> list[Word]:
    return [*words[:3], *words[2:]]


def swapping(words: list[Word]) -> list[Word]:
    return [*words[:2], words[3], words[2], *words[4:]]


def mistaking(words: list[Word]) -> list[Word]:
    event = words[1]
    assert isinstance(event, Told)
    return [words[0], event._replace(kind="MODIFIED"), *words[2:]]


def hurrying(words: list[Word]) -> list[Word]:
    """The bookmark comes before the last event it speaks of."""
    return [*words[:-2], words[-1], words[-2]]


def inventing(words: list[Word]) -> list[Word]:
    event = words[3]
    assert isinstance(event, Told)
    return [*words[:3], event._replace(key="default/ghost"), *words[4:]]


@pytest.mark.parametrize("change", [skipping, repeating, swapping, mistaking, hurrying, inventing])
@pytest.mark.parametrize("bridged", [False, True])
def test_a_witness_objects_to_what_is_not_the_history(
    change: Callable[[list[Word]], list[Word]], bridged: bool
) -> None:
    """Also where the relay may tell a difference."""
    server = EmbeddedApiServer()
    history = History(server, [Selection()])
    began = history.revision
    for number in range(4):
        server.create(PODS, pod(number), "default")
    server.store.delete(PODS, "default/pod-1")
    if bridged:
        history.relisted(began)
    words: list[Word] = [*history.truths[Selection()].events, history.revision]
    tell(Witness(history, Selection(), revision=began), words)
    with pytest.raises(Violation):
        tell(Witness(history, Selection(), revision=began), change(words))


def test_a_witness_accepts_410_and_old_lists_only_where_they_are_due() -> None:
    server = EmbeddedApiServer()
    history = History(server, [Selection()])
    server.create(PODS, pod(1), "default")
    witness = Witness(history, Selection())
    witness.listed(dict(history.truths[Selection()].state(history.revision)), history.revision)
    with pytest.raises(Violation):
        witness.listed({}, history.revision - 1)
    with pytest.raises(Violation):
        witness.expired(slow=False)
    history.forget()
    witness.expired(slow=False)


def tell(witness: Witness, words: list[Word]) -> None:
    for word in words:
        if isinstance(word, Told):
            witness.heard(word)
        else:
            witness.bookmarked(word, initial_end=False)
