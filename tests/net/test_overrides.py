"""Overrides through a whole guard: in force on every worker, over by themselves, kept."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from apiguard.runtime import overriding
from apiguard.runtime.operations import Operations
from apiguard.runtime.results import (
    Changed,
    Invalid,
    NoSuchOverride,
    OverrideAdded,
    OverrideDeleted,
    OverrideExtended,
    TooMany,
    WouldAdd,
    WouldChange,
)
from tests.net.guarded import ALICE, Client, ask, eventually, guarded, policy, serving

BAN = json.dumps(
    {"action": "ban", "match": {"userAgents": ["telemetry/*"]}, "reason": "INC-7", "ttlSeconds": 60}
)


async def added(operations: Operations, body: str = BAN) -> OverrideAdded:
    answer = await operations.put_override(body, ALICE)
    assert isinstance(answer, OverrideAdded), answer
    return answer


def actions(operations: Operations) -> list[tuple[object, object]]:
    return [(line["action"], line["result"]) for line in operations.audit("actions", 0.0, 100)]


async def test_a_ban_holds_on_every_worker_once_it_is_answered(tmp_path: Path) -> None:
    async with guarded(tmp_path, workers=2) as supervisor:
        clients = [await Client.connect(supervisor) for _ in range(8)]
        assert {await client.ask() for client in clients} == {200}
        begun = time.monotonic()
        answer = await added(supervisor.operations)
        assert time.monotonic() - begun < 1.0
        assert [(one.worker, one.problem) for one in answer.workers] == [(0, ""), (1, "")]
        assert {await client.ask() for client in clients} == {429}
        assert {await client.ask(agent="kubelet/1") for client in clients} == {200}
        deleted = await supervisor.operations.delete_override(answer.override.id, ALICE)
        assert isinstance(deleted, OverrideDeleted)
        assert {await client.ask() for client in clients} == {200}
        assert supervisor.operations.overrides() == []
        assert actions(supervisor.operations)[-2:] == [
            ("override.add", "done"),
            ("override.delete", "done"),
        ]


async def test_an_override_ends_within_half_a_second_of_its_end(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        answer = await added(supervisor.operations, BAN.replace("60", "1"))
        ends = time.monotonic() + answer.override.remaining_seconds
        assert await ask(supervisor) == 429
        client = await Client.connect(supervisor)
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        while await client.ask() == 429:
            assert time.monotonic() < ends + 0.5
            await asyncio.sleep(0.05)
        await eventually(
            lambda: actions(supervisor.operations)[-1] == ("override.expire", "done"), 2.0
        )


async def test_a_replaced_worker_starts_with_the_overrides(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        await added(supervisor.operations)
        worker = supervisor.slots[0].worker
        assert worker is not None
        worker.kill()
        await eventually(lambda: supervisor.restarts["died"] == 1 and serving(supervisor))
        assert await ask(supervisor) == 429
        assert [one.problem for one in supervisor.operations.overrides()[0].workers] == [""]


async def test_a_new_policy_leaves_overrides_in_force(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        await added(supervisor.operations)
        change, told = await supervisor.operations.put_policy(
            policy(5), "policy", generation=1, actor=ALICE, reason="slower"
        )
        assert isinstance(change, Changed)
        assert [one.problem for one in told] == [""]
        assert await ask(supervisor) == 429


async def test_overrides_history_and_record_survive_a_restart(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        answer = await added(supervisor.operations)
        await supervisor.operations.put_policy(
            policy(5), "policy", generation=1, actor=ALICE, reason="slower"
        )
    async with guarded(tmp_path) as again:
        (kept,) = again.operations.overrides()
        assert (kept.id, kept.reason, kept.actor) == (answer.override.id, "INC-7", "alice")
        assert 0 < kept.remaining_seconds <= 60
        assert await ask(again) == 429
        first, second = reversed(again.operations.history())
        assert (first.origin, second.origin) == ("file", "admin")
        assert (second.actor, second.reason, second.active) == ("alice", "slower", True)
        done = [action for action, _ in actions(again.operations)]
        assert done == ["policy.load", "override.add", "policy.put"]


async def test_rolling_back_takes_a_policy_of_the_history_up_again(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        operations = supervisor.operations
        for rate in (5, 6):
            await operations.put_policy(policy(rate), "policy", generation=None, actor=ALICE)
        change, _ = await operations.rollback(None, actor=ALICE, reason="worse")
        assert isinstance(change, Changed)
        assert change.active.revision.policy == policy(5)
        assert operations.history()[0].origin == "rollback of 2"
        change, _ = await operations.rollback(1, actor=ALICE, reason="to the file's")
        assert isinstance(change, Changed)
        assert (change.active.revision.generation, operations.history()[0].origin) == (
            5,
            "rollback of 1",
        )
        assert await operations.generation_text(3) == policy(6)
        assert await operations.generation_text(9) is None


async def test_what_is_refused_changes_nothing_and_is_on_record(tmp_path: Path) -> None:
    async with guarded(tmp_path, settings={"overrides": {"most": 1}}) as supervisor:
        operations = supervisor.operations
        assert isinstance(await operations.put_override("{", ALICE), Invalid)
        no_reason = BAN.replace('"reason": "INC-7", ', "")
        assert isinstance(await operations.put_override(no_reason, ALICE), Invalid)
        unknown = '{"action":"scale","rule":"telemetri","factor":0.5,"reason":"x"}'
        answer = await operations.put_override(unknown, ALICE)
        assert isinstance(answer, Invalid)
        assert "did you mean 'telemetry'" in str(answer.problems[0])
        long = BAN.replace("INC-7", "x" * overriding.MAX_BODY)
        assert isinstance(await operations.put_override(long, ALICE), Invalid)
        first = await added(operations)
        assert await operations.put_override(BAN, ALICE) == TooMany(1)
        assert await operations.delete_override("nothing", ALICE) == NoSuchOverride("nothing")
        assert isinstance(await operations.extend_override(first.override.id, 1e9, ALICE), Invalid)
        assert len(operations.overrides()) == 1
        results = [str(result).partition(":")[0] for _, result in actions(operations)]
        assert results == ["done", *["invalid"] * 4, "done", "too many", "no such override",
                           "invalid"]  # fmt: skip


async def test_extending_moves_the_end(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        answer = await added(supervisor.operations)
        extended = await supervisor.operations.extend_override(answer.override.id, 600, ALICE)
        assert isinstance(extended, OverrideExtended)
        assert 599 < extended.override.remaining_seconds <= 600
    async with guarded(tmp_path) as again:
        assert 500 < again.operations.overrides()[0].remaining_seconds <= 600


async def test_a_dry_run_says_what_it_would_have_done_and_does_nothing(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        operations = supervisor.operations
        client = await Client.connect(supervisor)
        for _ in range(20):
            assert await client.ask() == 200
        await eventually(lambda: len(operations.observing.samples()) >= 10)
        before = len(actions(operations))
        answer = await operations.put_override(BAN, ALICE, dry_run=True)
        assert isinstance(answer, WouldAdd)
        assert answer.preview.totals.newly_refused.requests == pytest.approx(20, abs=10)
        change, _ = await operations.put_policy(
            policy(0), "policy", generation=None, actor=ALICE, dry_run=True
        )
        assert isinstance(change, WouldChange)
        assert change.preview.totals.newly_refused.requests > 0
        assert await client.ask() == 200
        assert len(actions(operations)) == before


async def test_a_worker_that_did_not_confirm_is_told_again(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        operations = supervisor.operations
        id_ = (await added(operations, BAN)).override.id
        slot = supervisor.slots[0]
        slot.overrides = frozenset()  # as after an answer that came too late
        assert [one.problem for one in operations.overrides()[0].workers] == ["not confirmed"]
        await eventually(lambda: slot.overrides == {id_})


async def test_open_watches_and_streams_that_match_end(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        watches = [await Client.connect(supervisor) for _ in range(4)]
        for watch in watches:
            assert await watch.ask("/api/v1/pods?watch=true") == 200
        stream, other = [await Client.connect(supervisor) for _ in range(2)]
        assert await stream.ask("/api/v1/namespaces/a/pods/b/log?follow=true") == 200
        assert await other.ask("/api/v1/pods?watch=true", "kubelet/1") == 200
        ends = {"endWatches": True, "endWatchesSeconds": 1}
        begun = time.monotonic()
        await added(supervisor.operations, json.dumps({**json.loads(BAN), **ends}))
        for watch in watches:
            async with asyncio.timeout(5):
                await watch.reader.readuntil(b"}\n\r\n0\r\n\r\n")
            assert await watch.ask("/api/v1/pods?watch=true") == 429
        async with asyncio.timeout(5):
            rest = await stream.reader.read()
        assert not rest.endswith(b"0\r\n\r\n"), "a cut log must not pass for complete"
        assert time.monotonic() - begun < 3.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await other.reader.readuntil(b"0\r\n\r\n")


async def test_who_asks_is_named_and_counted_as_new(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        client = await Client.connect(supervisor)
        for _ in range(10):
            await client.ask()
        operations = supervisor.operations
        await eventually(lambda: operations.top("userAgent", "1m", "requests", 5).rows)
        (row,) = operations.top("userAgent", "1m", "requests", 5).rows
        assert row.key == {"userAgent": "telemetry"}
        assert operations.first_seen.first("userAgent", "telemetry") is not None


async def test_what_shadow_rules_would_refuse_survives_a_restart(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(policy(0, "shadow"))
    async with guarded(tmp_path) as supervisor:
        for _ in range(3):
            assert await ask(supervisor) == 200
        await eventually(lambda: supervisor.operations.shadow())
        await eventually(lambda: supervisor.operations.shadow()[0].count == 3)
    async with guarded(tmp_path) as again:
        (count,) = again.operations.shadow()
        assert (count.rule, count.count) == ("telemetry", 3)
        assert again.totals.rules["telemetry"]["would_refuse"] == 3


async def test_some_requests_are_put_on_record(tmp_path: Path) -> None:
    async with guarded(tmp_path) as supervisor:
        await ask(supervisor)
        await eventually(lambda: supervisor.operations.audit("requests", 0.0, 10))
        (line,) = supervisor.operations.audit("requests", 0.0, 10)
        assert (line["kind"], line["userAgent"], line["code"]) == ("request", "telemetry/1", 200)
    assert b"telemetry/1" in (tmp_path / "state" / "requests.jsonl").read_bytes()


async def test_nothing_is_recorded_where_that_is_turned_off(tmp_path: Path) -> None:
    off = {"topTalkers": False, "samples": False, "audit": False}
    async with guarded(tmp_path, settings={"observability": off}) as supervisor:
        before = supervisor.totals.connections
        await ask(supervisor)
        await eventually(lambda: supervisor.totals.connections > before)
        operations = supervisor.operations
        assert operations.top("userAgent", "1m", "requests", 5).rows == ()
        assert operations.observing.samples() == ()
        assert operations.audit("requests", 0.0, 10) == []
