"""Modes of rules under the guard's own: who is refused, who is only counted, and explain's word."""

from __future__ import annotations

import itertools

import pytest

from apiguard.gateway.decision import Decision, Forward, Peer, Refuse
from apiguard.gateway.gateway import Explanation, Gateway, caller_of
from apiguard.identity.authenticator import Authentication
from apiguard.kube.identity import ANONYMOUS, Caller, Identity, Standing
from apiguard.limiter.limiter import Shed
from apiguard.policy.config import Enforcement
from apiguard.policy.overrides import lay_over, parse_override
from apiguard.wire.messages import HeaderBlock
from tests.unit.gateway.building import gateway_of, heads_of
from tests.unit.policy.texts import policy_text

HEADS = heads_of()
AGENT = b"User-Agent: bad/1"
SHADOW = next(e for e in Enforcement if e not in (Enforcement.ENFORCE, Enforcement.OFF))


def rule(more: str = "", per: str = "[source]") -> str:
    return policy_text(
        f'- {{name: bad, match: {{userAgents: ["bad/*"]}}, {more}'
        f" limits: [{{requestsPerSecond: 0, per: {per}}}]}}"
    )


def block_of(*lines: bytes) -> HeaderBlock:
    return HEADS.block(b"".join(line + b"\r\n" for line in (b"Host: guard", *lines)))


def decide(gateway: Gateway, *lines: bytes, source: str = "192.0.2.7") -> Decision:
    line = HEADS.line(b"GET /api/v1/pods HTTP/1.1")
    return gateway.decide(line, block_of(*lines), Peer(source, source), 1.0)


def said(decision: Decision) -> str:
    """What a decision counts as."""
    if isinstance(decision, Refuse):
        return decision.decision
    assert isinstance(decision, Forward)
    return "would_refuse" if decision.over_limit else "forwarded"


def under(gateway: Gateway, *bodies: dict[str, object], glass: tuple[str, ...] = ()) -> Gateway:
    overrides = [parse_override({"reason": "x", **body}, f"o{i}") for i, body in enumerate(bodies)]
    gateway.apply_policy(lay_over(gateway.policy, overrides, glass), 0.5)
    return gateway


BAN: dict[str, object] = {"action": "ban", "match": {"userAgents": ["bad/*"]}}
SOURCES = [f"192.0.2.{i}" for i in range(200)]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("", {Enforcement.ENFORCE: "refused", SHADOW: "would_refuse"}),
        ("mode: shadow,", {Enforcement.ENFORCE: "would_refuse", SHADOW: "would_refuse"}),
        ("percent: 100,", {Enforcement.ENFORCE: "refused", SHADOW: "would_refuse"}),
    ],
)
@pytest.mark.parametrize("enforcement", Enforcement)
def test_a_rule_refuses_by_its_mode_and_the_guards(
    mode: str, expected: dict[Enforcement, str], enforcement: Enforcement
) -> None:
    gateway = gateway_of(rule(mode), enforcement=enforcement)
    assert said(decide(gateway, AGENT)) == expected.get(enforcement, "forwarded")


@pytest.mark.parametrize(
    ("enforcement", "expected"),
    [
        (Enforcement.ENFORCE, "refused"),
        (SHADOW, "refused"),
        (Enforcement.OFF, "forwarded"),
    ],
)
def test_an_override_refuses_unless_the_guard_is_switched_off(
    enforcement: Enforcement, expected: str
) -> None:
    gateway = under(gateway_of(enforcement=enforcement), BAN)
    assert said(decide(gateway, AGENT)) == expected
    assert said(decide(gateway, b"User-Agent: good/1")) == "forwarded"


def test_the_refusal_names_the_override() -> None:
    refusal = decide(under(gateway_of(), BAN), AGENT)
    assert isinstance(refusal, Refuse)
    assert b"Apiguard-Rule: override:o0" in refusal.reply.lines
    assert refusal.flow is not None
    assert refusal.flow.name == "override:o0"


def test_switching_enforcement_holds_for_staged_rules_and_overrides_too() -> None:
    gateway = under(gateway_of(rule("percent: 99,")), BAN)
    for enforcement, expected in (
        (Enforcement.OFF, "forwarded"),
        (Enforcement.ENFORCE, "refused"),
        (SHADOW, "refused"),
    ):
        gateway.set_enforcement(enforcement)
        assert said(decide(gateway, AGENT)) == expected


def test_a_staged_rule_refuses_its_keys_and_counts_the_others() -> None:
    gateway = gateway_of(rule("percent: 40,"))
    answers = {source: said(decide(gateway, AGENT, source=source)) for source in SOURCES}
    assert set(answers.values()) == {"refused", "would_refuse"}
    assert 50 < list(answers.values()).count("refused") < 110
    rebuilt = gateway_of(rule("percent: 40,") + "# another file\n")
    assert answers == {s: said(decide(rebuilt, AGENT, source=s)) for s in SOURCES}


def test_a_staged_rule_refuses_nobody_while_the_guard_observes() -> None:
    gateway = gateway_of(rule("percent: 40,"), enforcement=SHADOW)
    assert {said(decide(gateway, AGENT, source=s)) for s in SOURCES} == {"would_refuse"}


def test_what_a_staged_rule_counts_and_refuses_stands_at_its_buckets() -> None:
    gateway = gateway_of(rule("percent: 40,"))
    answers = {source: said(decide(gateway, AGENT, source=source)) for source in SOURCES}
    for view in gateway.limiter.changed():
        (source,) = view.values
        refused = answers[source] == "refused"
        assert (view.refused, view.would_refuse) == ((1, 0) if refused else (0, 1))


def test_another_policy_with_another_percentage_is_followed_at_once() -> None:
    gateway = gateway_of(rule("percent: 1,"))
    before = [said(decide(gateway, AGENT, source=s)) for s in SOURCES].count("refused")
    gateway.apply_policy(gateway_of(rule("percent: 99,")).policy, 0.5)
    after = [said(decide(gateway, AGENT, source=s)) for s in SOURCES].count("refused")
    assert before < 20 < 180 < after


def test_nothing_is_remembered_of_policies_that_are_gone() -> None:
    gateway = gateway_of(rule("percent: 1,"))
    for percent in range(2, 20):
        decide(gateway, AGENT)
        gateway.apply_policy(gateway_of(rule(f"percent: {percent},")).policy, 0.5)
    decide(gateway, AGENT)
    assert len(gateway._judge._stages) == 1


# --- two flows at once --------------------------------------------------------------------------

AS_EVE = b"Impersonate-User: eve"
ALICE = b"Authorization: Bearer token-alice"
LIMIT_EVE: dict[str, object] = {
    "action": "limit",
    "match": {"impersonatedUsers": ["eve"]},
    "limits": [{"requestsPerSecond": 1, "burst": 1}],
}


def burst_of(gateway: Gateway, times: int) -> list[str]:
    return [said(decide(gateway, ALICE, AS_EVE)) for _ in range(times)]


@pytest.mark.parametrize(
    ("mode", "enforcement", "expected"),
    [
        ("", Enforcement.ENFORCE, ["forwarded", "refused", "refused"]),
        ("", SHADOW, ["forwarded", "refused", "refused"]),
        ("mode: shadow,", Enforcement.ENFORCE, ["forwarded", "refused", "refused"]),
        ("", Enforcement.OFF, ["forwarded", "forwarded", "forwarded"]),
    ],
)
def test_an_override_on_impersonated_users_refuses_beside_a_rule_of_any_mode(
    mode: str, enforcement: Enforcement, expected: list[str]
) -> None:
    text = policy_text(
        f"- {{name: alices, match: {{users: [alice]}}, {mode} limits: [{{requestsPerSecond: 9}}]}}"
    )
    assert burst_of(under(gateway_of(text, enforcement=enforcement), LIMIT_EVE), 3) == expected


def test_a_loose_override_on_impersonated_users_leaves_the_rule_in_force() -> None:
    """Refused by the rule while the guard enforces, counted by it while the guard observes."""
    text = policy_text(
        "- {name: alices, match: {users: [alice]}, limits: [{requestsPerSecond: 1}]}"
    )
    loose = {**LIMIT_EVE, "limits": [{"requestsPerSecond": 1000}]}
    assert burst_of(under(gateway_of(text), loose), 2) == ["forwarded", "refused"]
    observed = under(gateway_of(text, enforcement=SHADOW), loose)
    assert burst_of(observed, 2) == ["forwarded", "would_refuse"]


def test_what_an_override_refuses_is_not_charged_to_the_rule_that_only_counts() -> None:
    text = policy_text(
        "- {name: alices, match: {users: [alice]}, limits: [{requestsPerSecond: 5}]}"
    )
    gateway = under(gateway_of(text, enforcement=SHADOW), LIMIT_EVE)
    burst_of(gateway, 5)
    views = {view.id: view for view in gateway.limiter.changed()}
    assert (views["alices/all"].level, views["alices/all"].admitted) == (4.0, 1)
    assert views["override:o0/all"].refused == 4


# --- explain ------------------------------------------------------------------------------------


def explain(gateway: Gateway, caller: Caller) -> Explanation:
    return gateway.explain("GET", "/api/v1/pods", caller, 1.0)


def anonymous(source: str, agent: str = "bad/1") -> Caller:
    return caller_of(Authentication(Standing.ANONYMOUS, ANONYMOUS), agent, Peer(source, source))


def alice_as_eve() -> Caller:
    proof = Authentication(Standing.VERIFIED, Identity("alice", ("devs",)))
    return caller_of(proof, "bad/1", Peer("192.0.2.7", "192.0.2.7"), impersonated="eve")


@pytest.mark.parametrize(
    ("text", "enforcement", "bodies"),
    [
        (text, enforcement, bodies)
        for text, enforcement, bodies in itertools.product(
            [rule(), rule("mode: shadow,"), rule("percent: 40,")], Enforcement, [(), (BAN,)]
        )
    ],
)
def test_explain_says_of_each_key_what_would_become_of_it(
    text: str, enforcement: Enforcement, bodies: tuple[dict[str, object], ...]
) -> None:
    gateway = under(gateway_of(text, enforcement=enforcement), *bodies)
    for source in SOURCES[:40]:
        explanation = explain(gateway, anonymous(source))
        decision = decide(gateway, AGENT, source=source)
        assert explanation.refused is isinstance(decision, Refuse)
        assert explanation.peek is not None
        over = isinstance(explanation.peek.verdict, Shed)
        assert over is (said(decision) != "forwarded" or enforcement is Enforcement.OFF)


def test_explain_names_every_bucket_of_two_flows_and_the_limit_that_refuses() -> None:
    text = policy_text(
        "- {name: alices, match: {users: [alice]}, limits: [{requestsPerSecond: 9}]}"
    )
    gateway = under(gateway_of(text, enforcement=SHADOW), LIMIT_EVE)
    first = explain(gateway, alice_as_eve())
    assert first.peek is not None
    assert [view.id for view in first.peek.buckets] == ["override:o0/all", "alices/all"]
    assert not first.refused
    burst_of(gateway, 1)
    second = explain(gateway, alice_as_eve())
    assert second.refused
    assert second.peek is not None
    assert isinstance(second.peek.verdict, Shed)
    assert second.peek.verdict.limit.id == "override:o0/all"


def test_explain_tells_a_break_glass_user_of_the_exemption() -> None:
    gateway = under(gateway_of(), BAN, glass=("alice",))
    explanation = explain(gateway, alice_as_eve())
    assert (explanation.flow.name, explanation.flow.exempt) == ("break-glass", True)
    assert not explanation.refused
    assert isinstance(decide(gateway, ALICE, AGENT), Forward)
