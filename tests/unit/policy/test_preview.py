"""Preview: what the recorded minutes would have looked like, and what a report says of itself."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.limiter.limiter import ADMITTED, Limiter
from apiguard.policy.compile import compile_policy
from apiguard.policy.config import Enforcement
from apiguard.policy.effects import Effect, Effects
from apiguard.policy.overrides import lay_over, parse_override
from apiguard.policy.policy import Policy
from apiguard.policy.preview import MOST_CLIENTS, MOST_DISTINCT, MOST_RECORDS, MOST_RULES, preview
from apiguard.telemetry.sample import Sample, caller_of, request_of

from .texts import HEAD, policy_text

SHADOW = next(e for e in Enforcement if e not in (Enforcement.ENFORCE, Enforcement.OFF))

FILE = compile_policy(
    policy_text(
        """\
        - {name: nodes, match: {groups: ['system:nodes']}, exempt: true}
        - name: agents
          match: {userAgents: ['agent/*']}
          limits: [{requestsPerSecond: 2, burst: 4, per: [user]}]
        """
    )
)


def sample(
    at: float,
    user: str = "alice",
    agent: str = "agent/1",
    *,
    weight: float = 1.0,
    decision: str = "forwarded",
    groups: tuple[str, ...] = (),
    bytes_out: int = 1000,
    verb: str = "list",
) -> Sample:
    return Sample(
        at=at,
        weight=weight,
        decision=decision,
        code=200,
        rule="agents",
        limit="",
        verb=verb,
        is_resource=True,
        long_running=False,
        api_group="",
        resource="pods",
        subresource="",
        namespace="team-a",
        name="",
        path="",
        shape=7,
        standing="verified" if user else "unverified",
        user=user,
        groups=groups,
        user_agent=agent,
        source="10.0.0.1",
        source_key="",
        impersonated=None,
        bytes_out=bytes_out,
        upstream_seconds=0.25,
    )


def under(*bodies: dict[str, object], policy: Policy = FILE) -> Policy:
    return lay_over(
        policy, [parse_override({"reason": "x", **body}, f"o{i}") for i, body in enumerate(bodies)]
    )


BAN_ALICE: dict[str, object] = {"action": "ban", "match": {"users": ["alice"]}}
QUIET = [sample(float(i), user) for i in range(60) for user in ("alice", "bob")]


def test_a_ban_refuses_what_its_client_sent_and_nothing_else() -> None:
    report = preview(QUIET, FILE, under(BAN_ALICE), 100.0)
    assert report.totals.newly_refused == Effect(60, 60.0, 60_000, 15.0)
    assert report.totals.unchanged == Effect(60, 60.0, 60_000, 15.0)
    assert (report.totals.refused_before, report.totals.refused_after) == (0.0, 60.0)
    first, second = report.clients
    assert (first.user_agent_family, first.user) == ("agent", "alice")
    assert first.effects.newly_refused.requests == 60
    assert (second.user, second.effects.newly_refused.requests) == ("bob", 0)
    assert {row.rule: row.effects.total.requests for row in report.rules} == {
        "override:o0": 60,
        "agents": 60,
    }


def test_an_exemption_frees_the_verified_and_says_whom() -> None:
    storm = [sample(i / 10, user) for i in range(100) for user in ("alice", "")]
    free: dict[str, object] = {"action": "exempt", "match": {"users": ["*"]}}
    report = preview(storm, FILE, under(free), 10.0)
    assert report.totals.exempted.requests == 100
    assert report.totals.refused_before == pytest.approx(2 * (100 - 4 - 19), abs=2)
    assert report.totals.refused_after == pytest.approx(100 - 4 - 19, abs=1)
    assert report.clients[0].user == "alice"


def test_a_scale_refuses_or_admits_in_proportion() -> None:
    steady = [sample(i / 10) for i in range(600)]  # ten a second for a minute, two allowed
    less = preview(steady, FILE, under({"action": "scale", "factor": 0.5}), 60.0).totals
    more = preview(steady, FILE, under({"action": "scale", "factor": 2}), 60.0).totals
    assert less.newly_refused.requests == pytest.approx(60, abs=5)
    assert less.newly_admitted.requests == 0
    assert more.newly_admitted.requests == pytest.approx(120, abs=5)
    assert more.newly_refused.requests == 0


def test_what_only_counts_would_refuse_and_refuses_nothing() -> None:
    steady = [sample(i / 10) for i in range(600)]
    counting = compile_policy(
        policy_text(
            "- {name: all, match: {}, mode: shadow, limits: [{requestsPerSecond: 1, per: [user]}]}"
        )
    )
    totals = preview(steady, FILE, counting, 60.0).totals
    assert totals.would_refuse.requests == pytest.approx(540, abs=3)
    assert totals.refused_after == 0
    observed = preview(steady, FILE, FILE, 60.0, SHADOW).totals
    assert observed.refused_after == 0
    assert observed.would_refuse.requests == pytest.approx(480, abs=5)
    assert preview(steady, FILE, under(BAN_ALICE), 60.0, SHADOW).totals.refused_after == 600
    assert preview(steady, FILE, under(BAN_ALICE), 60.0, Enforcement.OFF).totals.refused_after == 0


# -- properties

BODIES: list[dict[str, object]] = [
    BAN_ALICE,
    {"action": "limit", "match": {"verbs": ["list"]}, "limits": [{"requestsPerSecond": 3}]},
    {"action": "scale", "factor": 0.5},
    {"action": "scale", "factor": 3},
    {"action": "exempt", "match": {"users": ["bob"]}},
    {
        "action": "limit",
        "match": {"userAgents": ["*"]},
        "limits": [{"requestsPerSecond": 5, "per": ["user"]}, {"requestsPerSecond": 9}],
    },
]

SAMPLES = st.lists(
    st.builds(
        sample,
        st.floats(0, 20),
        st.sampled_from(["alice", "bob", ""]),
        st.sampled_from(["agent/1", "kubectl/v1"]),
        weight=st.floats(1, 80),
        decision=st.sampled_from(["forwarded", "refused", "would_refuse", "failed"]),
        verb=st.sampled_from(["list", "get"]),
    ),
    max_size=120,
)


@given(SAMPLES, st.sampled_from(BODIES))
def test_with_weight_one_a_preview_is_what_the_limiters_do(
    records: list[Sample], body: dict[str, object]
) -> None:
    records = [weighing(record, weight=1.0) for record in records]
    candidate = under(body)
    totals = preview(records, FILE, candidate, 20.0).totals
    assert totals.refused_before == _refused(records, FILE)
    assert totals.refused_after == _refused(records, candidate)


def weighing(record: Sample, *, weight: float) -> Sample:
    return msgspec.structs.replace(record, weight=weight)


def _refused(records: Sequence[Sample], policy: Policy) -> int:
    limiter, refused = Limiter(), 0
    for record in sorted(records, key=lambda r: r.at):
        info, caller = request_of(record), caller_of(record)
        flow = policy.match(info, caller)
        if not flow.exempt:
            refused += limiter.acquire(flow, info, caller, record.at) is not ADMITTED
    return refused


@given(SAMPLES, st.sampled_from(BODIES))
def test_every_request_is_in_one_part_and_rows_add_up_to_the_whole(
    records: list[Sample], body: dict[str, object]
) -> None:
    report = preview(records, FILE, under(body), 20.0)
    everything = sum(record.weight for record in records)
    assert report.represented_requests == pytest.approx(everything)
    rows = [report.totals]
    rows += [row.effects for row in report.clients]
    rows += [row.effects for row in report.rules]
    for effects in rows:
        assert _parts(effects) == pytest.approx(effects.total.requests, abs=1e-6)
        refused = effects.newly_refused.requests - effects.newly_admitted.requests
        freed = effects.exempted.requests
        change = effects.refused_after - effects.refused_before
        assert refused - freed - 1e-6 <= change <= refused + 1e-6
    by_client = math.fsum(row.effects.total.requests for row in report.clients)
    by_rule = math.fsum(row.effects.total.requests for row in report.rules)
    assert (by_client, by_rule) == pytest.approx((everything, everything))


def _parts(effects: Effects) -> float:
    parts = (effects.newly_refused, effects.newly_admitted, effects.exempted, effects.unchanged)
    return math.fsum(part.requests for part in parts)


@given(SAMPLES)
def test_the_same_policy_changes_nothing(records: list[Sample]) -> None:
    totals = preview(records, FILE, under(), 20.0).totals
    assert totals.changed == 0
    assert totals.refused_after == totals.refused_before


@pytest.mark.parametrize("kept", [1.0, 0.1, 0.02])
def test_a_sample_of_a_storm_tells_of_the_whole_storm(kept: float) -> None:
    """1,000 requests a second of ten users for 30 s, and a limit of 20 a second each laid over."""
    rng = random.Random(7)
    storm = [sample(i / 1000, f"user-{i % 10}", "storm/1") for i in range(30_000)]
    seen = [weighing(r, weight=1 / kept) for r in storm if rng.random() < kept]
    limit: dict[str, object] = {
        "action": "limit",
        "match": {"userAgents": ["storm/*"]},
        "limits": [{"requestsPerSecond": 20, "per": ["user"]}],
    }
    open_policy = compile_policy(HEAD + "default: {limits: [{requestsPerSecond: 100000}]}\n")
    report = preview(seen, open_policy, under(limit, policy=open_policy), 30.0)
    refused = report.totals.newly_refused.requests / report.represented_requests
    assert refused == pytest.approx(0.8, abs=0.03)


# -- what it says of itself


def test_a_report_says_how_it_was_sampled() -> None:
    records = [sample(5.0, weight=3.0), sample(25.0, weight=7.5), sample(9.0, decision="rejected")]
    report = preview(records, FILE, FILE, 31.0)
    assert (report.sampled_requests, report.represented_requests) == (2, 10.5)
    assert (report.seconds, report.seconds_ago, report.largest_weight) == (20.0, 6.0, 7.5)
    assert report.enforcement == "enforce"
    assert "weighted" in report.method
    assert any("between samples" in caveat for caveat in report.caveats)


def test_nothing_recorded_is_a_report_too() -> None:
    report = preview([], FILE, under(BAN_ALICE), 31.0)
    assert (report.sampled_requests, report.seconds, report.largest_weight) == (0, 0.0, 0.0)
    assert report.totals.total == Effect(0, 0.0, 0, 0.0)
    assert (report.clients, report.rules) == ((), ())


def test_a_record_no_policy_can_judge_is_left_out() -> None:
    odd = msgspec.structs.replace(sample(1.0), standing="emperor")
    assert preview([odd], FILE, FILE, 2.0).sampled_requests == 0


def test_reports_are_bounded_and_name_those_hit_first() -> None:
    rules = "\n".join(
        f"- {{name: r{i}, match: {{users: [user-{i}]}}, limits: [{{requestsPerSecond: 9}}]}}"
        for i in range(200)
    )
    policy = compile_policy(policy_text(rules))
    records = [sample(float(i), f"user-{i}") for i in range(200) for _ in range(3)]
    ban: dict[str, object] = {"action": "ban", "match": {"users": ["user-150"]}}
    report = preview(records, policy, under(ban, policy=policy), 200.0)
    assert (len(report.clients), report.clients_left_out) == (MOST_CLIENTS, 200 - MOST_CLIENTS)
    assert (len(report.rules), report.rules_left_out) == (MOST_RULES, 200 - MOST_RULES)
    assert report.clients[0].user == "user-150"
    assert report.rules[0].rule == "override:o0"
    assert report.totals.total.requests == 600


def test_too_many_distinct_requests_are_thinned_and_still_represented() -> None:
    """A flood of invented names must not make a preview slow: a third of it tells as much."""
    flood = [sample(i / 100, f"user-{i}") for i in range(3 * MOST_DISTINCT)]
    ban: dict[str, object] = {"action": "ban", "match": {"users": ["user-1*"]}}
    report = preview(flood, FILE, under(ban), 200.0)
    assert (report.sampled_requests, report.left_out) == (MOST_DISTINCT, 2 * MOST_DISTINCT)
    assert (report.represented_requests, report.largest_weight) == (3.0 * MOST_DISTINCT, 3.0)
    named = sum(1 for record in flood if record.user.startswith("user-1"))
    assert report.totals.newly_refused.requests == pytest.approx(named, rel=0.01)


def test_of_too_many_records_the_newest_are_replayed() -> None:
    records = [sample(float(i)) for i in range(MOST_RECORDS + 5)]
    report = preview(records, FILE, FILE, MOST_RECORDS + 5.0)
    assert (report.sampled_requests, report.left_out) == (MOST_RECORDS, 5)
    assert report.seconds == MOST_RECORDS - 1
