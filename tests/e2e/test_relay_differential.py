"""LIST and WATCH through the relay are what kube-apiserver answers, in everything a client sees.

The questions are in ``relay_cases.yaml``. The suite asks a drawn part of the largest group;
``python -m tests.e2e.relaycompare`` asks all of them.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.e2e.guard import PATIENCE
from tests.e2e.real import RealApiServer
from tests.e2e.relaycompare import (
    CASES,
    FORMS,
    QUESTIONS,
    QUIET,
    Comparison,
    future,
    resting_revision,
    together,
    walks,
)
from tests.e2e.relaystand import AWKWARD, NAMESPACES, WIDGETS, pod, populate, relay_stand
from tests.e2e.stands import ADMIN, EmbeddedProcess, Stand, Way

pytestmark = pytest.mark.e2e

DRAWN = 400
"""Questions asked of each group, at most: all of the one of which the relay answers least."""

SHARE = {"matrix": 0.4, "odd": 0.15, "negotiated": 0.1, "selected": 0.3, "dressed": 0.3}
"""Least part of a group that the relay must have answered itself, or nothing was compared."""


@pytest.fixture(scope="module", params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def relaying(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> Iterator[Stand]:
    """Each cluster there is, populated, behind a guard that relays."""
    name: str = request.param
    folder = tmp_path_factory.mktemp(f"relay-{name}")
    if name == "real":
        real: RealApiServer = request.getfixturevalue("real_apiserver")
        stand = relay_stand(name, folder, real, certificates)
        populate(stand)
        yield stand
        stand.close()
        return
    server = EmbeddedProcess(tmp_path_factory.mktemp("relayed"), certificates, QUIET)
    try:
        stand = relay_stand(name, folder, server, certificates)
        populate(stand)
        yield stand
        stand.close()
    finally:
        server.close()


@pytest.fixture
def comparison(relaying: Stand) -> Iterator[Comparison]:
    made = Comparison(relaying)
    yield made
    made.close()


@pytest.mark.parametrize("group", QUESTIONS)
def test_answers_are_equal(comparison: Comparison, rng: random.Random, group: str) -> None:
    """Status, headers that mean something, and bodies."""
    questions = list(QUESTIONS[group](comparison.revision))
    for case in rng.sample(questions, min(DRAWN, len(questions))):
        comparison.ask(case)
    assert comparison.differences == []
    assert comparison.tally.relayed >= SHARE[group] * comparison.tally.asked, comparison.tally


def test_the_future_is_waited_for_alike(relaying: Stand, comparison: Comparison) -> None:
    together(relaying, future(comparison.revision), comparison)
    assert comparison.differences == []


def test_pages_are_equal_to_the_last(comparison: Comparison, rng: random.Random) -> None:
    """Whoever gave the token: one of the relay is one upstream accepts, and the other way round."""
    for arguments in walks(rng):
        comparison.walk(*arguments)
    assert comparison.differences == []
    assert comparison.tally.relayed >= comparison.tally.asked / 8, comparison.tally


# -- watches -------------------------------------------------------------------------------------

WATCHES = 16
"""Opened of each kind, by each way."""

LASTS = 4
"""Seconds a watch is open: enough to open all and to change what is watched."""

_METADATA = "PartialObjectMetadataList"


@dataclass
class Watch:
    """One open watch, read by a thread up to the end of the stream."""

    way: Way
    target: str
    accept: str
    code: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    opened: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        connection = self.way.connect()
        try:
            connection.putrequest("GET", self.target, skip_accept_encoding=True)
            connection.putheader("Authorization", f"Bearer {ADMIN}")
            if self.accept:
                connection.putheader("Accept", self.accept)
            connection.endheaders()
            answer = connection.getresponse()
            self.code = answer.status
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
            self.opened.set()
            while piece := answer.read1(1 << 16):
                self.body += piece
        finally:
            self.opened.set()
            connection.close()

    @property
    def events(self) -> list[bytes]:
        """Whole events but for bookmarks at will; the one that ends the initial events counts by
        being there: its object is the kind's zero value, which the relay learns from the first."""
        found = []
        for event in self._cut():
            if b"BOOKMARK" not in event[:30]:
                found.append(event)
            elif b"k8s.io/initial-events-end" in event:
                found.append(b"end of initial events")
        return found

    def _cut(self) -> Iterator[bytes]:
        if "protobuf" not in self.headers.get("content-type", ""):
            yield from self.body.splitlines(keepends=True)
            return
        at = 0
        while at + 4 <= len(self.body):
            end = at + 4 + int.from_bytes(self.body[at : at + 4])
            yield self.body[at:end]
            at = end

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), (self.target, self.accept, self.body[-300:])

    @property
    def relayed(self) -> bool:
        return "x-kubernetes-pf-flowschema-uid" not in self.headers

    @property
    def seen(self) -> tuple[object, ...]:
        meant = (
            "content-type",
            "cache-control",
            "transfer-encoding",
            "content-encoding",
            "warning",
        )
        return self.code, [self.headers.get(name) for name in meant], self.events


def _pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {**pod(name, node="n1"), "metadata": {"name": name, "labels": labels}}


def _widget(name: str, labels: dict[str, str]) -> dict[str, Any]:
    head = {"apiVersion": "relay.example.org/v1", "kind": "Widget"}
    return {**head, "metadata": {"name": name, "labels": labels}, "spec": {"color": "red"}}


def _map(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}}


Make = Callable[[str, dict[str, str]], dict[str, Any]]
WATCHED: dict[str, Make] = {"pods": _pod, "configmaps": _map, "widgets": _widget}


def change(stand: Stand, collection: str, make: Make) -> None:
    """Objects that come, move out of selections and back, linger deleted, go and come again."""

    def patch(name: str, **metadata: object) -> None:
        reply = stand.direct.ask(
            "PATCH",
            f"{collection}/{name}",
            {"Content-Type": "application/merge-patch+json"},
            json.dumps({"metadata": metadata}).encode(),
        )
        assert reply.code == 200, reply.body

    def delete(name: str) -> None:
        target = f"{collection}/{name}?gracePeriodSeconds=0"
        assert stand.direct.ask("DELETE", target).code == 200

    def create(name: str, **labels: str) -> None:
        assert stand.direct.send("POST", collection, make(name, labels)).code == 201

    create("changed", app="web")
    patch("changed", labels={"app": "db"})
    patch("changed", labels={"app": "web", "x": "1"})
    patch("changed", annotations=AWKWARD)
    create("other")
    patch("other", finalizers=["relay.example.org/kept"])
    delete("other")
    patch("other", finalizers=None)
    delete("changed")
    create("changed", app="web")
    delete("changed")


def _watched(kind: str) -> str:
    if kind == "widgets":
        return WIDGETS.replace("/widgets", f"/namespaces/{NAMESPACES[0]}/widgets")
    return f"/api/v1/namespaces/{NAMESPACES[0]}/{kind}"


def _both(stand: Stand, target: str, accept: str) -> tuple[Watch, Watch]:
    return Watch(stand.direct, target, accept), Watch(stand.guarded, target, accept)


def test_event_sequences_are_equal(relaying: Stand, rng: random.Random) -> None:
    """From every revision a watch can begin at, under selectors that objects move in and out of."""
    revision = resting_revision(relaying)
    pairs = []
    for kind in WATCHED:
        for query, accept in rng.sample(list(_watches(kind)), WATCHES):
            target = f"{_watched(kind)}?watch=1&timeoutSeconds={LASTS}&{query}"
            pairs.append(_both(relaying, target.replace("{rv}", revision), accept))
    for pair in pairs:
        for watch in pair:
            assert watch.opened.wait(PATIENCE), watch.target
    for kind, make in WATCHED.items():
        change(relaying, _watched(kind), make)
    for direct, through in pairs:
        direct.join()
        through.join()
        assert through.seen == direct.seen, (direct.target, direct.accept)
    assert sum(through.relayed for _, through in pairs) > len(pairs) / 2


def _watches(kind: str) -> Iterator[tuple[str, str]]:
    """Query and Accept of every watch there is of a kind."""
    forms = [form.replace(_METADATA, "PartialObjectMetadata") for form in FORMS.values()]
    if kind == "widgets":
        forms.remove(FORMS["protobuf"])
    for query in (*CASES["watches"], *CASES["watch_fields"].get(kind, ())):
        for form in forms:
            yield query, form
    for accept in CASES["watch_accepts"]:
        yield "resourceVersion={rv}", accept


def test_watches_that_end_are_equal(relaying: Stand) -> None:
    """Refusals before the stream, errors in it, deadlines."""
    collection, revision = _watched("pods"), resting_revision(relaying)
    relaying.guarded.ask("GET", f"{collection}?resourceVersion=0")
    pairs = []
    for query in CASES["watch_ends"]:
        target = f"{collection}?watch=1&{query.replace('{rv}', revision)}"
        pairs += [_both(relaying, target, FORMS[form]) for form in ("json", "protobuf")]
    for direct, through in pairs:
        direct.join()
        through.join()
        assert through.seen == direct.seen, (direct.target, direct.accept)
