"""What upstream receives in each mode, and how long a proof is relied on."""

from __future__ import annotations

from collections import Counter

import pytest

from apiguard.gateway.decision import Decision, Forward, Peer, Refuse
from apiguard.gateway.gateway import Gateway
from apiguard.identity.authenticator import Authenticator
from apiguard.identity.budget import Budget
from apiguard.identity.certificate import ClientAuthority, ClientCertificate
from apiguard.identity.reviews import Reviews
from apiguard.kube.identity import ANONYMOUS, Identity, Standing
from apiguard.telemetry import bounds
from apiguard.upstream.kind import Kind
from apiguard.wire.frontproxy import FrontProxyNames
from apiguard.wire.messages import HeaderBlock
from tests.unit.gateway.building import OPEN_POLICY, PEER, TOKENS, WALL, gateway_of, heads_of
from tests.unit.identity import issuing
from tests.unit.identity.recorded import (
    CA_PEM,
    certificate_of,
    fields_of,
    lines_of,
    read_as_upstream,
    recorded_user,
)
from tests.unit.policy.texts import policy_text

NAMES = FrontProxyNames()
NOW = 100.0
RECORDED = {line["name"]: line for line in lines_of("certificate")}
BUILDER = issuing.sign(issuing.bound_claims(jti="j"))


class Wall:
    """Unix seconds that stand still until moved."""

    def __init__(self) -> None:
        self.seconds = WALL

    def __call__(self) -> float:
        return self.seconds


def guard(wall: Wall | None = None, text: str = OPEN_POLICY) -> Gateway:
    authenticator = Authenticator(
        TOKENS, verifier=issuing.verifier_of(), authority=ClientAuthority(CA_PEM)
    )
    return gateway_of(text, authenticator=authenticator, wall=wall or Wall(), front_proxy=NAMES)


def peer(name: str = "many-groups", authority: ClientAuthority | None = None) -> Peer:
    certificate = certificate_of(RECORDED[name]["pem"], authority)
    return Peer("192.0.2.7", "192.0.2.7", certificate)


def block_of(*lines: bytes) -> HeaderBlock:
    return heads_of().block(b"".join(line + b"\r\n" for line in (b"Host: g", *lines)))


def decide(gateway: Gateway, block: HeaderBlock, who: Peer = PEER, now: float = NOW) -> Decision:
    line = heads_of().line(b"GET /api/v1/pods HTTP/1.1")
    return gateway.decide(line, block, who, now)


def forwarded(decision: Decision) -> Forward:
    assert isinstance(decision, Forward)
    return decision


def sent(gateway: Gateway, who: Peer, *lines: bytes) -> Counter[bytes]:
    return Counter(forwarded(decide(gateway, block_of(*lines), who)).fields.split(b"\r\n")[:-1])


# -- the complete multiset of headers, in each mode

DIRTY = (
    b"X-Remote-User: root",
    b"x-remote-GROUP: system:masters",
    b"X-Remote-Uid: 0",
    b"X-Remote-Extra-Scopes: all",
    b"X-Forwarded-For: 10.0.0.1",
    b"X-Forwarded-Host: evil",
    b"Forwarded: for=10.0.0.1",
    b"X-Real-IP: 10.0.0.1",
    b"Connection: X-Remote-User, X-Forwarded-For, keep-alive",
    b"Keep-Alive: timeout=5",
    b"Accept: application/json",
    b"Impersonate-User: carol",
    b"User-Agent: kubectl/v1.36",
)
KEPT = (
    b"Host: g",
    b"Accept: application/json",
    b"Impersonate-User: carol",
    b"User-Agent: kubectl/v1.36",
    b"X-Forwarded-For: 192.0.2.7",
)
FINGERPRINT = b"f91183f0d21c2488e2401b970d55fce0b336c6b4978101b840a260e14053edba"
SPOKEN_FOR = (
    b"X-Remote-User: alice",
    b"X-Remote-Group: a",
    b"X-Remote-Group: b",
    b"X-Remote-Group: c",
    b"X-Remote-Group: system:authenticated",
    b"X-Remote-Extra-authentication.kubernetes.io%2Fcredential-id: X509SHA256=" + FINGERPRINT,
)


def test_a_token_goes_on_as_it_came_and_nothing_speaks_beside_it() -> None:
    for token in (b"token-alice", b"unknown", BUILDER.encode()):
        credential = b"Authorization: Bearer " + token
        block = block_of(credential, *DIRTY)
        assert forwarded(decide(guard(), block)).kind is Kind.PLAIN
        assert sent(guard(), PEER, credential, *DIRTY) == Counter([credential, *KEPT])


def test_an_anonymous_request_goes_on_without_any_credential_or_name() -> None:
    """Recorded as headers-without-front-proxy-certificate: upstream would ignore such names."""
    forward = forwarded(decide(guard(), block_of(*DIRTY)))
    assert (forward.kind, forward.caller.identity) == (Kind.PLAIN, ANONYMOUS)
    assert sent(guard(), PEER, *DIRTY) == Counter(KEPT)


def test_a_certificate_is_spoken_for_and_the_token_beside_it_stays_here() -> None:
    """Recorded as certificate-and-token and headers-with-ordinary-client-certificate."""
    credential = b"Authorization: Bearer " + BUILDER.encode()
    forward = forwarded(decide(guard(), block_of(credential, *DIRTY), peer()))
    assert forward.kind is Kind.FRONT_PROXY
    assert forward.caller.identity == recorded_user(RECORDED["many-groups"])
    assert sent(guard(), peer(), credential, *DIRTY) == Counter([*KEPT, *SPOKEN_FOR])


def test_a_websocket_token_beside_a_certificate_stays_here_too() -> None:
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket")
    protocols = b"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"
    block = block_of(*upgrade, b"Sec-WebSocket-Protocol: " + protocols)
    forward = forwarded(decide(guard(), block, peer()))
    assert (forward.kind, forward.upgrade) == (Kind.FRONT_PROXY, b"websocket")
    assert Counter(forward.fields.split(b"\r\n")[:-1]) == Counter(
        [
            b"Host: g",
            b"Sec-WebSocket-Protocol: v5.channel.k8s.io",
            b"X-Forwarded-For: 192.0.2.7",
            *SPOKEN_FOR,
            b"Connection: Upgrade",
            b"Upgrade: websocket",
        ]
    )


@pytest.mark.parametrize("name", RECORDED)
def test_a_request_on_the_front_proxy_certificate_names_exactly_one_user(name: str) -> None:
    decision = decide(guard(), block_of(*DIRTY), peer(name))
    if isinstance(decision, Refuse):
        assert (decision.reply.status, decision.close) == (401, True)
        return
    assert isinstance(decision, Forward)
    users = [value for header, value in fields_of(decision.fields) if header == b"X-Remote-User"]
    assert len(users) == 1
    assert users[0] not in (b"", b"system:anonymous")
    read = read_as_upstream(fields_of(decision.fields), NAMES)
    assert read == decision.caller.identity == recorded_user(RECORDED[name])


def test_a_front_proxy_request_that_has_no_user_is_never_made() -> None:
    """Recorded as front-proxy-certificate-and-token: upstream would let the token through."""
    for credential in (b"Authorization: Bearer " + BUILDER.encode(), b"Accept: a"):
        assert forwarded(decide(guard(), block_of(credential))).kind is Kind.PLAIN


@pytest.mark.parametrize("credential", [b"Accept: a", b"Authorization: Bearer token-alice"])
def test_a_certificate_that_fails_is_401_whatever_stands_beside_it(credential: bytes) -> None:
    refusal = decide(guard(), block_of(credential), peer("trailing-blank"))
    assert isinstance(refusal, Refuse)
    assert refusal.reply.status == 401
    assert b"begins or ends with a blank" in refusal.reply.body


def test_without_a_front_proxy_certificate_nobody_is_spoken_for() -> None:
    gateway = gateway_of(authenticator=Authenticator(authority=ClientAuthority(CA_PEM)))
    assert isinstance(decide(gateway, block_of(), peer()), Refuse)


# -- how long a proof is relied on


def test_an_expired_certificate_is_refused_on_its_open_connection() -> None:
    wall = Wall()
    gateway, block, who = guard(wall), block_of(), peer()
    assert who.certificate is not None
    assert isinstance(decide(gateway, block, who, NOW), Forward)
    wall.seconds = who.certificate.not_after + 1
    assert isinstance(decide(gateway, block, who, NOW + 5.0), Refuse)


def test_a_changed_client_ca_ends_trust_on_open_connections_at_once() -> None:
    gateway, block = guard(), block_of()
    assert gateway.authenticator.authority is not None
    who = peer(authority=gateway.authenticator.authority)
    assert isinstance(decide(gateway, block, who), Forward)
    other = ClientAuthority(issuing.Authority().pem)
    gateway.set_authenticator(gateway.authenticator.replace(authority=other))
    assert isinstance(decide(gateway, block, who), Refuse)
    both = ClientAuthority(issuing.Authority().pem + CA_PEM)
    gateway.set_authenticator(gateway.authenticator.replace(authority=both))
    assert isinstance(decide(gateway, block, who), Forward)


def test_an_expired_token_becomes_unverified_and_is_never_refused() -> None:
    wall = Wall()
    gateway = guard(wall)
    block = block_of(b"Authorization: Bearer " + BUILDER.encode())
    first = forwarded(decide(gateway, block))
    assert first.caller.standing is Standing.VERIFIED
    wall.seconds += 3_700
    later = forwarded(decide(gateway, block, now=NOW + 5.0))
    assert (later.caller.standing, later.kind) == (Standing.UNVERIFIED, Kind.PLAIN)
    assert later.fields == first.fields


def test_a_renewed_proof_keeps_the_caller_that_policy_and_limiter_remember() -> None:
    gateway = guard()
    block = block_of(b"Authorization: Bearer " + BUILDER.encode())
    callers = {id(forwarded(decide(gateway, block, now=NOW + 5.0 * n)).caller) for n in range(4)}
    assert len(callers) == 1


def test_a_credential_that_proves_somebody_else_now_is_somebody_else() -> None:
    gateway, block = guard(), block_of(b"Authorization: Bearer token-alice")
    assert forwarded(decide(gateway, block)).caller.identity == TOKENS["token-alice"]
    eve = Identity("eve")
    gateway.set_authenticator(gateway.authenticator.replace(tokens={"token-alice": eve}))
    assert forwarded(decide(gateway, block)).caller.identity == eve


def test_a_reviewed_token_counts_once_its_review_is_answered() -> None:
    reviews = Reviews(secret=b"s", budget=Budget(20.0, 0.0), remembered=10)
    gateway = gateway_of(authenticator=Authenticator(reviews=reviews))
    block = block_of(b"Authorization: Bearer opaque")
    assert forwarded(decide(gateway, block)).caller.standing is Standing.UNVERIFIED
    review = reviews.next_wish()
    assert review is not None
    body = b'{"status": {"authenticated": true, "user": {"username": "carol"}}}'
    reviews.answered(review, body, NOW)
    caller = forwarded(decide(gateway, block, now=NOW + 0.05)).caller
    assert caller.identity == Identity("carol", ("system:authenticated",))


def test_a_bound_met_while_proving_is_counted() -> None:
    reviews = Reviews(secret=b"s", budget=Budget(1.0, 0.0), remembered=10)
    gateway = gateway_of(authenticator=Authenticator(reviews=reviews))
    for token in (b"a", b"b", b"c"):
        decide(gateway, block_of(b"Authorization: Bearer " + token))
    assert gateway.counters.bounds[bounds.TOKEN_REVIEWS] == 2


# -- what an identity is good for

LIMITED = """\
- {name: admins, match: {impersonatedUsers: [admin]}, limits: [{requestsPerSecond: 1}]}
- {name: builders, match: {serviceAccounts: [default/builder]}, exempt: true}
"""


def test_a_claim_selects_nothing_that_a_proof_selects() -> None:
    gateway = guard(text=policy_text(LIMITED))
    forged = issuing.sign(issuing.bound_claims(), issuing.rsa_key(9))
    rules = [
        forwarded(decide(gateway, block_of(b"Authorization: Bearer " + token.encode()))).flow.name
        for token in (BUILDER, forged)
    ]
    assert rules == ["builders", "default"]


def test_impersonation_ends_an_exemption_and_is_passed_on() -> None:
    gateway = guard(text=policy_text(LIMITED))
    credential = b"Authorization: Bearer " + BUILDER.encode()
    forward = forwarded(decide(gateway, block_of(credential, b"Impersonate-User: admin")))
    assert (forward.flow.name, forward.flow.exempt) == ("admins", False)
    assert b"Impersonate-User: admin\r\n" in forward.fields


def test_a_certificate_nobody_here_signed_is_refused_though_no_handshake_did() -> None:
    stranger = issuing.Authority()
    leaf = stranger.issue(stranger.certificate.subject)
    who = Peer("192.0.2.7", "192.0.2.7", ClientCertificate(leaf, (), None, WALL))
    assert isinstance(decide(guard(), block_of(), who), Refuse)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("größe/1.0".encode(), "größe"),
        ("監視/2".encode(), "監視"),
        ("größe/1.0".encode("latin-1"), "größe"),
        (b"agent/1 \xff\xfe", "agent"),
    ],
)
def test_a_user_agent_is_read_as_text_whatever_its_bytes(sent: bytes, read: str) -> None:
    """And a rule of a policy, which is UTF-8, names it so."""
    limits = "limits: [{requestsPerSecond: 9}]"
    rule = f'- {{name: named, match: {{userAgents: ["{read}/*"]}}, {limits}}}'
    gateway = guard(text=policy_text(rule))
    decision = decide(gateway, block_of(b"User-Agent: " + sent))
    assert isinstance(decision, Forward)
    assert (decision.caller.family, decision.flow.name) == (read, "named")
