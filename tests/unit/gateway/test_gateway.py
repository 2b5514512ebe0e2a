"""Deciding: memos and when they are void, Retry-After, explain."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.errors import WireError
from apiguard.gateway.decision import Decision, Forward, Peer, Refuse
from apiguard.gateway.gateway import Gateway, caller_of
from apiguard.identity.authenticator import Authenticator
from apiguard.kube.identity import Identity, Standing
from apiguard.policy.config import Enforcement
from apiguard.upstream.endpoint import Lane
from apiguard.wire.messages import HeaderBlock
from tests.unit.gateway.building import PEER, gateway_of, heads_of, policy_of
from tests.unit.policy.texts import policy_text

HEADS = heads_of()


def block_of(*lines: bytes) -> HeaderBlock:
    return HEADS.block(b"".join(line + b"\r\n" for line in (b"Host: guard", *lines)))


def decide(
    gateway: Gateway, block: HeaderBlock, target: str = "/api/v1/pods", now: float = 0.0
) -> Decision:
    return gateway.decide(HEADS.line(f"GET {target} HTTP/1.1".encode()), block, PEER, now)


def forwarded(decision: Decision) -> Forward:
    assert isinstance(decision, Forward)
    return decision


def refused(decision: Decision) -> Refuse:
    assert isinstance(decision, Refuse)
    return decision


# --- memos ------------------------------------------------------------------------------------


def test_what_a_block_says_is_worked_out_once() -> None:
    gateway, block = gateway_of(), block_of(b"Authorization: Bearer token-alice")
    first, second = forwarded(decide(gateway, block)), forwarded(decide(gateway, block))
    assert first.caller is second.caller
    assert first.info is second.info


def test_a_new_authenticator_judges_blocks_already_seen() -> None:
    """A revoked token on an open connection proves nothing any more."""
    gateway, block = gateway_of(), block_of(b"Authorization: Bearer token-alice")
    assert forwarded(decide(gateway, block)).caller.standing is Standing.VERIFIED
    gateway.set_authenticator(Authenticator({}))
    assert forwarded(decide(gateway, block)).caller.standing is Standing.UNVERIFIED
    gateway.set_authenticator(Authenticator({"token-alice": Identity("other")}))
    identity = forwarded(decide(gateway, block)).caller.identity
    assert identity is not None
    assert identity.user == "other"


def test_a_new_policy_judges_lines_and_blocks_already_seen() -> None:
    gateway, block = gateway_of(), block_of(b"User-Agent: bad/1")
    assert forwarded(decide(gateway, block)).flow.name == "default"
    rule = '- {name: bad, match: {userAgents: ["bad/*"]}, limits: [{requestsPerSecond: 0}]}'
    gateway.apply_policy(policy_of(policy_text(rule)), 1.0)
    refusal = refused(decide(gateway, block, now=1.0))
    assert refusal.flow is not None
    assert refusal.flow.name == "bad"


def test_a_new_rate_shows_in_the_words_of_the_refusal() -> None:
    gateway, block = gateway_of(policy_of_rate(1)), block_of()
    decide(gateway, block)
    assert b"allows 1 requests per second" in refused(decide(gateway, block)).reply.body
    gateway.apply_policy(policy_of(policy_of_rate(0)), 0.0)
    assert b"allows no requests" in refused(decide(gateway, block)).reply.body


def policy_of_rate(rate: float, burst: float = 1) -> str:
    burst_member = f", burst: {burst}" if rate else ""
    limit = f"{{requestsPerSecond: {rate}{burst_member}}}"
    return policy_text(f"- {{name: r, match: {{verbs: [list]}}, limits: [{limit}]}}")


def test_giant_targets_and_header_names_are_not_remembered() -> None:
    """They cost what one request costs, not what all the different ones ever seen would."""
    gateway, heads = gateway_of(), heads_of()
    tracemalloc.start()
    try:
        for i in range(200):
            line = heads.line(b"GET /%d/%b HTTP/1.1" % (i, b"x" * 60_000))
            block = heads.block(b"Host: g\r\nX%d-%b: 1\r\n" % (i, b"y" * 60_000))
            gateway.decide(line, block, PEER, 0.0)
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 4_000_000


# --- lanes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "token", "lane"),
    [
        ("/api/v1/pods", b"token-alice", Lane.COLLECTION),
        ("/api/v1/pods?limit=500", b"token-alice", Lane.COLLECTION),
        ("/api/v1/pods?fieldSelector=metadata.name%3Dp", b"token-alice", Lane.ORDINARY),
        ("/api/v1/namespaces/d/pods/p", b"token-alice", Lane.ORDINARY),
        ("/api/v1/pods", b"token-node", Lane.EXEMPT),
        ("/api/v1/pods?watch=1", b"token-alice", Lane.LONG),
        ("/api/v1/pods?watch=1", b"token-node", Lane.LONG),
        ("/api/v1/pods?watch=1&sendInitialEvents=1", b"token-alice", Lane.COLLECTION),
        ("/api/v1/pods?watch=1&sendInitialEvents=1", b"token-node", Lane.LONG),
        ("/api/v1/namespaces/d/pods/p/log", b"token-alice", Lane.LONG),
    ],
)
def test_traffic_shares_a_ceiling_with_its_like_only(target: str, token: bytes, lane: Lane) -> None:
    rule = '- {name: nodes, match: {groups: ["system:nodes"]}, exempt: true}'
    gateway = gateway_of(policy_text(rule))
    block = block_of(b"Authorization: Bearer " + token)
    assert forwarded(decide(gateway, block, target)).lane is lane


# --- Retry-After ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "least", "most"),
    [(0, 15, 30), (0.001, 15, 30), (100, 1, 3), (0.2, 5, 11), (0.05, 20, 30)],
)
def test_retry_after_is_jittered_around_the_wait_within_its_bounds(
    rate: float, least: int, most: int
) -> None:
    gateway, block = gateway_of(policy_of_rate(rate)), block_of()
    seen = set()
    for _ in range(500):
        decision = decide(gateway, block)
        if isinstance(decision, Refuse):
            lines = decision.reply.lines.split(b"\r\n")
            (after,) = [int(x.split(b": ")[1]) for x in lines if x.startswith(b"Retry-After")]
            assert b'"retryAfterSeconds":%d' % after in decision.reply.body
            seen.add(after)
    assert least <= min(seen)
    assert max(seen) <= most
    assert len(seen) >= min(3, most - least), "those refused together part"


# --- explain ----------------------------------------------------------------------------------

RULES = policy_text(
    """
    - {name: nodes, match: {groups: ["system:nodes"]}, exempt: true}
    - {name: bad, match: {userAgents: ["bad/*"]}, limits: [{requestsPerSecond: 0}]}
    - {name: watched, match: {userAgents: ["shadow/*"]}, mode: shadow,
       limits: [{requestsPerSecond: 0}]}
    - {name: lists, match: {verbs: [list]}, limits: [{requestsPerSecond: 1, burst: 2, per: [user]}]}
    """
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from(["/api/v1/pods", "/api/v1/pods/a%2Fb", "/version", "/api/v1/nodes?watch=1"]),
    st.sampled_from([b"good/1", b"bad/1", b"shadow/1"]),
    st.sampled_from([b"token-alice", b"token-node", b"unknown"]),
    st.sampled_from(Enforcement),
    st.integers(0, 3),
)
def test_explain_foretells_what_decide_does_and_charges_nothing(
    target: str, agent: bytes, token: bytes, enforcement: Enforcement, before: int
) -> None:
    gateway = gateway_of(RULES, enforcement=enforcement)
    block = block_of(b"User-Agent: " + agent, b"Authorization: Bearer " + token)
    for _ in range(before):
        decide(gateway, block, target)
    proof = gateway.authenticator.authenticate(b"Bearer " + token, b"")
    caller = caller_of(proof, agent.decode(), PEER)
    if "%2F" in target:
        with pytest.raises(WireError) as caught:
            gateway.explain("GET", target, caller, 0.0)
        assert refused(decide(gateway, block, target)).reply.status == caught.value.code
        return
    explained = [gateway.explain("GET", target, caller, 0.0) for _ in range(3)]
    decision = decide(gateway, block, target)
    for explanation in explained:
        assert explanation.refused == isinstance(decision, Refuse)
        assert isinstance(decision, Forward | Refuse)
        assert explanation.flow is decision.flow
        if isinstance(decision, Forward):
            assert explanation.info is not None
            assert explanation.info.verb == decision.info.verb


# --- the peer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "source", "key"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:207", "192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff::1", "2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ("fe80::1%0", "fe80::1", "fe80::/64"),
        ("::1", "::1", "::/64"),
    ],
)
def test_a_peer_is_known_by_its_address_and_limited_by_its_network(
    address: str, source: str, key: str
) -> None:
    peer = Peer.at(address)
    assert (peer.source, peer.source_key, peer.certificate) == (source, key, None)


def test_a_peer_without_an_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        Peer.at("localhost")
