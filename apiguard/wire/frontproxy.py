"""An identity as the header lines of an authenticating front proxy, and nothing lost on the way.

kube-apiserver believes ``X-Remote-*`` on connections with the front-proxy certificate
(k8s.io/apiserver/pkg/authentication/request/headerrequest/requestheader.go). It takes the first
user line, every non-empty group line as one group (a comma separates nothing), and of an extra
header the rest of its name, lower-cased first and unescaped then, as the key. Values are bytes
to it, read as UTF-8; blanks around them are trimmed.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from apiguard.errors import ApiguardError

# Token bytes (RFC 9110 section 5.6.2) without "%", which begins an escape, and without capitals:
# upstream lower-cases the name before it unescapes the key, so an escaped capital survives.
_PLAIN_KEY_BYTES = frozenset((string.ascii_lowercase + string.digits + "!#$&'*+-.^_`|~").encode())

_VALUE_CONTROLS = frozenset(range(32)) | {127}


class CannotCarryError(ApiguardError):
    """This identity would not arrive as it is; the message says why and quotes no name."""


@dataclass(frozen=True, slots=True)
class FrontProxyNames:
    """The names the guard writes: one of those upstream was configured to read for each."""

    user: bytes = b"X-Remote-User"
    group: bytes = b"X-Remote-Group"
    uid: bytes = b"X-Remote-Uid"
    extra_prefix: bytes = b"X-Remote-Extra-"


def front_proxy_lines(
    names: FrontProxyNames,
    user: str,
    groups: Iterable[str] = (),
    uid: str = "",
    extra: Mapping[str, tuple[str, ...]] | None = None,
) -> bytes:
    """The header lines, each with its CRLF, from which upstream derives exactly this user.

    Raises CannotCarryError.
    """
    lines = [_name_line(names.user, "the user name", user)]
    lines += [_name_line(names.group, "a group", group) for group in groups]
    if uid:
        lines.append(_name_line(names.uid, "the UID", uid))
    for key, values in (extra or {}).items():
        name = names.extra_prefix + escape_extra_key(key)
        if not values:
            raise CannotCarryError("an extra key has no values")
        lines += [_line(name, _extra_value(value)) for value in values]
    return b"".join(lines)


def escape_extra_key(key: str) -> bytes:
    """``key`` as the end of a header name: every byte but lower-case token characters as %XX.

    As ``headerKeyEscape`` of client-go (transport/round_trippers.go), which leaves capitals alone
    and thereby loses them.
    """
    return b"".join(
        bytes((byte,)) if byte in _PLAIN_KEY_BYTES else b"%%%02X" % byte for byte in _utf8(key)
    )


def name_problem(name: str) -> str:
    """Why upstream would not read this user, group or UID unchanged from a header; "" if it would.

    Go's server trims blanks around a header's value and drops groups that are empty, so such a
    name would turn into another. Control characters (category Cc) no header carries safely.
    """
    if not name:
        return "is empty"
    if name.strip(" \t") != name:
        return "begins or ends with a blank"
    if not name.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        return "holds control characters"
    return ""


def _name_line(header: bytes, what: str, name: str) -> bytes:
    problem = name_problem(name)
    if problem:
        raise CannotCarryError(f"{what} {problem}")
    return _line(header, _utf8(name))


def _extra_value(value: str) -> bytes:
    """Extra values may be empty, unlike names; otherwise the same rules hold."""
    if value.strip(" \t") != value:
        raise CannotCarryError("an extra value begins or ends with a blank")
    raw = _utf8(value)
    if not _VALUE_CONTROLS.isdisjoint(raw):
        raise CannotCarryError("an extra value holds control characters")
    return raw


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise CannotCarryError("a name is no Unicode text") from None


def _line(name: bytes, value: bytes) -> bytes:
    return name + b": " + value + b"\r\n"
