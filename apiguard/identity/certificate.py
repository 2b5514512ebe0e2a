"""A client certificate -> the identity kube-apiserver derives from it, and whether it still counts.

The TLS handshake is the first judge: a certificate that does not chain never gets here. A
connection outlives what the handshake knew, though, so each of its requests asks ``problem`` again:
are these its days, may it be used for this, and do today's authorities still vouch for it?

Sources: k8s.io/apiserver/pkg/authentication/request/x509/x509.go and Go's crypto/x509, whose
``FillFromRDNSequence`` keeps the last CN and every O, in the order they are written.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from apiguard.errors import ConfigError, Problem
from apiguard.kube.identity import ANONYMOUS_USER, CREDENTIAL_ID, Identity, with_authenticated
from apiguard.wire.frontproxy import name_problem

_COMMON_NAME = bytes.fromhex("550403")
_ORGANIZATION = bytes.fromhex("55040a")
_UID = bytes.fromhex("2b0601040183c25302")  # 1.3.6.1.4.1.57683.2

_ENCODINGS = {
    0x0C: ("utf-8", re.compile(rb".*", re.DOTALL)),  # UTF8String
    0x12: ("ascii", re.compile(rb"[0-9 ]*")),  # NumericString
    0x13: ("ascii", re.compile(rb"[A-Za-z0-9 '()+,\-./:=?*&]*")),  # PrintableString
    0x14: ("latin-1", re.compile(rb".*", re.DOTALL)),  # T61String, which Go takes for Latin-1
    0x16: ("ascii", re.compile(rb"[\x00-\x7f]*")),  # IA5String
    0x1E: ("utf-16-be", re.compile(rb".*", re.DOTALL)),  # BMPString
}
"""By ASN.1 tag, the strings Go reads (crypto/x509/parser.go) and the bytes it accepts in them."""

_CLIENT_USAGES = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


class _RefusedError(Exception):
    """This certificate proves no identity; the message quotes nothing of it."""


class ClientCertificate:
    """The certificate of one client connection.

    ``identity``     whom it names, None when it can name nobody
    ``not_before``, ``not_after``  its validity, both inclusive, in Unix seconds
    ``defect``       why it never counts whatever the time, "" for a sound one
    """

    __slots__ = (
        "_authority",
        "_chain",
        "_chain_until",
        "_leaf",
        "defect",
        "identity",
        "not_after",
        "not_before",
    )

    def __init__(
        self,
        leaf: bytes,
        chain: Sequence[bytes],
        authority: ClientAuthority | None,
        wall: float,
    ) -> None:
        """``leaf`` and ``chain`` (what else the client sent) in DER, as the handshake accepted
        them with ``authority`` at ``wall``; None when nobody knows with which authorities.
        Never raises: what is wrong becomes ``defect``.
        """
        self.identity: Identity | None = None
        self.defect = ""
        self.not_before = self.not_after = 0.0
        self._leaf: x509.Certificate | None = None
        self._chain: list[x509.Certificate] = []
        self._authority = authority
        self._chain_until = 0.0
        try:
            certificate = self._leaf = x509.load_der_x509_certificate(leaf)
            self._chain = [x509.load_der_x509_certificate(other) for other in chain]
            self.not_before = certificate.not_valid_before_utc.timestamp()
            self.not_after = certificate.not_valid_after_utc.timestamp()
            self.identity = _identity(certificate, leaf)
        except _RefusedError as refused:
            self.defect = str(refused)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            self.defect = "the client certificate cannot be read"
        if authority is not None:
            self._chain_until = self._chain_expiry(authority, wall)

    def problem(self, authority: ClientAuthority, wall: float) -> str:
        """Why no request may be made with it at ``wall`` (Unix seconds); "" when one may.

        The chain is verified (70 us) only when the authorities are no longer those it was last
        verified with, or when one of its other certificates may have expired.
        """
        if self.defect:
            return self.defect
        if wall < self.not_before:
            return "the client certificate is not valid yet"
        if wall > self.not_after:
            return "the client certificate has expired"
        if authority is not self._authority or wall > self._chain_until:
            assert self._leaf is not None  # it was read, or there would be a defect
            if not authority.vouches_for(self._leaf, self._chain, wall):
                return "the client certificate is no longer trusted"
            self._authority = authority
            self._chain_until = self._chain_expiry(authority, wall)
        return ""

    def _chain_expiry(self, authority: ClientAuthority, wall: float) -> float:
        sent = [certificate.not_valid_after_utc.timestamp() for certificate in self._chain]
        return min([authority.next_expiry(wall), *(end for end in sent if end >= wall)])


class ClientAuthority:
    """The authorities of client certificates: ``listen.tls.clientCAFile``. Immutable.

    Two objects are two generations: make a new one only when the file's content changed.
    """

    __slots__ = ("_expiries", "_store")

    def __init__(self, pem: bytes, name: str = "client CA") -> None:
        """Raises ConfigError when ``pem`` holds no readable certificate."""
        try:
            authorities = x509.load_pem_x509_certificates(pem)
            self._expiries = sorted(ca.not_valid_after_utc.timestamp() for ca in authorities)
            self._store = verification.Store(authorities)
        except ValueError:
            raise ConfigError([Problem(name, 0, "", "holds no certificates in PEM")]) from None

    def next_expiry(self, wall: float) -> float:
        """When the next authority expires, Unix seconds; infinite when none will."""
        return next((end for end in self._expiries if end >= wall), float("inf"))

    def vouches_for(
        self, leaf: x509.Certificate, chain: Sequence[x509.Certificate], wall: float
    ) -> bool:
        """Whether ``leaf`` chains up to an authority at ``wall``, by way of ``chain`` if need be.

        Key types the verifier does not know (Ed25519) are no longer vouched for: such a client is
        sent back to a handshake, where OpenSSL judges.
        """
        verifier = (
            verification.PolicyBuilder()
            .store(self._store)
            .time(datetime.datetime.fromtimestamp(wall, datetime.UTC))
            .extension_policies(
                ca_policy=_CA_POLICY, ee_policy=verification.ExtensionPolicy.permit_all()
            )
            .build_client_verifier()
        )
        try:
            verifier.verify(leaf, list(chain))
        except verification.VerificationError:
            return False
        return True


def _must_sign_certificates(
    _policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its key may not sign certificates")


def _must_serve_clients(
    _policy: verification.Policy,
    _certificate: x509.Certificate,
    usage: x509.ExtendedKeyUsage | None,
) -> None:
    if usage is not None and _CLIENT_USAGES.isdisjoint(usage):
        raise ValueError("its usages exclude clients")


# The web's defaults ask for alternative names in leaves and key identifiers in authorities, which
# cluster certificates often lack. What Go's verifier asks for is here and in ``_check_usage``;
# that the basic constraints are an authority's the library sees to once they must be there.
_CA_POLICY = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _must_sign_certificates)
    .may_be_present(x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, _must_serve_clients)
)


# -- identity


def _identity(certificate: x509.Certificate, der: bytes) -> Identity:
    """Raises _RefusedError."""
    _check_usage(certificate)
    user, uids, groups = "", [], []
    for kind, name in _names(certificate.subject.public_bytes()):
        if kind == _COMMON_NAME:
            user = name
        elif kind == _ORGANIZATION:
            groups.append(name)
        elif kind == _UID:
            uids.append(name)
    _check_names(user, uids, groups)
    return Identity(
        user=user,
        groups=with_authenticated(user, tuple(groups)),
        uid=uids[0] if uids else "",
        extra={CREDENTIAL_ID: ("X509SHA256=" + hashlib.sha256(der).hexdigest(),)},
    )


def _check_usage(certificate: x509.Certificate) -> None:
    """Without the extension a certificate may be used for anything, as Go has it."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if _CLIENT_USAGES.isdisjoint(usage):
        raise _RefusedError("the client certificate is not for client authentication")


def _check_names(user: str, uids: list[str], groups: list[str]) -> None:
    if not user:
        raise _RefusedError("the client certificate has no common name")
    if user == ANONYMOUS_USER:
        raise _RefusedError("the client certificate names the anonymous user")
    if len(uids) > 1:
        raise _RefusedError("the client certificate has more than one UID")
    named = [("common name", user)]
    named += [("organization", group) for group in groups]
    named += [("UID", uid) for uid in uids]
    for what, name in named:
        problem = name_problem(name)
        if problem:
            raise _RefusedError(f"the {what} of the client certificate {problem}")


def _names(subject: bytes) -> Iterator[tuple[bytes, str]]:
    """The attributes that make an identity, in order: (DER of the type's OID, text).

    ``subject`` is a Name (RFC 5280 section 4.1.2.4), already parsed once and so well formed. The
    library that parsed it does not tell which kind of string a value was written as.
    """
    for _, name in _elements(subject):
        for _, relative in _elements(name):
            for _, attribute in _elements(relative):
                (_, kind), (tag, raw) = _elements(attribute)
                if kind in (_COMMON_NAME, _ORGANIZATION, _UID):
                    yield kind, _text(tag, raw)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each element of well-formed DER."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        yield tag, der[at : at + length]
        at += length


def _text(tag: int, raw: bytes) -> str:
    encoding, accepted = _ENCODINGS.get(tag, ("", None))
    if accepted is None or not accepted.fullmatch(raw):
        raise _RefusedError(
            "a name of the client certificate is written in a way upstream cannot read"
        )
    return raw.decode(encoding)  # a UnicodeDecodeError is a ValueError: unreadable
