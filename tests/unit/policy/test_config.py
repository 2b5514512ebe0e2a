"""GuardConfig: what a file says, what it leaves to defaults, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from apiguard.errors import ConfigError
from apiguard.identity.claims import ClaimMappings
from apiguard.policy.compile import compile_policy, warnings
from apiguard.policy.config import Bounds, Enforcement, TlsConfig, camel_case, parse_config
from apiguard.policy.identityconfig import (
    CredentialsConfig,
    JwtConfig,
    TokenReviewConfig,
    identity_names,
)
from apiguard.wire.frontproxy import FrontProxyNames

CONFIG = Path(__file__).parents[3] / "config"

LEAST = """\
apiVersion: apiguard.io/v1alpha1
kind: GuardConfig
listen: {address: "127.0.0.1:7443"}
upstream: {servers: ["https://127.0.0.1:7445"]}
admin: {address: "127.0.0.1:7444", tokenFile: token}
stateDir: state
policyFile: policy.yaml
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "g.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_what_is_left_out_has_its_default() -> None:
    config = parse_config(LEAST, "g.yaml")
    assert config.listen.tls is None
    assert config.enforcement is Enforcement.ENFORCE
    assert config.workers == 1
    assert config.bounds == Bounds()
    assert config.identity.static_tokens_file is None


def test_every_field_is_read() -> None:
    text = """\
apiVersion: apiguard.io/v1alpha1
kind: GuardConfig
listen:
  address: "[::]:6443"
  tls: {certFile: c, keyFile: k, clientCAFile: a}
  proxyProtocol: {trustedCIDRs: ["10.0.0.0/8", "fd00::1"]}
upstream:
  servers: ["https://a:6443", "http://[::1]:8080/"]
  caFile: ca
  serverName: name
  frontProxy: {certFile: fc, keyFile: fk}
identity: {staticTokensFile: tokens.csv}
admin: {address: "localhost:0", tokenFile: t, hosts: [Guard.Example]}
stateDir: /s
enforcement: off
workers: 4
policyFile: p.yaml
bounds: {headerBytes: 1000, connections: 0}
"""
    config = parse_config(text, "g.yaml")
    assert config.listen.tls == TlsConfig("c", "k", "a")
    assert config.listen.trusted_proxy_cidrs == ("10.0.0.0/8", "fd00::1/128")
    assert config.upstream.servers == ("https://a:6443", "http://[::1]:8080")
    assert config.admin.hosts == ("guard.example",)
    assert config.enforcement is Enforcement.OFF
    assert config.bounds.request.header_bytes == 1000


def test_every_problem_is_reported_with_its_line() -> None:
    text = LEAST.replace("127.0.0.1:7443", "127.0.0.1").replace("https://127.0.0.1:7445", "a:1")
    text += "workers: 0\nenforcement: on\nboundz: {}\nbounds:\n  headerByte: 3\n  buckets: many\n"
    assert problems(text) == [
        "g.yaml:3: listen.address: must be host:port",
        "g.yaml:4: upstream.servers[0]: must be https://host:port or http://host:port,"
        " without path",
        "g.yaml:8: workers: must be from 1 to 64, not 0",
        "g.yaml:9: enforcement: must be one of enforce, shadow, off",
        "g.yaml:10: boundz: unknown field; did you mean 'bounds'?",
        "g.yaml:12: bounds.headerByte: unknown field; did you mean 'headerBytes'?",
        "g.yaml:13: bounds.buckets: must be a whole number",
    ]


@pytest.mark.parametrize(
    "address", ["127.0.0.1:7443", "[::1]:7443", "[::]:0", "localhost:7443", "guard.local:1"]
)
def test_addresses(address: str) -> None:
    config = parse_config(LEAST.replace("127.0.0.1:7443", address), "g.yaml")
    assert config.listen.address == address


@pytest.mark.parametrize("address", ["::1:7443", "[::1]", "[x]:1", "h:70000", "h:", ":1", "h:x"])
def test_wrong_addresses(address: str) -> None:
    (problem,) = problems(LEAST.replace("127.0.0.1:7443", address))
    assert "listen.address" in problem


def test_the_shipped_settings_are_the_defaults() -> None:
    config = parse_config((CONFIG / "guard.yaml").read_text(), "guard.yaml")
    assert config.bounds == Bounds()
    assert config.enforcement is Enforcement.ENFORCE


def test_the_shipped_settings_show_every_bound() -> None:
    text = (CONFIG / "guard.yaml").read_text()
    groups = [getattr(Bounds(), group.name) for group in dataclasses.fields(Bounds)]
    names = [camel_case(bound.name) for group in groups for bound in dataclasses.fields(group)]
    assert len(names) == len(set(names))
    assert [name for name in names if f"\n  {name}: " not in text] == []


def test_the_shipped_policy_compiles_without_warnings() -> None:
    assert warnings(compile_policy((CONFIG / "policy.yaml").read_text(), "policy.yaml")) == []


# -- identity


def with_identity(upstream: str = "", identity: str = "", listen: str = "") -> str:
    text = LEAST.replace('7445"]}', '7445"]' + upstream + "}")
    text = text.replace('7443"}', '7443"' + listen + "}")
    return text + (f"identity: {identity}\n" if identity else "")


def test_identity_is_read() -> None:
    text = with_identity(
        ", frontProxy: {certFile: c, keyFile: k, userHeaders: [X-User, X-Remote-User],"
        " extraHeaderPrefixes: [X-Extra-]}, credentials: {tokenFile: t}",
        "{jwt: [{issuer: https://k8s, jwksFromUpstream: true},"
        " {issuer: https://login, audiences: [kube, k8s], jwksFile: f, claimMappings:"
        " {username: {claim: email, prefix: ''}, groups: {claim: g, prefix: 'o:'}}}],"
        " tokenReview: {enabled: true, reviewsPerSecond: 7}}",
    )
    config = parse_config(text, "g.yaml")
    front_proxy = config.upstream.front_proxy
    assert front_proxy is not None
    assert front_proxy.names() == FrontProxyNames(user=b"X-User", extra_prefix=b"X-Extra-")
    assert identity_names(front_proxy).user == (b"x-user", b"x-remote-user")
    assert identity_names(front_proxy).extra_prefix == (b"x-extra-", b"x-remote-extra-")
    assert config.upstream.credentials == CredentialsConfig(token_file="t")
    assert config.identity.jwt == (
        JwtConfig("https://k8s", frozenset({"https://k8s"})),
        JwtConfig(
            "https://login",
            frozenset({"kube", "k8s"}),
            ClaimMappings("email", "", "g", "o:"),
            "f",
        ),
    )
    assert config.identity.token_review == TokenReviewConfig(True, 7)


@pytest.mark.parametrize(
    ("upstream", "identity", "problem"),
    [
        ("", "{tokenReview: {enabled: true}}", "need upstream.credentials"),
        ("", "{jwt: [{issuer: a, jwksFromUpstream: true}]}", "need upstream.credentials"),
        ("", "{jwt: [{issuer: a}]}", "either jwksFile or jwksFromUpstream"),
        ("", "{jwt: [{issuer: a, jwksFile: f}, {issuer: a, jwksFile: f}]}", "an issuer twice"),
        ("", "{jwt: [{issuer: a, jwksFile: f}, {issuer: b, jwksFile: f}]}", "more than one"),
        ("", "{jwt: [{issuer: kubernetes/serviceaccount, jwksFile: f}]}", "is implied"),
        ("", "{jwt: [{issuer: a, jwksFile: f, claimMappings: {}}]}", "audiences: is required"),
        (", credentials: {certFile: c}", "", "go together"),
        (", credentials: {}", "", "give either"),
        (", credentials: {certFile: c, keyFile: k, tokenFile: t}", "", "give either"),
        (", frontProxy: {certFile: c, keyFile: k, userHeaders: [Authorization]}", "", "no header"),
        (", frontProxy: {certFile: c, keyFile: k, uidHeaders: [x_uid]}", "", "is no header name"),
        (", frontProxy: {certFile: c, keyFile: k, userHeaders: []}", "", "at least one"),
        (", frontProxy: {certFile: c, keyFile: k, userHeaders: [x-remote-uid]}", "", "second time"),
        (
            ", frontProxy: {certFile: c, keyFile: k, extraHeaderPrefixes: [X-Remote-]}",
            "",
            "begins with an extra prefix",
        ),
    ],
)
def test_identity_settings_that_cannot_work(upstream: str, identity: str, problem: str) -> None:
    found = problems(with_identity(upstream, identity))
    assert any(problem in line for line in found), found


def test_client_certificates_need_a_front_proxy_to_pass_them_on() -> None:
    listen = ", tls: {certFile: c, keyFile: k, clientCAFile: a}"
    assert "needs upstream.frontProxy" in problems(with_identity(listen=listen))[0]
