"""Bodies of recorded exchanges, unchunked."""

from __future__ import annotations

import gzip
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "data" / "exchanges"


def body(name: str) -> bytes:
    """The body of the recorded response ``name``."""
    head, _, rest = (FOLDER / f"{name}.response").read_bytes().partition(b"\r\n\r\n")
    head = head.lower()
    if b"transfer-encoding: chunked" in head:
        rest = _unchunked(rest)
    return gzip.decompress(rest) if b"content-encoding: gzip" in head else rest


def _unchunked(data: bytes) -> bytes:
    parts: list[bytes] = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        parts.append(data[:length])
        data = data[length + 2 :]
    return b"".join(parts)
