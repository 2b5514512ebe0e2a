"""Values <-> JSON bytes, with the escapes and the error texts of Go's encoding/json.

Clients never depend on the escapes, but bodies compared byte for byte with recorded ones do.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

# A JSON-able mapping. Objects have no static shape here: the server stores what clients send.
Object = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_META_ORDER = (
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
)
_KEY_WANTED = "looking for beginning of object key string"
_GO_WORDS = {
    "Expecting property name enclosed in double quotes": _KEY_WANTED,
    "Illegal trailing comma before end of object": _KEY_WANTED,
    "Expecting value": "looking for beginning of value",
    "Expecting ',' delimiter": "after object key:value pair",
    "Expecting ':' delimiter": "after object key",
    "Extra data": "after top-level value",
}


class NotJsonError(ValueError):
    """Bytes that are no JSON; the text is what Go's decoder says."""


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON in which ``<``, ``>``, ``&``, U+2028 and U+2029 are escaped as Go does."""
    text = _encode(value)
    # Outside of strings none of these bytes occurs in JSON, so plain replacement is exact.
    if b"<" in text or b">" in text or b"&" in text:
        text = text.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
    if b"\xe2\x80" in text:
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text


def pretty(value: Any) -> bytes:
    """Indented JSON, as kube-apiserver writes for curl, browsers and ``pretty=true``."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    for plain in "<>&\u2028\u2029":
        text = text.replace(plain, f"\\u{ord(plain):04x}")
    return text.encode()


def decode(body: bytes) -> Any:
    """The value, or ``NotJsonError``."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        _explain(body)


def _explain(body: bytes) -> NoReturn:
    text = body.decode("latin-1")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()):
            raise NotJsonError("unexpected end of JSON input") from None
        words = _GO_WORDS.get(error.msg, "looking for beginning of value")
        raise NotJsonError(f"invalid character {_go_char(text[error.pos])} {words}") from None
    raise NotJsonError("invalid UTF-8 in string literal")


def _go_char(char: str) -> str:
    if char == "'":
        return "'\\''"
    if char == '"':
        return "'\"'"
    return f"'{char}'" if char.isprintable() else f"'\\u{ord(char):04x}'"


def ordered(value: Object) -> Object:
    """``value`` with kind, apiVersion and metadata first, as Go's structs are written."""
    result: Object = {"kind": value.get("kind"), "apiVersion": value.get("apiVersion")}
    metadata = value.get("metadata") or {}
    known = {name: metadata[name] for name in _META_ORDER if name in metadata}
    result["metadata"] = known
    for name, field in value.items():
        if name not in result:
            result[name] = field
    return result
