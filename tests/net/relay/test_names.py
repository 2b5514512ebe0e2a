"""What callers make up is kept nowhere for long: names of resources cost bounded memory."""

from __future__ import annotations

import pytest

from apiguard.gateway import feedbook
from apiguard.policy.relayconfig import RelayedResource
from tests.net.traffic.waiting import eventually

from .conftest import StartRelay
from .guarding import RESOURCES
from .test_lists import visible


async def test_names_that_stand_for_nothing_leave_no_feed(start: StartRelay) -> None:
    """They are upstream's to refuse, and for a minute nobody asks again what they are."""
    relayed = await start(resources=(RelayedResource("apps", "v1", "*"),))
    server = relayed.server
    for number in range(40):
        target = f"/apis/apps/v1/invented{number}?resourceVersion=0"
        assert visible(await relayed.through(target)) == visible(await relayed.direct(target))
    assert not relayed.desk.feeds
    assert relayed.desk.bypasses["unknown"] == 40
    asked = len(server.requests)
    await relayed.through("/apis/apps/v1/invented7?resourceVersion=0")
    assert len(server.requests) == asked + 1  # its own, passed on
    assert relayed.desk.bypasses["unknown"] == 41


async def test_feeds_at_rest_make_room_and_those_in_use_do_not(
    start: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedbook, "MOST_FEEDS", 2)
    relayed = await start(
        resources=(RelayedResource("", "v1", "pods", idle_seconds=1), *RESOURCES[1:])
    )
    for resource in ("pods", "secrets"):
        assert (await relayed.through(f"/api/v1/{resource}?resourceVersion=0")).code == 200
    third = "/api/v1/configmaps?resourceVersion=0"
    assert visible(await relayed.through(third)) == visible(await relayed.direct(third))
    assert relayed.desk.bypasses["feeds"] == 1
    await eventually(
        lambda: any(feed.rests == "idle" for feed in relayed.desk.feeds.values()), "at rest"
    )
    assert (await relayed.through(third)).code == 200
    assert {key.resource for key in relayed.desk.feeds} == {"secrets", "configmaps"}
    assert relayed.desk.bypasses["feeds"] == 1
