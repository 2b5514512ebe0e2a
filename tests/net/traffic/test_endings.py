"""However one side ends, the other learns the truth, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import os

import pytest

from apiguard.runtime.downstream import Downstream
from apiguard.telemetry import bounds

from .client import BrokenResponseError, Client, request
from .conftest import StartGuard, StartUpstream
from .guard import Guard, descriptors
from .upstreams import CHUNKED_OK, Connection, Received, answers, chunk, ok
from .waiting import eventually

POST = b"POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: guard\r\n"


@pytest.mark.parametrize(
    ("method", "status", "retry_after"),
    [("GET", 503, b"1"), ("POST", 504, None), ("DELETE", 504, None)],
)
async def test_a_pooled_connection_reset_when_reused_is_answered_and_nothing_is_sent_again(
    method: str, status: int, retry_after: bytes | None, upstream: StartUpstream, guard: StartGuard
) -> None:
    async def once(connection: Connection, _: Received) -> None:
        if server.accepted == 1 and len(server.requests) == 2:
            connection.reset()
        else:
            connection.send(ok())

    server = await upstream(once)
    client = await Client.open((await guard(server.url)).port)
    assert (await client.ask("/api/v1/pods")).status == 200
    answer = await client.ask("/api/v1/pods", method=method)
    assert (answer.status, answer.get(b"retry-after")) == (status, retry_after)
    assert (await client.ask("/api/v1/pods")).status == 200
    assert [r.method for r in server.requests] == [b"GET", method.encode(), b"GET"]
    await client.close()


async def test_a_watch_lost_before_it_began_is_told_to_retry_without_relisting(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    async def reset(connection: Connection, _: Received) -> None:
        connection.reset()

    client = await Client.open((await guard((await upstream(reset)).url)).port)
    answer = await client.ask("/api/v1/pods?watch=1")
    assert (answer.status, answer.get(b"retry-after")) == (429, b"1")
    await client.close()


async def test_upstream_down_is_503_at_once_and_its_return_is_noticed_within_two_seconds(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    server = await upstream(answers(ok()))
    started = await guard(server.url)
    await server.close()
    client = await Client.open(started.port)
    answer = await client.ask("/api/v1/pods", method="POST", body=b"{}")
    assert (answer.status, answer.get(b"retry-after")) == (503, b"1")
    assert (await client.ask("/api/v1/pods")).status == 503
    await server.start(port=server.port)
    loop = asyncio.get_running_loop()
    returned = loop.time()
    while (await client.ask("/api/v1/pods")).status != 200:
        assert loop.time() < returned + 2
        await asyncio.sleep(0.01)
    await client.close()


async def test_a_refused_body_does_not_block_its_connection(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    """While upstream is being connected a body waits; refused then, its rest is dropped."""
    server = await upstream(answers(ok()))
    started = await guard(server.url)
    await server.close()
    client = await Client.open(started.port)
    client.send(POST + b"Content-Length: 4\r\n\r\nab")
    assert (await client.response()).status == 503
    client.send(b"cd" + request("/api/v1/pods"))
    async with asyncio.timeout(2):
        assert (await client.response()).status == 503
    await client.close()


async def test_an_early_answer_reaches_a_client_that_is_still_sending(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    """Closing on unread bytes would reset the connection under the answer."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch"

    async def refuse(connection: Connection, _: Received) -> None:
        await full.wait()
        connection.send(refusal)
        await connection.gone()

    full = asyncio.Event()
    server = await upstream(refuse, heads_only=True)
    started = await guard(server.url, buffered_bytes=16_384, body_bytes=64 << 20)
    client = await Client.open(started.port)
    size = 24 << 20  # more than the kernel's buffers and ours on the way
    client.send(POST + b"Content-Length: %d\r\n\r\n" % size)
    client.send(b"x" * size)
    (downstream,) = await connected(started)
    await eventually(lambda: downstream.codec.reading_paused, "backpressure reached the client")
    full.set()
    async with asyncio.timeout(5):
        answer = await client.response()
    assert (answer.status, answer.body) == (413, b"much")
    client.reset()


async def connected(started: Guard) -> list[Downstream]:
    await eventually(lambda: started.traffic._downstreams)
    return list(started.traffic._downstreams)


async def test_a_refused_body_that_never_comes_is_not_waited_for(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(answers(ok()))).url, body_grace_seconds=1)
    client = await Client.open(started.port)
    client.send(POST + b"User-Agent: bad-agent/1\r\nContent-Length: 10\r\n\r\n")
    assert (await client.response()).status == 429
    assert await client.ended(within=5) == b""
    assert started.hits(bounds.BODY_RATE) == 1
    await client.close()


async def test_mass_resets_cancel_upstream_work_within_a_second(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    async def silent(connection: Connection, _: Received) -> None:
        await connection.gone()

    server = await upstream(silent)
    started = await guard(server.url)
    before = descriptors()
    clients = [await Client.open(started.port) for _ in range(200)]
    for i, client in enumerate(clients):
        watch = "?watch=1" if i % 2 else ""
        client.send(request(f"/api/v1/pods{watch}"))
    await eventually(lambda: len(server.requests) == 200)
    for client in clients:
        client.reset()
    await eventually(lambda: not server.busy and started.at_rest, within=1.0)
    # What stays is idle in the pool: one descriptor at either end.
    await eventually(lambda: descriptors() <= before + 2 * started.idle_upstream)


async def test_upstream_dying_in_the_middle_breaks_the_response(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    async def half(connection: Connection, received: Received) -> None:
        if received.target.endswith(b"watch=1"):
            connection.send(CHUNKED_OK + chunk(b'{"type":"ADDED"}\n'))
        else:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await connection.writer.drain()
        connection.reset()

    started = await guard((await upstream(half)).url)
    for target in ("/api/v1/pods?watch=1", "/api/v1/pods"):
        client = await Client.open(started.port)
        with pytest.raises(BrokenResponseError):
            await client.ask(target)
        await client.close()
    assert started.count("failed") == 2


async def test_curl_meets_its_expectation_end_to_end(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    """curl waits for the 100 of the server itself, then sends its body."""

    async def accept(connection: Connection, received: Received) -> None:
        assert received.get(b"expect") == b"100-continue"
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        whole = await connection.rest(received)
        connection.send(ok(b"%d" % len(whole.body)))

    started = await guard((await upstream(accept, heads_only=True)).url)
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--noproxy", "*", "--max-time", "10", "--expect100-timeout", "8"),
        *("-H", "Expect: 100-continue", "--data-binary", "x" * 5000),
        f"http://127.0.0.1:{started.port}/api/v1/namespaces/a/pods",
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    )
    began = asyncio.get_running_loop().time()
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"5000")
    assert asyncio.get_running_loop().time() - began < 5, "the 100 came, not curl's patience"


async def test_drain_finishes_requests_and_ends_watches_cleanly_spread_over_time(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    finish = asyncio.Event()

    async def script(connection: Connection, received: Received) -> None:
        if received.target.endswith(b"watch=1"):
            connection.send(CHUNKED_OK + chunk(b'{"type":"ADDED"}\n'))
            await connection.gone()
        else:
            connection.send(CHUNKED_OK + chunk(b"first half,"))
            await finish.wait()
            connection.send(chunk(b"second half") + b"0\r\n\r\n")

    started = await guard((await upstream(script)).url)
    idle = await Client.open(started.port)
    lister = await Client.open(started.port)
    lister.send(request("/api/v1/pods"))
    await lister.head()
    assert await lister.chunk() == b"first half,"
    watchers = [await Client.open(started.port) for _ in range(10)]
    for watcher in watchers:
        watcher.send(request("/api/v1/pods?watch=1"))
        await watcher.head()
        assert await watcher.chunk() == b'{"type":"ADDED"}\n'

    loop = asyncio.get_running_loop()
    began = loop.time()
    draining = loop.create_task(started.traffic.drain(2.0, 1.0))
    assert await idle.ended(within=1) == b""

    async def end(watcher: Client) -> float:
        assert await watcher.chunk() == b"", "the end of the body, not of the connection"
        return loop.time() - began

    ends = sorted(await asyncio.gather(*map(end, watchers)))
    assert ends[-1] < 2.0
    assert ends[-1] - ends[0] > 0.5, f"spread, not together: {ends}"
    finish.set()
    assert await lister.chunk() == b"second half"
    assert await lister.chunk() == b""
    await draining
    for client in (idle, lister, *watchers):
        await client.close()


async def test_a_drain_that_cannot_wait_breaks_what_it_cuts(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    async def half(connection: Connection, _: Received) -> None:
        connection.send(CHUNKED_OK + chunk(b"first half,"))
        await connection.gone()

    started = await guard((await upstream(half)).url)
    client = await Client.open(started.port)
    client.send(request("/api/v1/pods"))
    await client.head()
    assert await client.chunk() == b"first half,"
    await started.traffic.drain(0.5, 0.4)
    with pytest.raises(BrokenResponseError):
        await client.chunk()
    assert started.hits(bounds.DRAIN) == 1
    await client.close()


async def test_the_last_answers_of_a_drain_say_that_they_are(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    """A client that reuses the connection would lose its next request."""
    finish = asyncio.Event()

    async def late(connection: Connection, _: Received) -> None:
        await finish.wait()
        connection.send(ok())

    server = await upstream(late)
    started = await guard(server.url)
    client = await Client.open(started.port)
    client.send(request("/api/v1/pods"))
    await eventually(lambda: server.requests)
    draining = asyncio.get_running_loop().create_task(started.traffic.drain(5.0, 4.0))
    await asyncio.sleep(0)
    finish.set()
    assert (await client.response()).get(b"connection") == b"close"
    await draining
    await client.close()
