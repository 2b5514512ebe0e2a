"""Service-account tokens: issued, published keys, verified against what is stored.

A token is good as long as it is signed by this server, within its time, and the account and the
object it is bound to still exist with the uids they had. Source: pkg/serviceaccount/claims.go.
"""

from __future__ import annotations

import base64
import hashlib
import random
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from apiguard.demo.encoding import Object
from apiguard.demo.resources import NODES, PODS, SECRETS, SERVICEACCOUNTS, Resource
from apiguard.demo.store import Item, Store
from apiguard.kube.identity import Identity

ISSUER = AUDIENCE = "https://kubernetes.default.svc"
_BOUND: dict[str, Resource] = {"Pod": PODS, "Node": NODES, "Secret": SECRETS}
_CLAIM = "kubernetes.io"
_EXTRA = "authentication.kubernetes.io"


class TokenIssuer:
    """Signs with one RSA key, made when it is first needed: that takes a tenth of a second."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._made: rsa.RSAPrivateKey | None = None

    @property
    def _key(self) -> rsa.RSAPrivateKey:
        if self._made is None:
            self._made = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        return self._made

    def issue(
        self, account: Item, audiences: list[str], bound: Object, now: float, end: int
    ) -> str:
        """A token of ``account`` until ``end``, wall-clock seconds; ``bound`` a boundObjectRef."""
        claim: Object = {
            "namespace": account.namespace,
            "serviceaccount": {"name": account.name, "uid": account.value["metadata"]["uid"]},
        }
        if bound:
            kind = str(bound.get("kind"))
            claim[kind.lower()] = {"name": bound.get("name"), "uid": bound.get("uid", "")}
        payload = {
            "aud": audiences,
            "exp": end,
            "iat": int(now),
            "iss": ISSUER,
            "jti": str(uuid.UUID(int=self._rng.getrandbits(128), version=4)),
            _CLAIM: claim,
            "nbf": int(now),
            "sub": f"system:serviceaccount:{account.namespace}:{account.name}",
        }
        return jwt.encode(payload, self._key, "RS256", headers={"kid": self.key_id})

    def verify(self, token: str, audiences: list[str], now: float) -> Identity | None:
        """Whose token it is; None for one that is not good for any of ``audiences``."""
        if self._made is None or token.count(".") != 2:
            return None
        try:
            payload: Object = jwt.decode(
                token,
                self._key.public_key(),
                ["RS256"],
                audience=audiences,
                issuer=ISSUER,
                # Times are compared with the server's clock, which is an argument here.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return None
        if not payload["nbf"] <= now < payload["exp"]:
            return None
        return self._identity(payload)

    def _identity(self, payload: Object) -> Identity | None:
        claim: Object = payload[_CLAIM]
        namespace, account = claim["namespace"], claim["serviceaccount"]
        extra = {f"{_EXTRA}/credential-id": (f"JTI={payload['jti']}",)}
        if not self._exists(SERVICEACCOUNTS, namespace, account):
            return None
        for kind, resource in _BOUND.items():
            bound = claim.get(kind.lower())
            if bound is None:
                continue
            if not self._exists(resource, namespace, bound):
                return None
            if kind != "Secret":
                extra[f"{_EXTRA}/{kind.lower()}-name"] = (bound["name"],)
                extra[f"{_EXTRA}/{kind.lower()}-uid"] = (bound["uid"],)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return Identity(str(payload["sub"]), groups, str(account["uid"]), extra)

    def _exists(self, resource: Resource, namespace: str, named: Object) -> bool:
        found = self._store.collections[resource].get(resource.key(namespace, named["name"]))
        return found is not None and found.value["metadata"]["uid"] == named["uid"]

    def finds(self, bound: Object, namespace: str) -> Item | None:
        """The object a boundObjectRef names; None when there is none of that kind and name."""
        resource = _BOUND.get(str(bound.get("kind")))
        if resource is None:
            return None
        return self._store.collections[resource].get(
            resource.key(namespace, str(bound.get("name")))
        )

    # --- discovery --------------------------------------------------------------------------

    @property
    def key_id(self) -> str:
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return _unpadded(hashlib.sha256(public).digest())

    def key_set(self) -> Object:
        """``/openid/v1/jwks``."""
        numbers = self._key.public_key().public_numbers()
        key: dict[str, Any] = {
            "use": "sig",
            "kty": "RSA",
            "kid": self.key_id,
            "alg": "RS256",
            "n": _unpadded(numbers.n.to_bytes(256, "big")),
            "e": _unpadded(numbers.e.to_bytes(3, "big")),
        }
        return {"keys": [key]}

    @staticmethod
    def configuration(address: str) -> Object:
        """``/.well-known/openid-configuration`` of a server at host:port ``address``."""
        return {
            "issuer": ISSUER,
            "jwks_uri": f"https://{address}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }


def _unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
