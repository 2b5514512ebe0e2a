"""Every recorded identity: the guard derives the same, and passes the same on, or says why not."""

from __future__ import annotations

from typing import Any

import pytest

from apiguard.identity.authenticator import Authenticator
from apiguard.identity.certificate import ClientAuthority
from apiguard.kube.identity import ANONYMOUS, Identity, Standing
from apiguard.wire.frontproxy import FrontProxyNames, front_proxy_lines
from tests.unit.identity.issuing import NOW, jwk_of, key_set, rsa_key, sign, verifier_of
from tests.unit.identity.recorded import (
    CA_PEM,
    LINES,
    RECORDED_AT,
    certificate_of,
    fields_of,
    lines_of,
    read_as_upstream,
    recorded_user,
)

NAMES = FrontProxyNames()

BLANKS = "of the client certificate begins or ends with a blank"

STRICTER = {
    "trailing-blank": f"the common name {BLANKS}",
    "leading-blank": f"the common name {BLANKS}",
    "group-trailing-blank": f"the organization {BLANKS}",
    "tab": "the common name of the client certificate holds control characters",
    "anonymous-name": "the client certificate names the anonymous user",
}
"""Certificates kube-apiserver accepts and the guard refuses: upstream would read another name from
a header, or a nameless caller would go out on the front-proxy certificate."""

BOTH_REFUSE = {
    "no-cn": "the client certificate has no common name",
    "expired": "the client certificate has expired",
    "not-yet-valid": "the client certificate is not valid yet",
    "server-auth-only": "the client certificate is not for client authentication",
}

BUILDER_KEY = "9lJf_L1Uf40KAHqbFnrBqvTDf_zcyqvIrhs2QgBMKoA"

TESTED_KINDS = {
    "certificate",
    "front-proxy-headers",
    "headers-without-front-proxy-certificate",
    "headers-with-ordinary-client-certificate",
    "service-account-token",
    "authorization-header",
    "certificate-and-token",
    "front-proxy-certificate-and-token",
}


def ids(line: dict[str, Any]) -> str:
    return str(line["name"])


def test_every_kind_of_line_has_a_test() -> None:
    assert {line["kind"] for line in LINES} == TESTED_KINDS


def guard() -> Authenticator:
    """Knows the recorded client CA, and a cluster whose key has the recorded id."""
    verifier = verifier_of(cluster=key_set(jwk_of(rsa_key(), BUILDER_KEY)))
    return Authenticator(verifier=verifier, authority=ClientAuthority(CA_PEM))


@pytest.mark.parametrize("line", lines_of("certificate"), ids=ids)
def test_a_certificate_is_whom_upstream_took_it_for(line: dict[str, Any]) -> None:
    certificate = certificate_of(line["pem"])
    proof = guard().authenticate_certificate(certificate, NOW, RECORDED_AT)
    expected = recorded_user(line)
    if line["name"] in STRICTER | BOTH_REFUSE:
        assert proof.standing is Standing.UNVERIFIED
        assert proof.identity is None
        assert proof.refused == (STRICTER | BOTH_REFUSE)[line["name"]]
        assert (expected is None) is (line["name"] in BOTH_REFUSE or line["status"] == 403)
        return
    assert expected is not None
    assert proof.standing is Standing.VERIFIED
    assert proof.identity == expected


@pytest.mark.parametrize("line", lines_of("certificate"), ids=ids)
def test_upstream_derives_the_same_from_what_the_guard_sends(line: dict[str, Any]) -> None:
    if line["name"] in STRICTER | BOTH_REFUSE:
        pytest.skip("refused by the guard: nothing is sent")
    identity = certificate_of(line["pem"]).identity
    assert identity is not None
    assert read_as_upstream(fields_of(_lines(identity)), NAMES) == recorded_user(line)


def _lines(identity: Identity) -> bytes:
    return front_proxy_lines(NAMES, identity.user, identity.groups, identity.uid, identity.extra)


def _recorded_fields(line: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in line["headers"]]


@pytest.mark.parametrize("line", lines_of("front-proxy-headers"), ids=ids)
def test_the_model_of_upstream_reads_headers_as_recorded(line: dict[str, Any]) -> None:
    """What the other tests compare with is itself compared with the real server."""
    read = read_as_upstream(_recorded_fields(line), NAMES, reads_uid=False)
    expected = recorded_user(line)
    if line["name"] == "impersonate":
        assert read is not None
        assert (read.user, expected and expected.user) == ("bob", "carol")  # judged afterwards
    elif line["name"] == "anonymous-name":
        assert read == Identity("system:anonymous")
    else:
        assert read == expected


@pytest.mark.parametrize("line", lines_of("front-proxy-headers"), ids=ids)
def test_the_guard_passes_on_whoever_upstream_read(line: dict[str, Any]) -> None:
    identity = recorded_user(line)
    if identity is None:
        pytest.skip("nobody was read")
    assert read_as_upstream(fields_of(_lines(identity)), NAMES) == identity


def bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


@pytest.mark.parametrize("line", lines_of("service-account-token"), ids=ids)
def test_a_service_account_token_is_whom_upstream_took_it_for(line: dict[str, Any]) -> None:
    token = sign(line["claims"], kid=BUILDER_KEY)
    proof = guard().authenticate(bearer(token), b"", NOW, RECORDED_AT)
    assert proof.identity == recorded_user(line)
    assert (proof.standing is Standing.VERIFIED) is (line["status"] == 201)


@pytest.mark.parametrize("line", lines_of("authorization-header"), ids=ids)
def test_spellings_of_the_authorization_header(line: dict[str, Any]) -> None:
    token = sign(lines_of("service-account-token")[0]["claims"], kid=BUILDER_KEY)
    header = {
        "lower-case-scheme": f"bearer {token}",
        "two-blanks": f"Bearer  {token}",
        "cut-signature": f"Bearer {token[:-10]}",
        "trailing-text": f"Bearer {token} and more",
    }[line["name"]]
    proof = guard().authenticate(header.encode(), b"", NOW, RECORDED_AT)
    if line["name"] == "two-blanks":
        assert proof.identity == ANONYMOUS
    else:
        assert proof.identity == recorded_user(line)
        assert (proof.standing is Standing.UNVERIFIED) is (line["status"] == 401)
