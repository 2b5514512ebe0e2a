"""What operators see of the relay: one entry per resource and form, whoever holds it."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import msgspec
import pytest

from apiguard.policy.adminconfig import Role
from apiguard.policy.relayconfig import RelayConfig, RelayedResource
from apiguard.runtime.control import Report, Traffic
from apiguard.runtime.fleet import Slot
from apiguard.runtime.mirror import Mirror
from apiguard.runtime.relayreport import (
    CacheName,
    CacheReport,
    CacheState,
    Counts,
    Kind,
    RelayReport,
    ReviewReport,
)
from apiguard.telemetry.counters import Delta
from tests.net.admin.doors import Admin, Door, tell
from tests.net.test_supervisor import eventually

PODS = CacheName("", "v1", "pods", "json")
COUNTS: Counts = {
    (Kind.LISTS, "any"): 5,
    (Kind.LISTS, "recent"): 7,
    (Kind.WATCHES, ""): 3,
    (Kind.EVENTS, ""): 400,
    (Kind.STALE, ""): 2,
    (Kind.BYPASSES, "history"): 1,
}
OF_ALL: Counts = {
    (Kind.BYPASSES, "history"): 1,
    (Kind.BYPASSES, "table"): 6,
    (Kind.REFUSALS, "429"): 4,
    (Kind.REVIEWS, "answered"): 9,
}


def _pods(now: float, **changes: Any) -> CacheReport:
    report = CacheReport(
        PODS,
        CacheState.READY,
        revision=70,
        objects=10,
        bytes=40_000,
        built=1_000,
        logged=2_000,
        heard_at=now - 5,
        event_at=now - 8,
        proven_at=now - 3,
        watchers=4,
        slow=1,
        waiting=2,
        counts=COUNTS,
    )
    return msgspec.structs.replace(report, **changes)


def _relay(*caches: CacheReport) -> RelayReport:
    return RelayReport(caches, 3, OF_ALL, ReviewReport(12, 50.0, 1.5, 20, 4, 0))


@pytest.fixture
async def relaying(admin: Admin) -> Admin:
    """Its worker has said all it will."""
    first = admin.supervisor.slots[0]
    await eventually(lambda: first.mirror.traffic.connections > 0)
    resources = (RelayedResource("", "v1", "pods"), RelayedResource("apps", "v1", "*"))
    supervisor = admin.supervisor
    supervisor.config = dataclasses.replace(supervisor.config, relay=RelayConfig(resources))
    return admin


@pytest.fixture
def viewer(relaying: Admin) -> Door:
    return relaying.door.holding(Role.VIEWER)


async def test_a_guard_without_a_relay_says_that_it_has_none(admin: Admin) -> None:
    viewer = admin.door.holding(Role.VIEWER)
    answer = await viewer.ask("GET", "/v1/relay")
    assert (answer.json["enabled"], answer.json["caches"]) == (False, [])
    one = await viewer.ask("GET", "/v1/relay/pods")
    assert one.code == 404
    assert "relay.resources" in one.message


async def test_what_is_configured_but_was_never_asked_for_is_shown(viewer: Door) -> None:
    caches = (await viewer.ask("GET", "/v1/relay")).json["caches"]
    assert [(one["name"], one["state"], one["form"]) for one in caches] == [
        ("pods", "unused", ""),
        ("*.apps", "unused", ""),
    ]


async def test_a_cache_has_its_figures(relaying: Admin, viewer: Door) -> None:
    tell(relaying.supervisor, _relay(_pods(time.monotonic())))
    answer = (await viewer.ask("GET", "/v1/relay")).json
    pods, apps = answer["caches"]
    assert apps["state"] == "unused"
    assert (pods["name"], pods["form"], pods["state"], pods["objects"]) == (
        "pods",
        "json",
        "ready",
        10,
    )
    assert pods["resourceVersion"] == "70"
    assert pods["bytes"] == {"objects": 40_000, "indexes": 6_000, "bodies": 1_000, "log": 2_000}
    assert (pods["watchers"], pods["slowWatchers"], pods["waiting"]) == (4, 1, 2)
    assert pods["lists"] == {"recent": 7, "any": 5}
    assert (pods["watches"], pods["events"], pods["staleReads"]) == (3, 400, 2)
    assert pods["bypasses"] == {"history": 1}
    lag = pods["lag"]
    assert lag["lostSeconds"] == 0.0
    assert 3.0 <= lag["provenSecondsAgo"] < lag["heardSecondsAgo"] < lag["eventSecondsAgo"]
    assert answer["bypasses"] == {"table": 6, "history": 1}
    assert (answer["refusals"], answer["waiting"]) == ({"429": 4}, 3)
    assert answer["reviews"]["budgetPerSecond"] == 50.0
    assert answer["reviews"]["askedLastSecond"] == 12
    assert answer["reviews"]["stretchedSeconds"] == 1.5


async def test_caches_of_several_workers_are_one_as_bad_as_the_worst(
    relaying: Admin, viewer: Door
) -> None:
    """Memory and watchers add up, objects do not; who has stopped his spoils nothing."""
    supervisor, now = relaying.supervisor, time.monotonic()
    first = supervisor.slots[0]
    slots = [first]
    tell(supervisor, _relay(_pods(now)))
    for index, cache in enumerate(
        (
            _pods(now, state=CacheState.STALE, why="upstream", revision=60, lost_at=now - 30),
            CacheReport(PODS, CacheState.STOPPED, "idle"),
        ),
        start=1,
    ):
        slot = Slot(index, first.listening, Mirror(10, shared=True))
        report = Report(Delta(), (), Traffic(), relay=_relay(cache))
        supervisor.on_report(slot, report)
        slot.mirror.receive(report, now)
        slots.append(slot)
    supervisor.fleet.slots = tuple(slots)
    answer = (await viewer.ask("GET", "/v1/relay")).json
    supervisor.fleet.slots = (first,)
    pods = answer["caches"][0]
    assert (pods["state"], pods["why"]) == ("stale", "upstream")
    assert (pods["objects"], pods["bytes"]["objects"]) == (10, 80_000)
    assert (pods["resourceVersion"], pods["watchers"]) == ("60", 8)
    assert 30.0 <= pods["lag"]["lostSeconds"] < 35.0
    assert pods["lists"]["recent"] == 14
    assert [(one["worker"], one["state"]) for one in pods["workers"]] == [
        (0, "ready"),
        (1, "stale"),
        (2, "stopped"),
    ]
    assert answer["reviews"]["budgetPerSecond"] == 150.0


@pytest.mark.parametrize("asked", ["pods", "deployments", "deployments.apps"])
async def test_one_resource_comes_with_its_elephants_and_hot_keys(
    relaying: Admin, viewer: Door, asked: str
) -> None:
    deployments = CacheName("apps", "v1", "deployments", "json")
    now = time.monotonic()
    tell(relaying.supervisor, _relay(_pods(now), _pods(now, name=deployments)))
    answer = await viewer.ask("GET", f"/v1/relay/{asked}")
    (cache,) = answer.json["caches"]
    assert cache["name"] in (asked, f"{asked}.apps")
    assert cache["elephants"] == [{"object": "a/big", "bytes": 9_000}]
    assert cache["hotKeys"] == [{"object": "a/hot", "changesPerMinute": 12.0}]


async def test_a_resource_the_relay_does_not_know_is_told_with_those_it_does(
    viewer: Door,
) -> None:
    answer = await viewer.ask("GET", "/v1/relay/pod")
    assert answer.code == 404
    assert answer.message.endswith("it knows pods, *.apps")


async def test_the_relay_is_for_viewers(relaying: Admin) -> None:
    metrics = relaying.door.holding(Role.METRICS)
    for target in ("/v1/relay", "/v1/relay/pods"):
        assert (await metrics.ask("GET", target)).code == 403
        assert (await relaying.door.ask("GET", target)).code == 401


async def test_counters_go_on_and_gauges_fall_when_a_worker_ends(relaying: Admin) -> None:
    """A rate over a restart is right, and nobody is counted who left with it."""
    supervisor, metrics = relaying.supervisor, relaying.door.holding(Role.METRICS)
    tell(supervisor, _relay(_pods(time.monotonic())))
    text = (await metrics.ask("GET", "/metrics")).body.decode()
    pods = 'form="json",group="",resource="pods",version="v1"'
    assert f"apiguard_relay_cache_objects{{{pods}}} 10.0" in text
    assert f"apiguard_relay_cache_ready{{{pods}}} 1.0" in text
    assert 'apiguard_relay_lists_total{reading="recent"} 7.0' in text
    assert 'apiguard_relay_bypasses_total{reason="history"} 1.0' in text
    assert "apiguard_relay_stale_reads_total 2.0" in text
    assert "apiguard_relay_review_budget_used_ratio 0.24" in text
    assert 'apiguard_relay_caches{state="ready"} 1.0' in text
    assert 'apiguard_relay_caches{state="unused"} 1.0' in text
    supervisor.slots[0].mirror.forget_worker()
    text = (await metrics.ask("GET", "/metrics")).body.decode()
    assert "apiguard_relay_watchers 0.0" in text
    assert f"apiguard_relay_cache_ready{{{pods}}} 0.0" in text
    assert 'apiguard_relay_lists_total{reading="recent"} 7.0' in text
    tell(supervisor, _relay(_pods(time.monotonic())))
    text = (await metrics.ask("GET", "/metrics")).body.decode()
    assert 'apiguard_relay_lists_total{reading="recent"} 14.0' in text


async def test_a_guard_without_a_relay_exports_nothing_of_it(admin: Admin) -> None:
    text = (await admin.door.holding(Role.METRICS).ask("GET", "/metrics")).body.decode()
    assert "apiguard_relay" not in text
