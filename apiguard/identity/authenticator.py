"""Credential -> Authentication.

Order as in kube-apiserver: client certificate, bearer token, anonymous; a credential that fails
never becomes anonymous. A certificate that fails is refused, since the guard would have to speak
for it. A token the guard cannot prove is unverified, not refused: upstream stays its judge and
gets it unchanged.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass

from apiguard.errors import ConfigError, Problem
from apiguard.identity.certificate import ClientAuthority, ClientCertificate
from apiguard.identity.credentials import bearer_token, websocket_token
from apiguard.identity.jwt import LONGEST_TOKEN, JwtVerifier, Outcome
from apiguard.identity.proof import Proof
from apiguard.identity.reviews import Reviews
from apiguard.kube.identity import (
    ANONYMOUS,
    ClaimedIdentity,
    Identity,
    Standing,
    with_authenticated,
)
from apiguard.wire.frontproxy import name_problem

RECHECK_SECONDS = 5.0
"""An answer that hangs on wall-clock time holds no longer than this: that clock may jump."""

SIGNATURE_CHECKS = "signature_checks"
TOKEN_REVIEWS = "token_reviews"  # noqa: S105  the name of a bound, not of a secret
"""Names of the bounds met here, as in ``telemetry.bounds``: siblings stay strangers."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """What became of a credential. ``identity`` is None exactly when the standing is UNVERIFIED.

    ``until``    monotonic seconds from which on the credential must be judged again
    ``claimed``  whom an unverified token claims to be, for logs and explain only
    ``reason``   why a credential is unverified; quotes nothing of it
    ``bound``    the bound that kept it from being proven, as in ``telemetry.bounds``, or ""
    ``refused``  why the request must be answered 401, "" when it need not be: certificates only
    ``proof``    what stands behind the identity: whether it may be answered from a cache
    """

    standing: Standing
    identity: Identity | None
    until: float = math.inf
    claimed: ClaimedIdentity | None = None
    reason: str = ""
    bound: str = ""
    refused: str = ""
    proof: Proof = Proof.NONE


_ANONYMOUS = Authentication(Standing.ANONYMOUS, ANONYMOUS, proof=Proof.ANONYMOUS)
_UNVERIFIED = Authentication(Standing.UNVERIFIED, None)


class Authenticator:
    """Knows static tokens, issuers, reviews and the authorities of client certificates.

    A change of any of them makes a new one (``replace``), by which whoever keeps an answer sees
    that it is out of date. What issuers and reviews have learnt is shared by old and new.
    """

    __slots__ = ("_tokens", "authority", "reviews", "verifier")

    def __init__(
        self,
        tokens: Mapping[str, Identity] | None = None,
        *,
        verifier: JwtVerifier | None = None,
        reviews: Reviews | None = None,
        authority: ClientAuthority | None = None,
    ) -> None:
        self._tokens = {
            token: _verified(identity, math.inf, Proof.LOCAL)
            for token, identity in (tokens or {}).items()
        }
        self.verifier = verifier
        self.reviews = reviews
        self.authority = authority

    @classmethod
    def from_static_tokens(cls, text: str, name: str = "static tokens") -> Authenticator:
        """``text`` is kube-apiserver's ``--token-auth-file``. Raises ConfigError."""
        return cls(parse_static_tokens(text, name))

    def replace(
        self,
        *,
        tokens: Mapping[str, Identity] | None = None,
        authority: ClientAuthority | None = None,
    ) -> Authenticator:
        """One that knows these instead; what is not given stays."""
        new = Authenticator(
            tokens,
            verifier=self.verifier,
            reviews=self.reviews,
            authority=authority or self.authority,
        )
        if tokens is None:
            new._tokens = self._tokens
        return new

    def authenticate(
        self, authorization: bytes, websocket_protocols: bytes, now: float = 0.0, wall: float = 0.0
    ) -> Authentication:
        """Judges the token a request presents; b"" for headers it lacks.

        ``now`` is monotonic, ``wall`` Unix seconds.
        """
        token = bearer_token(authorization) if authorization else None
        if token is None and websocket_protocols:
            token = websocket_token(websocket_protocols)
        if token is None:
            return _ANONYMOUS
        return self._tokens.get(token) or self._prove(token, now, wall)

    def _prove(self, token: str, now: float, wall: float) -> Authentication:
        if len(token) > LONGEST_TOKEN:
            return _UNVERIFIED
        claimed = None
        if self.verifier is not None:
            verdict = self.verifier.verify(token, now, wall)
            until = min(verdict.until, now + RECHECK_SECONDS)
            if verdict.outcome is Outcome.VERIFIED:
                return _verified(verdict.identity, until, Proof.LOCAL)
            claimed = verdict.claimed
            if verdict.outcome is not Outcome.FOREIGN or self.reviews is None:
                bound = SIGNATURE_CHECKS if verdict.outcome is Outcome.POSTPONED else ""
                return _unverified(until, claimed, verdict.reason, bound)
        if self.reviews is None:
            return _UNVERIFIED
        reviewed = self.reviews.lookup(token, now)
        if reviewed.identity is None:
            bound = TOKEN_REVIEWS if reviewed.shed else ""
            return _unverified(reviewed.until, claimed, reviewed.reason, bound)
        return _verified(reviewed.identity, reviewed.until, Proof.CONFIRMED)

    def authenticate_certificate(
        self, certificate: ClientCertificate, now: float, wall: float
    ) -> Authentication:
        """Judges the certificate of a connection, for a request on it.

        It wins over a token, as upstream has it, and is refused by itself, whatever token is
        presented beside it.
        """
        if self.authority is None:
            problem = "client certificates are no longer accepted"
        else:
            problem = certificate.problem(self.authority, wall)
        if problem:
            return Authentication(Standing.UNVERIFIED, None, now, reason=problem, refused=problem)
        until = now + min(RECHECK_SECONDS, max(0.0, certificate.not_after - wall))
        return _verified(certificate.identity, until, Proof.CERTIFICATE)


def _verified(identity: Identity | None, until: float, proof: Proof) -> Authentication:
    return Authentication(Standing.VERIFIED, identity, until, proof=proof)


def _unverified(
    until: float, claimed: ClaimedIdentity | None, reason: str, bound: str
) -> Authentication:
    return Authentication(Standing.UNVERIFIED, None, until, claimed, reason, bound)


def parse_static_tokens(text: str, name: str) -> dict[str, Identity]:
    """Rows of ``token,user,uid[,"group1,group2"]`` -> identities by token.

    Source: k8s.io/apiserver/pkg/authentication/token/tokenfile/tokenfile.go, which skips rows
    with an empty token; here they are errors, like every row upstream could read differently.
    Raises ConfigError; messages never quote a token.
    """
    tokens: dict[str, Identity] = {}
    problems: list[Problem] = []
    rows = csv.reader(text.splitlines(), strict=True, skipinitialspace=True)
    try:
        for row in rows:
            if not row or row[0].lstrip().startswith("#"):
                continue
            reason = _row_problem(row, tokens)
            if reason:
                problems.append(Problem(name, rows.line_num, "", reason))
            else:
                tokens[row[0].strip()] = _row_identity(row)
    except csv.Error as error:
        problems.append(Problem(name, rows.line_num, "", str(error)))
    if problems:
        raise ConfigError(problems)
    return tokens


def _row_problem(row: list[str], seen: Mapping[str, Identity]) -> str:
    if len(row) < 3:
        return 'a row needs token,user,uid and may end with "group1,group2"'
    token, user = row[0].strip(), row[1]
    if not token:
        return "the token is empty"
    if token in seen:
        return "the token appears twice"
    names = [user, *_groups(row)]
    if any(name_problem(name) for name in names):
        return "user and groups must not be empty, blank-padded or hold control characters"
    return ""


def _row_identity(row: list[str]) -> Identity:
    groups = with_authenticated(row[1], tuple(_groups(row)))
    return Identity(user=row[1], groups=groups, uid=row[2])


def _groups(row: list[str]) -> list[str]:
    if len(row) < 4 or not row[3]:
        return []
    return [group.strip() for group in row[3].split(",")]
