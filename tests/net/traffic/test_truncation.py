"""A response cut anywhere is never taken for a complete one, wherever and however it is cut."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial

import pytest

from tests.conftest import Certificates

from .client import BrokenResponseError, Client, Response
from .conftest import StartGuard, StartProxy, StartUpstream
from .faults import End, Fault
from .upstreams import CHUNKED_OK, Connection, Received, answers, chunk, ok

BY_LENGTH = ok(b'{"kind":"Pod","items":[1,2,3]}', b"Content-Type: application/json\r\n")
BY_CHUNKS = CHUNKED_OK + chunk(b'{"kind":"Pod",') + chunk(b'"items":[1,2,3]}') + b"0\r\n\r\n"
BODY = b'{"kind":"Pod","items":[1,2,3]}'

CLOSING = b"GET /api/v1/pods HTTP/1.1\r\nHost: guard\r\nConnection: close\r\n\r\n"

CUTS = [
    pytest.param(raw, end, id=f"{name} {end.value}")
    for name, raw in (("length", BY_LENGTH), ("chunked", BY_CHUNKS))
    for end in (End.FIN, End.RESET)
]


async def outcome(client: Client) -> Response | BrokenResponseError:
    try:
        return await client.response()
    except BrokenResponseError as error:
        return error


@pytest.mark.parametrize(("raw", "end"), CUTS)
async def test_cut_between_upstream_and_guard_at_every_offset(
    raw: bytes, end: End, upstream: StartUpstream, guard: StartGuard, proxy: StartProxy
) -> None:
    server = await upstream(answers(raw))
    between = await proxy(server.port)
    started = await guard(f"http://127.0.0.1:{between.port}")
    head = raw.find(b"\r\n\r\n") + 4
    for offset in range(len(raw)):
        between.fault = partial(Fault, cut_down=offset, end=end)
        client = await Client.open(started.port)
        client.send(b"GET /api/v1/pods HTTP/1.1\r\nHost: guard\r\n\r\n")
        got = await outcome(client)
        if offset < head:
            assert isinstance(got, Response), offset
            assert (got.status, got.get(b"retry-after")) == (503, b"1"), offset
        else:
            assert isinstance(got, BrokenResponseError), (offset, got)
            assert BODY.startswith(got.partial), offset
        await client.close()
    assert len(server.requests) == len(raw), "each request was sent once"


@pytest.mark.parametrize(("raw", "end"), CUTS)
async def test_cut_between_guard_and_client_at_every_offset(
    raw: bytes, end: End, upstream: StartUpstream, guard: StartGuard, proxy: StartProxy
) -> None:
    started = await guard((await upstream(answers(raw))).url)
    between = await proxy(started.port)
    whole = await Client.open(between.port)
    whole.send(CLOSING)
    length = len(await whole.ended())  # the guard's own framing may be shorter than upstream's
    await whole.close()
    for offset in range(length):
        between.fault = partial(Fault, cut_down=offset, end=end)
        client = await Client.open(between.port)
        client.send(CLOSING)
        assert isinstance(await outcome(client), BrokenResponseError), offset
        await client.close()


@pytest.mark.parametrize("end", [End.FIN, End.RESET])
async def test_request_cut_at_every_offset_is_never_completed(
    end: End, upstream: StartUpstream, guard: StartGuard, proxy: StartProxy
) -> None:
    """What upstream has of a cut write is visibly incomplete: it never reads a whole request."""
    server = await upstream(answers(ok()))
    started = await guard(server.url)
    between = await proxy(started.port)
    raw = (
        b"POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: guard\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"{}") + chunk(b"more") + b"0\r\n\r\n"
    )
    for offset in range(len(raw)):
        between.fault = partial(Fault, cut_up=offset, end=end)
        client = await Client.open(between.port)
        client.send(raw)
        await client.ended()
        await client.close()
    await started.rest()
    assert server.requests == []


@pytest.mark.parametrize("end", [End.FIN, End.RESET])
async def test_request_cut_before_upstream_at_every_offset_is_outcome_unknown(
    end: End, upstream: StartUpstream, guard: StartGuard, proxy: StartProxy
) -> None:
    server = await upstream(answers(ok()))
    between = await proxy(server.port)
    started = await guard(f"http://127.0.0.1:{between.port}")
    raw = b"POST /api/v1/pods HTTP/1.1\r\nHost: guard\r\nContent-Length: 2\r\n\r\n{}"
    for offset in range(len(raw)):
        between.fault = partial(Fault, cut_up=offset, end=end)
        client = await Client.open(started.port)
        client.send(raw)
        got = await client.response()
        assert (got.status, got.get(b"retry-after")) == (504, None), offset
        await client.close()
    assert server.requests == []


@pytest.mark.parametrize("end", [End.FIN, End.RESET, End.HALF, End.BLACK_HOLE])
@pytest.mark.parametrize("latency", [0.0, 0.02])
async def test_faults_of_one_connection_leave_the_next_alone(
    end: End, latency: float, upstream: StartUpstream, guard: StartGuard, proxy: StartProxy
) -> None:
    started = await guard((await upstream(answers(BY_LENGTH))).url, first_byte_seconds=1)
    between = await proxy(started.port)
    between.fault = lambda: Fault(cut_up=20, end=end, latency=latency)
    broken = await Client.open(between.port)
    broken.send(b"GET /api/v1/pods HTTP/1.1\r\nHost: guard\r\n\r\n")
    between.fault = lambda: Fault(latency=latency)
    client = await Client.open(between.port)
    assert (await client.ask("/api/v1/pods")).body == BODY
    broken.reset()
    await client.close()


@pytest.mark.parametrize("cut", ["fin", "reset"])
async def test_a_body_that_ends_with_its_connection_ends_only_with_an_orderly_end(
    cut: str, upstream: StartUpstream, guard: StartGuard
) -> None:
    """Without a length only the way a connection ends tells a whole body from half of one."""

    async def until_close(connection: Connection, _: Received) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nall of")
        await connection.writer.drain()
        if cut == "fin":
            connection.close()
            return
        await reached.wait()
        connection.reset()

    reached = asyncio.Event()
    started = await guard((await upstream(until_close)).url)
    client = await Client.open(started.port)
    client.send(b"GET /api/v1/pods HTTP/1.1\r\nHost: guard\r\n\r\n")
    await client.head()
    assert await client.chunk() == b"all of"
    reached.set()
    if cut == "fin":
        assert await client.chunk() == b""
    else:
        with pytest.raises(BrokenResponseError):
            await client.chunk()
    await client.close()


@pytest.mark.asyncio(loop_factories=["uvloop"])  # asyncio's own loop does not tell them apart
async def test_a_body_that_ends_with_its_connection_needs_the_end_that_tls_proves(
    upstream: StartUpstream,
    guard: StartGuard,
    certificates: Certificates,
    upstream_tls: ssl.SSLContext,
    proxy: StartProxy,
) -> None:
    """A FIN without close_notify may be anybody's."""

    async def until_close(connection: Connection, _: Received) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nall of")
        await connection.gone()

    server = await upstream(until_close, tls=upstream_tls)
    between = await proxy(server.port)
    started = await guard(f"https://127.0.0.1:{between.port}", authority=certificates)
    client = await Client.open(started.port)
    client.send(b"GET /api/v1/pods HTTP/1.1\r\nHost: guard\r\n\r\n")
    await client.head()
    assert await client.chunk() == b"all of"
    between.end_all(End.FIN)
    with pytest.raises(BrokenResponseError):
        await client.chunk()
    await client.close()
