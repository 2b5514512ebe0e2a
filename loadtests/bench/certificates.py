"""One authority, one serving certificate used alike by every proxy and by the upstream, and the
certificates of a client and of a front proxy.

ECDSA P-256 everywhere: what kubeadm offers beside RSA, and the cheaper half of a handshake, so
that a proxy's own cost is not hidden behind the signature.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAME = "kubernetes.default.svc"
CLIENT_NAME = "system:node:node-0"
FRONT_PROXY_NAME = "front-proxy-client"
_LIFETIME = datetime.timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files.

    ``bundle``, ``client`` and ``front_proxy`` hold certificate and key in one file, the first as
    HAProxy wants it.
    """

    authority: Path
    certificate: Path
    key: Path
    bundle: Path
    client: Path
    front_proxy: Path


def issue(folder: Path) -> Certificates:
    """Make an authority and certificates for all names here in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    signer = authority, authority_key
    certificate_pem, key_pem = _pair(signer, _name(SERVER_NAME), ExtendedKeyUsageOID.SERVER_AUTH)
    node = _pair(signer, _name(CLIENT_NAME, "system:nodes"), ExtendedKeyUsageOID.CLIENT_AUTH)
    speaker = _pair(signer, _name(FRONT_PROXY_NAME), ExtendedKeyUsageOID.CLIENT_AUTH)
    issued = Certificates(
        authority=folder / "ca.pem",
        certificate=folder / "server.pem",
        key=folder / "server.key",
        bundle=folder / "bundle.pem",
        client=folder / "client.pem",
        front_proxy=folder / "front-proxy.pem",
    )
    issued.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    issued.certificate.write_bytes(certificate_pem)
    for path, content in (
        (issued.key, key_pem),
        (issued.bundle, certificate_pem + key_pem),
        (issued.client, b"".join(node)),
        (issued.front_proxy, b"".join(speaker)),
    ):
        path.touch(mode=0o600)
        path.write_bytes(content)
    return issued


_Signer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _pair(signer: _Signer, subject: x509.Name, usage: x509.ObjectIdentifier) -> tuple[bytes, bytes]:
    """Certificate and key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(signer, subject, key, usage)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return leaf.public_bytes(serialization.Encoding.PEM), key_pem


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        _builder(_name("bench-ca"), _name("bench-ca"), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    signer: _Signer,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    usage: x509.ObjectIdentifier,
) -> x509.Certificate:
    authority, authority_key = signer
    names: list[x509.GeneralName] = [
        x509.DNSName(SERVER_NAME),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(subject, authority.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(authority_id, critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )


def _name(common: str, *organizations: str) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common)])


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
