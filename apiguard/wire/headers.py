"""Which headers travel.

Removal runs on what the client sent, in the order RFC 9110 section 7.6.1 asks for: first what its
``Connection`` names, then hop-by-hop fields, then what only a proxy may say (forwarding, identity).
Whatever the guard adds is added to the result, so that no client can name it away.

The credential, user-agent and upgrade that the guard judges by are read from what remains:
what we judge is what upstream will see.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from apiguard.errors import WireError
from apiguard.memo import Memo
from apiguard.wire.messages import CHUNKED, Field, HeaderBlock

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 section 7.6.1 and what is used like them (Proxy-Connection, HTTP2-Settings)."""

_KEPT_ALWAYS = frozenset({b"host", b"content-length", b"connection"})
"""Fields a ``Connection`` header cannot name away: the message has no meaning without them."""

_HOST = re.compile(rb"[A-Za-z0-9!$%&'()*+,\-.:;=\[\]_~]*")
"""Bytes of a host and port, RFC 3986 section 3.2; Go's server accepts the same set."""

_BEARER_PROTOCOL = b"base64url.bearer.authorization.k8s.io."
"""WebSocket subprotocol that carries a bearer token
(k8s.io/apiserver/pkg/authentication/request/websocket/protocol.go)."""


_LONGEST_REMEMBERED = 64
"""Bytes of a header name worth remembering; one may be as long as all headers together."""


class _Kind(enum.IntEnum):
    PLAIN = 0
    DROP = 1
    REFUSE = 2
    HOST = 3
    LENGTH = 4
    CODING = 5
    CONNECTION = 6
    UPGRADE = 7
    EXPECT = 8
    AUTHORIZATION = 9
    USER_AGENT = 10
    WEBSOCKET_PROTOCOL = 11


_SPECIAL = {
    b"host": _Kind.HOST,
    b"content-length": _Kind.LENGTH,
    b"transfer-encoding": _Kind.CODING,
    b"connection": _Kind.CONNECTION,
    b"upgrade": _Kind.UPGRADE,
    b"expect": _Kind.EXPECT,
    b"authorization": _Kind.AUTHORIZATION,
    b"user-agent": _Kind.USER_AGENT,
    b"sec-websocket-protocol": _Kind.WEBSOCKET_PROTOCOL,
    b"forwarded": _Kind.DROP,
    b"x-real-ip": _Kind.DROP,
    **dict.fromkeys(HOP_BY_HOP - {b"connection", b"upgrade", b"transfer-encoding"}, _Kind.DROP),
}


@dataclass(frozen=True, slots=True)
class IdentityNames:
    """Header names upstream's authenticating-proxy authenticator reads, in lower case.

    Defaults are kube-apiserver's documented ones (``--requestheader-*``).
    """

    user: tuple[bytes, ...] = (b"x-remote-user",)
    uid: tuple[bytes, ...] = (b"x-remote-uid",)
    group: tuple[bytes, ...] = (b"x-remote-group",)
    extra_prefix: tuple[bytes, ...] = (b"x-remote-extra-",)


_TOKEN = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+")
"""Header names, without ``_``: spelled with it, a name can read as another."""


def may_carry_identity(name: bytes) -> bool:
    """Whether a header of this name, or names that begin so, can be upstream's identity header."""
    lower = name.lower()
    return (
        _TOKEN.fullmatch(name) is not None
        and lower not in _SPECIAL
        and lower not in (b"accept", b"content-type")
        and not lower.startswith((b"impersonate-", b"x-forwarded-"))
    )


class HeaderRules:
    """Judges header names, and blocks of them, for one set of identity names."""

    __slots__ = ("_exact", "_kinds", "_prefixes")

    def __init__(self, names: IdentityNames | None = None) -> None:
        names = names or IdentityNames()
        self._exact = frozenset(names.user + names.uid + names.group)
        self._prefixes = names.extra_prefix
        self._kinds: Memo[bytes, _Kind] = Memo(2048)

    def _kind(self, name: bytes) -> _Kind:
        """``name`` in lower case. Memoised above, so that a common name costs one lookup."""
        special = _SPECIAL.get(name)
        if special is not None:
            return special
        if self._is_identity(name) or name.startswith(b"x-forwarded-"):
            return _Kind.DROP
        if b"_" in name:
            folded = name.replace(b"_", b"-")
            impersonates = folded.startswith(b"impersonate-")
            # Impersonate-Extra-some_key says what it is in every reading; only names that would
            # turn into an identity header are in doubt.
            if self._is_identity(folded) or (impersonates and name[:12] != b"impersonate-"):
                return _Kind.REFUSE
        return _Kind.PLAIN

    def _is_identity(self, name: bytes) -> bool:
        return name in self._exact or name.startswith(self._prefixes)

    def kind(self, name: bytes) -> _Kind:
        lower = name.lower()
        kind = self._kinds.get(lower)
        if kind is None:
            kind = self._kind(lower)
            if len(lower) <= _LONGEST_REMEMBERED:
                self._kinds.put(lower, kind)
        return kind

    def judge(self, fields: list[Field]) -> HeaderBlock:
        """The block those fields make. Raises WireError for what cannot be forwarded safely."""
        named_away, close, upgrading = _connection(fields)
        block = _Builder()
        for name, value in fields:
            kind = self.kind(name)
            if named_away and name.lower() in named_away:
                if kind is _Kind.REFUSE:
                    raise _look_alike()
                continue
            block.take(kind, name, value)
        return block.build(tuple(fields), close=close, upgrading=upgrading)


class _Builder:
    """Collects one block; ``take`` in order, then ``build``."""

    __slots__ = (
        "authorization",
        "codings",
        "expects",
        "hosts",
        "lengths",
        "lines",
        "protocols",
        "upgrades",
        "user_agent",
    )

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.hosts = 0
        self.lengths: list[bytes] = []
        self.codings: list[bytes] = []
        self.upgrades: list[bytes] = []
        self.protocols: list[bytes] = []
        self.expects = False
        self.authorization: bytes | None = None
        self.user_agent: bytes | None = None

    def take(self, kind: _Kind, name: bytes, value: bytes) -> None:
        if kind is _Kind.DROP or kind is _Kind.CONNECTION:
            return
        if kind is _Kind.REFUSE:
            raise _look_alike()
        if kind is _Kind.LENGTH:
            self.lengths.append(value)
            return
        if kind is _Kind.CODING:
            self.codings.append(value)
            return
        if kind is _Kind.UPGRADE:
            self.upgrades.append(value)
            return
        if kind is _Kind.WEBSOCKET_PROTOCOL:
            self.protocols.append(value)
            return
        if kind is _Kind.AUTHORIZATION:
            if self.authorization is not None:
                return  # Go reads the first; a second would be a credential not in use
            self.authorization = value
        elif kind is _Kind.HOST:
            self.hosts += 1
            if not _HOST.fullmatch(value):
                raise WireError(400, "BadRequest", "malformed Host header")
        elif kind is _Kind.USER_AGENT and self.user_agent is None:
            self.user_agent = value
        elif kind is _Kind.EXPECT:
            if value.lower() != b"100-continue":
                raise WireError(417, "", "only the expectation 100-continue can be met")
            self.expects = True
        self.lines.append(name + b": " + value + b"\r\n")

    def build(self, fields: tuple[Field, ...], *, close: bool, upgrading: bool) -> HeaderBlock:
        if self.hosts != 1:
            raise WireError(400, "BadRequest", "exactly one Host header is required")
        length = _body_length(self.lengths, self.codings)
        upgrade = _upgrade(self.upgrades) if upgrading else b""
        if upgrade and length != 0:
            raise WireError(400, "BadRequest", "a request to upgrade cannot have a body")
        protocols = b", ".join([p for p in self.protocols if p])
        if self.authorization and upgrade.lower() == b"websocket":
            protocols = _without_bearer(protocols)
        if protocols:
            self.lines.append(b"Sec-WebSocket-Protocol: " + protocols + b"\r\n")
        return HeaderBlock(
            fields=fields,
            forward=b"".join(self.lines),
            length=length,
            declared=bool(self.lengths),
            upgrade=upgrade,
            close=close,
            expects=self.expects,
            authorization=self.authorization or b"",
            user_agent=self.user_agent or b"",
            websocket_protocols=protocols,
        )


def _look_alike() -> WireError:
    return WireError(
        400, "BadRequest", "a header name reads as an identity header when _ is taken for -"
    )


def _connection(fields: list[Field]) -> tuple[frozenset[bytes], bool, bool]:
    """What ``Connection`` says: names to remove, whether to close, whether to upgrade."""
    tokens = {
        token.strip(b" \t").lower()
        for name, value in fields
        if len(name) == 10 and name.lower() == b"connection"
        for token in value.split(b",")
    }
    if not tokens:
        return frozenset(), False, False
    names = frozenset(tokens - HOP_BY_HOP - _KEPT_ALWAYS - {b"close", b""})
    return names, b"close" in tokens, b"upgrade" in tokens


def _body_length(lengths: list[bytes], codings: list[bytes]) -> int:
    """RFC 9112 section 6.3, refusing whatever two readers could take differently."""
    if codings:
        if lengths:
            raise WireError(400, "BadRequest", "both Content-Length and Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise WireError(501, "", "the only transfer coding served is chunked")
        return CHUNKED
    if not lengths:
        return 0
    return content_length(lengths)


def content_length(values: list[bytes]) -> int:
    """One plain decimal number. Raises WireError(400) for anything else, even equal repeats."""
    value = values[0]
    if len(values) > 1 or not value.isdigit() or len(value) > 19:
        raise WireError(400, "BadRequest", "Content-Length must be one decimal number")
    return int(value)


def _upgrade(values: list[bytes]) -> bytes:
    """The one upgrade Kubernetes uses, or b"" for an upgrade we ignore as RFC 9110 allows."""
    if len(values) == 1 and values[0].lower() in (b"websocket", b"spdy/3.1"):
        return values[0]
    return b""


def upgrade_asked(method: str, block: HeaderBlock) -> bytes:
    """The protocol to switch to: WebSocket by GET (RFC 6455 section 4.1), SPDY by POST or GET.

    b"" for an ordinary request, also where an upgrade is ignored.
    """
    upgrade = block.upgrade
    if not upgrade or method == "GET" or (method == "POST" and upgrade.lower() == b"spdy/3.1"):
        return upgrade
    return b""


def without_credentials(block: HeaderBlock) -> bytes:
    """``block.forward`` without the bearer token, in whichever header it stands."""
    kept = []
    for line in block.forward.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"authorization":
            continue
        if name == b"sec-websocket-protocol":
            value = _without_bearer(value)
            if not value:
                continue
            line = b"Sec-WebSocket-Protocol: " + value
        kept.append(line + b"\r\n")
    return b"".join(kept)


def impersonated_user(block: HeaderBlock) -> str | None:
    """Whom the request that goes on asks to act as; None when it asks for nothing of the kind.

    "" when it impersonates without naming a user, which upstream answers 400. Read from what is
    forwarded, so that a name ``Connection`` took away counts for nothing. Go reads the first.
    """
    if b"impersonate-" not in block.forward.lower():
        return None
    found = None
    for line in block.forward.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"impersonate-user":
            return value.strip(b" \t").decode("utf-8", "replace")
        if name.startswith(b"impersonate-"):
            found = ""
    return found


def _without_bearer(protocols: bytes) -> bytes:
    """Drops the token subprotocol: beside an Authorization header it is not the one in use."""
    kept = [p.strip() for p in protocols.split(b",")]
    return b", ".join(p for p in kept if not p.startswith(_BEARER_PROTOCOL))
