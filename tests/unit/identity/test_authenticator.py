"""Which credential counts, and what becomes of it."""

from __future__ import annotations

import base64

import pytest

from apiguard.errors import ConfigError
from apiguard.identity.authenticator import (
    RECHECK_SECONDS,
    SIGNATURE_CHECKS,
    TOKEN_REVIEWS,
    Authenticator,
    parse_static_tokens,
)
from apiguard.identity.budget import Budget
from apiguard.identity.certificate import ClientAuthority
from apiguard.identity.credentials import bearer_token, websocket_token
from apiguard.identity.proof import Proof
from apiguard.identity.reviews import Reviews
from apiguard.kube.identity import ANONYMOUS, ClaimedIdentity, Identity, Standing
from apiguard.telemetry.bounds import BOUNDS
from tests.unit.identity import issuing, recorded

ALICE = Identity("alice", ("devs", "system:authenticated"), "7")
AUTHENTICATOR = Authenticator({"secret": ALICE})
PREFIX = b"base64url.bearer.authorization.k8s.io."


def encoded(token: bytes) -> bytes:
    return PREFIX + base64.urlsafe_b64encode(token).rstrip(b"=")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (b"Bearer secret", "secret"),
        (b"bearer secret", "secret"),  # recorded: accepted by kube-apiserver
        (b"BEARER secret", "secret"),
        (b"Bearer secret and more", "secret"),  # recorded: text after the token is ignored
        (b"  Bearer secret\t", "secret"),
        (b"Bearer  secret", None),  # recorded: two blanks are no credential
        (b"Bearer ", None),
        (b"Bearer", None),
        (b"Bearer\tsecret", None),
        (b"Bearersecret", None),
        (b"Basic YTpi", None),
        (b"", None),
        (b"Bearer \xe9", "\xe9"),
    ],
)
def test_an_authorization_header_is_read_as_kube_apiserver_reads_it(
    header: bytes, token: str | None
) -> None:
    assert bearer_token(header) == token


@pytest.mark.parametrize(
    ("protocols", "token"),
    [
        (encoded(b"secret"), "secret"),
        (b"v5.channel.k8s.io, " + encoded(b"secret"), "secret"),
        (encoded(b"secret") + b",v5.channel.k8s.io", "secret"),
        (encoded(b"\xff\xfb-ok".replace(b"\xff\xfb", b"??>")), "??>-ok"),  # uses - and _
        (b"v5.channel.k8s.io", None),
        (PREFIX, None),
        (b"", None),
    ],
)
def test_a_subprotocol_can_hold_a_token(protocols: bytes, token: str | None) -> None:
    assert websocket_token(protocols) == token


@pytest.mark.parametrize(
    "protocols",
    [
        PREFIX + b"c2VjcmV0ZQ==",  # padded
        PREFIX + b"c2Vj+mV0",
        PREFIX + b"!",
        PREFIX + b"c",
        PREFIX + b"__8",  # no UTF-8
        encoded(b"secret") + b"," + encoded(b"secret"),
    ],
)
def test_a_token_kube_apiserver_could_not_read_proves_nothing_and_is_not_anonymous(
    protocols: bytes,
) -> None:
    authentication = AUTHENTICATOR.authenticate(b"", protocols)
    assert (authentication.standing, authentication.identity) == (Standing.UNVERIFIED, None)


@pytest.mark.parametrize(
    ("header", "protocols", "standing"),
    [
        (b"Bearer secret", b"", Standing.VERIFIED),
        (b"", encoded(b"secret"), Standing.VERIFIED),
        (b"Bearer secret", encoded(b"unknown"), Standing.VERIFIED),
        (b"Bearer unknown", encoded(b"secret"), Standing.UNVERIFIED),
        (b"Bearer secre", b"", Standing.UNVERIFIED),
        (b"Bearer secret\x00", b"", Standing.UNVERIFIED),
        (b"Basic YTpi", b"", Standing.ANONYMOUS),
        (b"", b"", Standing.ANONYMOUS),
    ],
)
def test_only_a_known_token_proves_and_only_its_absence_is_anonymous(
    header: bytes, protocols: bytes, standing: Standing
) -> None:
    authentication = AUTHENTICATOR.authenticate(header, protocols)
    assert authentication.standing is standing
    wanted = {Standing.VERIFIED: ALICE, Standing.ANONYMOUS: ANONYMOUS, Standing.UNVERIFIED: None}
    assert authentication.identity == wanted[standing]


def test_rows_of_a_token_file_become_identities() -> None:
    text = (
        '# comment\nsecret,alice,7,"devs, ops"\n\nother,bob,8\n'
        '"quoted",carol,,"system:authenticated"\n'
    )
    tokens = parse_static_tokens(text, "tokens.csv")
    assert tokens == {
        "secret": Identity("alice", ("devs", "ops", "system:authenticated"), "7"),
        "other": Identity("bob", ("system:authenticated",), "8"),
        "quoted": Identity("carol", ("system:authenticated",), ""),
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("t0ps3cret,alice", "a row needs"),
        (",alice,1", "empty"),
        ("t0ps3cret,,1", "must not be empty"),
        ("t0ps3cret,alice ,1", "blank-padded"),
        ("t0ps3cret,al\x07ice,1", "control"),
        ('t0ps3cret,alice,1,"a,,b"', "must not be empty"),
        ("secret,alice,1", "twice"),
        ('t0ps3cret,"alice,1', "end of data"),
    ],
)
def test_a_row_that_could_be_read_differently_is_an_error_without_its_token(
    row: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Authenticator.from_static_tokens("secret,bob,2\n" + row + "\n", "tokens.csv")
    (problem,) = caught.value.problems
    assert reason in problem.reason
    assert (problem.file, problem.line) == ("tokens.csv", 2)
    assert "t0ps3cret" not in str(caught.value)


# -- tokens that are proven elsewhere

NOW, WALL = issuing.NOW, issuing.WALL


def reviews_of() -> Reviews:
    return Reviews(secret=b"s", budget=Budget(20.0, NOW), remembered=10)


def bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


def test_a_token_of_a_known_issuer_is_never_asked_about() -> None:
    reviews = reviews_of()
    authenticator = Authenticator(verifier=issuing.verifier_of(), reviews=reviews)
    expired = issuing.sign(issuing.bound_claims(exp=WALL - 100))
    for token in (issuing.sign(issuing.bound_claims()), expired):
        authenticator.authenticate(bearer(token), b"", NOW, WALL)
    assert reviews.asked == 0


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        issuing.sign(issuing.bound_claims(iss="https://elsewhere")),
        issuing.sign(issuing.bound_claims(), kid="new"),
    ],
)
def test_a_token_nobody_here_can_judge_is_reviewed(token: str) -> None:
    reviews = reviews_of()
    authenticator = Authenticator(verifier=issuing.verifier_of(), reviews=reviews)
    proof = authenticator.authenticate(bearer(token), b"", NOW, WALL)
    assert proof.standing is Standing.UNVERIFIED
    review = reviews.next_wish()
    assert review is not None
    assert review.token == token
    body = b'{"status": {"authenticated": true, "user": {"username": "carol"}}}'
    reviews.answered(review, body, NOW + 0.01)
    proof = authenticator.authenticate(bearer(token), b"", proof.until, WALL)
    assert proof.identity == Identity("carol", ("system:authenticated",))


def test_a_static_token_needs_neither() -> None:
    reviews = reviews_of()
    authenticator = Authenticator(
        {"secret": ALICE}, verifier=issuing.verifier_of(), reviews=reviews
    )
    assert authenticator.authenticate(b"Bearer secret", b"", NOW, WALL).identity is ALICE
    assert reviews.asked == 0


def test_a_proof_that_hangs_on_the_clock_is_asked_for_again_soon() -> None:
    """The wall clock may jump; nothing tells when."""
    authenticator = Authenticator(verifier=issuing.verifier_of())
    token = bearer(issuing.sign(issuing.bound_claims()))
    proof = authenticator.authenticate(token, b"", NOW, WALL)
    assert NOW < proof.until <= NOW + RECHECK_SECONDS
    later = authenticator.authenticate(token, b"", proof.until, WALL + 1e6)
    assert later.standing is Standing.UNVERIFIED


def test_a_spent_budget_is_named_and_temporary() -> None:
    authenticator = Authenticator(verifier=issuing.verifier_of(rate=1.0))
    tokens = [bearer(issuing.sign(issuing.bound_claims(jti=jti))) for jti in ("a", "b")]
    assert authenticator.authenticate(tokens[0], b"", NOW, WALL).standing is Standing.VERIFIED
    proof = authenticator.authenticate(tokens[1], b"", NOW, WALL)
    assert (proof.standing, proof.bound) == (Standing.UNVERIFIED, SIGNATURE_CHECKS)
    proof = authenticator.authenticate(tokens[1], b"", proof.until, WALL)
    assert proof.standing is Standing.VERIFIED


def test_an_unverified_token_gives_a_claim_and_no_identity() -> None:
    authenticator = Authenticator(verifier=issuing.verifier_of())
    forged = issuing.sign(issuing.bound_claims(), issuing.rsa_key(9))
    proof = authenticator.authenticate(bearer(forged), b"", NOW, WALL)
    assert proof.identity is None
    assert proof.claimed == ClaimedIdentity("system:serviceaccount:default:builder")


def test_what_bounds_are_called_here_is_what_is_counted() -> None:
    assert {SIGNATURE_CHECKS, TOKEN_REVIEWS} <= set(BOUNDS)


def test_ten_thousand_bad_tokens_in_a_second_reach_reviews_within_their_budget() -> None:
    reviews = reviews_of()
    authenticator = Authenticator(verifier=issuing.verifier_of(), reviews=reviews)
    foreign = issuing.sign(issuing.bound_claims(iss="https://elsewhere"))
    for n in range(5_000):
        for token in (f"opaque-{n}", f"{foreign}{n}"):
            authenticator.authenticate(bearer(token), b"", NOW + n / 5_000, WALL)
        review = reviews.next_wish()
        if review is not None:
            reviews.answered(review, b'{"status": {}}', NOW)
    assert reviews.asked <= 40
    assert reviews.remembered <= 20


def test_a_replaced_authenticator_keeps_what_is_not_given() -> None:
    authority = ClientAuthority(issuing.Authority().pem)
    old = Authenticator({"secret": ALICE}, verifier=issuing.verifier_of(), authority=authority)
    new = old.replace(tokens={})
    assert new is not old
    assert (new.verifier, new.authority) == (old.verifier, authority)
    assert new.authenticate(b"Bearer secret", b"").standing is Standing.UNVERIFIED
    other = ClientAuthority(issuing.Authority().pem)
    newest = old.replace(authority=other)
    assert newest.authority is other
    assert newest.authenticate(b"Bearer secret", b"").identity is ALICE


def test_without_authorities_a_certificate_is_refused() -> None:
    certificate = recorded.certificate_of(recorded.lines_of("certificate")[0]["pem"])
    proof = Authenticator().authenticate_certificate(certificate, NOW, WALL)
    assert proof.refused == "client certificates are no longer accepted"


def test_an_answer_names_what_proved_the_caller() -> None:
    """What a cache asks for beyond the identity: upstream's word and a signature differ."""
    reviews = reviews_of()
    authenticator = Authenticator(
        {"secret": ALICE}, verifier=issuing.verifier_of(), reviews=reviews
    )

    def proof(header: bytes) -> Proof:
        return authenticator.authenticate(header, b"", NOW, WALL).proof

    assert proof(b"") is Proof.ANONYMOUS
    assert proof(b"Bearer secret") is Proof.LOCAL
    assert proof(bearer(issuing.sign(issuing.bound_claims()))) is Proof.LOCAL
    assert proof(bearer(issuing.sign(issuing.bound_claims(exp=WALL - 100)))) is Proof.NONE
    assert proof(b"Bearer opaque") is Proof.NONE
    review = reviews.next_wish()
    assert review is not None
    body = b'{"status": {"authenticated": true, "user": {"username": "carol"}}}'
    reviews.answered(review, body, NOW)
    assert proof(b"Bearer opaque") is Proof.CONFIRMED
