"""The kernel is told to ask for signs of life upstream, and when not to insist on them."""

from __future__ import annotations

import socket
import ssl

import pytest

from apiguard.runtime import alive
from apiguard.runtime.relaywire import RelayWire
from apiguard.runtime.upstream import UpstreamConnection
from apiguard.wire.messages import RequestLine

from .client import Client, request
from .conftest import StartGuard, StartUpstream
from .guard import Guard
from .upstreams import CHUNKED_OK, Connection, Received, answers, ok
from .waiting import eventually

TCP = socket.IPPROTO_TCP


def in_use(guard: Guard) -> UpstreamConnection:
    (connection,) = guard.traffic.upstream.pool._use
    return connection


def option(connection: UpstreamConnection, name: int, level: int = TCP) -> int:
    value = connection._transport.get_extra_info("socket").getsockopt(level, name)
    assert isinstance(value, int)
    return value


async def opens(connection: Connection, received: Received) -> None:
    """Begins to answer, and waits for the end."""
    if received.get(b"upgrade"):
        connection.send(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    else:
        connection.send(CHUNKED_OK)
    await connection.gone()


async def test_an_idle_watch_is_asked_for_signs_of_life(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(opens)).url)
    client = await Client.open(started.port)
    client.send(request("/api/v1/pods?watch=1"))
    assert (await client.head()).status == 200
    connection = in_use(started)
    assert option(connection, socket.SO_KEEPALIVE, socket.SOL_SOCKET)
    probing = option(connection, socket.TCP_KEEPINTVL) * option(connection, socket.TCP_KEEPCNT)
    assert option(connection, socket.TCP_KEEPIDLE) + probing == alive.SILENCE_SECONDS == 30
    assert option(connection, socket.TCP_USER_TIMEOUT) == 30_000
    client.reset()


UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
SLOW_READERS = [
    request("/api/v1/namespaces/a/pods/p/exec?command=cat", headers=UPGRADE),
    request("/api/v1/namespaces/a/pods/p/proxy/upload", method="POST", body=b"x"),
]


@pytest.mark.parametrize("asked", SLOW_READERS, ids=["tunnel", "upload"])
async def test_a_program_in_a_pod_may_leave_its_input_unread(
    upstream: StartUpstream, guard: StartGuard, asked: bytes
) -> None:
    started = await guard((await upstream(opens)).url)
    client = await Client.open(started.port)
    client.send(asked)
    await client.head()
    assert option(in_use(started), socket.TCP_USER_TIMEOUT) == 0
    assert option(in_use(started), socket.SO_KEEPALIVE, socket.SOL_SOCKET)
    client.reset()


async def test_a_watch_after_an_upload_on_the_same_connection_is_bounded_again(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = await upstream(answers(ok(), CHUNKED_OK))
    started = await guard(server.url)
    client = await Client.open(started.port)
    upload = "/api/v1/namespaces/a/pods/p/proxy/upload"
    assert (await client.ask(upload, method="POST", body=b"x")).status == 200
    await eventually(lambda: started.idle_upstream == 1)
    client.send(request("/api/v1/pods?watch=1"))
    await client.head()
    assert option(in_use(started), socket.TCP_USER_TIMEOUT) == 30_000
    client.reset()


async def test_the_relays_own_connections_are_asked_too(upstream: StartUpstream) -> None:
    server = await upstream(opens)
    wire = RelayWire(ssl.create_default_context())
    line = RequestLine("GET", "/api/v1/pods?watch=1", b"GET /api/v1/pods?watch=1 HTTP/1.1\r\n")
    call = await wire.call(server.url, line, b"", seconds=10.0)
    await call.begun()
    (connection,) = wire._open
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 30_000
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    call.close()
    wire.close()
    await eventually(lambda: not wire._open)
