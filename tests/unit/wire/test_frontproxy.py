"""Identity headers: what the guard writes arrives exactly, what a client writes never does."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from apiguard.errors import WireError
from apiguard.kube.identity import Identity, with_authenticated
from apiguard.wire.frontproxy import (
    CannotCarryError,
    FrontProxyNames,
    escape_extra_key,
    front_proxy_lines,
    name_problem,
)
from apiguard.wire.headers import (
    HeaderRules,
    IdentityNames,
    impersonated_user,
    without_credentials,
)
from apiguard.wire.messages import HeaderBlock
from tests.unit.identity.recorded import fields_of, read_as_upstream

NAMES = FrontProxyNames()

# -- what the guard writes


@pytest.mark.parametrize(
    ("key", "escaped"),
    [
        ("scopes", b"scopes"),
        ("authentication.kubernetes.io/pod-name", b"authentication.kubernetes.io%2Fpod-name"),
        ("a%2fb", b"a%252fb"),
        ("Scopes", b"%53copes"),
        ("a b_c", b"a%20b_c"),
        ("张", b"%E5%BC%A0"),
        ("", b""),
    ],
)
def test_extra_keys_are_escaped(key: str, escaped: bytes) -> None:
    assert escape_extra_key(key) == escaped


def test_lines_are_those_of_the_configured_names() -> None:
    names = FrontProxyNames(b"X-User", b"X-Group", b"X-Uid", b"X-Extra-")
    extra = {"a/b": ("1", "")}
    assert front_proxy_lines(names, "张伟", ("a, b", "c"), "u", extra) == (
        b"X-User: \xe5\xbc\xa0\xe4\xbc\x9f\r\n"
        b"X-Group: a, b\r\nX-Group: c\r\n"
        b"X-Uid: u\r\n"
        b"X-Extra-a%2Fb: 1\r\nX-Extra-a%2Fb: \r\n"
    )


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "\ta", "a\t", "a\n", "a\r\nb", "\x00", "a\x7f", "a\x85", "\ud800"]
)
def test_names_upstream_would_change_are_not_carried(name: str) -> None:
    assert name_problem(name)
    with pytest.raises(CannotCarryError):
        front_proxy_lines(NAMES, name)
    with pytest.raises(CannotCarryError):
        front_proxy_lines(NAMES, "alice", (name,))
    if name:
        with pytest.raises(CannotCarryError):
            front_proxy_lines(NAMES, "alice", (), name)


@pytest.mark.parametrize("name", ["a", "al ice", "50%", "a,b", "\xa0a", "x\u200by", "a\u3000"])
def test_other_names_are(name: str) -> None:
    """Go trims ASCII blanks only, so that a no-break space is part of a name."""
    assert name_problem(name) == ""


@pytest.mark.parametrize("values", [(), (" a",), ("a\n",), ("\x7f",), ("\ud800",)])
def test_extra_values_upstream_would_change_are_not_carried(values: tuple[str, ...]) -> None:
    with pytest.raises(CannotCarryError):
        front_proxy_lines(NAMES, "alice", (), "", {"k": values})


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(
    lambda text: text.strip(" ") or "a b"
)
_VALUE = st.one_of(_NAME, st.just(""))
_EXTRA = st.dictionaries(_TEXT, st.lists(_VALUE, min_size=1, max_size=3).map(tuple), max_size=4)


@settings(max_examples=100, deadline=None)
@given(_NAME, st.lists(_NAME, max_size=4), st.one_of(_NAME, st.just("")), _EXTRA)
def test_upstream_reads_exactly_what_was_written(
    user: str, groups: list[str], uid: str, extra: dict[str, tuple[str, ...]]
) -> None:
    groups_of = with_authenticated(user, tuple(groups))
    lines = front_proxy_lines(NAMES, user, groups_of, uid, extra)
    assert read_as_upstream(fields_of(lines), NAMES) == Identity(user, groups_of, uid, extra)


@settings(max_examples=200, deadline=None)
@given(_TEXT, _TEXT, _TEXT, _TEXT)
def test_whatever_the_names_hold_no_line_is_added(
    user: str, group: str, key: str, value: str
) -> None:
    try:
        lines = front_proxy_lines(NAMES, user, (group,), "", {key: (value,)})
    except CannotCarryError:
        return
    assert lines.count(b"\r\n") == lines.count(b"\n") == lines.count(b"\r") == 3


# -- what a client writes


_IDENTITY_NAMES = [
    b"x-remote-user",
    b"x-remote-group",
    b"x-remote-uid",
    b"x-remote-extra-scopes",
    b"x-remote-extra-",
    b"x-remote-extra-a%2fb",
]
_RULES = HeaderRules()
_CUSTOM = HeaderRules(
    IdentityNames((b"x-user", b"x-remote-user"), (b"x-uid",), (b"x-group",), (b"x-extra-",))
)


@st.composite
def spellings(draw: st.DrawFn, names: list[bytes]) -> bytes:
    """A name in any mixture of cases."""
    name = draw(st.sampled_from(names)).decode()
    upper = draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    return "".join(c.upper() if up else c for c, up in zip(name, upper, strict=True)).encode()


def judged(*fields: tuple[bytes, bytes], rules: HeaderRules = _RULES) -> HeaderBlock:
    return rules.judge([(b"Host", b"x"), *fields])


_VALUES = st.binary(max_size=10).filter(lambda value: not set(value) & set(b"\r\n\x00"))


@settings(max_examples=100, deadline=None)
@given(spellings(_IDENTITY_NAMES), _VALUES, st.sampled_from([b"", b"close", b"x-remote-user"]))
def test_no_spelling_of_an_identity_header_goes_on(
    name: bytes, value: bytes, connection: bytes
) -> None:
    fields = [(name, value), (b"Connection", connection), (b"Accept", b"a")]
    block = judged(*fields)
    assert block.forward == b"Host: x\r\nAccept: a\r\n"


@settings(max_examples=100, deadline=None)
@given(spellings(_IDENTITY_NAMES), st.data())
def test_names_that_become_identity_headers_are_refused(name: bytes, data: st.DataObject) -> None:
    places = [i for i, byte in enumerate(name) if byte == ord("-")]
    folded = data.draw(st.sets(st.sampled_from(places), min_size=1))
    spelled = bytes(ord("_") if i in folded else byte for i, byte in enumerate(name))
    assume(not spelled.lower().startswith(b"x-remote-extra-"))
    with pytest.raises(WireError, match="identity header"):
        judged((spelled, b"alice"))


@settings(max_examples=100, deadline=None)
@given(
    spellings([b"impersonate-user", b"impersonate-group", b"impersonate-extra-a", b"x-user"]),
    st.data(),
)
def test_impersonation_and_configured_names_too(name: bytes, data: st.DataObject) -> None:
    spelled = name.replace(b"-", b"_", 1)
    with pytest.raises(WireError, match="identity header"):
        judged((spelled, b"alice"), rules=_CUSTOM)
    if name.lower() == b"x-user":
        assert judged((name, b"alice"), rules=_CUSTOM).forward == b"Host: x\r\n"


@settings(max_examples=100, deadline=None)
@given(st.text(string.ascii_letters + "-_", min_size=1, max_size=20), _VALUES)
def test_whatever_a_client_writes_names_nobody_to_upstream(name: str, value: bytes) -> None:
    try:
        block = judged((b"X-Remote-" + name.encode(), value), (name.encode(), value))
    except WireError:
        return
    fields = [(name, b"v") for name, _ in fields_of(block.forward)]
    assert read_as_upstream(fields, NAMES) is None


# -- credentials and impersonation, in what is forwarded

BEARER = b"base64url.bearer.authorization.k8s.io.c2VjcmV0"


def test_a_token_is_taken_out_wherever_it_stands() -> None:
    websocket = [
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Protocol", BEARER + b", v5.channel.k8s.io"),
    ]
    assert without_credentials(judged((b"AUTHORIZATION", b"Bearer a"), (b"A", b"b"))) == (
        b"Host: x\r\nA: b\r\n"
    )
    assert without_credentials(judged(*websocket)) == (
        b"Host: x\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
    )
    assert without_credentials(judged(*websocket[:2], (websocket[2][0], BEARER))) == b"Host: x\r\n"


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ([], None),
        ([(b"Impersonate-User", b"bob")], "bob"),
        ([(b"IMPERSONATE-USER", b"bob"), (b"Impersonate-User", b"eve")], "bob"),
        ([(b"Impersonate-Group", b"g")], ""),
        ([(b"Impersonate-Anything", b"g"), (b"impersonate-user", b"bob")], "bob"),
        ([(b"Impersonate-User", "张".encode())], "张"),
        ([(b"Impersonate-User", b"bob"), (b"Connection", b"impersonate-user")], None),
        ([(b"X-Note", b"impersonate-user: bob")], None),
    ],
)
def test_whom_a_request_asks_to_act_as(fields: list[tuple[bytes, bytes]], user: str | None) -> None:
    assert impersonated_user(judged(*fields)) == user
