"""What a guard noticed survives its death, and a disk that takes no more spoils nothing."""

from __future__ import annotations

import json
import resource
import signal
from typing import Any

import pytest

from tests.e2e.guard import Guard, until

pytestmark = pytest.mark.e2e

SHADOW = """\
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
  - name: watched
    match: {userAgents: ["agent/*"]}
    mode: shadow
    limits: [{requestsPerSecond: 0}]
default:
  limits: [{requestsPerSecond: 1000, burst: 1000}]
"""
BAN = {"action": "ban", "match": {"userAgents": ["agent/*"]}, "reason": "a full disk"}
REQUESTS = 7
NOTHING = 0  # bytes a file may grow to


def would_refuse(guard: Guard) -> int:
    rules = guard.admin("GET", "/v1/flows").json["rules"]
    (found,) = [rule["requests"] for rule in rules if rule["rule"] == "watched"]
    return int(found["wouldRefuse"])


def first_seen(guard: Guard, agent: str) -> str | None:
    """When the guard says it first saw ``agent``; None while it does not show it."""
    rows: list[dict[str, Any]] = guard.admin("GET", "/v1/top?over=10s").json["rows"]
    found = [row["firstSeen"] for row in rows if row["key"]["userAgent"] == agent]
    return found[0] if found else None


def noticed(guard: Guard) -> list[dict[str, Any]]:
    """The journal, a document a line."""
    journal = guard.directory / "state" / "memory.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()]


def test_shadow_counts_survive_a_kill(guard: Guard) -> None:
    guard.write_policy(SHADOW)
    guard.start()
    for _ in range(REQUESTS):
        assert guard.get(agent="agent/1").code == 200
    until("they are counted", lambda: would_refuse(guard) == REQUESTS)
    until(
        "they are written",
        lambda: ["watched", REQUESTS] in [line.get("shadow", [])[:2] for line in noticed(guard)],
    )
    guard.signal(signal.SIGKILL)
    guard.exit_code()
    guard.start()
    assert would_refuse(guard) == REQUESTS


def test_first_sightings_survive_a_kill(guard: Guard) -> None:
    """Of whoever came more than once: what is seen once is not worth a line."""
    guard.start()

    def visited() -> bool:
        assert guard.get(agent="visitor/1").code == 200
        return ["userAgent", "visitor"] in [line.get("seen", [])[:2] for line in noticed(guard)]

    until("the visitor is written", visited)
    seen = first_seen(guard, "visitor")
    assert seen is not None
    guard.signal(signal.SIGKILL)
    guard.exit_code()
    guard.start()
    assert guard.get(agent="visitor/1").code == 200
    assert until("the visitor is shown", lambda: first_seen(guard, "visitor")) == seen


def test_a_disk_that_takes_no_more_refuses_changes_and_lets_traffic_pass(guard: Guard) -> None:
    """Whole: neither in force nor on record afterwards, and once there is room all goes on."""
    guard.start()
    pid = guard.process.pid
    before = guard.admin("GET", "/v1/policy").json
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (NOTHING, hard))
    for method, target, body in (
        ("POST", "/v1/overrides", json.dumps(BAN)),
        ("PUT", "/v1/policy", SHADOW),
        ("PUT", "/v1/enforcement", '{"enforcement": "off", "reason": "a full disk"}'),
    ):
        answer = guard.admin(method, target, body)
        assert answer.code == 507, (target, answer.text)
        assert guard.get(agent="agent/1").code == 200
    assert guard.admin("GET", "/v1/overrides").json["overrides"] == []
    assert guard.admin("GET", "/v1/policy").json == before
    assert guard.admin("GET", "/v1/top?over=10s").code == 200

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    made = guard.admin("POST", "/v1/overrides", json.dumps(BAN))
    assert made.code == 201, made.text
    assert guard.get(agent="agent/1").code == 429
    guard.signal(signal.SIGKILL)
    guard.exit_code()
    guard.start()
    (kept,) = guard.admin("GET", "/v1/overrides").json["overrides"]
    assert kept["id"] == made.json["id"]
    events = guard.admin("GET", "/v1/audit?kind=actions").json["events"]
    done = [event for event in events if event["result"] == "done"]
    assert [event["action"] for event in done].count("override.add") == 1
