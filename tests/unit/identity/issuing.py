"""Issuers of tokens and authorities of certificates, for tests."""

from __future__ import annotations

import base64
import datetime
import functools
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from apiguard.identity.budget import Budget
from apiguard.identity.claims import ClaimMappings
from apiguard.identity.jwt import Issuer, JwtVerifier
from apiguard.identity.keys import KeySet, parse_key_set
from tests.unit.identity.recorded import RECORDED_AT

NOW = 1000.0
WALL = RECORDED_AT
CLUSTER = "https://kubernetes.default.svc"
LOGIN = "https://login.example.com"
MAPPINGS = ClaimMappings("email", "", "groups", "oidc:")


@functools.cache
def rsa_key(which: int = 0) -> rsa.RSAPrivateKey:
    """Made once: a key costs a tenth of a second."""
    return rsa.generate_private_key(65537, 2048)


@functools.cache
def ec_key(which: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def jwk_of(key: Private, kid: str | None = "k1", **members: object) -> dict[str, Any]:
    """The public half as a JWK."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        entry = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        entry = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        entry = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)
    entry.pop("key_ops", None)
    return {**entry, **({} if kid is None else {"kid": kid}), **members}


def key_set(*entries: Mapping[str, object]) -> KeySet:
    return parse_key_set(json.dumps({"keys": list(entries)}))


def bound_claims(**changes: object) -> dict[str, object]:
    """Of a projected token of builder, bound to a pod; None removes a claim."""
    claims: dict[str, object] = {
        "iss": CLUSTER,
        "aud": [CLUSTER],
        "sub": "system:serviceaccount:default:builder",
        "iat": WALL - 60,
        "nbf": WALL - 60,
        "exp": WALL + 3600,
        "jti": "j-1",
        "kubernetes.io": {
            "namespace": "default",
            "serviceaccount": {"name": "builder", "uid": "sa-uid"},
            "pod": {"name": "p", "uid": "p-uid"},
            "node": {"name": "n", "uid": "n-uid"},
        },
    }
    claims.update(changes)
    return {name: value for name, value in claims.items() if value is not None}


def login_claims(**changes: object) -> dict[str, object]:
    claims: dict[str, object] = {
        "iss": LOGIN,
        "aud": "kube",
        "sub": "4711",
        "email": "alice@example.com",
        "groups": ["devs"],
        "exp": WALL + 3600,
    }
    claims.update(changes)
    return {name: value for name, value in claims.items() if value is not None}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(
    claims: Mapping[str, object],
    key: Private | bytes | None = None,
    algorithm: str = "RS256",
    kid: str | None = "k1",
    **header: object,
) -> str:
    """A token as an honest issuer would write it, or a dishonest one."""
    headers: dict[str, Any] = {**({} if kid is None else {"kid": kid}), **header}
    signer = rsa_key() if key is None else key
    return sign_text(json.dumps(claims), signer, algorithm, headers)


def sign_text(
    payload: str, key: Private | bytes, algorithm: str, headers: dict[str, Any], raw: str = ""
) -> str:
    """Signs any payload under any header; ``raw`` is a header written by hand."""
    header = raw or json.dumps({"alg": algorithm, "typ": "JWT", **headers})
    signing_input = f"{b64(header.encode())}.{b64(payload.encode())}"
    if algorithm == "none":
        return signing_input + "."
    method = jwt.get_algorithm_by_name(algorithm)
    return f"{signing_input}.{b64(method.sign(signing_input.encode(), key))}"


def verifier_of(
    *, rate: float = 500.0, remembered: int = 1_000, cluster: KeySet | None = None
) -> JwtVerifier:
    """Knows the cluster (RSA key k1) and a login issuer (EC key e1)."""
    verifier = JwtVerifier(
        [
            Issuer(CLUSTER, frozenset({CLUSTER})),
            Issuer(LOGIN, frozenset({"kube"}), MAPPINGS),
        ],
        secret=b"0123456789abcdef",
        budget=Budget(rate, NOW),
        remembered=remembered,
    )
    verifier.set_keys(CLUSTER, cluster or key_set(jwk_of(rsa_key())))
    verifier.set_keys(LOGIN, key_set(jwk_of(ec_key(), "e1")))
    return verifier


# -- certificates


class Authority:
    """Signs client certificates; without ``ca`` its own certificate does not allow it to."""

    def __init__(
        self,
        name: str = "ca",
        parent: Authority | None = None,
        days: float = 365.0,
        *,
        ca: bool = True,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = parent or self
        self.certificate = (
            _builder(self.name, issuer.name, self.key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def issue(
        self,
        subject: x509.Name,
        *,
        days: float = 30.0,
        usages: list[x509.ObjectIdentifier] | None = None,
    ) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self.name, key.public_key(), days)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    wall = datetime.datetime.fromtimestamp(WALL, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(wall - datetime.timedelta(hours=1))
        .not_valid_after(wall + datetime.timedelta(days=days))
    )
