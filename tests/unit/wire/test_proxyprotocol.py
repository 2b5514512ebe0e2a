"""PROXY protocol headers, whole, in parts and broken."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.wire.proxyprotocol import (
    LONGEST_V1,
    LONGEST_V2,
    SIGNATURE,
    ProxyHeaderError,
    parse_proxy_header,
)


def v2(command: int, family: int, payload: bytes, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + payload


IPV4 = (
    bytes([192, 0, 2, 7, 198, 51, 100, 1]) + (40000).to_bytes(2, "big") + (6443).to_bytes(2, "big")
)
IPV6 = (
    ipaddress.ip_address("2001:db8::7").packed + ipaddress.ip_address("2001:db8::1").packed
    + b"\x9c\x40\x19\x2b"
)  # fmt: skip

GOOD = {
    "v1-tcp4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 6443\r\n", "192.0.2.7"),
    "v1-tcp6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 6443\r\n", "2001:db8::7"),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1-unknown-words": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "v2-tcp4": (v2(0x21, 0x11, IPV4), "192.0.2.7"),
    "v2-tcp6": (v2(0x21, 0x21, IPV6), "2001:db8::7"),
    "v2-tlv": (v2(0x21, 0x11, IPV4 + b"\x03\x00\x04abcd"), "192.0.2.7"),
    "v2-local": (v2(0x20, 0x00, b""), None),
    "v2-local-with-address": (v2(0x20, 0x11, IPV4), None),
    "v2-longest": (v2(0x21, 0x11, IPV4 + bytes(LONGEST_V2 - 16 - len(IPV4))), "192.0.2.7"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_once_it_is_whole_and_not_before(name: str) -> None:
    data, source = GOOD[name]
    for at in range(len(data)):
        assert parse_proxy_header(data[:at]) is None
    for rest in (b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"):
        header = parse_proxy_header(data + rest)
        assert header is not None
        assert (header.length, header.source) == (len(data), source)


BAD = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00",
    "lower-case": b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
    "family": b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
    "family-mismatch": b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    "family-mismatch-6": b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
    "few-words": b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
    "two-blanks": b"PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
    "no-address": b"PROXY TCP4 guard 198.51.100.1 1 2\r\n",
    "high-bytes": b"PROXY TCP4 \xb2\xb2 198.51.100.1 1 2\r\n",
    "too-long": b"PROXY TCP4 " + b"1" * LONGEST_V1,
    "v2-version": v2(0x11, 0x11, IPV4),
    "v2-command": v2(0x22, 0x11, IPV4),
    "v2-udp": v2(0x21, 0x12, IPV4),
    "v2-unix": v2(0x21, 0x31, bytes(216)),
    "v2-no-family": v2(0x21, 0x00, b""),
    "v2-short": v2(0x21, 0x11, IPV4[:-1]),
    "v2-short-6": v2(0x21, 0x21, IPV4),
    "v2-too-long": v2(0x21, 0x11, b"", LONGEST_V2 - 15),
    "v2-signature": b"\r\n\r\n\x00\r\nQUIX\n" + v2(0x21, 0x11, IPV4)[12:],
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_header_is_an_error(name: str) -> None:
    with pytest.raises(ProxyHeaderError):
        parse_proxy_header(BAD[name])


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(GOOD)), st.integers(0, 60), st.binary(max_size=4))
def test_any_bytes_are_a_header_or_an_error_or_too_few(name: str, at: int, insert: bytes) -> None:
    data = GOOD[name][0]
    mutated = data[:at] + insert + data[at + len(insert) :]
    try:
        header = parse_proxy_header(mutated)
    except ProxyHeaderError:
        return
    if header is not None:
        assert 0 < header.length <= len(mutated)
        if header.source is not None:
            ipaddress.ip_address(header.source)
