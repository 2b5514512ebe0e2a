"""What operators did is still so after the guard was restarted."""

from __future__ import annotations

from pathlib import Path

from apiguard.runtime.actor import Actor
from apiguard.runtime.control import Report, Traffic
from apiguard.runtime.results import Drained, OverrideAdded
from apiguard.telemetry.counters import OVERRIDE_PREFIX, Delta
from tests.net.test_supervisor import supervised

ALICE = Actor("alice", "operator", "unix", "unix")
SERVERS = ("http://127.0.0.1:1", "http://127.0.0.1:2")
BAN = '{"action": "ban", "match": {"userAgents": ["a/*"]}, "reason": "INC-7"}'


async def test_a_drained_server_stays_drained_until_somebody_undrains_it(tmp_path: Path) -> None:
    async with supervised(tmp_path, "good", servers=SERVERS) as (guard, _):
        second = guard.prober.servers[1]
        assert isinstance(await guard.operations.set_drained(second, True, actor=ALICE), Drained)
    async with supervised(tmp_path, "good", servers=SERVERS) as (guard, _):
        assert [server.drained for server in guard.prober.servers] == [False, True]
        second = guard.prober.servers[1]
        assert isinstance(await guard.operations.set_drained(second, False, actor=ALICE), Drained)
    async with supervised(tmp_path, "good", servers=SERVERS) as (guard, _):
        assert not any(server.drained for server in guard.prober.servers)


async def test_drains_follow_the_server_and_never_leave_none(tmp_path: Path) -> None:
    """When the configuration names others than before."""
    async with supervised(tmp_path, "good", servers=SERVERS) as (guard, _):
        await guard.operations.set_drained(guard.prober.servers[1], True, actor=ALICE)
    async with supervised(tmp_path, "good", servers=SERVERS[::-1]) as (guard, _):
        assert [server.drained for server in guard.prober.servers] == [True, False]
    async with supervised(tmp_path, "good", servers=SERVERS[1:]) as (guard, _):
        assert [server.drained for server in guard.prober.servers] == [False]


async def test_hits_of_an_override_go_on(tmp_path: Path) -> None:
    async with supervised(tmp_path, "good") as (guard, _):
        added = await guard.operations.put_override(BAN, ALICE)
        assert isinstance(added, OverrideAdded)
        name = OVERRIDE_PREFIX + added.override.id
        delta = Delta(requests={(name, "refused", "list", 429): 7})
        guard.on_report(guard.slots[0], Report(delta, (), Traffic()))
    async with supervised(tmp_path, "good") as (guard, _):
        guard.on_report(guard.slots[0], Report(delta, (), Traffic()))
        hits = guard.operations.override_hits(added.override.id)
        assert hits is not None
        assert hits.refused == 14
