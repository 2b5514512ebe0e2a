"""Nobody reads through the relay what upstream would not let him read."""

from __future__ import annotations

import asyncio

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.authorization import Rule
from apiguard.demo.faults import Fault
from tests.net.traffic.waiting import eventually

from .guarding import JSON, JSON_META_LIST, PROTOBUF, Relayed
from .streams import Stream
from .test_lists import visible

ALICE = Rule(("alice",), ("list", "watch"), resources=("pods", "secrets"), namespaces=("default",))
BOB = Rule(("bob",), ("list", "watch"), resources=("pods", "secrets"), namespaces=("kube-system",))
TARGETS = (
    "/api/v1/secrets",
    "/api/v1/secrets?resourceVersion=0",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/kube-system/secrets?resourceVersion=0",
    "/api/v1/namespaces/kube-system/secrets?limit=1",
    "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3Dcanary",
    "/api/v1/secrets?fieldSelector=metadata.namespace%3Ddefault&resourceVersion=0",
)


@pytest.fixture
def ruled(server: EmbeddedApiServer) -> EmbeddedApiServer:
    server.authorizer.rules = [ALICE, BOB]
    return server


@pytest.mark.parametrize("accept", [JSON, PROTOBUF, JSON_META_LIST + ",application/json"])
@pytest.mark.parametrize("warm", [False, True])
async def test_each_reader_gets_what_upstream_gives_him(
    ruled: EmbeddedApiServer, relayed: Relayed, accept: str, *, warm: bool
) -> None:
    """Every read shape, cold and warm; a refusal in upstream's own words."""
    if warm:
        await relayed.through("/api/v1/secrets?resourceVersion=0", accept=accept)
    for token in ("alice-token", "bob-token", "bad-token", "node-token"):
        for target in TARGETS:
            direct = await relayed.direct(target, accept=accept, token=token)
            through = await relayed.through(target, accept=accept, token=token)
            assert visible(through) == visible(direct), f"{token} {target}"
    assert (
        relayed.upstream_counts("secrets")[
            "watch",
            "json-metadata" if "as=" in accept else "json" if accept == JSON else "protobuf",
        ]
        == 1
    )


async def test_anonymous_and_impersonating_callers_are_upstreams_own(
    ruled: EmbeddedApiServer, relayed: Relayed
) -> None:
    target = "/api/v1/namespaces/default/secrets?resourceVersion=0"
    await relayed.through(target)
    direct = await relayed.direct(target, token="")
    assert visible(await relayed.through(target, token="")) == visible(direct)
    for user, code in (("alice", 200), ("bob", 403)):
        found = await relayed.through(target, Impersonate_User=user)
        assert found.code == code
    assert relayed.desk.bypasses["impersonation"] == 2


async def test_watches_are_judged_too(ruled: EmbeddedApiServer, relayed: Relayed) -> None:
    version = ruled.store.revision
    target = f"/api/v1/namespaces/kube-system/secrets?watch=true&resourceVersion={version}"
    await relayed.through("/api/v1/secrets?resourceVersion=0")
    direct = await relayed.direct(target, token="alice-token")
    through = await relayed.through(target, token="alice-token")
    assert visible(through) == visible(direct)
    assert direct.code == 403
    stream = await Stream.open(relayed.url, target, token="bob-token")
    assert stream.head.status == 200
    stream.close()


async def test_a_withdrawn_right_ends_the_watch(
    ruled: EmbeddedApiServer, relayed: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New reads are refused once the verdict has aged, an open watch ends at its next review."""
    authorizer = relayed.relaying.authorizer
    limits = authorizer._limits
    for name, value in (("decision_seconds", 0.3), ("watch_seconds", 0.5)):
        object.__setattr__(limits, name, value)
    target = f"/api/v1/namespaces/default/secrets?watch=true&resourceVersion={ruled.store.revision}"
    stream = await Stream.open(relayed.url, target, token="alice-token")
    assert stream.head.status == 200
    ruled.authorizer.rules = [BOB]
    assert await asyncio.wait_for(stream.frame(), 10) == b""
    listed = "/api/v1/namespaces/default/secrets?resourceVersion=0"
    found = await relayed.through(listed, token="alice-token")
    assert found.code == 403
    assert authorizer.counts.ended == 1
    stream.close()


async def test_no_body_leaves_before_the_review(ruled: EmbeddedApiServer, relayed: Relayed) -> None:
    """While reviews hang, readers wait or go upstream; nothing comes from the cache."""
    await relayed.through("/api/v1/secrets?resourceVersion=0")
    ruled.faults.add(Fault(verbs=("create",), resources=("subjectaccessreviews",), hang=True))
    feed = next(iter(relayed.desk.feeds.values()))
    served = feed.counts.lists
    target = "/api/v1/namespaces/default/secrets?resourceVersion=0"
    found = await relayed.through(target, token="bob-token")
    assert found.code == 403  # upstream's own
    found = await relayed.through(target, token="alice-token")
    assert found.code == 200
    assert feed.counts.lists == served
    await eventually(lambda: not relayed.desk._lobby.places, "nobody left at the desk")
