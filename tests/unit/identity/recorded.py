"""What kube-apiserver 1.36 took callers for, and how it reads what a front proxy tells it."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from apiguard.identity.certificate import ClientAuthority, ClientCertificate
from apiguard.kube.identity import Identity, with_authenticated
from apiguard.wire.frontproxy import FrontProxyNames

DATA = Path(__file__).parents[2] / "data"

RECORDED_AT = 1_795_395_000.0
"""Unix seconds within the validity of what was recorded: 2026-11-23 00:50 UTC."""

CA_PEM = (DATA / "identity-ca.pem").read_bytes()

LINES: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "identity.jsonl").read_text().splitlines()
]


def lines_of(kind: str) -> list[dict[str, Any]]:
    return [line for line in LINES if line["kind"] == kind]


def recorded_user(line: dict[str, Any]) -> Identity | None:
    """The ``userInfo`` of a line; None where the server refused."""
    info = line.get("userInfo")
    if info is None:
        return None
    extra = {key: tuple(values) for key, values in info.get("extra", {}).items()}
    return Identity(info["username"], tuple(info["groups"]), info.get("uid", ""), extra)


def certificate_of(pem: str, authority: ClientAuthority | None = None) -> ClientCertificate:
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    return ClientCertificate(der, (), authority, RECORDED_AT)


def read_as_upstream(
    fields: Iterable[tuple[bytes, bytes]], names: FrontProxyNames, *, reads_uid: bool = True
) -> Identity | None:
    """Whom kube-apiserver takes the sender for, on a connection with the front-proxy certificate.

    As net/http trims and sorts headers and as ``requestheader.go`` reads them; None for nobody.
    """
    headers: dict[str, list[str]] = {}
    for name, value in fields:
        headers.setdefault(name.decode().lower(), []).append(value.strip(b" \t").decode())
    user = (headers.get(names.user.decode().lower()) or [""])[0]
    if not user:
        return None
    groups = tuple(group for group in headers.get(names.group.decode().lower(), []) if group)
    uid = (headers.get(names.uid.decode().lower()) or [""])[0] if reads_uid else ""
    prefix = names.extra_prefix.decode().lower()
    extra: dict[str, tuple[str, ...]] = {}
    for header, values in headers.items():
        if header.startswith(prefix):
            key = _path_unescape(header[len(prefix) :])
            extra[key] = (*extra.get(key, ()), *values)
    return Identity(user, with_authenticated(user, groups), uid, extra)


def _path_unescape(text: str) -> str:
    """Go's url.PathUnescape, whose error leaves the text as it is."""
    for part in text.split("%")[1:]:
        if len(part) < 2 or any(c not in "0123456789abcdefABCDEF" for c in part[:2]):
            return text
    return urllib.parse.unquote(text, errors="strict")


def fields_of(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Serialised header lines as fields."""
    fields = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(b" \t")))
    return fields
