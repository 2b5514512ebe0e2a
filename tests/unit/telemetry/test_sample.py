"""Samples are a fair choice, stand for what they say, and hold what rules match on."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.kube.identity import Caller
from apiguard.kube.requestinfo import parse_request
from apiguard.policy.compile import compile_policy
from apiguard.telemetry.sample import (
    GROUPS,
    LONGEST_USER_AGENT,
    Observation,
    Reservoir,
    Sample,
    Sampler,
    audit_id_of,
    caller_of,
    request_of,
)
from tests.unit.policy.texts import policy_text
from tests.unit.telemetry.clients import PODS, caller, get

DECODER = msgspec.msgpack.Decoder(Sample)


def seen(at: float = 1.0, **changes: object) -> Observation:
    plain = Observation(at, PODS, caller(), "rule", "", "forwarded", 200, 10, 0.1, 0.2, b"")
    return plain._replace(**changes)  # type: ignore[arg-type]  # names are checked by _replace


def offer(reservoir: Reservoir, observation: Observation) -> None:
    reservoir.seen += 1
    if reservoir.seen >= reservoir.due:
        reservoir.keep(observation)


def sample_of(observation: Observation) -> Sample:
    sampler = Sampler(random.Random(1))
    offer(sampler.admitted, observation)
    (sample,) = sampler.take()
    return DECODER.decode(msgspec.msgpack.encode(sample))


@pytest.mark.parametrize("total", [10, 11, 40, 400])
def test_every_request_of_an_interval_is_as_likely_as_any_other(total: int) -> None:
    chosen = [0] * total
    rounds = min(4_000, 400_000 // total)
    source = random.Random(7)
    for _ in range(rounds):
        reservoir = Reservoir(10, source)
        for i in range(total):
            offer(reservoir, seen(float(i)))
        assert len(reservoir.kept) == 10
        for kept in reservoir.kept:
            chosen[int(kept.at)] += 1
    expected = rounds * 10 / total
    for part in range(5):  # fifths of the interval: enough throws for a tight band
        piece = chosen[total * part // 5 : total * (part + 1) // 5]
        assert sum(piece) == pytest.approx(expected * len(piece), rel=0.06)


def test_weights_of_each_kind_add_up_to_its_requests() -> None:
    sampler = Sampler(random.Random(3), admitted=4, refused=4)
    for i in range(3):
        offer(sampler.admitted, seen(float(i)))
    for i in range(1_000):
        offer(sampler.refused, seen(float(i), decision="refused"))
    samples = sampler.take()
    assert sum(s.weight for s in samples if s.admitted) == pytest.approx(3)
    assert sum(s.weight for s in samples if not s.admitted) == pytest.approx(1_000)
    assert len(samples) == 7
    assert sampler.take() == ()


POLICY = compile_policy(
    policy_text(
        """
        - {name: agents, match: {userAgents: ["telemetry/*"]}, limits: [{requestsPerSecond: 1}]}
        - {name: users, match: {users: ["bob"]}, limits: [{requestsPerSecond: 1}]}
        - {name: groups, match: {groups: ["system:nodes"]}, limits: [{requestsPerSecond: 1}]}
        - {name: sources, match: {sourceCIDRs: ["198.51.100.0/24"]},
           limits: [{requestsPerSecond: 1}]}
        - {name: names, match: {namespaces: ["prod"], resources: ["pods/log"]},
           limits: [{requestsPerSecond: 1}]}
        - {name: health, match: {nonResourcePaths: ["/healthz*"]},
           limits: [{requestsPerSecond: 1}]}
        """
    ),
    "policy.yaml",
)


@pytest.mark.parametrize("path", ["/api/v1/pods", "/healthz/etcd", "/api/v1/namespaces/prod/pods"])
@pytest.mark.parametrize("sub", ["", "/p/log"])
@pytest.mark.parametrize(
    "who",
    [
        caller(),
        caller(None),
        caller("bob"),
        caller("n", groups=("system:nodes",)),
        caller(user_agent="telemetry/1.2 (linux)"),
        caller(source="198.51.100.9"),
    ],
)
def test_a_sample_is_under_the_rule_its_request_was_under(who: Caller, path: str, sub: str) -> None:
    info = get(path + sub)
    sample = sample_of(seen(info=info, caller=who))
    assert POLICY.match(request_of(sample), caller_of(sample)).name == POLICY.match(info, who).name
    assert request_of(sample).qualified == info.qualified
    assert request_of(sample).shape == info.shape


def test_what_a_sample_holds_is_bounded() -> None:
    groups = tuple("g" * 500 for _ in range(100))
    who = caller("u" * 999, "a" * 2_000, groups=groups)
    info = parse_request("GET", f"/api/v1/namespaces/{'n' * 9_000}/pods/{'p' * 9_000}")
    sample = sample_of(seen(info=info, caller=who))
    assert len(sample.groups) == GROUPS
    assert len(sample.user_agent) == LONGEST_USER_AGENT
    assert len(msgspec.msgpack.encode(sample)) < 8_000


def test_no_query_is_kept() -> None:
    info = get("/api/v1/pods?fieldSelector=spec.nodeName%3Dsecret&access_token=hunter2")
    assert b"secret" not in msgspec.msgpack.encode(sample_of(seen(info=info)))


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (b"Audit-Id: 1b2c\r\nDate: x\r\n", "1b2c"),
        (b"Date: x\r\naudit-id:  1b2c \r\n", "1b2c"),
        (b"X-Audit-Id: no\r\n", ""),
        (b"Audit-Id: " + b"a" * 65 + b"\r\n", ""),
        (b"Audit-Id: a\x1bb\r\n", ""),
        (b"", ""),
    ],
)
def test_upstreams_audit_id_is_found_where_it_is_one(lines: bytes, found: str) -> None:
    assert audit_id_of(lines) == found


@given(st.binary(max_size=200))
def test_a_sample_of_something_else_is_no_sample(body: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        DECODER.decode(body)
