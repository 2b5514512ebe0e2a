"""Long lists go compressed to who accepts it, where kube-apiserver would do so too."""

from __future__ import annotations

import asyncio
import time

import pytest

from apiguard.demo.resources import PODS
from apiguard.runtime.relayreport import Kind
from apiguard.runtime.relayviews import relay_report
from tests.net.traffic.waiting import eventually

from .conftest import StartRelay
from .guarding import pod
from .test_lists import FORMS, visible

QUERIES = (
    "?resourceVersion=0",
    "",
    "?resourceVersion=0&labelSelector=app%3Dweb",
    "?limit=600",
    "?resourceVersion=0&fieldSelector=metadata.name%3Dweb-004",
)
ENCODINGS = ("gzip", "deflate, gzip", "gzip;q=1.0", "identity", "br")


@pytest.mark.parametrize("accept", FORMS)
async def test_bodies_and_headers_are_equal(start: StartRelay, accept: str) -> None:
    relayed = await start(pods=900)
    compressed = long = 0
    for query in QUERIES:
        for encoding in ENCODINGS:
            options = {"accept": accept, "Accept_Encoding": encoding}
            direct = await relayed.direct("/api/v1/pods" + query, **options)
            through = await relayed.through("/api/v1/pods" + query, **options)
            assert visible(through) == visible(direct), (query, encoding)
            compressed += through.value("content-encoding") == "gzip"
            long += len(direct.body) > 128 << 10 and encoding in ("gzip", "deflate, gzip")
    assert compressed == long
    assert long or "PartialObject" in accept
    assert next(iter(relayed.desk.feeds.values())).counts.lists >= len(ENCODINGS)


async def test_many_readers_cost_one_compression_until_something_changes(
    start: StartRelay,
) -> None:
    relayed = await start(pods=900)
    target = "/api/v1/pods?resourceVersion=0"
    packed = relayed.desk.compressing

    async def read() -> bytes:
        found = await relayed.through(target, Accept_Encoding="gzip")
        assert found.value("content-encoding") == "gzip"
        return found.body

    first = await asyncio.gather(*(read() for _ in range(40)))
    pieces = packed.packed
    assert 1 <= pieces <= len(first[0]) // (200 << 10) + 1
    assert len({*first, await read()}) == 1
    assert packed.packed == pieces
    relayed.server.create(PODS, pod("news"), "default")
    feed = next(iter(relayed.desk.feeds.values()))
    await eventually(lambda: feed.cache and feed.cache.count == 901, "the change seen")
    assert b"news" in await read()
    assert packed.packed > pieces
    counts = relay_report(relayed.desk, time.monotonic()).counts
    assert counts[Kind.PACKED, ""] == packed.packed


async def test_a_reader_who_leaves_while_a_piece_is_compressed_holds_up_nobody(
    start: StartRelay,
) -> None:
    relayed = await start(pods=900)
    target = "/api/v1/pods?resourceVersion=0"
    await relayed.through(target)
    tasks = [
        asyncio.ensure_future(relayed.through(target, Accept_Encoding="gzip")) for _ in range(6)
    ]
    await asyncio.sleep(0)
    for task in tasks[:3]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one for one in done[3:] if isinstance(one, BaseException)] == []
    await eventually(lambda: not relayed.desk._lobby.places, "nobody left at the desk")
