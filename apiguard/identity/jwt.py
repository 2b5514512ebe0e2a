"""JSON Web Tokens against keys held here: verified, rejected, or not ours to judge.

What can be told without a signature is told first, and each signature check is charged to a
budget, so that bad tokens cost little and never more than the budget says. A result is kept
under a keyed hash of the token; good and bad ones apart, so that a flood of bad ones forgets no
good one. Answers are for classification only: upstream gets the token unchanged and judges it.

What verification here cannot know: whether the pod, node, Secret or service account a token is
bound to still exists (upstream asks its store), and whatever else an issuer revokes early.

The signatures are PyJWT's business: it is the most widely used and reviewed of the JOSE
libraries for Python, needs nothing but ``cryptography``, which the guard has anyway, ships types,
and binds a key to the algorithm it was made for. Claims are judged here, as kube-apiserver
judges them (pkg/serviceaccount/jwt.go), with its leeway.
"""

from __future__ import annotations

import base64
import enum
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import jwt

from apiguard.identity.budget import Budget
from apiguard.identity.claims import (
    LEGACY_ISSUER,
    BadClaimsError,
    ClaimMappings,
    Claims,
    claimed_identity,
    legacy_service_account_identity,
    oidc_identity,
    service_account_identity,
)
from apiguard.identity.keys import KeySet, VerificationKey
from apiguard.kube.identity import ClaimedIdentity, Identity
from apiguard.memo import Memo

LEEWAY_SECONDS = 60.0
"""How far clocks may differ: go-jose's default, which upstream uses."""

REJECTED_SECONDS = 10.0
"""How long a bad token stays bad without being looked at again."""

POSTPONED_SECONDS = 1.0
"""When a token that found the budget spent may ask again."""

LONGEST_TOKEN = 16_384
LONGEST_KEY_ID = 256
TRIED_KEYS = 4
"""Keys tried for a token that names none."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_JWS = jwt.PyJWS()


class Outcome(enum.Enum):
    """What became of a token."""

    VERIFIED = "verified"
    REJECTED = "rejected"  # an issuer known here did not issue it, or not for now and for here
    FOREIGN = "foreign"  # no JWT, or of an issuer or key not known here: somebody else may know
    POSTPONED = "postponed"  # the budget for signature checks is spent


@dataclass(frozen=True, slots=True)
class Verdict:
    """``until`` is monotonic seconds: ask again then. ``reason`` is for logs, it quotes nothing."""

    outcome: Outcome
    until: float
    identity: Identity | None = None
    claimed: ClaimedIdentity | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of tokens. ``mappings`` is None for the cluster's service accounts."""

    name: str
    audiences: frozenset[str]
    mappings: ClaimMappings | None = None


class _Held:
    """A verified token: whom it names, its last Unix second, and the key that proved it."""

    __slots__ = ("claimed", "expires", "identity", "key")

    def __init__(self, identity: Identity, expires: float, key: str) -> None:
        self.identity = identity
        self.expires = expires
        self.key = key


class _RejectedError(Exception):
    """The token is bad. The message says why and quotes nothing of it."""


class _ForeignError(Exception):
    """Not a token that can be judged here."""


class JwtVerifier:
    """Knows issuers and their keys; remembers what it found.

    ``secret`` keys the hash under which tokens are remembered: 16 random bytes or more.
    ``checks`` counts signature checks, ``postponed`` those the budget did not allow.
    """

    __slots__ = (
        "_budget",
        "_good",
        "_issuers",
        "_keys",
        "_rejected",
        "_secret",
        "_thumbprints",
        "checks",
        "postponed",
    )

    def __init__(
        self, issuers: Iterable[Issuer], *, secret: bytes, budget: Budget, remembered: int
    ) -> None:
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._keys: dict[str, KeySet] = {}
        self._thumbprints: frozenset[str] = frozenset()
        self._secret = secret
        self._budget = budget
        self._good: Memo[bytes, _Held] = Memo(remembered)
        self._rejected: Memo[bytes, Verdict] = Memo(remembered)
        self.checks = 0
        self.postponed = 0

    def set_keys(self, issuer: str, keys: KeySet) -> None:
        """From here on ``issuer`` signs with ``keys``; what a dropped key proved is forgotten."""
        self._keys[issuer] = keys
        held = [one.thumbprints for one in self._keys.values()]
        self._thumbprints = frozenset().union(*held)
        self._rejected.clear()

    @property
    def remembered(self) -> int:
        """Tokens whose verdict is kept."""
        return len(self._good) + len(self._rejected)

    def verify(self, token: str, now: float, wall: float) -> Verdict:
        """Judge ``token`` at ``now`` (monotonic) and ``wall`` (Unix seconds). Never raises."""
        if len(token) > LONGEST_TOKEN:
            return Verdict(Outcome.REJECTED, math.inf, reason="the token is too long")
        key = blake2b(token.encode("latin-1", "replace"), digest_size=16, key=self._secret).digest()
        held = self._good.get(key)
        if held is not None and held.key in self._thumbprints:
            return self._recall(held, now, wall)
        rejected = self._rejected.get(key)
        if rejected is not None and now < rejected.until:
            return rejected
        return self._judge(token, key, now, wall)

    def _recall(self, held: _Held, now: float, wall: float) -> Verdict:
        left = held.expires + LEEWAY_SECONDS - wall
        if left < 0:
            return Verdict(Outcome.REJECTED, math.inf, reason="the token has expired")
        return Verdict(Outcome.VERIFIED, now + left, held.identity)

    def _judge(self, token: str, key: bytes, now: float, wall: float) -> Verdict:
        claims: Claims = {}
        try:
            header, claims = _parse(token)
            issuer = self._issuer(claims)
            expires = _check_times(claims, wall, legacy=claims["iss"] == LEGACY_ISSUER)
            _check_audience(claims, issuer)
            candidates = self._candidates(header, issuer)
            signer = self._signer(token, candidates, now)
            if signer is None:
                self.postponed += 1
                reason = "too many signatures to check"
                until = now + POSTPONED_SECONDS
                return Verdict(Outcome.POSTPONED, until, None, claimed_identity(claims), reason)
            identity = _identity(claims, issuer)
        except _ForeignError as reason:
            until = now + REJECTED_SECONDS
            return Verdict(Outcome.FOREIGN, until, None, claimed_identity(claims), str(reason))
        except (_RejectedError, BadClaimsError) as reason:
            verdict = Verdict(
                Outcome.REJECTED,
                now + REJECTED_SECONDS,
                None,
                claimed_identity(claims),
                str(reason),
            )
            self._rejected.put(key, verdict)
            return verdict
        held = _Held(identity, expires, signer.thumbprint)
        self._good.put(key, held)
        return self._recall(held, now, wall)

    def _issuer(self, claims: Claims) -> Issuer:
        """Legacy service-account tokens are signed with the cluster's keys under an old name."""
        name = claims.get("iss")
        if not isinstance(name, str):
            raise _ForeignError("the token names no issuer")
        if name == LEGACY_ISSUER:
            for issuer in self._issuers.values():
                if issuer.mappings is None:
                    return issuer
        found = self._issuers.get(name)
        if found is None:
            raise _ForeignError("the issuer is not known here")
        return found

    def _candidates(self, header: Mapping[str, object], issuer: Issuer) -> list[VerificationKey]:
        """Keys the signature may be of; the token's algorithm must be the key's, not vice versa."""
        kid = header.get("kid", "")
        if not isinstance(kid, str) or len(kid) > LONGEST_KEY_ID:
            raise _RejectedError("the key id is no text, or too long")
        held = self._keys.get(issuer.name)
        named = held.named(kid) if held is not None else []
        if not named:
            raise _ForeignError("the key is not known here")
        fitting = [key for key in named if key.algorithm == header.get("alg")]
        if not fitting:
            raise _RejectedError("the algorithm is not the key's")
        return fitting[:TRIED_KEYS]

    def _signer(
        self, token: str, candidates: list[VerificationKey], now: float
    ) -> VerificationKey | None:
        """The key that signed ``token``; None when the budget is spent. Raises _RejectedError."""
        for key in candidates:
            if not self._budget.take(now):
                return None
            self.checks += 1
            try:
                _JWS.decode_complete(token, key.jwk, algorithms=[key.algorithm])
            except (jwt.PyJWTError, ValueError):
                continue
            return key
        raise _RejectedError("the signature is wrong")


# -- reading


def _parse(token: str) -> tuple[dict[str, object], dict[str, object]]:
    """Header and claims, not proven by anything yet. Raises _ForeignError or _RejectedError.

    go-jose, which upstream reads tokens with, refuses repeated members and knows no extension.
    """
    compact = _COMPACT.fullmatch(token)
    if compact is None:
        raise _ForeignError("the token is no JWT")
    header, claims = _json_object(compact[1]), _json_object(compact[2])
    if "crit" in header or "b64" in header:
        raise _RejectedError("the token has a critical header that is not known")
    return header, claims


def _json_object(segment: str) -> dict[str, object]:
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        value = json.loads(raw.decode(), object_pairs_hook=_members, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _ForeignError("the token is no JWT") from None
    if not isinstance(value, dict):
        raise _ForeignError("the token is no JWT")
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RejectedError("a member is repeated")
    return members


def _no_constant(name: str) -> object:
    raise _RejectedError("a number is not finite")


def expiry_of(token: str) -> float:
    """The Unix second ``token`` says it ends at, unproven: infinity for what is no JWT or says
    nothing, minus infinity for what cannot be read as one."""
    try:
        expires = _seconds(_parse(token)[1], "exp")
    except _ForeignError:
        return math.inf
    except _RejectedError:
        return -math.inf
    return math.inf if expires is None else expires


def _check_times(claims: Claims, wall: float, *, legacy: bool) -> float:
    """The last Unix second of the token, without leeway. Only legacy tokens have none."""
    expires = _seconds(claims, "exp")
    if expires is None and not legacy:
        raise _RejectedError("the token never expires")
    if expires is not None and wall - LEEWAY_SECONDS > expires:
        raise _RejectedError("the token has expired")
    for name in ("nbf", "iat"):
        begins = _seconds(claims, name)
        if begins is not None and wall + LEEWAY_SECONDS < begins:
            raise _RejectedError("the token is not valid yet")
    return math.inf if expires is None else expires


def _seconds(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RejectedError(f"the claim {name} is no number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise _RejectedError(f"the claim {name} is no number")
    return seconds


def _check_audience(claims: Claims, issuer: Issuer) -> None:
    if claims["iss"] == LEGACY_ISSUER and "aud" not in claims:
        return  # tokens kept in Secrets are older than audiences
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(one, str) and one in issuer.audiences for one in audiences):
        raise _RejectedError("the token is for another audience")


def _identity(claims: Claims, issuer: Issuer) -> Identity:
    if issuer.mappings is not None:
        return oidc_identity(claims, issuer.mappings)
    if claims["iss"] == LEGACY_ISSUER:
        return legacy_service_account_identity(claims)
    return service_account_identity(claims)
