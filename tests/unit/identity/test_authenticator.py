"""Which credential counts, and what becomes of it."""

from __future__ import annotations

import base64

import pytest

from apiguard.errors import ConfigError
from apiguard.identity.authenticator import Authenticator, is_plain_name, parse_static_tokens
from apiguard.identity.credentials import bearer_token, websocket_token
from apiguard.kube.identity import ANONYMOUS, Identity, Standing

ALICE = Identity("alice", ("devs", "system:authenticated"), "7")
AUTHENTICATOR = Authenticator({"secret": ALICE})
PREFIX = b"base64url.bearer.authorization.k8s.io."


def encoded(token: bytes) -> bytes:
    return PREFIX + base64.urlsafe_b64encode(token).rstrip(b"=")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (b"Bearer secret", "secret"),
        (b"bearer secret", "secret"),  # recorded: accepted by kube-apiserver
        (b"BEARER secret", "secret"),
        (b"Bearer secret and more", "secret"),  # recorded: text after the token is ignored
        (b"  Bearer secret\t", "secret"),
        (b"Bearer  secret", None),  # recorded: two blanks are no credential
        (b"Bearer ", None),
        (b"Bearer", None),
        (b"Bearer\tsecret", None),
        (b"Bearersecret", None),
        (b"Basic YTpi", None),
        (b"", None),
        (b"Bearer \xe9", "\xe9"),
    ],
)
def test_an_authorization_header_is_read_as_kube_apiserver_reads_it(
    header: bytes, token: str | None
) -> None:
    assert bearer_token(header) == token


@pytest.mark.parametrize(
    ("protocols", "token"),
    [
        (encoded(b"secret"), "secret"),
        (b"v5.channel.k8s.io, " + encoded(b"secret"), "secret"),
        (encoded(b"secret") + b",v5.channel.k8s.io", "secret"),
        (encoded(b"\xff\xfb-ok".replace(b"\xff\xfb", b"??>")), "??>-ok"),  # uses - and _
        (b"v5.channel.k8s.io", None),
        (PREFIX, None),
        (b"", None),
    ],
)
def test_a_subprotocol_can_hold_a_token(protocols: bytes, token: str | None) -> None:
    assert websocket_token(protocols) == token


@pytest.mark.parametrize(
    "protocols",
    [
        PREFIX + b"c2VjcmV0ZQ==",  # padded
        PREFIX + b"c2Vj+mV0",
        PREFIX + b"!",
        PREFIX + b"c",
        PREFIX + b"__8",  # no UTF-8
        encoded(b"secret") + b"," + encoded(b"secret"),
    ],
)
def test_a_token_kube_apiserver_could_not_read_proves_nothing_and_is_not_anonymous(
    protocols: bytes,
) -> None:
    authentication = AUTHENTICATOR.authenticate(b"", protocols)
    assert (authentication.standing, authentication.identity) == (Standing.UNVERIFIED, None)


@pytest.mark.parametrize(
    ("header", "protocols", "standing"),
    [
        (b"Bearer secret", b"", Standing.VERIFIED),
        (b"", encoded(b"secret"), Standing.VERIFIED),
        (b"Bearer secret", encoded(b"unknown"), Standing.VERIFIED),
        (b"Bearer unknown", encoded(b"secret"), Standing.UNVERIFIED),
        (b"Bearer secre", b"", Standing.UNVERIFIED),
        (b"Bearer secret\x00", b"", Standing.UNVERIFIED),
        (b"Basic YTpi", b"", Standing.ANONYMOUS),
        (b"", b"", Standing.ANONYMOUS),
    ],
)
def test_only_a_known_token_proves_and_only_its_absence_is_anonymous(
    header: bytes, protocols: bytes, standing: Standing
) -> None:
    authentication = AUTHENTICATOR.authenticate(header, protocols)
    assert authentication.standing is standing
    wanted = {Standing.VERIFIED: ALICE, Standing.ANONYMOUS: ANONYMOUS, Standing.UNVERIFIED: None}
    assert authentication.identity == wanted[standing]


def test_rows_of_a_token_file_become_identities() -> None:
    text = (
        '# comment\nsecret,alice,7,"devs, ops"\n\nother,bob,8\n'
        '"quoted",carol,,"system:authenticated"\n'
    )
    tokens = parse_static_tokens(text, "tokens.csv")
    assert tokens == {
        "secret": Identity("alice", ("devs", "ops", "system:authenticated"), "7"),
        "other": Identity("bob", ("system:authenticated",), "8"),
        "quoted": Identity("carol", ("system:authenticated",), ""),
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("t0ps3cret,alice", "a row needs"),
        (",alice,1", "empty"),
        ("t0ps3cret,,1", "must not be empty"),
        ("t0ps3cret,alice ,1", "blank-padded"),
        ("t0ps3cret,al\x07ice,1", "control"),
        ('t0ps3cret,alice,1,"a,,b"', "must not be empty"),
        ("secret,alice,1", "twice"),
        ('t0ps3cret,"alice,1', "end of data"),
    ],
)
def test_a_row_that_could_be_read_differently_is_an_error_without_its_token(
    row: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Authenticator.from_static_tokens("secret,bob,2\n" + row + "\n", "tokens.csv")
    (problem,) = caught.value.problems
    assert reason in problem.reason
    assert (problem.file, problem.line) == ("tokens.csv", 2)
    assert "t0ps3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a\x00", "a\x7f", "\ta"])
def test_names_upstream_would_change_are_not_plain(name: str) -> None:
    assert not is_plain_name(name)
    assert is_plain_name("a" + name.strip("\n\x00\x7f\t ") + "b")
