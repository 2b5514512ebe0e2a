"""Tokens verified here: whom they name, and everything that must not make them count."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.identity.budget import Budget
from apiguard.identity.jwt import LONGEST_TOKEN, Issuer, JwtVerifier, Outcome, Verdict
from apiguard.identity.keys import parse_key_set
from apiguard.kube.identity import Identity
from tests.unit.identity.issuing import (
    CLUSTER,
    LOGIN,
    NOW,
    WALL,
    b64,
    bound_claims,
    ec_key,
    ed_key,
    jwk_of,
    key_set,
    login_claims,
    rsa_key,
    sign,
    sign_text,
    verifier_of,
)

BUILDER = "system:serviceaccount:default:builder"
K8S = "authentication.kubernetes.io/"


def judge(token: str, verifier: JwtVerifier | None = None, wall: float = WALL) -> Verdict:
    return (verifier or verifier_of()).verify(token, NOW, wall)


def sign_login(claims: dict[str, object]) -> str:
    return sign(claims, ec_key(), "ES256", "e1")


# -- good tokens


def test_a_bound_token_names_its_account_pod_and_node() -> None:
    verdict = judge(sign(bound_claims()))
    assert verdict.outcome is Outcome.VERIFIED
    assert verdict.identity == Identity(
        BUILDER,
        ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"),
        "sa-uid",
        {
            K8S + "pod-name": ("p",),
            K8S + "pod-uid": ("p-uid",),
            K8S + "credential-id": ("JTI=j-1",),
            K8S + "node-name": ("n",),
            K8S + "node-uid": ("n-uid",),
        },
    )


LEGACY = {
    "iss": "kubernetes/serviceaccount",
    "sub": BUILDER,
    "kubernetes.io/serviceaccount/namespace": "default",
    "kubernetes.io/serviceaccount/secret.name": "builder-token-x",
    "kubernetes.io/serviceaccount/service-account.name": "builder",
    "kubernetes.io/serviceaccount/service-account.uid": "sa-uid",
}


def test_a_legacy_token_never_expires_and_has_no_audience() -> None:
    verdict = judge(sign(LEGACY), wall=WALL + 1e9)
    assert verdict.identity is not None
    assert (verdict.identity.user, verdict.identity.extra) == (BUILDER, {})


def test_an_openid_token_is_named_by_the_mapped_claims() -> None:
    verdict = judge(sign_login(login_claims(groups="ops")))
    groups = ("oidc:ops", "system:authenticated")
    assert verdict.identity == Identity("alice@example.com", groups)


def test_a_token_is_believed_within_the_leeway_of_its_times() -> None:
    token = sign(bound_claims(exp=WALL - 59, nbf=WALL + 59, iat=WALL + 59))
    assert judge(token).outcome is Outcome.VERIFIED
    assert judge(token).until == pytest.approx(NOW + 1)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(rsa_key(), "RS256"), (rsa_key(), "PS512"), (ec_key(), "ES256"), (ed_key(), "EdDSA")],
)
def test_key_types(key: Any, algorithm: str) -> None:
    verifier = verifier_of(cluster=key_set(jwk_of(key, alg=algorithm)))
    assert judge(sign(bound_claims(), key, algorithm), verifier).outcome is Outcome.VERIFIED


def test_a_token_without_key_id_is_tried_with_every_key_of_its_algorithm() -> None:
    keys = key_set(jwk_of(ec_key(), "x"), jwk_of(rsa_key(1), "y"), jwk_of(rsa_key(), "z"))
    verifier = verifier_of(cluster=keys)
    assert judge(sign(bound_claims(), kid=None), verifier).outcome is Outcome.VERIFIED
    assert verifier.checks == 2


# -- bad tokens


def _pem() -> bytes:
    return rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _hs256(secret: bytes, **header: object) -> str:
    """Signed with a public key as if it were a secret; the library would refuse to."""
    head = b64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "k1", **header}).encode())
    text = f"{head}.{b64(json.dumps(bound_claims()).encode())}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def _altered() -> str:
    head, _, signature = sign(bound_claims()).split(".")
    claims = bound_claims(sub="system:serviceaccount:kube-system:admin")
    return f"{head}.{b64(json.dumps(claims).encode())}.{signature}"


def _private(**changes: object) -> dict[str, object]:
    claims = bound_claims()
    assert isinstance(claims["kubernetes.io"], dict)
    return bound_claims(**{"kubernetes.io": {**claims["kubernetes.io"], **changes}})


_ATTACKER = jwk_of(rsa_key(9), "k1")
_HAND = json.dumps(bound_claims())

BAD: dict[str, Callable[[], str]] = {
    # unsigned
    "alg none": lambda: sign(bound_claims(), algorithm="none"),
    "alg none with a signature": lambda: sign_text(
        _HAND, rsa_key(), "RS256", {}, raw='{"alg":"none","kid":"k1"}'
    ),
    "alg None": lambda: sign_text(_HAND, rsa_key(), "RS256", {}, raw='{"alg":"None","kid":"k1"}'),
    "no alg": lambda: sign_text(_HAND, rsa_key(), "RS256", {}, raw='{"kid":"k1"}'),
    "alg is a list": lambda: sign_text(
        _HAND, rsa_key(), "RS256", {}, raw='{"alg":["RS256"],"kid":"k1"}'
    ),
    "no signature": lambda: sign(bound_claims()).rpartition(".")[0] + ".",
    # the wrong family or hash
    "HMAC with the public key": lambda: _hs256(_pem()),
    "HMAC with the key id": lambda: _hs256(b"k1"),
    "HMAC with nothing": lambda: _hs256(b"\x00"),
    "RSA with another hash": lambda: sign(bound_claims(), algorithm="RS512"),
    "RSA with another padding": lambda: sign(bound_claims(), algorithm="PS256"),
    "elliptic curve under an RSA key id": lambda: sign(bound_claims(), ec_key(), "ES256"),
    "RSA claimed, curve signed": lambda: sign_text(
        _HAND, ec_key(), "ES256", {}, raw='{"alg":"RS256","kid":"k1"}'
    ),
    # the wrong key
    "another RSA key": lambda: sign(bound_claims(), rsa_key(9)),
    "unknown key id": lambda: sign(bound_claims(), rsa_key(9), kid="k2"),
    "the other issuer's key": lambda: sign(login_claims()),
    "the other issuer's key for us": lambda: sign(bound_claims(), ec_key(), "ES256", "e1"),
    "altered claims": _altered,
    "cut signature": lambda: sign(bound_claims())[:-8],
    "signature in another alphabet": lambda: sign(bound_claims()) + "=",
    # key tricks
    "embedded key": lambda: sign(bound_claims(), rsa_key(9), jwk=_ATTACKER),
    "embedded key, no key id": lambda: sign(bound_claims(), rsa_key(9), kid=None, jwk=_ATTACKER),
    "key location": lambda: sign(bound_claims(), rsa_key(9), jku="http://127.0.0.1:1/jwks"),
    "certificate location": lambda: sign(bound_claims(), rsa_key(9), x5u="http://127.0.0.1:1/"),
    "embedded certificate": lambda: sign(bound_claims(), rsa_key(9), x5c=["AAAA"]),
    "key id as a path": lambda: sign(bound_claims(), rsa_key(9), kid="../../etc/passwd"),
    "key id as a location": lambda: sign(bound_claims(), rsa_key(9), kid="http://127.0.0.1:1/"),
    "key id is no text": lambda: sign_text(_HAND, rsa_key(), "RS256", {"kid": 1}),
    "giant key id": lambda: sign(bound_claims(), kid="k" * 10_000),
    # critical headers
    "unknown critical header": lambda: sign(bound_claims(), crit=["x"], x=1),
    "empty critical header": lambda: sign(bound_claims(), crit=[]),
    "unencoded payload": lambda: sign(bound_claims(), b64=False, crit=["b64"]),
    # issuer and audience
    "unknown issuer": lambda: sign(bound_claims(iss="https://evil")),
    "issuer as a location": lambda: sign(bound_claims(iss="http://127.0.0.1:1/")),
    "issuer with a slash more": lambda: sign(bound_claims(iss=CLUSTER + "/")),
    "issuer is a list": lambda: sign(bound_claims(iss=[CLUSTER])),
    "no issuer": lambda: sign(bound_claims(iss=None)),
    "other audience": lambda: sign(bound_claims(aud=["vault"])),
    "no audience": lambda: sign(bound_claims(aud=None)),
    "empty audience": lambda: sign(bound_claims(aud=[])),
    "audience as a part": lambda: sign(bound_claims(aud=CLUSTER + ".evil")),
    "audience is an object": lambda: sign(bound_claims(aud={CLUSTER: 1})),
    # times
    "expired": lambda: sign(bound_claims(exp=WALL - 61)),
    "never expires": lambda: sign(bound_claims(exp=None)),
    "expiry is text": lambda: sign(bound_claims(exp=str(WALL + 60))),
    "expiry is true": lambda: sign(bound_claims(exp=True)),
    "expiry is infinite": lambda: sign_text(
        _HAND.replace(json.dumps(WALL + 3600), "1e999"), rsa_key(), "RS256", {"kid": "k1"}
    ),
    "expiry is a constant": lambda: sign(bound_claims(exp=float("inf"))),
    "not yet valid": lambda: sign(bound_claims(nbf=WALL + 61)),
    "issued in the future": lambda: sign(bound_claims(iat=WALL + 61)),
    # reading tricks
    "repeated claim": lambda: sign_text(
        _HAND[:-1] + f', "sub": "{BUILDER}"}}', rsa_key(), "RS256", {"kid": "k1"}
    ),
    "repeated header": lambda: sign_text(
        _HAND, rsa_key(), "RS256", {}, raw='{"alg":"none","alg":"RS256","kid":"k1"}'
    ),
    "claims are a list": lambda: sign_text("[]", rsa_key(), "RS256", {"kid": "k1"}),
    "claims are deep": lambda: sign_text("[" * 5_000, rsa_key(), "RS256", {"kid": "k1"}),
    "claims are no text": lambda: f"{b64(b'{}')}.{b64(bytes(range(256)))}.AAAA",
    "five parts": lambda: sign(bound_claims()) + ".a.b",
    "too long": lambda: sign(bound_claims(pad="x" * LONGEST_TOKEN)),
    "not a token": lambda: "nonsense",
    # claims
    "subject of another account": lambda: sign(bound_claims(sub="system:admin")),
    "no private claims": lambda: sign(bound_claims(**{"kubernetes.io": None})),
    "namespace with a colon": lambda: sign(_private(namespace="kube-system:admin")),
    "account without name": lambda: sign(_private(serviceaccount={"uid": "x"})),
    "account without uid": lambda: sign(_private(serviceaccount={"name": "builder"})),
    "legacy without secret": lambda: sign(
        {k: v for k, v in LEGACY.items() if not k.endswith("secret.name")}
    ),
    "legacy with the login key": lambda: sign(LEGACY, ec_key(), "ES256", "e1"),
    "unverified address": lambda: sign_login(login_claims(email_verified=False)),
    "address verified by text": lambda: sign_login(login_claims(email_verified="true")),
    "no user claim": lambda: sign_login(login_claims(email=None)),
    "user is a list": lambda: sign_login(login_claims(email=["root"])),
    "user with a line end": lambda: sign_login(login_claims(email="a\nb")),
    "user with an outer blank": lambda: sign_login(login_claims(email="alice ")),
    "anonymous user": lambda: sign_login(login_claims(email="system:anonymous")),
    "groups are numbers": lambda: sign_login(login_claims(groups=[1])),
    "group with a control character": lambda: sign_login(login_claims(groups=["a\x00"])),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_gives_no_identity(name: str) -> None:
    verdict = judge(BAD[name]())
    assert verdict.outcome in (Outcome.REJECTED, Outcome.FOREIGN)
    assert verdict.identity is None
    assert verdict.reason


@pytest.mark.parametrize("name", ["unknown critical header", "expired", "other audience"])
def test_what_can_be_told_without_a_signature_costs_none(name: str) -> None:
    verifier = verifier_of()
    judge(BAD[name](), verifier)
    assert verifier.checks == 0


def test_there_are_enough_bad_tokens() -> None:
    assert len(BAD) >= 30


def test_reasons_quote_nothing_of_a_token() -> None:
    reasons = " ".join({judge(make()).reason for make in BAD.values()})
    for named in ("evil", "127.0.0.1", "builder", "alice", "vault", "k1"):
        assert named not in reasons


def test_nothing_can_fetch_what_a_token_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_arguments: object) -> None:
        raise AssertionError("a token must not open anything")

    monkeypatch.setattr("socket.socket.connect", forbidden)
    monkeypatch.setattr("urllib.request.urlopen", forbidden)
    monkeypatch.setattr("builtins.open", forbidden)
    verifier = verifier_of()
    for make in BAD.values():
        verifier.verify(make(), NOW, WALL)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_change_of_a_good_token_is_believed(data: st.DataObject) -> None:
    token = _GOOD
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from("ABab01-_.= \x00é"))
    changed = token[:place] + character + token[place + 1 :]
    verdict = judge(changed, _SHARED)
    if changed != token and verdict.identity is not None:
        # Unused bits of the last character: another spelling of the same signature.
        assert place == len(token) - 1


_GOOD = sign(bound_claims())
_SHARED = verifier_of(rate=1e9)


# -- what is remembered, and what it may cost


def test_a_token_is_checked_once_and_believed_until_it_expires() -> None:
    verifier = verifier_of()
    token = sign(bound_claims(exp=WALL + 100))
    first = judge(token, verifier)
    assert judge(token, verifier).identity is first.identity
    assert verifier.checks == 1
    assert first.until == pytest.approx(NOW + 160)
    late = verifier.verify(token, NOW, WALL + 161)
    assert (late.outcome, late.identity) == (Outcome.REJECTED, None)


def test_a_key_that_was_dropped_proves_nothing_any_more() -> None:
    verifier = verifier_of()
    token = sign(bound_claims())
    assert judge(token, verifier).identity is not None
    verifier.set_keys(CLUSTER, key_set(jwk_of(rsa_key(1), "k1")))
    assert judge(token, verifier).identity is None
    verifier.set_keys(CLUSTER, key_set(jwk_of(rsa_key(), "k1"), jwk_of(rsa_key(1), "k2")))
    assert judge(token, verifier).identity is not None


def test_a_new_key_is_used_for_a_token_that_was_bad_before() -> None:
    verifier = verifier_of(cluster=key_set(jwk_of(rsa_key(1))))
    token = sign(bound_claims())
    assert judge(token, verifier).outcome is Outcome.REJECTED
    verifier.set_keys(CLUSTER, key_set(jwk_of(rsa_key())))
    assert judge(token, verifier).outcome is Outcome.VERIFIED


def test_a_bad_signature_is_checked_again_only_after_ten_seconds() -> None:
    verifier = verifier_of()
    token = BAD["another RSA key"]()
    for later in (0.0, 1.0, 9.9):
        assert verifier.verify(token, NOW + later, WALL).outcome is Outcome.REJECTED
    assert verifier.checks == 1
    verifier.verify(token, NOW + 10.0, WALL)
    assert verifier.checks == 2


def test_signature_checks_keep_to_their_budget_and_good_tokens_to_their_verdict() -> None:
    verifier = verifier_of(rate=5.0)
    good = sign(bound_claims())
    assert judge(good, verifier).outcome is Outcome.VERIFIED
    forged = [sign(bound_claims(jti=f"{n}"), rsa_key(9)) for n in range(10)]
    outcomes = [judge(token, verifier).outcome for token in forged]
    assert outcomes == [Outcome.REJECTED] * 4 + [Outcome.POSTPONED] * 6
    assert (verifier.checks, verifier.postponed) == (5, 6)
    assert judge(good, verifier).outcome is Outcome.VERIFIED
    assert verifier.verify(forged[9], NOW + 1.0, WALL).outcome is Outcome.REJECTED


def test_ten_thousand_bad_tokens_in_a_second_cost_bounded_checks_memory_and_time() -> None:
    """Well-formed, current, for us, under a known key id: as expensive as a bad token can be."""
    verifier = verifier_of(rate=500.0, remembered=1_000)
    head, payload, _ = sign(bound_claims()).split(".")
    signature = b64(bytes(256))[:-8]
    started = time.process_time()
    for n in range(10_000):
        verifier.verify(f"{head}.{payload}.{signature}{n:08d}", NOW + n / 10_000, WALL)
    spent = time.process_time() - started
    assert verifier.checks <= 1_000  # 500 saved up and 500 of this second
    assert verifier.postponed >= 9_000
    assert verifier.remembered <= 2_000
    assert spent < 2.0  # 0.3 s here; a request costs the guard as much as that anyway


def test_an_issuer_without_keys_yet_leaves_its_tokens_to_others() -> None:
    verifier = JwtVerifier(
        [Issuer(LOGIN, frozenset({"kube"}))], secret=b"k", budget=Budget(1, NOW), remembered=1
    )
    assert judge(sign_login(login_claims()), verifier).outcome is Outcome.FOREIGN


def test_a_claim_is_told_for_logs_but_is_no_identity() -> None:
    verdict = judge(BAD["expired"]())
    assert verdict.identity is None
    assert verdict.claimed is not None
    assert verdict.claimed.user == BUILDER


def test_the_library_binds_keys_to_algorithms_too() -> None:
    """Two locks on one door: without ours, PyJWT's own would still hold."""
    key = parse_key_set(json.dumps({"keys": [jwk_of(rsa_key())]})).keys[0]
    with pytest.raises(jwt.PyJWTError):
        jwt.PyJWS().decode_complete(_hs256(_pem()), key.jwk, algorithms=["HS256"])
