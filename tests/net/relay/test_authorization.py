"""Nobody reads through the relay what upstream would not let him read."""

from __future__ import annotations

import asyncio

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.authorization import Rule
from apiguard.demo.faults import Fault
from apiguard.demo.resources import SECRETS
from tests.net.traffic.waiting import eventually

from .guarding import JSON, JSON_META_LIST, PROTOBUF, Relayed
from .streams import Stream
from .test_lists import token_of, visible
from .warping import Warp

ALICE = Rule(("alice",), ("list", "watch"), resources=("pods", "secrets"), namespaces=("default",))
BOB = Rule(("bob",), ("list", "watch"), resources=("pods", "secrets"), namespaces=("kube-system",))
CANARIES = {"default": b"YWxpY2UncyBjYW5hcnk=", "kube-system": b"Ym9iJ3MgY2FuYXJ5"}
FOREIGN = {"alice-token": CANARIES["kube-system"], "bob-token": CANARIES["default"]}
"""What must never reach whom; who may read nothing at all may see neither."""

COLLECTIONS = (
    "/api/v1/secrets",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/kube-system/secrets",
    "/api/v1/namespaces/nowhere/secrets",
)
LISTS = (
    "",
    "?resourceVersion=0",
    "?limit=1",
    "?resourceVersion={rv}",
    "?resourceVersion={rv}&resourceVersionMatch=NotOlderThan",
    "?resourceVersion={rv}&resourceVersionMatch=Exact",
    "?resourceVersion={rv}&resourceVersionMatch=Exact&limit=1",
    "?fieldSelector=metadata.name%3Dcanary",
    "?fieldSelector=metadata.name%3Dcanary&resourceVersion=0",
    "?fieldSelector=metadata.namespace%3Ddefault&resourceVersion=0",
    "?fieldSelector=type%3DOpaque&resourceVersion=0",
    "?labelSelector=team&resourceVersion=0",
    "?continue={token}",
)
WATCHES = (
    "?watch=true&timeoutSeconds=1&resourceVersion={rv}",
    "?watch=true&timeoutSeconds=1&resourceVersion=0",
    "?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true"
    "&resourceVersionMatch=NotOlderThan",
    "?watch=true&timeoutSeconds=1&resourceVersion=0&fieldSelector=metadata.name%3Dcanary",
)
TOKENS = ("alice-token", "bob-token", "bad-token", "node-token")
READ = "/api/v1/namespaces/default/secrets?resourceVersion=0"


def set_up(server: EmbeddedApiServer) -> None:
    """Two users, each with a namespace and a secret in it that names whose it is."""
    server.authorizer.rules = [ALICE, BOB]
    for namespace, canary in CANARIES.items():
        secret = {
            "metadata": {"name": "canary-of-its-own", "labels": {"team": namespace}},
            "data": {"key": canary.decode()},
        }
        server.create(SECRETS, secret, namespace)


@pytest.fixture
def ruled(server: EmbeddedApiServer) -> EmbeddedApiServer:
    set_up(server)
    return server


def no_foreign_byte(body: bytes, token: str) -> bool:
    seen = {canary for canary in CANARIES.values() if canary in body}
    own = set(CANARIES.values()) - {FOREIGN[token]} if token in FOREIGN else set()
    return seen <= own


@pytest.mark.parametrize("accept", [JSON, PROTOBUF, JSON_META_LIST + ",application/json"])
@pytest.mark.parametrize("warm", [False, True])
async def test_each_reader_gets_what_upstream_gives_him(
    ruled: EmbeddedApiServer, relayed: Relayed, accept: str, *, warm: bool
) -> None:
    """Every read shape, cold and warm; a refusal in upstream's own words."""
    if warm:
        await relayed.through("/api/v1/secrets?resourceVersion=0", accept=accept)
    page = await relayed.direct("/api/v1/secrets?limit=1", accept=accept)
    values = {"rv": ruled.store.revision, "token": token_of(page.body)}
    for target in [at + query.format(**values) for at in COLLECTIONS for query in LISTS]:
        for token in TOKENS:
            direct = await relayed.direct(target, accept=accept, token=token)
            through = await relayed.through(target, accept=accept, token=token)
            assert visible(through) == visible(direct), f"{token} {target}"
            assert no_foreign_byte(through.body, token), f"{token} {target}"
    form = "json-metadata" if "as=" in accept else "json" if accept == JSON else "protobuf"
    assert relayed.upstream_counts("secrets")["watch", form] == 1
    assert next(iter(relayed.desk.feeds.values())).counts.lists > 20


@pytest.mark.parametrize("warm", [False, True])
async def test_each_watcher_gets_what_upstream_gives_him(
    ruled: EmbeddedApiServer, relayed: Relayed, *, warm: bool
) -> None:
    """The whole stream of every way to watch, which ends by itself."""
    if warm:
        await relayed.through("/api/v1/secrets?resourceVersion=0")
    ruled.create(SECRETS, {"metadata": {"name": "news"}}, "default")
    if warm:
        await relayed.through("/api/v1/secrets")
    query = [query.format(rv=ruled.store.revision - 1) for query in WATCHES]
    asked = [(at + one, token) for at in COLLECTIONS for one in query for token in TOKENS]

    async def compare(target: str, token: str) -> int:
        direct, through = await asyncio.gather(
            relayed.direct(target, token=token), relayed.through(target, token=token)
        )
        assert visible(through) == visible(direct), f"{token} {target}"
        assert no_foreign_byte(through.body, token), f"{token} {target}"
        return through.code

    codes = await asyncio.gather(*(compare(*one) for one in asked))
    assert {200, 403, 401} <= set(codes)
    (feed,) = relayed.desk.feeds.values()
    assert feed.counts.watches == 2 * len(WATCHES) - feed.counts.bypasses["history"]
    assert feed.counts.bypasses["history"] == (0 if warm else 2)


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


async def test_a_withdrawn_right_stops_new_reads_within_ten_seconds(
    warp: Warp, ruled: EmbeddedApiServer, relayed: Relayed
) -> None:
    """However many ask meanwhile: a yes is not renewed by being used."""
    assert (await relayed.through(READ, token="alice-token")).code == 200
    ruled.authorizer.rules = [BOB]
    for _ in range(20):
        await warp.spend(0.5)
        await relayed.through(READ, token="alice-token")
    through = await relayed.through(READ, token="alice-token")
    assert through.code == 403
    assert visible(through) == visible(await relayed.direct(READ, token="alice-token"))


async def test_a_withdrawn_right_ends_open_watches_within_sixty_seconds(
    warp: Warp, ruled: EmbeddedApiServer, relayed: Relayed
) -> None:
    """Cleanly, and nobody else's; nothing written after that minute reaches the one it ended."""
    at = ruled.store.revision
    target = f"/api/v1/namespaces/{{}}/secrets?watch=true&resourceVersion={at}"
    streams = [
        await Stream.open(relayed.url, target.format("default"), token="alice-token")
        for _ in range(5)
    ]
    other = await Stream.open(relayed.url, target.format("kube-system"), token="bob-token")
    assert {stream.head.status for stream in (*streams, other)} == {200}
    await warp.spend(30.0)  # somewhere between two renewals
    ruled.authorizer.rules = [BOB]
    await warp.spend(60.0)
    late = {"metadata": {"name": "late"}, "data": {"key": "bGF0ZQ=="}}
    for namespace in CANARIES:
        ruled.create(SECRETS, late, namespace)
    for stream in streams:
        assert await stream.frame() == b""
        stream.close()
    assert b"late" in await other.frame()
    assert relayed.relaying.authorizer.counts.ended == len(streams)
    other.close()


async def test_a_granted_right_is_good_within_ten_seconds_too(
    warp: Warp, ruled: EmbeddedApiServer, relayed: Relayed
) -> None:
    ruled.authorizer.rules = [BOB]
    assert (await relayed.through(READ, token="alice-token")).code == 403
    ruled.authorizer.rules = [ALICE, BOB]
    await warp.spend(10.5)
    assert (await relayed.through(READ, token="alice-token")).code == 200


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
