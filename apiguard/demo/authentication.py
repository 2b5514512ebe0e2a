"""Who sends a request, by kube-apiserver's rules: front proxy, certificate, token, anonymous.

The first success wins; a credential that was presented and failed, with no other success, is
401 and never anonymous. Source: apiserver/pkg/authentication/request.
"""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from apiguard.demo import problems
from apiguard.demo.serviceaccounts import AUDIENCE, TokenIssuer
from apiguard.kube.identity import ANONYMOUS, AUTHENTICATED_GROUP, Identity

Headers = Sequence[tuple[str, str]]

CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
_UID_ATTRIBUTE = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
_WEBSOCKET_BEARER = "base64url.bearer.authorization.k8s.io."


def read_tokens(text: str) -> dict[str, Identity]:
    """Static tokens in kube-apiserver's CSV form: token,user,uid[,"group,group"]."""
    tokens: dict[str, Identity] = {}
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if not row or row[0].startswith("#"):
            continue
        if len(row) < 3 or not row[0]:
            raise ValueError(f"token line needs token, user and uid: {len(row)} fields given")
        groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
        tokens[row[0]] = Identity(row[1], groups, row[2])
    return tokens


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The front-proxy settings: ``--requestheader-*``. No ``allowed_names`` allows any."""

    authorities: tuple[x509.Certificate, ...]
    allowed_names: frozenset[str] = frozenset()
    username: tuple[str, ...] = ("X-Remote-User",)
    group: tuple[str, ...] = ("X-Remote-Group",)
    uid: tuple[str, ...] = ("X-Remote-Uid",)
    extra_prefix: tuple[str, ...] = ("X-Remote-Extra-",)


@dataclass(slots=True)
class Authenticator:
    """All ways to prove an identity. ``tokens`` may be changed while serving."""

    tokens: Mapping[str, Identity] = field(default_factory=dict)
    anonymous: bool = True
    client_authorities: tuple[x509.Certificate, ...] = ()
    front_proxy: RequestHeaders | None = None
    issuer: TokenIssuer | None = None

    def of_token(self, token: str, audiences: list[str], now: float) -> Identity | None:
        """Whose token it is: a static one, which is good for any audience, or an account's."""
        found = self.tokens.get(token)
        if found is None and self.issuer is not None:
            found = self.issuer.verify(token, audiences or [AUDIENCE], now)
        return _with_authenticated(found) if found is not None else None

    def authenticate(self, headers: Headers, certificate: bytes | None, now: float) -> Identity:
        """The caller; ``certificate`` is the client's in DER, ``now`` wall-clock seconds.

        Raises ``ApiError`` 401.
        """
        failed = False
        leaf = x509.load_der_x509_certificate(certificate) if certificate else None
        if leaf is not None:
            identity = self._from_front_proxy(headers, leaf, now)
            if identity is None:
                identity = self._from_certificate(leaf, now)
            if identity is not None:
                return _with_authenticated(identity)
            failed = True
        token = bearer_token(headers)
        if token:
            found = self.of_token(token, [AUDIENCE], now)
            if found is not None:
                return found
            failed = True
        if failed or not self.anonymous:
            raise problems.unauthorized()
        return ANONYMOUS

    def _from_front_proxy(
        self, headers: Headers, leaf: x509.Certificate, now: float
    ) -> Identity | None:
        settings = self.front_proxy
        if settings is None or not _issued(leaf, settings.authorities, now):
            return None
        if settings.allowed_names and _common_name(leaf) not in settings.allowed_names:
            return None
        user = _first(headers, settings.username)
        if not user:
            return None
        groups = tuple(_all(headers, settings.group))
        return Identity(user, groups, _first(headers, settings.uid), _extra(headers, settings))

    def _from_certificate(self, leaf: x509.Certificate, now: float) -> Identity | None:
        if not _issued(leaf, self.client_authorities, now):
            return None
        user = _common_name(leaf)
        if not user:
            return None
        groups = tuple(
            str(a.value) for a in leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        )
        uids = [str(a.value) for a in leaf.subject.get_attributes_for_oid(_UID_ATTRIBUTE)]
        digest = leaf.fingerprint(SHA256()).hex()
        extra = {CREDENTIAL_ID: (f"X509SHA256={digest}",)}
        return Identity(user, groups, uids[0] if uids else "", extra)


def bearer_token(headers: Headers) -> str:
    """The token presented, "" for none: header first, then the WebSocket subprotocol.

    Only the first Authorization header counts; ``Bearer`` and a single blank precede the token,
    two blanks leave it empty, and text after it is ignored.
    """
    for name, value in headers:
        if name.lower() == "authorization":
            parts = value.strip().split(" ")
            if len(parts) >= 2 and parts[0].lower() == "bearer":
                return parts[1]
            break
    for name, value in headers:
        if name.lower() == "sec-websocket-protocol":
            for protocol in value.split(","):
                text = protocol.strip()
                if text.startswith(_WEBSOCKET_BEARER):
                    return _unbase64(text[len(_WEBSOCKET_BEARER) :])
    return ""


def _unbase64(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _with_authenticated(identity: Identity) -> Identity:
    if identity.user == ANONYMOUS.user or AUTHENTICATED_GROUP in identity.groups:
        return identity
    groups = (*identity.groups, AUTHENTICATED_GROUP)
    return Identity(identity.user, groups, identity.uid, identity.extra)


def _first(headers: Headers, names: tuple[str, ...]) -> str:
    """Of each header only its first line counts; the first of them with a value."""
    for wanted in names:
        value = next((v for name, v in headers if name.lower() == wanted.lower()), "")
        if value:
            return value
    return ""


def _all(headers: Headers, names: tuple[str, ...]) -> list[str]:
    """Every value that is not empty, header by header in the order of ``names``."""
    return [
        value
        for wanted in names
        for name, value in headers
        if value and name.lower() == wanted.lower()
    ]


def _extra(headers: Headers, settings: RequestHeaders) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in headers:
        for prefix in settings.extra_prefix:
            if name.lower().startswith(prefix.lower()):
                key = unquote(name[len(prefix) :].lower())
                found[key] = (*found.get(key, ()), value)
    return found


def _common_name(leaf: x509.Certificate) -> str:
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) if names else ""


def _issued(leaf: x509.Certificate, authorities: Sequence[x509.Certificate], now: float) -> bool:
    """Whether one of the authorities signed ``leaf`` for client use, and it is valid now."""
    moment = datetime.fromtimestamp(now, UTC)
    if not leaf.not_valid_before_utc <= moment <= leaf.not_valid_after_utc:
        return False
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(
            usage
        ):
            return False
    except x509.ExtensionNotFound:
        pass  # without the extension Go takes a certificate for any use
    return any(_signed_by(leaf, authority) for authority in authorities)


def _signed_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
