"""PROXY protocol headers, versions 1 and 2 (haproxy.org/download/1.8/doc/proxy-protocol.txt).

Read only on connections from peers configured to send one; there it is mandatory, since guessing
would let the client behind such a peer forge its own address.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LONGEST_V1 = 107
LONGEST_V2 = 16 + 1024
"""Bytes of the header with address and extensions; senders use far fewer than the 64 KiB a length
field could announce."""


class ProxyHeaderError(ValueError):
    """The bytes are no PROXY header; the connection must be closed."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """``length`` bytes of header; ``source`` is the client's address, None for LOCAL or UNKNOWN
    (the proxy speaks for itself, for example to check health)."""

    length: int
    source: str | None


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the start of ``data``, None while it is incomplete. Raises ProxyHeaderError."""
    if data[:12] == SIGNATURE[: len(data)]:
        return _parse_v2(data) if len(data) >= 16 else None
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data)
    raise ProxyHeaderError("no PROXY header")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, LONGEST_V1)
    if end < 0:
        if len(data) >= LONGEST_V1:
            raise ProxyHeaderError("PROXY header too long")
        return None
    words = data[:end].split(b" ")
    if words[:2] == [b"PROXY", b"UNKNOWN"]:
        return ProxyHeader(end + 2, None)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise ProxyHeaderError("malformed PROXY header")
    version = 4 if words[1] == b"TCP4" else 6
    try:
        address = ipaddress.ip_address(words[2].decode("ascii"))
    except ValueError:
        raise ProxyHeaderError("malformed address in PROXY header") from None
    if address.version != version:
        raise ProxyHeaderError("address of another family in PROXY header")
    return ProxyHeader(end + 2, str(address))


def _parse_v2(data: bytes) -> ProxyHeader | None:
    version_command, family = data[12], data[13]
    length = 16 + int.from_bytes(data[14:16], "big")
    if version_command not in (0x20, 0x21):
        raise ProxyHeaderError("unknown PROXY version or command")
    if length > LONGEST_V2:
        raise ProxyHeaderError("PROXY header too long")
    if len(data) < length:
        return None
    if version_command == 0x20:
        return ProxyHeader(length, None)
    size = {0x11: 4, 0x21: 16}.get(family)
    if size is None or length - 16 < 2 * size + 4:
        raise ProxyHeaderError("PROXY header without a TCP address")
    return ProxyHeader(length, str(ipaddress.ip_address(data[16 : 16 + size])))
