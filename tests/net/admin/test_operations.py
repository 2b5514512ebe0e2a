"""Overrides, history, top and audit over HTTP: shapes, refusals, and hostile texts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from apiguard.policy.adminconfig import Role
from apiguard.policy.operatorconfig import ObservabilityConfig
from apiguard.runtime.control import Report, Traffic
from apiguard.telemetry.activity import ActivityRow
from apiguard.telemetry.counters import Delta
from tests.net.admin.doors import Admin, Door

YAML = {"Content-Type": "application/yaml"}
BAN: dict[str, Any] = {
    "action": "ban",
    "match": {"userAgents": ["telemetry/*"]},
    "reason": "INC-7",
    "ttlSeconds": 600,
}
POLICY = """\
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules: []
default: {limits: [{requestsPerSecond: 7}]}
"""


@pytest.fixture
def operator(admin: Admin) -> Door:
    return admin.door.holding(Role.OPERATOR)


@pytest.fixture
def root(admin: Admin) -> Door:
    return admin.door.holding(Role.ADMIN)


async def test_an_override_is_laid_read_extended_and_taken_back(operator: Door) -> None:
    laid = await operator.send("POST", "/v1/overrides", BAN)
    assert laid.code == 201
    id_ = laid.json["id"]
    assert laid.headers["Location"] == f"/v1/overrides/{id_}"
    assert laid.json["match"] == BAN["match"]
    assert laid.json["actor"] == "operator"
    assert laid.json["hits"] == {"refused": 0, "admitted": 0, "lastSecondsAgo": None}
    listed = await operator.ask("GET", "/v1/overrides")
    assert [one["id"] for one in listed.json["overrides"]] == [id_]
    extended = await operator.send("PATCH", f"/v1/overrides/{id_}", {"ttlSeconds": 3_600})
    assert 3_590 < extended.json["remainingSeconds"] <= 3_600
    assert (await operator.ask("DELETE", f"/v1/overrides/{id_}")).json["id"] == id_
    assert (await operator.ask("GET", f"/v1/overrides/{id_}")).code == 404
    assert (await operator.ask("DELETE", f"/v1/overrides/{id_}")).code == 404


async def test_a_dry_run_says_what_it_rests_on_and_lays_nothing(operator: Door) -> None:
    answer = await operator.send("POST", "/v1/overrides?dryRun=All", BAN)
    assert answer.code == 200
    assert answer.json["dryRun"] is True
    assert answer.json["preview"]["sampledRequests"] == 0
    assert "newlyRefused" in answer.json["preview"]["totals"]
    assert (await operator.ask("GET", "/v1/overrides")).json == {"overrides": []}
    wrong = await operator.send("POST", "/v1/overrides?dryRun=Some", BAN)
    assert (wrong.code, wrong.json["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reason": ""}, "reason"),
        ({"action": "nuke"}, "action"),
        ({"ttlSeconds": 10_000_000}, "ttlSeconds"),
        ({"mtach": {}}, "mtach"),
        ({"match": {"userAgent": ["x"]}}, "match.userAgent"),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_by_field(
    operator: Door, change: dict[str, Any], field: str
) -> None:
    answer = await operator.send("POST", "/v1/overrides", {**BAN, **change})
    assert answer.code == 422
    assert field in [cause["field"] for cause in answer.json["details"]["causes"]]


@pytest.mark.parametrize("body", ["", "[]", '{"ttlSeconds":"x"}', '{"ttl":1}', "\xff", "{"])
async def test_an_extension_is_told_what_its_body_may_be(operator: Door, body: str) -> None:
    laid = (await operator.send("POST", "/v1/overrides", BAN)).json["id"]
    json_type = {"Content-Type": "application/json"}
    answer = await operator.ask("PATCH", f"/v1/overrides/{laid}", json_type, body)
    assert answer.code == 400
    assert '{"ttlSeconds": 1800}' in answer.message


async def test_a_policy_keeps_who_and_why_and_can_be_rolled_back(root: Door) -> None:
    put = await root.ask("PUT", "/v1/policy?reason=tighten", YAML, POLICY)
    generation = put.json["generation"]
    newest, first, *_ = (await root.ask("GET", "/v1/policy/history")).json["generations"]
    assert (newest["generation"], newest["reason"]) == (generation, "tighten")
    assert (newest["actor"], newest["active"], first["active"]) == ("admin", True, False)
    text = await root.ask("GET", f"/v1/policy/history/{generation}")
    assert text.body.decode() == POLICY
    assert (await root.ask("GET", "/v1/policy/history/999")).code == 404
    assert (await root.ask("GET", "/v1/policy/history/latest")).code == 400
    for body in ({}, {"reason": ""}, {"reason": "x", "to": 1}, {"reason": "a\nb"}):
        assert (await root.send("POST", "/v1/policy/rollback", body)).code == 400
    gone = await root.send("POST", "/v1/policy/rollback", {"reason": "x", "generation": 999})
    assert gone.code == 404
    back = await root.send("POST", "/v1/policy/rollback", {"reason": "too tight"})
    assert back.code == 200
    assert back.json["generation"] == generation + 1
    assert back.json["digest"] == first["digest"]


async def test_the_record_says_who_did_what_why_and_what_was_forbidden(
    operator: Door, root: Door
) -> None:
    laid = (await operator.send("POST", "/v1/overrides", BAN)).json["id"]
    await operator.send("PUT", "/v1/policy", {})
    await operator.send("PUT", "/v1/enforcement", {"enforcement": "shadow", "reason": "INC-8"})
    events = (await root.ask("GET", "/v1/audit?kind=actions&since=10m")).json["events"]
    told = [(event["actor"], event["action"], event["result"]) for event in events]
    assert ("operator", "override.add", "done") in told
    assert ("operator", "PUT /v1/policy", "forbidden") in told
    assert any(event["target"] == laid and event["reason"] == "INC-7" for event in events)
    assert any(event["reason"] == "INC-8" for event in events)


async def test_the_record_goes_on_after_an_action(operator: Door, root: Door) -> None:
    await operator.send("POST", "/v1/overrides", BAN)
    seen = (await root.ask("GET", "/v1/audit")).json["events"][-1]
    laid = (await operator.send("POST", "/v1/overrides", BAN)).json["id"]
    events = (await root.ask("GET", f"/v1/audit?after={seen['id']}&since=1s")).json["events"]
    assert [event["target"] for event in events] == [laid]
    refused = await root.ask("GET", f"/v1/audit?after={seen['id']}&kind=requests")
    assert (refused.code, "kind=actions" in refused.message) == (400, True)


@pytest.mark.parametrize(
    ("target", "setting"), [("/v1/top", "topTalkers"), ("/v1/audit?kind=requests", "audit")]
)
async def test_what_is_not_recorded_does_not_look_like_rest(
    admin: Admin, operator: Door, target: str, setting: str
) -> None:
    off = ObservabilityConfig(top_talkers=False, samples=False, audit=False)
    admin.supervisor.config = replace(admin.supervisor.config, observability=off)
    answer = await operator.ask("GET", target)
    assert (answer.code, f"observability.{setting} is off" in answer.message) == (409, True)
    assert (await operator.ask("GET", "/v1/audit")).code == 200


async def test_who_may_do_nothing_cannot_fill_the_record(operator: Door, root: Door) -> None:
    for _ in range(200):
        assert (await operator.send("PUT", "/v1/policy", {})).code == 403
    events = (await root.ask("GET", "/v1/audit?limit=10000")).json["events"]
    assert sum(event["result"] == "forbidden" for event in events) < 20


@pytest.mark.parametrize(
    "target",
    [
        "/v1/top?by=nonsense",
        "/v1/top?over=2m",
        "/v1/top?sort=name",
        "/v1/top?limit=0",
        "/v1/top?limit=1e3",
        "/v1/top?since=yesterday",
        "/v1/top?since=-5m",
        "/v1/audit?kind=secrets",
        "/v1/audit?limit=100000",
        "/v1/audit?since=5",
        "/v1/flows?buckets=many",
    ],
)
async def test_a_parameter_out_of_range_is_told_what_is_accepted(
    operator: Door, target: str
) -> None:
    answer = await operator.ask("GET", target)
    assert answer.code == 400
    assert " must be " in answer.message or "one of" in answer.message


async def test_top_names_clients_with_shares_and_escapes_what_they_call_themselves(
    admin: Admin, operator: Door
) -> None:
    hostile = 'evil"\x1b[2J\u2028</script>'
    rows = tuple(
        ActivityRow(user_agent=agent, user="u", source="10.0.0.1", verb="list", resource="pods",
                    requests=requests, bytes_out=10 * requests, upstream_seconds=1.0, unpaged=1)
        for agent, requests in ((hostile, 30), ("kubelet", 10))
    )  # fmt: skip
    admin.supervisor.operations.observing.receive(Report(Delta(), (), Traffic(), activity=rows))
    answer = await operator.ask("GET", "/v1/top?by=userAgent&over=10s&sort=requests")
    first, second = answer.json["rows"]
    assert first["key"] == {"userAgent": hostile}
    assert first["share"]["requests"] == 0.75
    assert (first["requests"], first["unpagedLists"], second["requests"]) == (30, 1, 10)
    assert b"\x1b" not in answer.body
    assert json.loads(answer.body)["totals"]["requests"] == 40
