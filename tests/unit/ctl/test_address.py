"""Where a guard answers, as operators write it."""

from __future__ import annotations

import pytest

from apiguard.ctl.address import parse_address


@pytest.mark.parametrize(
    ("text", "authority", "tls", "path"),
    [
        ("https://10.0.0.1:7444", "10.0.0.1:7444", True, ""),
        ("http://guard.example:7444/", "guard.example:7444", False, ""),
        ("https://[2001:db8::1]:443", "[2001:db8::1]:443", True, ""),
        ("unix:/run/apiguard/admin.sock", "localhost", False, "/run/apiguard/admin.sock"),
        ("unix:///run/admin.sock", "localhost", False, "/run/admin.sock"),
    ],
)
def test_what_an_address_says(text: str, authority: str, tls: bool, path: str) -> None:
    address = parse_address(text)
    assert (address.authority, address.tls, address.path) == (authority, tls, path)


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.1:7444", "https://host", "https://host:0", "https://host:70000", "ftp://h:1",
     "http://a b:1", "http://u@h:1", "http://h:1/path", "http://::1:1", "unix:", "http://h\r\n:1"],
)  # fmt: skip
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write https://HOST:PORT"):
        parse_address(text)
