"""Which bearer token a request presents, read as kube-apiserver reads it.

Sources: k8s.io/apiserver/pkg/authentication/request/bearertoken/bearertoken.go and
``.../websocket/protocol.go``.
"""

from __future__ import annotations

import base64
import binascii

_WEBSOCKET_PREFIX = b"base64url.bearer.authorization.k8s.io."


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

    A token that does not decode is returned as a token nobody can have issued: kube-apiserver
    refuses such a request, so it must not count as anonymous.
    """
    for protocol in protocols.split(b","):
        protocol = protocol.strip(b" \t")
        if protocol.startswith(_WEBSOCKET_PREFIX):
            return _decode(protocol[len(_WEBSOCKET_PREFIX) :])
    return None


def _decode(encoded: bytes) -> str:
    try:
        raw = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        return raw.decode()
    except (binascii.Error, ValueError):
        return "\x00undecodable"
