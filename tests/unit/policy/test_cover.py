"""Warnings: rules that never match, and exemptions wider than they look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.kube.identity import Caller
from apiguard.kube.requestinfo import RequestInfo
from apiguard.policy.compile import warnings
from apiguard.policy.policy import Policy

from .test_match import GENEROUS, _callers, _policies, _requests
from .texts import policy


@pytest.mark.parametrize(
    ("earlier", "later", "dead"),
    [
        ("{}", "{users: [a]}", True),
        ("{users: [a]}", "{}", False),
        ("{users: ['a*']}", "{users: [ab, 'ac*']}", True),
        ("{users: ['a*']}", "{users: [ab, b]}", False),
        ("{users: ['a*b']}", "{users: ['a*']}", False),
        ("{users: ['a*a']}", "{users: [a]}", False),
        ("{users: ['*a*']}", "{users: ['b*a*b']}", True),
        ("{users: ['re:a.*']}", "{users: [ab]}", True),
        ("{users: ['re:a.*']}", "{users: ['ab*']}", False),
        ("{verbs: ['*']}", "{verbs: [get]}", True),
        ("{verbs: [get, list]}", "{verbs: [get]}", True),
        ("{resources: ['*']}", "{resources: [pods/log, deployments.apps]}", True),
        ("{resources: [pods]}", "{resources: [pods/log]}", False),
        ("{resources: ['pods/*']}", "{resources: [pods/log]}", True),
        ("{resources: ['pods/*']}", "{resources: [pods]}", False),
        ("{resources: ['*.apps']}", "{resources: [deployments]}", False),
        ("{sourceCIDRs: [10.0.0.0/8]}", "{sourceCIDRs: [10.1.0.0/16]}", True),
        ("{sourceCIDRs: [10.0.0.0/8]}", "{sourceCIDRs: ['::/0']}", False),
        ("{listShape: {unpaged: true}}", "{listShape: {unpaged: true, withoutSelector: true}}", 1),
        ("{listShape: {unpaged: true}}", "{listShape: {unpaged: false}}", False),
    ],
)
def test_a_rule_taken_whole_by_an_earlier_one_is_named(
    earlier: str, later: str, dead: bool
) -> None:
    found = warnings(policy(earlier, later))
    expected = "line 5: rule 'r1' never matches: rule 'r0' of line 4 takes all its requests"
    assert found == ([expected] if dead else [])


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        ("{nonResourcePaths: ['/a'], resources: [pods]}", "both a resource and a non-resource"),
        ("{verbs: [post], resources: [pods]}", "its verbs are HTTP methods"),
        ("{verbs: [list], nonResourcePaths: ['/a']}", "non-resource requests have none"),
        ("{verbs: [get], listShape: {unpaged: true}}", "only the verbs 'list' and 'watch'"),
        ("{resources: [deployments.apps], apiGroups: [batch]}", "other groups than its apiGroups"),
    ],
)
def test_contradictory_fields_are_named(match: str, reason: str) -> None:
    (found,) = warnings(policy(match))
    assert reason in found


def test_exemptions_that_reach_nobody_or_everybody_are_named() -> None:
    (found,) = warnings(policy("{users: ['system:anonymous']}", exempt=(0,)))
    assert "never exempt" in found
    (found,) = warnings(policy("{userAgents: ['kubelet/*']}", exempt=(0,)))
    assert "exempts every verified caller" in found
    assert warnings(policy("{groups: ['system:nodes']}", exempt=(0,))) == []


def test_an_exempt_rule_leaves_unverified_callers_to_later_rules() -> None:
    assert len(warnings(policy("{}", "{}", exempt=(0,)))) == 1
    assert len(warnings(policy("{}", "{users: [alice]}", exempt=(0,)))) == 2


@GENEROUS
@given(_policies(), st.lists(st.tuples(_requests(), _callers()), min_size=1, max_size=30))
def test_a_rule_said_never_to_match_never_does(
    compiled: Policy, asked: list[tuple[RequestInfo, Caller]]
) -> None:
    dead = {text.split("'")[1] for text in warnings(compiled) if "never matches" in text}
    for info, who in asked:
        assert compiled.match(info, who).name not in dead
