"""Whatever becomes of upstream, for however long: what readers of the relay may rely on.

Minutes pass when a test says so: timers fire in their order, retries are made and promises lapse,
over real sockets, while nobody waits.
"""

from __future__ import annotations

import json
import re
import time

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.faults import Fault
from apiguard.demo.resources import PODS
from apiguard.gateway.feeds import Feed
from apiguard.policy.relayconfig import RelayAuthorization, RelayedResource
from apiguard.relay.reflector import Phase
from tests.net.traffic.waiting import eventually

from .conftest import StartRelay
from .guarding import (
    JSON,
    JSON_META,
    JSON_META_LIST,
    PROTOBUF,
    PROTOBUF_META,
    PROTOBUF_META_LIST,
    Relayed,
    pod,
)
from .streams import Stream
from .warping import Warp

LIST = "/api/v1/pods?resourceVersion=0"
WATCH = "/api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion={}"
FORMS = (
    (JSON, JSON),
    (PROTOBUF, PROTOBUF),
    (JSON_META_LIST, JSON_META),
    (PROTOBUF_META_LIST, PROTOBUF_META),
)
"""Accept of a list, and of a watch of the same cache."""

_AWAY = re.compile(r'299 - "apiguard: the API server is away, (\d+) s old"')


def age_told(warning: str | None) -> int:
    """Seconds of age in a Warning; -1 without one."""
    found = _AWAY.fullmatch(warning or "")
    return int(found[1]) if found else -1


def only_feed(relayed: Relayed) -> Feed:
    (feed,) = relayed.desk.feeds.values()
    return feed


async def away(relayed: Relayed) -> None:
    await relayed.server.kill()
    feeds = relayed.desk.feeds.values()
    await eventually(lambda: all(feed.lost_at for feed in feeds), "upstream missed")


async def back(relayed: Relayed, warp: Warp) -> None:
    await relayed.server.listen()
    await warp.spend(20.0)
    feeds = relayed.desk.feeds.values()
    await eventually(lambda: not any(feed.lost_at for feed in feeds), "upstream heard again")


# -- upstream is away --------------------------------------------------------------------------


async def test_ten_minutes_without_upstream_cost_nobody_a_list(
    warp: Warp, start: StartRelay
) -> None:
    """Lists are answered with their age, watches stay open and begin anew from what is known; when
    upstream is back, everybody goes on where he was."""
    relayed = await start(pods=20)
    server = relayed.server
    before = {listed: await relayed.through(LIST, accept=listed) for listed, _ in FORMS}
    target = WATCH.format(server.store.revision)
    streams = [await Stream.open(relayed.url, target, accept=watched) for _, watched in FORMS]
    await away(relayed)
    ages = [-1]
    for _ in range(30):
        await warp.spend(20.0)
        for listed, _ in FORMS:
            found = await relayed.through(LIST, accept=listed)
            assert (found.code, found.body) == (200, before[listed].body), relayed.desk.bypasses
            ages.append(age_told(found.value("Warning")))
            assert ages[-1] >= max(ages) - 1 >= 0  # feeds were last heard at different seconds
        at_least = f"/api/v1/pods?resourceVersion={server.store.revision}"
        assert (await relayed.through(at_least)).code == 200
        resumed = await Stream.open(relayed.url, target)
        assert resumed.head.status == 200
        resumed.close()
    assert max(ages) >= 599
    stale = sum(feed.counts.stale for feed in relayed.desk.feeds.values())
    assert stale == 30 * (len(FORMS) + 1)
    late = await Stream.open(relayed.url, target)
    await back(relayed, warp)
    server.create(PODS, pod("later"), "default")
    for stream in (*streams, late):
        frame = await stream.frame()
        while b"BOOKMARK" in frame:
            frame = await stream.frame()
        assert b"later" in frame
        stream.close()
    counts = relayed.upstream_counts("pods")
    for form in ("json", "protobuf", "protobuf-metadata"):
        assert counts["list", form] == 1
    # Metadata in JSON is what the guard compares itself by: on return, and when a digest is due.
    assert counts["list", "json-metadata"] <= 1 + 2 * len(FORMS)
    assert age_told((await relayed.through(LIST)).value("Warning")) == -1


async def test_what_upstream_said_of_a_caller_holds_as_long_as_configured(
    warp: Warp, start: StartRelay
) -> None:
    """Its token and its permission: a yes of before, while there is no answer; then nothing."""
    relayed = await start(authorization=RelayAuthorization(stale_allow_seconds=300))
    server = relayed.server
    await relayed.through(LIST)
    stream = await Stream.open(relayed.url, WATCH.format(server.store.revision))
    await away(relayed)
    await warp.spend(280.0)
    assert (await relayed.through(LIST)).code == 200
    assert (await relayed.through(LIST, token="never-seen")).code == 503
    assert only_feed(relayed).watchers == 1
    await warp.spend(40.0)
    assert (await relayed.through(LIST)).code == 503
    assert only_feed(relayed).watchers == 0
    while frame := await stream.frame():
        assert b"BOOKMARK" in frame
    stream.close()


async def test_old_answers_have_an_age_at_which_they_end_but_resuming_has_none(
    warp: Warp, start: StartRelay
) -> None:
    """A watch from a revision shows nothing old, so it may begin whatever the age."""
    relayed = await start(resources=(RelayedResource("", "v1", "pods", stale_seconds=60),))
    server = relayed.server
    await relayed.through(LIST)
    (await Stream.open(relayed.url, WATCH.format(server.store.revision))).close()
    await away(relayed)
    await warp.spend(55.0)
    assert (await relayed.through(LIST)).code == 200
    await warp.spend(10.0)
    found = await relayed.through(LIST)
    assert found.code == 503
    assert found.value("Retry-After")
    initial = "/api/v1/pods?watch=true&resourceVersion=0"
    assert (await relayed.through(initial)).code == 503
    stream = await Stream.open(relayed.url, WATCH.format(server.store.revision))
    await back(relayed, warp)
    server.create(PODS, pod("later"), "default")
    frame = await stream.frame()
    while b"BOOKMARK" in frame:
        frame = await stream.frame()
    assert b"later" in frame
    stream.close()
    assert (await relayed.through(LIST)).code == 200


async def test_an_idle_cache_is_kept_while_there_is_nothing_else_to_read(
    warp: Warp, start: StartRelay
) -> None:
    resource = RelayedResource("", "v1", "pods", idle_seconds=30, stale_seconds=200)
    relayed = await start(resources=(resource,))
    await relayed.through(LIST)
    await away(relayed)
    await warp.spend(150.0)
    assert (await relayed.through(LIST)).code == 200
    await warp.spend(100.0)
    assert not only_feed(relayed).ready
    assert only_feed(relayed).rests == "idle"


async def test_one_resource_that_fails_is_no_outage(
    warp: Warp, relayed: Relayed, server: EmbeddedApiServer
) -> None:
    """Weaker proofs are for an upstream that nobody reaches: see ``identity.proof``."""
    await relayed.through(LIST)
    feed = only_feed(relayed)
    server.faults.add(Fault(resources=("pods",), user_agent="apiguard-relay", code=500))
    server.control.end_watches()
    await eventually(lambda: feed.lost_at, "pods missed")
    await warp.spend(60.0)
    assert relayed.relaying.reachable()
    assert age_told((await relayed.through(LIST)).value("Warning")) >= 60
    await away(relayed)
    await warp.spend(20.0)
    assert not relayed.relaying.reachable()


async def test_a_watch_that_fell_silent_is_resumed_without_a_list(
    warp: Warp, relayed: Relayed, server: EmbeddedApiServer
) -> None:
    """Bookmarks that do not come are how a connection that leads nowhere shows."""
    target = WATCH.format(server.store.revision)
    stream = await Stream.open(relayed.url, target)
    watches = relayed.upstream_counts("pods")["watch", "json"]
    server.control.stall_watches()
    server.create(PODS, pod("unheard"), "default")
    await warp.spend(140.0, step=1.0)
    assert relayed.upstream_counts("pods")["watch", "json"] == watches
    await warp.spend(15.0, step=1.0)
    server.control.resume_watches()
    await warp.spend(1.0)
    assert b"unheard" in await event_frame(stream)
    counts = relayed.upstream_counts("pods")
    assert counts["watch", "json"] == watches + 1
    assert counts["list", "json"] == 1
    stream.close()


# -- what is held is in doubt ------------------------------------------------------------------


async def test_nobody_is_answered_from_a_cache_that_a_digest_contradicts(
    warp: Warp, relayed: Relayed, server: EmbeddedApiServer
) -> None:
    """Readers go upstream until it is filled anew; streams end with 410, spread over time."""
    await relayed.through(LIST)
    feed = only_feed(relayed)
    streams = [
        await Stream.open(relayed.url, WATCH.format(server.store.revision)) for _ in range(8)
    ]
    spoil(feed)
    feed.digest_at = time.monotonic()
    while not feed.counts.mismatches:
        await warp.spend(0.05, step=0.05)
    assert feed.phase is Phase.DOUBTED
    found = await relayed.through(LIST)
    assert len(json.loads(found.body)["items"]) == 30
    assert relayed.desk.bypasses["doubted"] == 1
    await warp.spend(1.0)
    await eventually(lambda: feed.ready, "filled anew")
    assert len(json.loads((await relayed.through(LIST)).body)["items"]) == 30
    ended = []
    for _ in range(21):
        await warp.spend(1.0)
        ended.append(len(streams) - feed.watchers)
    assert ended[-1] == len(streams)
    assert ended[1] < len(streams)
    for stream in streams:
        event = await stream.event()
        while event["type"] == "BOOKMARK":
            event = await stream.event()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert await stream.frame() == b""
        stream.close()


def spoil(feed: Feed) -> None:
    """An object is missing, as if its event had been lost."""
    cache = feed.cache
    assert cache is not None
    cache._items.remove("default/web-001")
    cache._advance(cache.revision, cache.refreshed_at)


async def test_another_storage_is_noticed_where_no_connection_was_lost(
    relayed: Relayed, server: EmbeddedApiServer
) -> None:
    """Behind a load balancer watches just end, and begin anew at an older revision."""
    backup = server.control.backup()
    server.create(PODS, pod("lost"), "default")
    await relayed.through(LIST)
    stream = await Stream.open(relayed.url, WATCH.format(server.store.revision))
    server.control.restore(backup)
    event = await stream.event()
    while event["type"] == "BOOKMARK":
        event = await stream.event()
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    await eventually(lambda: only_feed(relayed).ready, "filled anew")
    assert (await relayed.through(LIST)).body == (await relayed.direct(LIST)).body
    stream.close()


async def test_digests_are_compared_every_five_minutes_unless_upstream_is_in_trouble(
    warp: Warp, relayed: Relayed
) -> None:
    await relayed.through(LIST)
    feed = only_feed(relayed)
    for number in range(3):
        await warp.spend(360.0, step=1.0)
        await relayed.through(LIST)
        assert number + 1 <= feed.counts.digests <= 2 * (number + 1)
    assert feed.counts.mismatches == 0
    await away(relayed)
    before = feed.counts.digests
    await warp.spend(700.0, step=1.0)
    assert feed.counts.digests == before


async def test_streams_of_a_resource_that_grew_too_large_end_one_after_the_other(
    warp: Warp, start: StartRelay
) -> None:
    """The cache rests, its readers go upstream."""
    relayed = await start(resources=(RelayedResource("", "v1", "pods", memory_bytes=65_536),))
    server = relayed.server
    await relayed.through(LIST)
    feed = only_feed(relayed)
    streams = [
        await Stream.open(relayed.url, WATCH.format(server.store.revision)) for _ in range(8)
    ]
    large = pod("large")
    large["metadata"]["annotations"] = {"pad": "x" * 70_000}
    server.create(PODS, large, "default")
    await eventually(lambda: feed.rests == "ceiling", "the ceiling reached")
    await warp.spend(2.0)
    assert feed.watchers > 0
    await warp.spend(20.0)
    assert feed.watchers == 0
    assert feed.cache is not None
    assert feed.cache.size == 0
    direct, through = await relayed.direct(LIST), await relayed.through(LIST)
    assert through.body == direct.body
    for stream in streams:
        event = await stream.event()
        while event["type"] != "ERROR":
            event = await stream.event()
        assert event["object"]["code"] == 410
        assert await stream.frame() == b""
        stream.close()


# -- slow readers ------------------------------------------------------------------------------


async def test_a_watcher_that_accepts_nothing_for_a_minute_is_cut(
    warp: Warp, relayed: Relayed, server: EmbeddedApiServer
) -> None:
    """One that takes a little now and then is not."""
    target = WATCH.format(server.store.revision)
    dead = await Stream.open(relayed.url, target, receive_buffer=4096)
    slow = await Stream.open(relayed.url, target, receive_buffer=4096)
    quick = await Stream.open(relayed.url, target)
    feed = only_feed(relayed)
    for number in range(300):
        server.create(PODS, large_pod(f"big-{number:03}"), "default")
        assert b"big-" in await event_frame(quick)
    assert feed.fanout is not None
    await eventually(lambda: feed.fanout and feed.fanout.lagging == 2, "both behind")
    for _ in range(8):
        await warp.spend(10.0)
        assert b"big-" in await event_frame(slow)
    await warp.spend(2.0)
    assert feed.watchers == 2
    assert await dead.broken()
    for number in range(8, 300):
        assert b"big-%03d" % number in await event_frame(slow)
    for stream in (dead, slow, quick):
        stream.close()


async def test_a_watcher_is_told_410_only_when_its_cursor_has_left_the_log(
    start: StartRelay,
) -> None:
    """What it was told before is whole and in order; memory is the log's, whoever lags."""
    relayed = await start(log_bytes=4 << 20, log_events=10)
    server = relayed.server
    target = WATCH.format(server.store.revision)
    slow = await Stream.open(relayed.url, target, receive_buffer=4096)
    quick = await Stream.open(relayed.url, target)
    feed = only_feed(relayed)
    assert feed.cache is not None
    names = [f"big-{number:03}" for number in range(600)]
    for name in names:
        server.create(PODS, large_pod(name), "default")
        assert name.encode() in await event_frame(quick)
        server.store.delete(PODS, f"default/{name}")
        assert b"DELETED" in await event_frame(quick)
        assert feed.cache.log.bytes <= 4 << 20
    assert feed.cache.log.begin > 0
    told = []
    while (event := await slow.event()).get("type") != "ERROR":
        if event["type"] != "BOOKMARK":
            told.append(event["object"]["metadata"]["name"])
    assert event["object"]["code"] == 410
    assert 0 < len(told) < 2 * len(names)
    assert told == [name for name in names for _ in range(2)][: len(told)]
    assert await slow.frame() == b""
    slow.close()
    quick.close()


def large_pod(name: str) -> dict[str, object]:
    value = pod(name)
    value["metadata"]["annotations"] = {"pad": "x" * 30_000}
    return value


async def event_frame(stream: Stream) -> bytes:
    """The next event that is no bookmark."""
    frame = await stream.frame()
    while b'"BOOKMARK"' in frame:
        frame = await stream.frame()
    return frame
