"""Verification keys from a JSON Web Key Set (RFC 7517), each bound to one algorithm.

A key that cannot be used is left out with a reason, so that one odd entry of an issuer's set does
not take the others down. Nothing in a token ever adds a key or says where one is.
"""

from __future__ import annotations

import hashlib
import json

import jwt

from apiguard.errors import ConfigError, Problem

MAX_BYTES = 1 << 20
MAX_KEYS = 128
LEAST_RSA_BITS = 2048

_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class VerificationKey:
    """A public key and the one algorithm it verifies. ``kid`` is "" when the set names none.

    ``thumbprint`` identifies the key and its algorithm across sets.
    """

    __slots__ = ("algorithm", "jwk", "kid", "thumbprint")

    def __init__(self, kid: str, algorithm: str, jwk: jwt.PyJWK, thumbprint: str) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.jwk = jwk
        self.thumbprint = thumbprint


class KeySet:
    """An issuer's keys. Immutable.

    ``skipped`` says of every key that was left out why; ``digest`` is equal for equal texts.
    """

    __slots__ = ("_by_kid", "digest", "keys", "skipped")

    def __init__(
        self,
        keys: tuple[VerificationKey, ...] = (),
        skipped: tuple[str, ...] = (),
        digest: str = "",
    ) -> None:
        self.keys = keys
        self.skipped = skipped
        self.digest = digest
        self._by_kid: dict[str, list[VerificationKey]] = {}
        for key in keys:
            self._by_kid.setdefault(key.kid, []).append(key)

    def named(self, kid: str) -> list[VerificationKey]:
        """Keys a token with this key id may be signed with; every key for one without ("")."""
        return self._by_kid.get(kid, []) if kid else list(self.keys)

    @property
    def thumbprints(self) -> frozenset[str]:
        return frozenset(key.thumbprint for key in self.keys)


def parse_key_set(text: str, name: str = "key set") -> KeySet:
    """``text`` is a JWKS. Raises ConfigError when it is none, or holds no key that can be used."""
    if len(text) > MAX_BYTES:
        raise _problem(name, f"is longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _problem(name, "is no JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise _problem(name, f'must be an object whose "keys" is a list of at most {MAX_KEYS}')
    keys: list[VerificationKey] = []
    skipped: list[str] = []
    for index, entry in enumerate(entries):
        try:
            keys.append(_key(entry))
        except _UnusableError as reason:
            skipped.append(f"keys[{index}] {reason}")
    if not keys:
        raise _problem(name, "; ".join(["holds no key that can be used", *skipped[:3]]))
    return KeySet(tuple(keys), tuple(skipped), hashlib.sha256(text.encode()).hexdigest())


def _problem(name: str, reason: str) -> ConfigError:
    return ConfigError([Problem(name, 0, "", reason)])


class _UnusableError(Exception):
    """This entry verifies nothing; the message says why."""


def _key(entry: object) -> VerificationKey:
    """Raises _UnusableError."""
    if not isinstance(entry, dict):
        raise _UnusableError("is no object")
    if not _PRIVATE_MEMBERS.isdisjoint(entry):
        raise _UnusableError("holds a private or symmetric key, which has no place here")
    if entry.get("use", "sig") != "sig":
        raise _UnusableError("is not for signatures")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _UnusableError("is not for verifying")
    kid = entry.get("kid", "")
    if not isinstance(kid, str):
        raise _UnusableError("has a kid that is no text")
    algorithm = _algorithm(entry)
    try:
        jwk = jwt.PyJWK(entry, algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise _UnusableError("is no valid public key") from None
    if algorithm in _RSA_ALGORITHMS and jwk.key.key_size < LEAST_RSA_BITS:
        raise _UnusableError(f"is an RSA key of less than {LEAST_RSA_BITS} bits")
    return VerificationKey(kid, algorithm, jwk, _thumbprint(entry, algorithm))


def _algorithm(entry: dict[str, object]) -> str:
    """The one algorithm of a key: the one it names, if its type can do it, else its type's usual.

    An RSA key that names none is RS256, as kube-apiserver's service-account keys are.
    """
    named = entry.get("alg")
    kty, crv = entry.get("kty"), entry.get("crv")
    if kty == "RSA":
        usual, possible = "RS256", _RSA_ALGORITHMS
    elif kty == "EC" and isinstance(crv, str) and crv in _CURVES:
        usual, possible = _CURVES[crv], frozenset({_CURVES[crv]})
    elif kty == "OKP" and crv == "Ed25519":
        usual, possible = "EdDSA", frozenset({"EdDSA"})
    else:
        raise _UnusableError("is of a type or curve that is not used for tokens")
    if named is None:
        return usual
    if not isinstance(named, str) or named not in possible:
        raise _UnusableError("names an algorithm its type cannot have")
    return named


def _thumbprint(entry: dict[str, object], algorithm: str) -> str:
    """Over what makes the key, as in RFC 7638, with the algorithm."""
    members = {name: entry[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in entry}
    text = json.dumps({**members, "alg": algorithm}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
