"""Client certificates: how a subject becomes an identity, and when it stops counting."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from apiguard.errors import ConfigError
from apiguard.identity.certificate import ClientAuthority, ClientCertificate
from tests.unit.identity.issuing import WALL, Authority

UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
DAY = 86_400.0
CA = Authority()
TRUSTED = ClientAuthority(CA.pem)


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


ALICE = name((NameOID.ORGANIZATION_NAME, "devs"), (NameOID.COMMON_NAME, "alice"))


def presented(
    subject: x509.Name = ALICE,
    *,
    by: Authority = CA,
    chain: tuple[bytes, ...] = (),
    days: float = 30.0,
    usages: list[x509.ObjectIdentifier] | None = None,
    at: ClientAuthority | None = TRUSTED,
) -> ClientCertificate:
    return ClientCertificate(by.issue(subject, days=days, usages=usages), chain, at, WALL)


# -- identity


def test_the_last_common_name_wins_and_every_organization_is_a_group() -> None:
    certificate = presented(
        name(
            (NameOID.COMMON_NAME, "first"),
            (NameOID.ORGANIZATION_NAME, "a"),
            (NameOID.COMMON_NAME, "last"),
            (NameOID.ORGANIZATION_NAME, "b"),
        )
    )
    assert certificate.identity is not None
    assert certificate.identity.user == "last"
    assert certificate.identity.groups == ("a", "b", "system:authenticated")


def test_names_within_one_relative_name_count_in_their_order() -> None:
    both = x509.RelativeDistinguishedName(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "alice"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "devs"),
        ]
    )
    certificate = presented(x509.Name([both]))
    assert certificate.identity is not None
    assert certificate.identity.groups == ("devs", "system:authenticated")


@pytest.mark.parametrize(
    ("subject", "defect"),
    [
        ([(NameOID.COMMON_NAME, "a\x00b")], "the common name {} holds control characters"),
        ([(NameOID.COMMON_NAME, "a\u0085b")], "the common name {} holds control characters"),
        ([(NameOID.COMMON_NAME, "a\r\nX-Remote-Group: b")], "the common name {} holds control"),
        ([(NameOID.COMMON_NAME, "\ta")], "the common name {} begins or ends with a blank"),
        ([(NameOID.COMMON_NAME, "a"), (UID, " 1")], "the UID {} begins or ends with a blank"),
        ([(NameOID.COMMON_NAME, "a"), (UID, "1"), (UID, "2")], "{} has more than one UID"),
        ([(NameOID.COMMON_NAME, "system:anonymous")], "{} names the anonymous user"),
        ([(NameOID.ORGANIZATION_NAME, "a")], "{} has no common name"),
    ],
)
def test_subjects_that_name_nobody(
    subject: list[tuple[x509.ObjectIdentifier, str]], defect: str
) -> None:
    certificate = presented(name(*subject))
    assert certificate.identity is None
    for part in defect.split("{}"):
        assert part.strip() in certificate.defect
    assert certificate.problem(TRUSTED, WALL) == certificate.defect


@pytest.mark.parametrize(
    ("kind", "value", "user"),
    [
        (_ASN1Type.UTF8String, "张伟", "张伟"),
        (_ASN1Type.BMPString, "张伟", "张伟"),
        (_ASN1Type.IA5String, "a@b", "a@b"),
        (_ASN1Type.PrintableString, "al ice", "al ice"),
        (_ASN1Type.NumericString, "007", "007"),
        (_ASN1Type.UniversalString, "alice", None),  # Go knows no such string
    ],
)
def test_kinds_of_strings_are_read_as_go_reads_them(
    kind: _ASN1Type, value: str, user: str | None
) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value, kind)])
    identity = presented(subject).identity
    assert (identity.user if identity else None) == user


def test_bytes_that_are_no_certificate_name_nobody() -> None:
    certificate = ClientCertificate(b"\x30\x03nonsense", (), TRUSTED, WALL)
    assert certificate.problem(TRUSTED, WALL) == "the client certificate cannot be read"


# -- usage and time


@pytest.mark.parametrize(
    ("usages", "sound"),
    [
        (None, True),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
    ],
)
def test_usage(usages: list[x509.ObjectIdentifier] | None, sound: bool) -> None:
    assert (presented(usages=usages).defect == "") is sound


@pytest.mark.parametrize(
    ("wall", "problem"),
    [
        (WALL - 3601, "the client certificate is not valid yet"),
        (WALL - 3600, ""),
        (WALL, ""),
        (WALL + DAY, ""),
        (WALL + DAY + 1, "the client certificate has expired"),
    ],
)
def test_both_ends_of_the_validity_count(wall: float, problem: str) -> None:
    assert presented(days=1).problem(TRUSTED, wall) == problem


# -- authorities


def test_a_certificate_is_judged_again_when_the_authorities_change() -> None:
    certificate = presented()
    assert certificate.problem(TRUSTED, WALL) == ""
    other = ClientAuthority(Authority("other").pem)
    assert certificate.problem(other, WALL) == "the client certificate is no longer trusted"
    assert certificate.problem(ClientAuthority(CA.pem + Authority("new").pem), WALL) == ""


def test_an_authority_of_the_same_name_with_another_key_is_another() -> None:
    impostor = ClientAuthority(Authority("ca").pem)
    assert presented().problem(impostor, WALL) == "the client certificate is no longer trusted"


def test_a_chain_is_followed_through_what_the_client_sent() -> None:
    between = Authority("between", CA)
    whole = presented(by=between, chain=(between.der,), at=None)
    assert whole.problem(TRUSTED, WALL) == ""
    assert presented(by=between, at=None).problem(TRUSTED, WALL) != ""


def test_a_leaf_signs_no_certificates() -> None:
    leaf = Authority("leaf", CA, ca=False)
    certificate = presented(by=leaf, chain=(leaf.der,), at=None)
    assert certificate.problem(TRUSTED, WALL) == "the client certificate is no longer trusted"


def test_an_expired_link_of_the_chain_ends_trust_in_a_valid_leaf() -> None:
    between = Authority("between", CA, days=1)
    certificate = presented(by=between, chain=(between.der,))
    assert certificate.problem(TRUSTED, WALL + DAY - 1) == ""
    assert certificate.problem(TRUSTED, WALL + DAY + 1) != ""


def test_an_expired_authority_ends_trust_in_a_valid_leaf() -> None:
    short = Authority("short", days=1)
    authority = ClientAuthority(short.pem)
    certificate = presented(by=short, at=authority)
    assert certificate.problem(authority, WALL) == ""
    assert certificate.problem(authority, WALL + DAY + 1) != ""
    assert certificate.problem(authority, WALL + DAY + 2) != ""


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_bundle_without_certificates_is_refused(pem: bytes) -> None:
    with pytest.raises(ConfigError, match="holds no certificates"):
        ClientAuthority(pem)
