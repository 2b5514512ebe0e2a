"""A wrong policy is refused whole, with file, line, field and reason of everything wrong."""

from __future__ import annotations

import pytest

from apiguard.errors import ConfigError
from apiguard.limiter.flow import BucketSpec, Mode, Per
from apiguard.policy.compile import compile_policy
from apiguard.policy.schema import MAX_RULES, parse_policy

from .texts import DEFAULT, HEAD, policy_text


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compile_policy(text, "p.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_problem_is_reported_at_once_in_order() -> None:
    text = """\
apiVersion: apiguard.io/v2
kind: ThrottlePolicy
rules:
  - name: Bad_Name
    match:
      verbs: ["lst", "GET"]
      resource: ["pods"]
      users: [12]
    limits: [{requestsPerSecond: -1}]
  - name: twice
    match: {userAgents: ["re:(a)\\\\1"]}
    limits: [{requestsPerSecond: 1, burst: 0.5, per: [user, user, usr]}]
  - name: twice
    match: {sourceCIDRs: ["10.0.0.1/8", "ten"]}
    exempt: true
    limits: [{requestsPerSecond: 0, burst: 3}]
  - {name: empty, match: {verbs: []}, exempt: yes}
default: {limits: []}
rulez: []
"""
    assert problems(text) == [
        "p.yaml:1: apiVersion: must be apiguard.io/v1alpha1",
        "p.yaml:4: rules[0].name: must be lower-case letters, digits and '-', at most 63,"
        " as in 'node-heartbeats'",
        "p.yaml:6: rules[0].match.verbs[0]: 'lst' is no Kubernetes verb; did you mean 'list'?",
        "p.yaml:6: rules[0].match.verbs[1]: 'GET' is an HTTP method; verbs are Kubernetes verbs,"
        " as in 'list'",
        "p.yaml:7: rules[0].match.resource: unknown field; did you mean 'resources'?",
        "p.yaml:8: rules[0].match.users[0]: must be text; put '12' in quotes",
        "p.yaml:9: rules[0].limits[0].requestsPerSecond: must be from 0 to 1e+09, not -1",
        "p.yaml:11: rules[1].match.userAgents[0]: is no RE2 pattern: invalid escape sequence: \\1",
        "p.yaml:12: rules[1].limits[0].burst: must be at least 1, or no request ever passes",
        "p.yaml:12: rules[1].limits[0].per[1]: is named twice",
        "p.yaml:12: rules[1].limits[0].per[2]: must be one of user, userAgent, userAgentFamily,"
        " source, namespace, verb, resource",
        "p.yaml:13: rules[2].name: repeats the name of the rule at line 10",
        "p.yaml:14: rules[2].match.sourceCIDRs[0]: has bits set beyond its prefix;"
        " did you mean 10.0.0.0/8?",
        "p.yaml:14: rules[2].match.sourceCIDRs[1]: is no network in CIDR notation,"
        " as in 10.0.0.0/8",
        "p.yaml:16: rules[2].limits[0].burst: must be 0 or absent at 0 requests per second",
        "p.yaml:16: rules[2].limits: an exempt rule has no limits",
        "p.yaml:17: rules[3].match.verbs: must hold at least one value, or no request ever matches",
        "p.yaml:17: rules[3].exempt: must be true or false",
        "p.yaml:17: rules[3].limits: is required unless the rule is exempt",
        "p.yaml:18: default.limits: must hold at least one limit",
        "p.yaml:19: rulez: unknown field; did you mean 'rules'?",
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("- {match: {}, exempt: true}", "4: rules[0].name: is required"),
        ("- {name: a, exempt: true}", "4: rules[0].match: is required"),
        ("- {name: a, match: , exempt: true}", "4: rules[0].match: must be a mapping, not nothing"),
        ("- {name: default, match: {}, exempt: true}", "is reserved for the default"),
        ("- {name: a, match: {}, exempt: true, mode: shadow}", "so it has no mode"),
        ("- {name: a, match: {}, limits: [{}]}", "limits[0].requestsPerSecond: is required"),
        ("- {name: a, match: {}, limits: [{requestsPerSecond: .inf}]}", "must be a number"),
        ("- {name: a, match: {}, limits: [{requestsPerSecond: 1e400}]}", "not inf"),
        ("- {name: a, match: {}, limits: [{requestsPerSecond: 1e300}]}", "must be from 0 to"),
        ("- {name: a, match: {}, limits: [{requestsPerSecond: true}]}", "must be a number"),
        ("- {name: a, match: {}, mode: dry, exempt: false}", "must be one of enforce, shadow"),
        ("- {name: a, match: {users: alice}, exempt: true}", "must be a list, not a single value"),
        ('- {name: a, match: {users: ["a\\nb"]}, exempt: true}', "holds control characters"),
        ("- {name: a, match: {serviceAccounts: ['a:b']}, exempt: true}", "namespace/name"),
        ("- {name: a, match: {nonResourcePaths: [healthz]}, exempt: true}", "begin with '/'"),
        ("- {name: a, match: {resources: ['pods/']}, exempt: true}", "names no subresource"),
        ("- {name: a, match: {resources: ['Pods']}, exempt: true}", "in lower case"),
        ("- {name: a, match: {resources: ['apps/v1/pods']}, exempt: true}", "no subresource"),
        ("- {name: a, match: {listShape: [unpaged]}, exempt: true}", "must be a mapping, not a"),
        ("- {name: a, match: {listShape: {unpagd: true}}, exempt: true}", "did you mean 'unpaged'"),
        ("- {name: a, match: {users: ['re:(a{1000}){1000}']}, exempt: true}", "is no RE2 pattern"),
        ("- {name: a, match: {users: ['re:a)(b']}, exempt: true}", "is no RE2 pattern"),
        ("- {name: a, match: {verbs: [connect]}, exempt: true}", "is an HTTP method"),
        ("- {name: a, match: {}, mode: partial, limits: []}", "must be one of enforce, shadow"),
        ("- {name: a, match: {}, mode: always, limits: []}", "must be one of enforce, shadow"),
        ("- {name: a, match: {}, percent: 0, limits: []}", "must be from 1 to 100, not 0"),
        ("- {name: a, match: {}, percent: 12.5, limits: []}", "must be a whole number"),
        ("- {name: a, match: {}, percent: 5, exempt: true}", "so it has no percent"),
        ("- {name: a, match: {}, percent: 5, mode: shadow}", "refuses on no key; drop one"),
    ],
)
def test_one_wrong_field_is_one_clear_line(rule: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(policy_text(rule)))


def test_a_policy_without_default_is_refused() -> None:
    assert problems(HEAD) == ["p.yaml:1: default: is required"]


def test_too_many_rules_are_refused() -> None:
    rules = "\n".join(f"- {{name: r{i}, match: {{}}, exempt: true}}" for i in range(MAX_RULES + 1))
    assert problems(policy_text(rules)) == [
        f"p.yaml:3: rules: holds {MAX_RULES + 1} entries; at most {MAX_RULES} are allowed"
    ]


def test_a_policy_of_a_default_alone_is_valid() -> None:
    assert compile_policy(HEAD + DEFAULT, "p.yaml").rules == ()


def test_burst_defaults_to_a_second_and_at_least_one_request() -> None:
    document = parse_policy(
        HEAD + "default: {limits: [{requestsPerSecond: 50}, {requestsPerSecond: 0.1},"
        " {requestsPerSecond: 0}]}",
        "p.yaml",
    )
    assert [limit.bucket for limit in document.default.limits] == [
        BucketSpec(50, 50),
        BucketSpec(0.1, 1),
        BucketSpec(0, 0),
    ]


def test_limit_ids_survive_reordering_and_rerating() -> None:
    def ids(limits: str) -> dict[str, tuple[Per, ...]]:
        compiled = compile_policy(policy_text(f"- {{name: a, match: {{}}, limits: [{limits}]}}"))
        return {limit.id: limit.per for limit in compiled.rules[0].flow.limits}

    one = ids("{requestsPerSecond: 1}, {requestsPerSecond: 1, per: [verb, user]}")
    two = ids("{requestsPerSecond: 7, per: [user, verb]}, {requestsPerSecond: 9}")
    assert one == two == {"a/all": (), "a/user+verb": (Per.USER, Per.VERB)}
    assert set(ids("{requestsPerSecond: 1}, {requestsPerSecond: 2}")) == {"a/all", "a/all#2"}


def test_mode_and_default_reach_the_flow() -> None:
    compiled = compile_policy(
        policy_text("- {name: a, match: {}, mode: shadow, limits: [{requestsPerSecond: 1}]}")
    )
    assert compiled.rules[0].flow.mode is Mode.SHADOW
    assert compiled.default.name == "default"
    assert compiled.default.mode is Mode.ENFORCE


@pytest.mark.parametrize(
    ("written", "mode", "percent"),
    [
        ("percent: 30", Mode.PARTIAL, 30),
        ("percent: 30, mode: enforce", Mode.PARTIAL, 30),
        ("percent: 100", Mode.ENFORCE, 100),
    ],
)
def test_a_percentage_reaches_the_flow(written: str, mode: Mode, percent: int) -> None:
    limits = "limits: [{requestsPerSecond: 1}]"
    compiled = compile_policy(
        policy_text(f"- {{name: a, match: {{}}, {written}, {limits}}}").replace(
            "default: {", f"default: {{{written}, "
        )
    )
    for flow in compiled.flows():
        assert (flow.mode, flow.percent) == (mode, percent)


def test_the_digest_is_that_of_the_text() -> None:
    text = HEAD + DEFAULT
    assert compile_policy(text).digest == compile_policy(text, "other").digest
    assert compile_policy(text).digest != compile_policy(text + "#").digest
