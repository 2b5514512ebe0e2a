"""Clients that are slow, idle or too many meet a bound; nobody else notices."""

from __future__ import annotations

import asyncio
import socket

import pytest

from apiguard.runtime import listener
from apiguard.runtime.downstream import Downstream
from apiguard.telemetry import bounds
from tests.conftest import Certificates

from .client import Client, request
from .conftest import StartGuard, StartUpstream
from .guard import Guard
from .upstreams import CHUNKED_OK, Connection, Received, answers, chunk, ok
from .waiting import eventually

POST = b"POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: guard\r\n"


async def only_downstream(started: Guard) -> Downstream:
    await eventually(lambda: len(started.traffic._downstreams) == 1)
    return next(iter(started.traffic._downstreams))


async def silent(connection: Connection, _: Received) -> None:
    """Never answers."""
    await connection.gone()


async def test_a_head_byte_by_byte_is_408_at_its_deadline(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    """The deadline is a total: each byte in time buys nothing."""
    started = await guard((await upstream(answers(ok()))).url, header_seconds=1)
    client = await Client.open(started.port)
    answer = asyncio.ensure_future(client.response())
    for byte in b"GET /api/v1/pods HTTP/1.1\r\nHost: " + b"x" * 1000:
        client.send(bytes([byte]))
        await asyncio.sleep(0.02)  # the client's own pace
        if answer.done():
            break
    assert (await answer).status == 408
    assert started.hits(bounds.HEADER_DEADLINE) == 1
    assert await client.ended() == b""
    await client.close()


async def test_a_slow_body_is_408_and_its_request_withdrawn(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = await upstream(answers(ok()))
    started = await guard(server.url, body_grace_seconds=1)
    client = await Client.open(started.port)
    client.send(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100)
    assert (await client.response()).status == 408
    assert started.hits(bounds.BODY_RATE) == 1
    assert server.requests == []
    await eventually(lambda: not server.open, "upstream saw the request end")
    await client.close()


async def test_a_body_over_its_bound_is_413_declared_or_counted(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = await upstream(answers(ok()))
    started = await guard(server.url, body_bytes=1000)
    for body in (b"Content-Length: 1001\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n"):
        client = await Client.open(started.port)
        client.send(POST + body + b"x" * 1001)
        assert (await client.response()).status == 413
        await client.ended()
        await client.close()
    assert started.hits(bounds.BODY_BYTES) == 2
    assert server.requests == []


async def test_an_idle_client_is_closed(upstream: StartUpstream, guard: StartGuard) -> None:
    started = await guard((await upstream(answers(ok()))).url, idle_client_seconds=1)
    silent_one, asked = await Client.open(started.port), await Client.open(started.port)
    assert (await asked.ask("/api/v1/pods")).status == 200
    assert await silent_one.ended(within=3) == b""
    assert await asked.ended(within=3) == b""
    assert started.hits(bounds.CLIENT_IDLE) == 2
    await silent_one.close()
    await asked.close()


async def test_a_defect_at_one_connections_deadlines_ends_that_one_and_no_others_deadlines(
    upstream: StartUpstream, guard: StartGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = await guard((await upstream(answers(ok()))).url, idle_client_seconds=1)
    marked = await Client.open(started.port)
    defective, tick = await only_downstream(started), Downstream.tick

    def failing(downstream: Downstream, now: float) -> None:
        if downstream is defective:
            raise RuntimeError
        tick(downstream, now)

    monkeypatch.setattr(Downstream, "tick", failing)
    other = await Client.open(started.port)
    assert await marked.ended() == b""
    assert await other.ended(within=3) == b""
    assert started.hits(bounds.CLIENT_IDLE) == 1
    await marked.close()
    await other.close()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_client_that_reads_nothing_stops_its_own_stream_alone_and_is_cut(
    encrypted: bool, upstream: StartUpstream, guard: StartGuard, certificates: Certificates
) -> None:
    sent = 0

    async def endless(connection: Connection, received: Received) -> None:
        nonlocal sent
        if received.target != b"/api/v1/pods?watch=1":
            connection.send(ok())
            return
        connection.send(CHUNKED_OK)
        piece = chunk(b"x" * 4000)
        while True:
            connection.send(piece)
            sent += len(piece)
            await connection.writer.drain()

    started = await guard(
        (await upstream(endless)).url,
        certificates=certificates if encrypted else None,
        write_stall_seconds=1,
    )
    stalled = await Client.open(started.port, started.client_tls, receive_buffer=4096)
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed has it on ReadTransport only
    stalled.send(request("/api/v1/pods?watch=1"))
    downstream = await only_downstream(started)
    await eventually(lambda: not downstream.codec.writable, "the client's side is full")
    other = await Client.open(started.port, started.client_tls)
    assert (await other.ask("/api/v1/pods")).status == 200
    # One read of the loop's may come on top of the buffer itself.
    assert downstream._transport.get_write_buffer_size() <= 1 << 20
    stopped = sent
    assert (await other.ask("/api/v1/pods")).status == 200
    assert sent - stopped <= 8 << 20, "upstream's kernel buffers filled up, nothing else"
    await eventually(lambda: started.hits(bounds.WRITE_STALL) == 1, within=5)
    await eventually(lambda: not started.traffic.view().exchanges)
    stalled.reset()
    await other.close()


async def test_a_handshake_never_finished_is_closed_at_its_deadline(
    upstream: StartUpstream, guard: StartGuard, certificates: Certificates
) -> None:
    started = await guard(
        (await upstream(answers(ok()))).url, certificates=certificates, handshake_seconds=1
    )
    mute = await Client.open(started.port)
    assert await mute.ended(within=4) == b""
    assert started.hits(bounds.HANDSHAKE_DEADLINE) == 1
    await mute.close()


async def test_unfinished_handshakes_do_not_lock_others_out(
    upstream: StartUpstream,
    guard: StartGuard,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "STALE_SECONDS", 0.2)
    started = await guard((await upstream(answers(ok()))).url, certificates=certificates)
    mute = [await Client.open(started.port) for _ in range(80)]
    client = await Client.open(started.port, started.client_tls)
    assert (await client.ask("/api/v1/pods")).status == 200
    assert started.hits(bounds.HANDSHAKES_OPEN) > 0
    await client.close()
    for each in mute:
        await each.close()


async def test_connections_of_one_source_are_bounded_even_when_they_come_at_once(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(answers(ok()))).url, connections_per_source=5)
    clients = await asyncio.gather(*(Client.open(started.port) for _ in range(30)))
    await eventually(lambda: started.hits(bounds.CONNECTIONS_PER_SOURCE) == 25)
    assert started.traffic.view().connections == 5
    for client in clients:
        await client.close()
    await started.rest()
    again = await Client.open(started.port)
    assert (await again.ask("/api/v1/pods")).status == 200
    await again.close()


async def test_watches_at_their_bound_are_429_and_others_pass(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    async def script(connection: Connection, received: Received) -> None:
        if b"watch" in received.target:
            connection.send(CHUNKED_OK + chunk(b"{}\n"))
            await connection.gone()
        else:
            connection.send(ok())

    started = await guard((await upstream(script)).url, watches_per_upstream=2)
    watchers = [await Client.open(started.port) for _ in range(2)]
    for watcher in watchers:
        watcher.send(request("/api/v1/pods?watch=1"))
        assert (await watcher.head()).status == 200
    client = await Client.open(started.port)
    refused = await client.ask("/api/v1/pods?watch=1")
    assert refused.status == 429
    assert refused.get(b"retry-after")
    assert started.hits(bounds.WATCHES) == 1
    assert (await client.ask("/api/v1/pods")).status == 200
    watchers[0].reset()
    await eventually(lambda: started.traffic.view().watches == 1)
    client.send(request("/api/v1/pods?watch=1"))
    assert (await client.head()).status == 200
    client.reset()
    watchers[1].reset()


async def test_a_full_waiting_queue_is_429_and_silence_is_504_at_the_first_byte_deadline(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = await upstream(silent)
    started = await guard(
        server.url, requests_per_upstream=1, waiting_requests=1, first_byte_seconds=1
    )
    clients = [await Client.open(started.port) for _ in range(3)]
    clients[0].send(request("/api/v1/pods"))
    await eventually(lambda: server.requests)
    clients[1].send(request("/api/v1/pods", method="POST"))
    await eventually(lambda: started.traffic.upstream.pool.waiting == 1)
    refused = await clients[2].ask("/api/v1/pods")
    assert (refused.status, started.hits(bounds.WAITING_REQUESTS)) == (429, 1)
    for client, method in zip(clients, ("GET", "POST"), strict=False):
        answer = await client.response(method)
        assert (answer.status, answer.get(b"retry-after")) == (504, None)
    assert started.hits(bounds.UPSTREAM_FIRST_BYTE) == 2
    assert [r.method for r in server.requests] == [b"GET", b"POST"]
    for client in clients:
        await client.close()


async def test_pipelining_stops_at_its_bound_and_every_request_is_answered_in_order(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    go = asyncio.Event()

    async def echo(connection: Connection, received: Received) -> None:
        await go.wait()
        connection.send(ok(received.target))

    started = await guard((await upstream(echo)).url, pipelined_requests=4)
    client = await Client.open(started.port)
    downstream_of = only_downstream(started)
    for i in range(40):
        client.send(request(f"/api/v1/pods/{i}"))
        await asyncio.sleep(0)
    downstream = await downstream_of
    await eventually(lambda: not downstream._reading)
    assert started.hits(bounds.PIPELINED) >= 1
    go.set()
    for i in range(40):
        assert (await client.response()).body == b"/api/v1/pods/%d" % i
    await client.close()


async def test_whoever_is_refused_too_often_is_not_read_for_a_second(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(answers(ok()))).url)
    client, other = await Client.open(started.port), await Client.open(started.port)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(7):
        assert (await client.ask("/api", headers=b"User-Agent: bad-agent/1\r\n")).status == 429
        assert (await other.ask("/api/v1/pods")).status == 200
    assert 0.9 < loop.time() - began < 2.5
    assert started.hits(bounds.REFUSED_TOO_OFTEN) == 1
    await client.close()
    await other.close()


async def test_a_penalty_ends_for_a_client_whose_side_was_full_when_it_began(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    body = b"x" * (8 << 20)
    started = await guard((await upstream(answers(ok(body)))).url)
    client = await Client.open(started.port, receive_buffer=4096)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed has it on ReadTransport only
    banned = b"GET /api HTTP/1.1\r\nHost: g\r\nUser-Agent: bad-agent/1\r\n\r\n"
    total = 8
    client.send(b"GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n\r\n" + banned * total)
    downstream = await only_downstream(started)
    await eventually(lambda: not downstream.codec.writable and not downstream._reading)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # typeshed has it on ReadTransport only
    async with asyncio.timeout(20):
        assert (await client.response()).body == body
        for _ in range(total):
            assert (await client.response()).status == 429
    assert started.hits(bounds.REFUSED_TOO_OFTEN) == 1
    client.reset()


async def test_a_client_that_leaves_during_its_penalty_is_forgotten(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(answers(ok()))).url)
    client = await Client.open(started.port)
    for _ in range(6):
        await client.ask("/api", headers=b"User-Agent: bad-agent/1\r\n")
    client.reset()
    await started.rest()


async def test_a_large_answer_streams_through_a_slow_reader_in_bounded_memory(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    size = 40 << 20

    async def large(connection: Connection, _: Received) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _i in range(size >> 16):
            connection.send(b"x" * (1 << 16))
            await connection.writer.drain()

    started = await guard((await upstream(large)).url)
    client = await Client.open(started.port, receive_buffer=65_536)
    client.send(request("/api/v1/pods"))
    downstream = await only_downstream(started)
    await client.head()
    await eventually(lambda: not downstream.codec.writable, "upstream is held back")
    left, most = size, 0
    while left:
        data = await client.reader.read(1 << 16)
        assert data
        left -= len(data)
        most = max(most, downstream._transport.get_write_buffer_size())
    assert 0 < most <= 1 << 20
    await client.close()


async def test_a_large_body_waits_for_an_upstream_that_reads_slowly(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    size = 40 << 20
    go = asyncio.Event()

    async def slow(connection: Connection, received: Received) -> None:
        await go.wait()
        whole = await connection.rest(received)
        connection.send(ok(b"%d" % len(whole.body)))

    started = await guard((await upstream(slow, heads_only=True)).url, body_bytes=64 << 20)
    client = await Client.open(started.port)
    client.send(POST + b"Content-Length: %d\r\n\r\n" % size)
    client.send(b"x" * size)
    downstream = await only_downstream(started)
    await eventually(lambda: not downstream._reading, "the client is held back")
    assert downstream.codec.body_received < 16 << 20, "kernel buffers and ours, not the whole"
    go.set()
    assert (await client.response()).body == b"%d" % size
    await client.close()


async def test_watch_events_pass_at_once_and_one_by_one(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    """Each event is sent only when the one before has arrived: any coalescing would stop here."""
    events: asyncio.Queue[bytes] = asyncio.Queue()

    async def watch(connection: Connection, _: Received) -> None:
        connection.send(CHUNKED_OK)
        while event := await events.get():
            connection.send(chunk(event))
        connection.send(b"0\r\n\r\n")

    started = await guard((await upstream(watch)).url)
    client = await Client.open(started.port)
    client.send(request("/api/v1/pods?watch=1"))
    await client.head()
    for i in range(200):
        event = b'{"type":"ADDED","object":%d}\n' % i
        events.put_nowait(event)
        assert await client.chunk() == event
    events.put_nowait(b"")
    assert await client.chunk() == b""
    await client.close()


async def test_listening_goes_on_when_one_client_resets_while_it_is_accepted(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(answers(ok()))).url)
    for _ in range(50):
        sock = socket.create_connection(("127.0.0.1", started.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    client = await Client.open(started.port)
    assert (await client.ask("/api/v1/pods")).status == 200
    await client.close()
