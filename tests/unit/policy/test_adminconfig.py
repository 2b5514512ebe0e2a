"""The admin section of a GuardConfig: who may operate the guard, and by which door."""

from __future__ import annotations

import pytest

from apiguard.policy.adminconfig import CertificateConfig, Role, SocketConfig, TokenConfig
from apiguard.policy.config import TlsConfig, parse_config

from .test_config import LEAST, problems


def with_admin(text: str) -> str:
    line = 'admin: {address: "127.0.0.1:7444", tokenFile: token}'
    assert line in LEAST
    return LEAST.replace(line, "admin:\n  address: 127.0.0.1:7444\n" + text)


def test_tokens_certificates_and_socket_have_roles() -> None:
    text = with_admin(
        "  tokens:\n"
        "  - {name: prometheus, role: metrics, file: m}\n"
        "  - {name: oncall, role: operator, file: o}\n"
        "  tls: {certFile: c, keyFile: k, clientCAFile: a}\n"
        "  certificates:\n"
        "  - {commonName: alice, role: admin}\n"
        "  - {organization: sre, role: viewer}\n"
        '  socket: {path: /run/apiguard.sock, mode: "0660", role: operator}\n'
    )
    admin = parse_config(text, "g.yaml").admin
    assert admin.all_tokens == (
        TokenConfig("prometheus", Role.METRICS, "m"),
        TokenConfig("oncall", Role.OPERATOR, "o"),
    )
    assert admin.tls == TlsConfig("c", "k", "a")
    assert admin.certificates == (
        CertificateConfig(Role.ADMIN, common_name="alice"),
        CertificateConfig(Role.VIEWER, organization="sre"),
    )
    assert admin.socket == SocketConfig("/run/apiguard.sock", 0o660, Role.OPERATOR)


def test_a_token_file_alone_is_one_admin_token() -> None:
    assert parse_config(LEAST, "g.yaml").admin.all_tokens == (
        TokenConfig("admin", Role.ADMIN, "token"),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "admin.tokenFile: is required, unless tokens, certificates or socket"),
        ("  tokens: [{name: a, role: root, file: f}]\n", "role: must be one of metrics, viewer"),
        ("  tokens: [{name: a, file: f}]\n", "tokens[0].role: is required: metrics, viewer"),
        (
            "  tokens: [{name: a, role: admin, file: f}, {name: a, role: viewer, file: g}]\n",
            "admin.tokens: name 'a' twice",
        ),
        (
            "  tokenFile: t\n  tokens: [{name: admin, role: viewer, file: g}]\n",
            "admin.tokens: name 'admin' twice",
        ),
        (
            "  tokenFile: t\n  certificates: [{commonName: a, role: admin}]\n",
            "admin.certificates: needs admin.tls.clientCAFile",
        ),
        (
            "  tls: {certFile: c, keyFile: k, clientCAFile: a}\n"
            "  certificates: [{commonName: a, organization: o, role: admin}]\n",
            "give either commonName or organization",
        ),
        (
            "  tls: {certFile: c, keyFile: k, clientCAFile: a}\n"
            '  certificates: [{organization: "", role: admin}]\n',
            "must not be empty",
        ),
        ('  socket: {path: s, mode: "999"}\n', "admin.socket.mode: must be permissions"),
        ("  socket: {}\n", "admin.socket.path: is required"),
    ],
)
def test_an_admin_section_that_makes_no_sense_is_refused(text: str, problem: str) -> None:
    assert any(problem in found for found in problems(with_admin(text)))


def test_roles_include_those_below_them() -> None:
    roles = list(Role)
    for rank, role in enumerate(roles):
        assert [role.includes(other) for other in roles] == [n <= rank for n in range(len(roles))]
