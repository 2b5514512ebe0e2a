"""Key sets: which keys are used, with which algorithm, and why others are left out."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from apiguard.errors import ConfigError
from apiguard.identity.keys import MAX_BYTES, MAX_KEYS, parse_key_set
from tests.unit.identity.issuing import ec_key, ed_key, jwk_of, key_set, rsa_key

RSA = jwk_of(rsa_key())


@pytest.mark.parametrize(
    ("entry", "algorithm"),
    [
        (RSA, "RS256"),
        ({**RSA, "alg": "PS384"}, "PS384"),
        (jwk_of(ec_key()), "ES256"),
        (jwk_of(ed_key()), "EdDSA"),
        ({**RSA, "use": "sig", "key_ops": ["verify"]}, "RS256"),
    ],
)
def test_a_key_has_one_algorithm(entry: dict[str, object], algorithm: str) -> None:
    (key,) = key_set(entry).keys
    assert (key.kid, key.algorithm) == ("k1", algorithm)


SMALL = rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"kty": "oct", "k": "c2VjcmV0"}, "symmetric"),
        ({**RSA, "d": "AQAB"}, "private"),
        ({**RSA, "use": "enc"}, "not for signatures"),
        ({**RSA, "key_ops": ["encrypt"]}, "not for verifying"),
        ({**RSA, "key_ops": "verify"}, "not for verifying"),
        ({**RSA, "kid": 1}, "kid"),
        ({**RSA, "alg": "HS256"}, "algorithm"),
        ({**RSA, "alg": "none"}, "algorithm"),
        ({**RSA, "alg": ["RS256"]}, "algorithm"),
        ({**jwk_of(ec_key()), "alg": "RS256"}, "algorithm"),
        ({**jwk_of(ec_key()), "crv": "secp256k1"}, "curve"),
        ({**jwk_of(ec_key()), "x": "AAAA"}, "no valid public key"),
        ({**RSA, "n": 5}, "no valid public key"),
        ({"kty": "RSA"}, "no valid public key"),
        (jwk_of(SMALL), "less than 2048 bits"),
        ("text", "no object"),
    ],
)
def test_keys_that_cannot_be_used_are_left_out_with_a_reason(entry: object, reason: str) -> None:
    keys = parse_key_set(json.dumps({"keys": [entry, jwk_of(ec_key(), "good")]}))
    assert [key.kid for key in keys.keys] == ["good"]
    assert len(keys.skipped) == 1
    assert keys.skipped[0].startswith("keys[0] ")
    assert reason in keys.skipped[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"keys": 1}',
        '{"keys": []}',
        json.dumps({"keys": [{"kty": "oct", "k": "AAAA"}]}),
        json.dumps({"keys": [{}] * (MAX_KEYS + 1)}),
        "[" * 100_000,
        " " * (MAX_BYTES + 1),
    ],
)
def test_texts_that_are_no_key_set(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_key_set(text, "jwks.json")


def test_keys_are_found_by_their_id_and_all_without_one() -> None:
    keys = key_set(jwk_of(rsa_key()), jwk_of(rsa_key(1)), jwk_of(ec_key(), None))
    assert len(keys.named("k1")) == 2
    assert keys.named("other") == []
    assert len(keys.named("")) == 3


def test_equal_texts_have_equal_digests_and_equal_keys_equal_thumbprints() -> None:
    one, two = key_set(RSA), key_set({**RSA, "kid": "other"})
    assert one.digest == key_set(RSA).digest != two.digest
    assert one.thumbprints == two.thumbprints
    assert one.thumbprints.isdisjoint(key_set({**RSA, "alg": "PS256"}).thumbprints)
