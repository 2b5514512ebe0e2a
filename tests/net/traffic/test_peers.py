"""Who is at the other end: PROXY headers, client certificates, TLS."""

from __future__ import annotations

import socket
import ssl

import pytest

from apiguard.upstream.kind import Kind
from tests.conftest import Certificates

from .client import Client
from .conftest import StartGuard, StartUpstream
from .guard import client_context
from .upstreams import answers, ok

V1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 51000 6443\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
    + socket.inet_aton("203.0.113.9")
    + socket.inet_aton("127.0.0.1")
    + b"\xc7\x38\x19\x2b"
)
HEADERS = pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
ENCRYPTED = pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])


@HEADERS
@ENCRYPTED
async def test_a_trusted_proxy_names_the_client(
    header: bytes,
    encrypted: bool,
    upstream: StartUpstream,
    guard: StartGuard,
    certificates: Certificates,
) -> None:
    server = await upstream(answers(ok()))
    started = await guard(
        server.url,
        certificates=certificates if encrypted else None,
        proxies=["127.0.0.0/8"],
    )
    client = await Client.open(started.port, started.client_tls, preface=header)
    assert (await client.ask("/api/v1/pods")).status == 200
    assert server.requests[0].get(b"x-forwarded-for") == b"203.0.113.9"
    await client.close()


@HEADERS
@ENCRYPTED
async def test_from_anybody_else_a_proxy_header_is_refused(
    header: bytes,
    encrypted: bool,
    upstream: StartUpstream,
    guard: StartGuard,
    certificates: Certificates,
) -> None:
    server = await upstream(answers(ok()))
    started = await guard(
        server.url, certificates=certificates if encrypted else None, proxies=["192.0.2.0/24"]
    )
    client = await Client.open(started.port)
    client.send(header + b"GET /api/v1/pods HTTP/1.1\r\nHost: guard\r\n\r\n")
    answer = await client.ended()
    assert encrypted or answer.startswith(b"HTTP/1.1 400 ")
    assert server.requests == []
    await client.close()


async def test_a_trusted_proxy_must_send_its_header(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = await upstream(answers(ok()))
    started = await guard(server.url, proxies=["127.0.0.0/8"])
    client = await Client.open(started.port)
    client.send(b"GET /api/v1/pods HTTP/1.1\r\nHost: guard\r\n\r\n")
    assert await client.ended() == b""
    assert server.requests == []
    await client.close()


async def test_a_header_in_pieces_is_read_whole(upstream: StartUpstream, guard: StartGuard) -> None:
    server = await upstream(answers(ok()))
    started = await guard(server.url, proxies=["127.0.0.0/8"])
    client = await Client.open(started.port)
    for byte in V1:
        client.send(bytes([byte]))
        await client.writer.drain()
    assert (await client.ask("/api/v1/pods")).status == 200
    assert server.requests[0].get(b"x-forwarded-for") == b"203.0.113.9"
    await client.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6 on loopback")
async def test_a_proxy_is_known_by_its_ipv4_address_on_a_dual_stack_listener(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = await upstream(answers(ok()))
    started = await guard(server.url, proxies=["127.0.0.0/8"], dual_stack=True)
    client = await Client.open(started.port, preface=V1)
    assert (await client.ask("/api/v1/pods")).status == 200
    assert server.requests[0].get(b"x-forwarded-for") == b"203.0.113.9"
    await client.close()


async def test_without_a_front_proxy_a_client_certificate_is_401_and_goes_nowhere(
    upstream: StartUpstream, guard: StartGuard, certificates: Certificates
) -> None:
    server = await upstream(answers(ok()))
    started = await guard(server.url, certificates=certificates, asks_certificates=True)
    presenting = client_context(certificates, own=certificates.client)
    client = await Client.open(started.port, presenting)
    answer = await client.ask("/api/v1/pods", headers=b"Authorization: Bearer alice-token\r\n")
    assert answer.status == 401
    assert b"front proxy" in answer.body
    await client.close()
    plain = await Client.open(started.port, started.client_tls)
    assert (await plain.ask("/api/v1/pods")).status == 200
    assert len(server.requests) == 1
    await plain.close()


async def test_upstreams_certificate_is_verified(
    upstream: StartUpstream,
    guard: StartGuard,
    certificates: Certificates,
    upstream_tls: ssl.SSLContext,
) -> None:
    server = await upstream(answers(ok()), tls=upstream_tls)
    started = await guard(server.url)  # knows nobody's authority
    started.traffic.upstream.set_tls({Kind.PLAIN: ssl.create_default_context()})
    client = await Client.open(started.port)
    assert (await client.ask("/api/v1/pods")).status == 503
    (endpoint,) = started.traffic.view().endpoints
    assert "certificate" in endpoint.detail
    assert server.requests == []
    await client.close()
