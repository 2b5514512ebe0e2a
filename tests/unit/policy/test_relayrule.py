"""What rules say of the relay: read strictly, decided by the file, untouched by overrides."""

from __future__ import annotations

import pytest

from apiguard.errors import ConfigError
from apiguard.kube.identity import Caller, Identity, Standing
from apiguard.kube.requestinfo import parse_request
from apiguard.policy.compile import compile_policy
from apiguard.policy.overrides import lay_over, parse_override
from apiguard.policy.relayrule import RelayRule, RelayUse

from .texts import HEAD

LIMITS = "limits: [{requestsPerSecond: 5}]"
TEXT = f"""{HEAD}rules:
- {{name: past, match: {{users: [eve]}}, {LIMITS}, relay: bypass}}
- {{name: quick, match: {{users: [bob], resources: [pods]}}, exempt: true, relaxedReads: true}}
- {{name: exact, match: {{users: [carol]}}, {LIMITS}, relay: use, relaxedReads: false}}
- {{name: silent, match: {{users: [dave]}}, {LIMITS}}}
default: {{{LIMITS}, relay: bypass}}
"""
PODS = parse_request("GET", "/api/v1/pods")


def caller(user: str) -> Caller:
    identity = Identity(user, ("system:authenticated",))
    return Caller(Standing.VERIFIED, identity, "agent/1", "agent", "192.0.2.1", "192.0.2.1")


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("eve", RelayRule(RelayUse.BYPASS)),
        ("bob", RelayRule(relaxed_reads=True)),
        ("carol", RelayRule(relaxed_reads=False)),
        ("dave", RelayRule()),
        ("nobody", RelayRule(RelayUse.BYPASS)),
    ],
)
def test_the_first_rule_that_matches_decides(user: str, said: RelayRule) -> None:
    assert compile_policy(TEXT).relaying(PODS, caller(user)) == said


def test_a_rule_may_be_about_some_resources_only() -> None:
    policy = compile_policy(TEXT)
    secrets = parse_request("GET", "/api/v1/secrets")
    assert policy.relaying(secrets, caller("bob")).use is RelayUse.BYPASS


def test_a_policy_that_says_nothing_leaves_everything_to_the_resource() -> None:
    policy = compile_policy(f"{HEAD}default: {{{LIMITS}}}\n")
    assert policy.relaying(PODS, caller("eve")) == RelayRule()
    assert not policy.relays


def test_what_is_laid_over_by_hand_moves_nobody_to_the_relay_or_past_it() -> None:
    ban = parse_override(
        '{"action": "ban", "match": {"users": ["*"]}, "ttlSeconds": 60, "reason": "r"}', "b1"
    )
    policy = compile_policy(TEXT)
    over = lay_over(policy, [ban], ())
    assert over.match(PODS, caller("eve")) is not policy.match(PODS, caller("eve"))
    for user in ("eve", "bob", "carol", "dave"):
        assert over.relaying(PODS, caller(user)) == policy.relaying(PODS, caller(user))


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ("match: {users: [a]}, relay: maybe", "must be one of use, bypass"),
        ("match: {users: [a]}, relaxedReads: 1", "must be true or false"),
        ("match: {users: [a]}, relay: bypass, relaxedReads: true", "drop one of the two"),
        ("match: {impersonatedUsers: [a]}, relay: use", "always go upstream"),
        ("match: {nonResourcePaths: [/version]}, relay: bypass", "for resources only"),
    ],
)
def test_what_would_mean_nothing_is_refused(rule: str, word: str) -> None:
    text = f"{HEAD}rules:\n- {{name: r, {rule}, {LIMITS}}}\ndefault: {{{LIMITS}}}\n"
    with pytest.raises(ConfigError) as caught:
        compile_policy(text, "p.yaml")
    assert len(caught.value.problems) == 1
    assert word in str(caught.value.problems[0])
