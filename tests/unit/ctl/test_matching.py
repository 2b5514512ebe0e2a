"""A row of ``top`` becomes a match for exactly its clients, however they call themselves."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.ctl.matching import family_patterns, match_of_key
from apiguard.kube.identity import user_agent_family
from apiguard.policy.overrides import parse_override
from apiguard.policy.patterns import PatternTable, parse_pattern

AGENTS = st.text(st.sampled_from("ab*/ .:\\[(re+-é\x1b"), max_size=12)


def accepts(patterns: list[str], value: str) -> bool:
    return bool(PatternTable((parse_pattern(p), 1) for p in patterns).mask(value))


@given(AGENTS, AGENTS)
def test_a_familys_patterns_accept_its_user_agents_and_no_other(one: str, other: str) -> None:
    patterns = family_patterns(user_agent_family(one))
    assert accepts(patterns, one)
    same = user_agent_family(one) == user_agent_family(other)
    assert accepts(patterns, other) == same


@given(st.text("a*", min_size=60, max_size=70))
def test_a_family_that_was_cut_stands_for_all_that_begin_like_it(agent: str) -> None:
    family = user_agent_family(agent)
    assert accepts(family_patterns(family), agent)
    assert not accepts(family_patterns(family), "b")


def test_a_client_named_star_is_banned_alone() -> None:
    assert not accepts(family_patterns("*"), "kubelet/v1.36")
    assert accepts(family_patterns("*"), "*/1")


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ({"user": "alice"}, {"users": ["alice"]}),
        ({"user": "re:.*"}, {"users": [r"re:re:\.\*"]}),
        ({"source": "10.0.0.9"}, {"sourceCIDRs": ["10.0.0.9"]}),
        ({"verb": "list", "resource": "pods"}, {"verbs": ["list"], "resources": ["pods"]}),
        (
            {"verb": "get", "resource": "/openapi/v3"},
            {"verbs": ["get"], "nonResourcePaths": ["/openapi/v3", "/openapi/v3/*"]},
        ),
        (
            {"userAgent": "telemetry", "verb": "list", "resource": "leases.coordination.k8s.io"},
            {
                "userAgents": ["telemetry", "telemetry/*", "telemetry *"],
                "verbs": ["list"],
                "resources": ["leases.coordination.k8s.io"],
            },
        ),
    ],
)
def test_every_part_of_a_key_narrows_the_match(
    key: dict[str, str], match: dict[str, list[str]]
) -> None:
    assert match_of_key(key) == match
    body = {"action": "ban", "match": match, "reason": "INC-7"}
    parse_override(json.dumps(body), "x")  # the guard accepts it


@pytest.mark.parametrize("key", [{}, {"user": ""}, {"userAgent": "a", "user": ""}])
def test_rows_that_name_nobody_cannot_be_banned(key: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no verified user|names no client"):
        match_of_key(key)
