"""Overrides: what a body may say, in what order they hold, and what they leave alone."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.errors import ConfigError
from apiguard.kube.identity import Caller, Standing
from apiguard.kube.requestinfo import RequestInfo, parse_request
from apiguard.limiter.flow import BucketSpec, Flow, Mode, Per
from apiguard.limiter.limiter import ADMITTED, Limiter
from apiguard.policy.compile import compile_policy
from apiguard.policy.overrides import (
    Action,
    Override,
    OverrideRequest,
    lay_over,
    matches,
    misses,
    parse_override,
    read_override,
)
from apiguard.policy.policy import Policy

from .test_match import ALICE, GENEROUS, NOBODY, PODS, UNVERIFIED, acting_as, caller, limits_of
from .test_match import _callers as callers
from .test_match import _policies as policies
from .test_match import _requests as requests
from .texts import policy_text

LIST_PODS = parse_request("GET", PODS)
MASTER = caller("admin", "system:masters", agent="kubectl/v1")
GLASS = caller("glass", "system:masters", agent="kubectl/v1")

FILE = compile_policy(
    policy_text(
        """\
        - {name: masters, match: {groups: ['system:masters']}, exempt: true}
        - {name: as-admin, match: {impersonatedUsers: [admin]}, limits: [{requestsPerSecond: 1}]}
        - name: alices
          match: {users: [alice]}
          limits: [{requestsPerSecond: 10, burst: 20, per: [user]}, {requestsPerSecond: 0.5}]
        - name: counted
          match: {users: [bob]}
          mode: shadow
          limits: [{requestsPerSecond: 4}]
        - name: staged
          match: {users: [carol]}
          percent: 30
          limits: [{requestsPerSecond: 4, per: [verb]}]
        """
    )
)


def override(
    id_: str, action: str, match: Mapping[str, object] | None = None, **more: object
) -> Override:
    body: dict[str, object] = {"action": action, "reason": "test", **more}
    if match is not None:
        body["match"] = match
    return parse_override(body, id_)


def ban(id_: str = "ban", **match: object) -> Override:
    return override(id_, "ban", match or {"userAgents": ["*"]})


def scale(factor: float, rule: str | None = None) -> Override:
    more: dict[str, object] = {} if rule is None else {"rule": rule}
    return override("scale", "scale", None, factor=factor, **more)


def limited(id_: str, rate: float, **match: object) -> Override:
    return override(id_, "limit", match, limits=[{"requestsPerSecond": rate, "per": ["user"]}])


def flow_of(overrides: Sequence[Override], who: Caller = ALICE, *glass: str) -> Flow:
    return lay_over(FILE, overrides, glass).match(LIST_PODS, who)


# -- order


def test_a_ban_holds_even_those_the_policy_exempts() -> None:
    assert flow_of([], MASTER).exempt
    flow = flow_of([ban(groups=["system:masters"])], MASTER)
    assert (flow.name, flow.exempt, flow.mode) == ("override:ban", False, Mode.ALWAYS)
    assert [limit.bucket for limit in flow.limits] == [BucketSpec(0, 0)]


def test_break_glass_passes_bans_and_every_other_rule() -> None:
    everything = [ban(), limited("l", 1, userAgents=["*"]), scale(0)]
    flow = flow_of(everything, GLASS, "glass")
    assert (flow.name, flow.exempt) == ("break-glass", True)
    assert flow_of(everything, MASTER, "glass").name == "override:ban"
    assert flow_of(everything, acting_as("admin", GLASS), "glass").name == "break-glass"


@pytest.mark.parametrize(
    "who",
    [
        dataclasses.replace(GLASS, standing=Standing.UNVERIFIED, identity=None),
        dataclasses.replace(GLASS, standing=Standing.ANONYMOUS),
        caller("glass2"),
        caller("g2"),
        acting_as("glass"),
    ],
)
def test_break_glass_is_a_name_proven_and_exact(who: Caller) -> None:
    """No claim, no glob and no impersonation makes one a break-glass user."""
    assert flow_of([ban()], who, "glass", "g*").name == "override:ban"
    assert flow_of([ban()], caller("g*"), "glass", "g*").name == "break-glass"


@pytest.mark.parametrize("first", [True, False])
def test_nothing_but_break_glass_loosens_a_ban(first: bool) -> None:
    """Neither an exemption nor a limit laid over it later, or before it."""
    banned = ban(users=["alice"])
    for other in (
        override("free", "exempt", {"users": ["alice"]}),
        limited("l", 1_000, users=["alice"]),
        limited("i", 1_000, impersonatedUsers=["*"]),
        scale(100),
    ):
        flow = flow_of([banned, other] if first else [other, banned], acting_as("eve"))
        limiter = Limiter()
        assert limiter.acquire(flow, LIST_PODS, acting_as("eve"), 0.0) is not ADMITTED
        assert flow.mode is Mode.ALWAYS


def test_of_other_overrides_the_newest_holds() -> None:
    older, newer = limited("older", 1, userAgents=["*"]), limited("newer", 2, users=["alice"])
    assert flow_of([older, newer]).name == "override:newer"
    assert flow_of([newer, older]).name == "override:older"
    free = override("free", "exempt", {"groups": ["devs"], "users": ["alice"]})
    assert flow_of([free]).name == "alices"
    assert flow_of([limited("l", 1, users=["alice"]), free], caller("alice", "devs")).exempt


def test_an_exemption_is_for_verified_callers_alone() -> None:
    free = override("free", "exempt", {"groups": ["*"]})
    assert flow_of([free], caller("alice", "devs")).exempt
    assert not flow_of([free], UNVERIFIED).exempt
    assert not flow_of([free], NOBODY).exempt


def test_requests_that_match_no_override_stay_under_the_files_flows_themselves() -> None:
    laid = lay_over(FILE, [ban(userAgents=["bad/*"])], ["glass"])
    for who in (ALICE, UNVERIFIED, NOBODY, caller("bob"), MASTER):
        assert laid.match(LIST_PODS, who) is FILE.match(LIST_PODS, who)


# -- impersonation


def test_an_override_on_impersonated_users_only_adds_limits() -> None:
    loose = limited("loose", 1_000, impersonatedUsers=["*"])
    flow = flow_of([loose], acting_as("eve"))
    assert limits_of(flow) == ["override:loose/user", "alices/user", "alices/all"]
    assert [part.mode for part in flow.parts] == [Mode.ALWAYS, Mode.ENFORCE]
    assert flow_of([loose], ALICE).name == "alices"
    assert limits_of(flow_of([loose], acting_as("eve", MASTER))) == ["override:loose/user"]


def test_it_adds_to_the_files_rules_on_impersonated_users_too() -> None:
    flow = flow_of([limited("loose", 1_000, impersonatedUsers=["*"])], acting_as("admin"))
    assert limits_of(flow) == ["override:loose/user", "as-admin/all", "alices/user", "alices/all"]


def test_it_adds_to_an_override_that_matches_otherwise() -> None:
    flow = flow_of(
        [limited("alice", 5, users=["alice"]), limited("as", 7, impersonatedUsers=["*"])],
        acting_as("admin"),
    )
    assert limits_of(flow) == ["override:as/user", "override:alice/user"]
    assert not flow.parts  # both hold always: one flow


def test_joint_flows_are_one_object_each() -> None:
    laid = lay_over(FILE, [limited("as", 7, impersonatedUsers=["*"])])
    first = laid.match(LIST_PODS, acting_as("admin"))
    assert laid.match(LIST_PODS, acting_as("admin")) is first


# -- scale


def test_scales_multiply_and_keep_ids_modes_and_percentages() -> None:
    laid = lay_over(FILE, [scale(0.5), scale(0.5, "alices"), scale(4, "staged")])
    for before, after in zip(FILE.flows(), laid.flows(), strict=True):
        assert limits_of(before) == limits_of(after)
        assert (before.name, before.mode, before.exempt, before.percent) == (
            after.name,
            after.mode,
            after.exempt,
            after.percent,
        )
    rates = {limit.id: limit.bucket for limit in laid.limits()}
    assert rates["alices/user"] == BucketSpec(2.5, 5)
    assert rates["counted/all"] == BucketSpec(2, 2)
    assert rates["staged/verb"] == BucketSpec(8, 8)
    assert rates["default/all"] == BucketSpec(100, 100)


def test_a_scaled_burst_stays_a_whole_token() -> None:
    """With less no request would ever pass, which is what a factor of 0 says."""
    rates = {limit.id: limit.bucket for limit in lay_over(FILE, [scale(0.1)]).limits()}
    assert rates["alices/all"] == BucketSpec(0.05, 1)
    assert {limit.bucket for limit in lay_over(FILE, [scale(0)]).limits()} == {BucketSpec(0, 0)}


def test_scaling_leaves_overrides_and_exempt_rules_alone() -> None:
    laid = lay_over(FILE, [limited("l", 9, users=["bob"]), scale(0.1)], ["glass"])
    assert laid.match(LIST_PODS, caller("bob")).limits[0].bucket.rate == 9
    assert laid.match(LIST_PODS, MASTER).exempt
    assert laid.match(LIST_PODS, GLASS).exempt


def test_living_buckets_keep_their_levels_under_a_scale() -> None:
    limiter = Limiter()
    limiter.respec(FILE.limits(), 0.0)
    for _ in range(2):
        limiter.acquire(FILE.default, LIST_PODS, NOBODY, 0.0)
    laid = lay_over(FILE, [scale(0.5)])
    limiter.respec(laid.limits(), 0.0)
    (view,) = limiter.peek(laid.default, LIST_PODS, NOBODY, 0.0).buckets
    assert view.level == 100  # of 198, clipped to the new burst
    limiter.respec(FILE.limits(), 0.0)
    (view,) = limiter.peek(FILE.default, LIST_PODS, NOBODY, 0.0).buckets
    assert view.level == 100  # and never raised by going back


@given(st.lists(st.sampled_from([0.0, 1e-200, 0.3, 1.0, 900.0]), min_size=1, max_size=200))
def test_no_product_of_factors_leaves_what_a_bucket_can_be(factors: list[float]) -> None:
    for limit in lay_over(FILE, [scale(factor) for factor in factors]).limits():
        rate, burst = limit.bucket.rate, limit.bucket.burst
        assert (rate, burst) == (0, 0) or (0 < rate <= 1e9 and 1 <= burst <= 1e9)
        assert not math.isnan(limit.bucket.fill_seconds)


# -- properties of the whole


@GENEROUS
@given(policies(), st.lists(st.tuples(requests(), callers()), min_size=1, max_size=20))
def test_with_nothing_laid_over_every_flow_is_the_policys(
    compiled: Policy, asked: list[tuple[RequestInfo, Caller]]
) -> None:
    laid = lay_over(compiled, [])
    far = lay_over(compiled, [ban(userAgents=["nobody-sends-this"])], ["nobody-is-this"])
    for info, who in asked:
        assert laid.match(info, who) is compiled.match(info, who)
        assert far.match(info, who) is compiled.match(info, who)


@GENEROUS
@given(
    policies(),
    st.sampled_from([{"users": ["a*"]}, {"verbs": ["get"]}, {"sourceCIDRs": ["10.1.0.0/16"]}]),
    st.lists(st.tuples(requests(), callers()), min_size=1, max_size=20),
)
def test_an_override_stands_where_a_first_rule_of_the_file_would(
    compiled: Policy, match: dict[str, object], asked: list[tuple[RequestInfo, Caller]]
) -> None:
    """What is laid over is matched as if it had been written into the file, before all rules."""
    rule = f"- {{name: first, match: {json.dumps(match)}, limits: [{{requestsPerSecond: 0}}]}}"
    (first,) = compile_policy(policy_text(rule)).rules
    written = Policy([first, *compiled.rules], compiled.default, "")
    laid = lay_over(compiled, [override("ban", "ban", match)])
    for info, who in asked:
        expected = written.match(info, who)
        found = laid.match(info, who)
        assert found is expected or (found.name, expected.name) == ("override:ban", "first")


def test_laying_over_again_replaces_what_was_laid_over() -> None:
    once = lay_over(FILE, [ban(), scale(0.5)], ["glass"])
    again = lay_over(once, [scale(0.5)])
    assert again.above == ()
    assert again.default.limits[0].bucket.rate == 100
    assert lay_over(again, []) is FILE
    assert once.file is again.file is FILE.file is FILE


def test_the_digest_stays_the_files() -> None:
    laid = lay_over(FILE, [ban(), scale(0.5)], ["glass"])
    assert laid.digest == FILE.digest
    assert [rule.name for rule in laid.rules] == [rule.name for rule in FILE.rules]
    assert [flow.name for flow in laid.flows()][:2] == ["break-glass", "override:ban"]


def test_two_hundred_overrides_are_laid_over_a_thousand_rules_in_time() -> None:
    """A bound ten times what it takes, so that only building the policy's tables anew breaks it."""
    rules = "\n".join(
        f"- {{name: r{i}, match: {{userAgents: ['a{i}/*']}}, limits: [{{requestsPerSecond: 1}}]}}"
        for i in range(1_000)
    )
    compiled = compile_policy(policy_text(rules))
    overrides = [ban(f"b{i}", userAgents=[f"x{i}/*"], verbs=["list"]) for i in range(200)]
    best = math.inf
    for _ in range(3):
        begin = time.process_time()
        lay_over(compiled, [*overrides, scale(0.5)], ["glass"])
        best = min(best, time.process_time() - begin)
    assert best < 0.2


# -- matching by itself


def test_matches_is_about_the_override_alone() -> None:
    listed = ban(userAgents=["kubectl/*"], verbs=["list"])
    assert matches(listed, LIST_PODS, ALICE)
    assert matches(listed, LIST_PODS, MASTER)
    assert not matches(listed, parse_request("GET", f"{PODS}?watch=1"), ALICE)
    assert matches(listed, LIST_PODS, GLASS)
    assert not matches(listed, LIST_PODS, GLASS, ("glass",))
    assert not matches(scale(0), LIST_PODS, ALICE)
    assert matches(ban(impersonatedUsers=["*"]), LIST_PODS, acting_as("eve"))
    assert not matches(ban(impersonatedUsers=["*"]), LIST_PODS, ALICE)


# -- what a body may say


def test_a_whole_body_is_read() -> None:
    body = """{
      "action": "limit",
      "match": {"userAgents": ["telemetry/*"], "listShape": {"unpaged": true}},
      "limits": [{"requestsPerSecond": 5, "burst": 10, "per": ["user"]}],
      "reason": "INC-7 unpaged lists", "ttlSeconds": 600, "endWatches": true,
      "endWatchesSeconds": 3
    }"""
    request = read_override(body, "o1")
    assert request == OverrideRequest(request.override, "INC-7 unpaged lists", 600.0, True, 3.0)
    read = request.override
    assert (read.id, read.action, read.flow_name) == ("o1", Action.LIMIT, "override:o1")
    assert [(limit.bucket, limit.per) for limit in read.limits] == [
        (BucketSpec(5, 10), (Per.USER,))
    ]
    assert parse_override(body, "o1") == read
    assert parse_override(json.loads(body), "o1") == read
    assert parse_override(body.replace("{", "{\t"), "o1") == read
    yaml = "action: ban\nreason: because\nmatch:\n  users: [alice]\n"
    assert parse_override(yaml, "o2").action is Action.BAN


def test_an_override_ends_by_itself_in_half_an_hour_if_nothing_else_is_said() -> None:
    request = read_override({"action": "ban", "match": {"users": ["a"]}, "reason": "x"}, "o")
    assert (request.ttl_seconds, request.end_watches) == (1800.0, False)


def test_characters_in_two_escapes_and_beyond_ascii_are_read() -> None:
    body = (
        r'{"action": "ban", "match": {"users": ["\u00fc"]}, "reason": "\ud83d\udd25 \"hot\" fire"}'
    )
    assert read_override(body, "o").reason == '🔥 "hot" fire'


GOOD: dict[str, object] = {"action": "ban", "match": {"users": ["a"]}, "reason": "x"}


def problems(body: object) -> list[str]:
    text = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(ConfigError) as failed:
        read_override(text, "o", maximum_seconds=3600)
    return [f"{problem.field}: {problem.reason}" for problem in failed.value.problems]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"action": "banish"}, "action: must be one of ban, limit, scale, exempt"),
        ({"match": {"userAgent": ["a"]}}, "match.userAgent: unknown field; did you mean 'user"),
        ({"match": {}}, "match: must name something"),
        ({"match": {"users": []}}, "match.users: must hold at least one value"),
        ({"reason": " "}, "reason: must say why"),
        ({"reason": None}, "reason: must be text"),
        ({"reason": "x" * 600}, "reason: is longer than 512"),
        ({"reason": "a\u001b[2Jb"}, "reason: holds control characters"),
        ({"ttlSeconds": 3601}, "ttlSeconds: must be from 1 to 3600"),
        ({"ttlSeconds": 0}, "ttlSeconds: must be from 1 to 3600"),
        ({"ttlSecond": 5}, "ttlSecond: unknown field; did you mean 'ttlSeconds'"),
        ({"limits": [{"requestsPerSecond": 1}]}, "limits: belongs to limit, not to ban"),
        ({"factor": 2}, "factor: belongs to scale, not to ban"),
        ({"action": "limit"}, "limits: is required to limit"),
        ({"action": "limit", "limits": []}, "limits: must hold at least one limit"),
        ({"action": "scale"}, "factor: is required"),
        ({"action": "scale", "factor": 0.5}, "match: belongs to ban and limit and exempt"),
        ({"action": "scale", "factor": -1}, "factor: must be from 0 to 1000"),
        ({"action": "scale", "endWatches": True}, "endWatches: does not go with scale"),
        ({"action": "exempt", "endWatches": True}, "endWatches: does not go with exempt"),
        ({"action": "exempt", "match": {"userAgents": ["a"]}}, "match: must hold users, groups"),
        (
            {"action": "exempt", "match": {"users": ["a"], "impersonatedUsers": ["b"]}},
            "match: impersonatedUsers can only limit",
        ),
    ],
)
def test_one_wrong_field_is_one_clear_line(change: dict[str, object], expected: str) -> None:
    assert any(line.startswith(expected) for line in problems({**GOOD, **change}))


@pytest.mark.parametrize("missing", ["action", "match", "reason"])
def test_what_is_missing_is_named(missing: str) -> None:
    body = {key: value for key, value in GOOD.items() if key != missing}
    assert [line.partition(":")[0] for line in problems(body)] == [missing]


def test_of_an_unknown_action_no_field_is_judged() -> None:
    body = {**GOOD, "action": "slow", "limits": [{"requestsPerSecond": 1}], "factor": 1}
    assert [line.partition(":")[0] for line in problems(body)] == ["action"]


def test_every_problem_is_reported_at_once() -> None:
    body = {"action": "limit", "match": {"verbs": ["LIST"], "x": 1}, "ttlSeconds": "1h", "why": ""}
    fields = {line.partition(":")[0] for line in problems(body)}
    assert fields == {"match.verbs[0]", "match.x", "limits", "reason", "ttlSeconds", "why"}


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{", "5", '{"action": "ban", "action": "exempt"}', "[" * 100_000, '{"a":' * 5_000],
)
def test_what_is_no_body_is_one_problem(body: str) -> None:
    assert len(problems(body)) == 1


def test_a_scale_of_a_rule_there_is_not_is_told() -> None:
    assert "did you mean 'alices'" in str(misses(scale(2, "alice"), FILE))
    assert "is exempt" in str(misses(scale(2, "masters"), FILE))
    assert misses(scale(2, "alices"), FILE) is None
    assert misses(scale(2, "default"), FILE) is None
    assert misses(scale(2), FILE) is None
    assert misses(ban(), FILE) is None


@pytest.mark.parametrize("id_", ["", "A", "a!b", "a/b", "-a", "a" * 64])
def test_an_id_that_could_be_mistaken_for_something_else_is_a_programmers_error(id_: str) -> None:
    with pytest.raises(ValueError, match="no id of an override"):
        parse_override(GOOD, id_)
