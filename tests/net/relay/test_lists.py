"""The same LIST directly and through the relay: equal in everything a client can see."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.net.demo.raw import Answer

from .guarding import (
    JSON,
    JSON_META_LIST,
    PROTOBUF,
    PROTOBUF_META_LIST,
    Relayed,
)

FORMS = (JSON, PROTOBUF, JSON_META_LIST, PROTOBUF_META_LIST)
COLLECTIONS = (
    "/api/v1/pods",
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/nowhere/pods",
    "/api/v1/nodes",
    "/api/v1/configmaps",
)
QUERIES = (
    "",
    "?resourceVersion=0",
    "?resourceVersion=0&limit=3",
    "?resourceVersion={rv}",
    "?resourceVersion={rv}&resourceVersionMatch=NotOlderThan",
    "?resourceVersion={rv}&resourceVersionMatch=NotOlderThan&limit=4",
    "?resourceVersion={rv}&resourceVersionMatch=Exact",
    "?resourceVersion={rv}&resourceVersionMatch=Exact&limit=4",
    "?resourceVersion={rv}&limit=4",
    "?limit=4",
    "?limit=500",
    "?labelSelector=app%3Dweb",
    "?labelSelector=app+in+(web,db),!missing&resourceVersion=0",
    "?fieldSelector=metadata.name%3Dweb-004",
    "?fieldSelector=metadata.name%3Dweb-004&resourceVersion=0",
    "?fieldSelector=metadata.namespace!%3Ddefault&resourceVersion=0",
    "?timeoutSeconds=30&resourceVersion=0",
)
POD_QUERIES = (
    "?fieldSelector=spec.nodeName%3Dn1",
    "?fieldSelector=spec.nodeName%3Dn1&resourceVersion=0",
    "?fieldSelector=status.phase%3DPending,spec.nodeName!%3Dn0&resourceVersion=0",
)
ERRORS = (
    "?resourceVersionMatch=NotOlderThan",
    "?resourceVersionMatch=Exact&resourceVersion=0",
    "?resourceVersion=bogus",
    "?resourceVersion=-1",
    "?continue=bogus",
    "?continue=bogus&resourceVersion=5",
    "?sendInitialEvents=true",
    "?limit=x",
    "?labelSelector=a%3D%3D%3Db",
    "?fieldSelector=no.such.field%3Dx",
    "?resourceVersion=999999999",
    "?resourceVersion=999999999&resourceVersionMatch=Exact",
    "?resourceVersion=1&resourceVersionMatch=Exact",
)
_VARIES = {"audit-id", "date", "connection", "x-kubernetes-pf-flowschema-uid"}
_VARIES |= {"x-kubernetes-pf-prioritylevel-uid"}


def visible(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers that mean something and body."""
    headers = [(k.lower(), v) for k, v in answer.headers if k.lower() not in _VARIES]
    return answer.code, sorted(headers), answer.body


def token_of(body: bytes) -> str:
    """The continue token, in whatever form the list is written; "" on the last page."""
    found = re.search(rb"eyJ2Ijoi[A-Za-z0-9_-]+", body)
    return found[0].decode() if found else ""


async def same(relayed: Relayed, target: str, accept: str) -> None:
    # Both at once: what comes from the future is waited for three seconds on either way.
    direct, through = await asyncio.gather(
        relayed.direct(target, accept=accept), relayed.through(target, accept=accept)
    )
    assert visible(through) == visible(direct), f"{target} as {accept}"


@pytest.mark.parametrize("accept", FORMS)
async def test_lists_are_equal(relayed: Relayed, accept: str) -> None:
    """Every row of the table, selectors and pages."""
    version = str(relayed.server.store.revision)
    for collection in COLLECTIONS:
        queries: tuple[str, ...] = QUERIES
        if collection.endswith("pods"):
            queries += POD_QUERIES if "PartialObject" not in accept else ()
        for query in queries:
            await same(relayed, collection + query.format(rv=version), accept)
    served = sum(feed.counts.lists for feed in relayed.desk.feeds.values())
    assert served > len(COLLECTIONS) * len(QUERIES) * 3 // 4, relayed.desk.bypasses


@pytest.mark.parametrize("accept", FORMS)
async def test_errors_are_equal(relayed: Relayed, accept: str) -> None:
    await relayed.through("/api/v1/pods?resourceVersion=0", accept=accept)
    for query in ERRORS:
        await same(relayed, "/api/v1/pods" + query, accept)


@pytest.mark.parametrize("accept", FORMS)
async def test_pages_are_equal_to_the_last(relayed: Relayed, accept: str) -> None:
    """A token of the relay is one upstream accepts, and the other way round."""
    first = f"/api/v1/pods?limit=7&resourceVersion={relayed.server.store.revision}"
    target, pages = first, 0
    while target:
        direct = await relayed.direct(target, accept=accept)
        through = await relayed.through(target, accept=accept)
        assert visible(through) == visible(direct), target
        token = token_of(direct.body)
        target = f"/api/v1/pods?limit=7&continue={token}" if token else ""
        pages += 1
    assert pages == 5
    feed = next(iter(relayed.desk.feeds.values()))
    assert feed.counts.lists == pages


async def test_what_the_relay_cannot_answer_goes_upstream(relayed: Relayed) -> None:
    """Tables, single objects, indented answers, unknown parameters: upstream's own words."""
    await relayed.through("/api/v1/pods?resourceVersion=0")
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    for target, accept in (
        ("/api/v1/pods", table),
        ("/api/v1/pods?pretty=true", JSON),
        ("/api/v1/pods?unheard=of", JSON),
        ("/api/v1/namespaces/default/pods/web-001", JSON),
        ("/api/v1/namespaces/default/nodes", JSON),
        ("/api/v1/pods", "application/yaml"),
        ("/api/v1/pods", "text/html"),
        ("/api/v1/services", JSON),
        ("/apis/apps/v1/nonesuch", JSON),
        ("/apis/apps/v1/deployments", JSON),
    ):
        await same(relayed, target, accept)
