"""A policy's rules send classes of clients to the relay, past it, or to what it merely holds."""

from __future__ import annotations

import json
import time

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.faults import Fault
from apiguard.demo.resources import PODS
from apiguard.policy.compile import compile_policy
from tests.unit.policy.texts import HEAD

from .guarding import Relayed, pod
from .test_lists import visible

LIMITS = "limits: [{requestsPerSecond: 100000}]"
POLICY = f"""{HEAD}rules:
- {{name: past, match: {{users: [guard]}}, {LIMITS}, relay: bypass}}
- {{name: relaxed, match: {{users: [admin]}}, {LIMITS}, relaxedReads: true}}
default: {{{LIMITS}}}
"""
LIST = "/api/v1/pods"


@pytest.fixture
def ruled(relayed: Relayed) -> Relayed:
    relayed.guard.gateway.apply_policy(compile_policy(POLICY), time.monotonic())
    return relayed


async def test_a_class_sent_past_the_relay_is_upstreams_own(ruled: Relayed) -> None:
    """Also on its first request, before its token has told who it is."""
    for _ in range(2):
        direct = await ruled.direct(LIST, token="guard-token")
        assert visible(await ruled.through(LIST, token="guard-token")) == visible(direct)
    assert ruled.desk.bypasses["rule"] == 2
    assert not ruled.desk.feeds


async def test_relaxed_reads_ask_upstream_nothing_and_tell_their_real_revision(
    server: EmbeddedApiServer, ruled: Relayed
) -> None:
    await ruled.through(LIST + "?resourceVersion=0")
    held = server.store.revision
    for fault in ("list", "watch"):
        server.faults.add(Fault(verbs=(fault,), user_agent="apiguard-relay", hang=True))
    feed = next(iter(ruled.desk.feeds.values()))
    for target in (LIST, LIST + "?limit=500", LIST + "?labelSelector=app%3Dweb"):
        found = await ruled.through(target)
        assert found.code == 200
        assert json.loads(found.body)["metadata"]["resourceVersion"] == str(held)
    assert feed.counts.proofs == 0


async def test_everybody_else_sees_his_own_write(server: EmbeddedApiServer, ruled: Relayed) -> None:
    """Relaxed for one class is consistent for the other, on the same cache."""
    target = LIST + "?fieldSelector=spec.nodeName%3Dn1"
    await ruled.through(LIST + "?resourceVersion=0")
    for number in range(5):
        server.create(PODS, pod(f"own-{number}"), "default")
        found = await ruled.through(target, token="node-token")
        assert f"own-{number}".encode() in found.body
    feed = next(iter(ruled.desk.feeds.values()))
    assert feed.counts.proofs >= 5
