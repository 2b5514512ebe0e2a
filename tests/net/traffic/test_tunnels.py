"""Upgrades become tunnels of bytes, only after upstream's 101; every byte sent arrives."""

from __future__ import annotations

import asyncio

import pytest

from .client import Client
from .conftest import StartGuard, StartUpstream
from .upstreams import Connection, Received, ok
from .waiting import eventually

SPDY = (
    b"POST /api/v1/namespaces/a/pods/p/exec?command=sh HTTP/1.1\r\nHost: guard\r\n"
    b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
)
WEBSOCKET = (
    b"GET /api/v1/namespaces/a/pods/p/exec?command=sh HTTP/1.1\r\nHost: guard\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
)
ASKED = pytest.mark.parametrize("asked", [SPDY, WEBSOCKET], ids=["spdy", "websocket"])


async def switch(connection: Connection, received: Received, *, early: bytes = b"") -> None:
    """The 101, with bytes of the tunnel in the same write."""
    upgrade = received.get(b"upgrade")
    assert upgrade is not None
    assert received.get(b"connection") == b"Upgrade"
    connection.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
        + early
    )


async def echo(connection: Connection, received: Received) -> None:
    await switch(connection, received, early=b"early;")
    while data := await connection.reader.read(65_536):
        connection.send(data)
        await connection.writer.drain()


@ASKED
async def test_bytes_pass_both_ways_the_early_ones_too(
    asked: bytes, upstream: StartUpstream, guard: StartGuard
) -> None:
    server = await upstream(echo)
    client = await Client.open((await guard(server.url)).port)
    client.send(asked + b"sent before the 101;")
    assert (await client.head()).status == 101
    assert await client.reader.readexactly(26) == b"early;sent before the 101;"
    everything = bytes(range(256)) * 4096
    client.send(everything)
    assert await client.reader.readexactly(len(everything)) == everything
    assert len(server.requests) == 1
    await client.close()


@ASKED
async def test_what_was_sent_before_the_client_ends_arrives_at_upstream(
    asked: bytes, upstream: StartUpstream, guard: StartGuard
) -> None:
    """Also what the guard still holds because upstream reads late."""
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    ended = asyncio.Event()

    async def take(connection: Connection, received: Received) -> None:
        await switch(connection, received)
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed has it on ReadTransport only
        await ended.wait()
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]  # typeshed has it on ReadTransport only
        arrived.put_nowait(await connection.gone())

    started = await guard((await upstream(take)).url)
    client = await Client.open(started.port)
    client.send(asked)
    assert (await client.head()).status == 101
    (to_upstream,) = started.traffic.upstream.pool._use
    sent = 0
    while not to_upstream._transport.get_write_buffer_size():
        client.send(b"x" * 4096)
        sent += 4096
        await asyncio.sleep(0)
    client.writer.write_eof()
    await eventually(lambda: not started.traffic.view().connections, "the guard saw the end")
    ended.set()
    async with asyncio.timeout(5):
        assert len(await arrived.get()) == sent
    assert await client.ended() == b"", "when one side ends, so does the other"
    await client.close()


@ASKED
async def test_what_was_sent_before_upstream_ends_arrives_at_the_client(
    asked: bytes, upstream: StartUpstream, guard: StartGuard
) -> None:
    async def give(connection: Connection, received: Received) -> None:
        await switch(connection, received, early=b"x" * 1_000_000)
        connection.close()
        await connection.gone()

    started = await guard((await upstream(give)).url)
    client = await Client.open(started.port)
    client.send(asked)
    assert (await client.head()).status == 101
    assert len(await client.ended()) == 1_000_000
    await client.close()
    await started.rest()


@ASKED
async def test_without_a_101_the_answer_is_relayed_and_no_later_byte_is_read(
    asked: bytes, upstream: StartUpstream, guard: StartGuard
) -> None:
    async def refuse(connection: Connection, _: Received) -> None:
        connection.send(ok(b"no").replace(b"200 OK", b"403 Forbidden"))

    server = await upstream(refuse)
    client = await Client.open((await guard(server.url)).port)
    client.send(asked + b"GET /api/v1/secrets HTTP/1.1\r\nHost: guard\r\n\r\n")
    answer = await client.response()
    assert (answer.status, answer.body) == (403, b"no")
    assert await client.ended() == b""
    assert len(server.requests) == 1
    await client.close()
