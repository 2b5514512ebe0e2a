"""Certificates made on the spot: an authority, server and client certificates.

For the demo, tests and benchmarks, never for production: keys are written unencrypted. ECDSA
P-256, the cheapest handshake every client of Kubernetes accepts.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAMES = (
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
_UID_ATTRIBUTE = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes ``name.crt`` and ``name.key`` (mode 0600); returns both paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        write_secret(key, self.key)
        return certificate, key


def write_secret(path: Path, content: bytes) -> None:
    """Writes a file nobody else can read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


class Authority:
    """A certificate authority that lives as long as the object. ``days`` is its validity."""

    def __init__(self, name: str, *, now: datetime | None = None, days: int = 365) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._now = now if now is not None else datetime.now(UTC)
        self._days = days
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self.name, self.name, self._key.public_key(), self._now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_usage(signs_certificates=True), True)
        self.x509 = builder.sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM."""
        return self.x509.public_bytes(serialization.Encoding.PEM)

    @property
    def pair(self) -> Pair:
        """Certificate and key, for other tools to issue from."""
        return Pair(self.certificate, _pem(self._key))

    def server(self, names: Sequence[str] = SERVER_NAMES, *, days: int | None = None) -> Pair:
        """A serving certificate for host names and addresses."""
        alternatives = [_alternative(name) for name in names]
        return self._issue(
            [x509.NameAttribute(NameOID.COMMON_NAME, names[0])],
            [ExtendedKeyUsageOID.SERVER_AUTH],
            alternatives,
            days,
        )

    def client(
        self, user: str, groups: Sequence[str] = (), uid: str = "", *, days: int | None = None
    ) -> Pair:
        """A client certificate that kube-apiserver reads as ``user`` in ``groups``."""
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        if uid:
            subject.append(x509.NameAttribute(_UID_ATTRIBUTE, uid))
        return self._issue(subject, [ExtendedKeyUsageOID.CLIENT_AUTH], [], days)

    def _issue(
        self,
        subject: list[x509.NameAttribute[str]],
        usages: list[x509.ObjectIdentifier],
        alternatives: list[x509.GeneralName],
        days: int | None,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        validity = days if days is not None else self._days
        builder = _builder(x509.Name(subject), self.name, key.public_key(), self._now, validity)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_usage(signs_certificates=False), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    # A day of grace before: clocks of containers and hosts differ.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_context(
    certificate: Path, key: Path, *, client_authorities: bytes = b""
) -> ssl.SSLContext:
    """A server-side context, ALPN ``http/1.1``; with authorities it asks for client certificates.

    ``client_authorities`` is PEM of every authority a client may chain to.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    if client_authorities:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_authorities.decode())
    return context


def client_context(authority: bytes) -> ssl.SSLContext:
    """A client-side context that trusts one authority (PEM) alone."""
    return ssl.create_default_context(cadata=authority.decode())
