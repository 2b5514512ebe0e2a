"""One raw HTTP/1.1 exchange: bytes out, a parsed answer back."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        values = self.values(name)
        return values[0] if values else None


def parse_response(raw: bytes) -> Answer:
    """A complete recorded or received response; chunks are joined, gzip undone."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    headers = tuple((name, value.strip()) for name, _, value in pairs)
    named = {name.lower(): value for name, value in headers}
    body = _unchunked(rest) if named.get("transfer-encoding") == "chunked" else rest
    if named.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return Answer(int(status.split(" ")[1]), headers, body)


def _unchunked(raw: bytes) -> bytes:
    parts = []
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        parts.append(raw[:length])
        raw = raw[length + 2 :]
    return b"".join(parts)


async def send(url: str, request: bytes) -> Answer:
    """Sends raw bytes that ask for ``Connection: close`` and reads until the end."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(request)
        await writer.drain()
        return parse_response(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()
        await writer.wait_closed()


async def ask(
    url: str,
    method: str,
    target: str,
    body: bytes = b"",
    token: str = "",
    content_type: str = "application/json",
    **headers: str,
) -> Answer:
    """One request; keyword headers are spelled with underscores for hyphens."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += [f"Content-Length: {len(body)}", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return await send(url, "\r\n".join((*lines, "", "")).encode() + body)
