"""Every exchange recorded from kube-apiserver passes unchanged, in both directions."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.conftest import Certificates

from .client import Client, Response
from .conftest import StartGuard, StartUpstream
from .upstreams import Connection, Received

FOLDER = Path(__file__).parents[2] / "data" / "exchanges"
NAMES = sorted(path.stem for path in FOLDER.glob("*.request"))

HOP = (b"connection", b"transfer-encoding")
"""What belongs to one connection: the guard frames and keeps connections by itself."""


def kept(lines: tuple[bytes, ...], *without: bytes) -> list[bytes]:
    return [line for line in lines if line.partition(b":")[0].lower() not in (*HOP, *without)]


def recorded(name: str) -> tuple[bytes, bytes]:
    return (FOLDER / f"{name}.request").read_bytes(), (FOLDER / f"{name}.response").read_bytes()


def split(raw: bytes) -> tuple[bytes, tuple[bytes, ...], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    return line, tuple(lines), body


def test_the_recordings_are_all_here() -> None:
    assert len(NAMES) == 117


@pytest.mark.parametrize("name", NAMES)
async def test_passes_unchanged(name: str, upstream: StartUpstream, guard: StartGuard) -> None:
    request, response = recorded(name)

    async def replay(connection: Connection, _: Received) -> None:
        connection.send(response)
        connection.close()

    server = await upstream(replay)
    client = await Client.open((await guard(server.url)).port)
    client.send(request)
    answer = await client.response(request.split(b" ")[0].decode())

    check_request(server.requests, request)
    check_response(answer, response, request)
    assert await client.ended() == b"", "the request asked to close"
    await client.close()


def check_request(requests: list[Received], raw: bytes) -> None:
    """Upstream got the bytes the client sent, and the address of the client besides."""
    line, lines, body = split(raw)
    (received,) = requests
    assert received.line == line
    assert received.body == body
    assert sorted(kept(received.lines)) == sorted([*kept(lines), b"X-Forwarded-For: 127.0.0.1"])


def check_response(answer: Response, raw: bytes, request: bytes) -> None:
    line, lines, body = split(raw)
    chunked = b"Transfer-Encoding: chunked" in lines
    assert answer.line == line
    assert kept(answer.lines) == kept(lines)
    if request.startswith(b"HEAD "):
        assert answer.body == b""
    else:
        assert answer.body == (unchunked(body) if chunked else body)


def unchunked(data: bytes) -> bytes:
    pieces: list[bytes] = []
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert data == b"\r\n"
            return b"".join(pieces)
        pieces.append(data[:length])
        data = data[length + 2 :]


async def test_all_pass_one_after_the_other_over_one_connection_with_tls_on_both_sides(
    upstream: StartUpstream,
    guard: StartGuard,
    certificates: Certificates,
    upstream_tls: ssl.SSLContext,
) -> None:
    exchanges = [recorded(name) for name in NAMES]
    responses = iter([response for _, response in exchanges])

    async def replay(connection: Connection, _: Received) -> None:
        connection.send(next(responses).replace(b"Connection: close\r\n", b""))

    server = await upstream(replay, tls=upstream_tls)
    started = await guard(server.url, certificates=certificates, authority=certificates)
    client = await Client.open(started.port, started.client_tls)
    for request, response in exchanges:
        keeping = request.replace(b"Connection: close\r\n", b"")
        client.send(keeping)
        answer = await client.response(request.split(b" ")[0].decode())
        check_response(answer, response, request)
        check_request(server.requests[-1:], keeping)
    assert server.accepted == 1, "every message end was proven, so one connection served all"
    await client.close()
