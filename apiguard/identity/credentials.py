"""Which bearer token a request presents, read as kube-apiserver reads it.

Sources: k8s.io/apiserver/pkg/authentication/request/bearertoken/bearertoken.go and
``.../websocket/protocol.go``.
"""

from __future__ import annotations

import base64
import binascii

_WEBSOCKET_PREFIX = b"base64url.bearer.authorization.k8s.io."
_BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_UNUSABLE = "\x00undecodable"
"""Stands for a token that cannot be read; no token file can hold it."""


def bearer_token(authorization: bytes) -> str | None:
    """The token of an ``Authorization`` value, None when it presents none.

    The scheme is case-insensitive and ends at one blank: ``Bearer  x`` with two blanks holds an
    empty token, which kube-apiserver takes for no credential at all. Text after the token is
    ignored.
    """
    parts = authorization.strip(b" \t").split(b" ", 2)
    if len(parts) < 2 or parts[0].lower() != b"bearer" or not parts[1]:
        return None
    return parts[1].decode("latin-1")


def websocket_token(protocols: bytes) -> str | None:
    """The token among the offered WebSocket subprotocols, None without one.

    A token that does not decode, or one of several, is returned as a token nobody can have issued:
    kube-apiserver refuses such a request, so it must not count as anonymous. An empty token is
    none.
    """
    offered = [protocol.strip(b" \t") for protocol in protocols.split(b",")]
    tokens = [p[len(_WEBSOCKET_PREFIX) :] for p in offered if p.startswith(_WEBSOCKET_PREFIX)]
    if not tokens:
        return None
    return (_decode(tokens[0]) or None) if len(tokens) == 1 else _UNUSABLE


def _decode(encoded: bytes) -> str:
    """``encoded`` is base64url without padding; padded, Go's decoder refuses it as well."""
    if encoded.translate(None, _BASE64URL):
        return _UNUSABLE
    try:
        return base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError):
        return _UNUSABLE
