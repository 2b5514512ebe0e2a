"""The relay's own calls: connections are kept, verified and given up as they should be."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from apiguard.gateway.asking import Form
from apiguard.kube.status import Representation
from apiguard.relay.reflector import Failure
from apiguard.runtime import relayclient, relaywire
from apiguard.runtime.relayclient import NO_ANSWER, Answer, RelayClient, UpstreamError
from tests.conftest import Certificates
from tests.net.traffic.upstreams import (
    CHUNKED_OK,
    Connection,
    Received,
    Script,
    Upstream,
    answers,
    chunk,
    ok,
)
from tests.net.traffic.waiting import eventually

JSON = Form(Representation.JSON, False)
PATH = "/api/v1/pods"


def trusting(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.authority)


def serving(certificates: Certificates) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificates.server)
    return tls


@pytest.fixture
async def client(certificates: Certificates) -> AsyncIterator[RelayClient]:
    made = RelayClient(trusting(certificates), "first")
    yield made
    made.close()
    for _ in range(5):  # closed transports leave their loop in a few turns
        await asyncio.sleep(0)


class Started:
    """Starts servers, and stops them."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._servers: list[Upstream] = []

    async def __call__(self, script: Script, *, secure: bool = True) -> Upstream:
        server = await Upstream(script).start(self._tls if secure else None)
        self._servers.append(server)
        return server

    async def stop(self) -> None:
        for server in self._servers:
            await server.close()


@pytest.fixture
async def start(certificates: Certificates) -> AsyncIterator[Started]:
    started = Started(serving(certificates))
    yield started
    await started.stop()


class Taken(NamedTuple):
    """What a stream brought, and why it did not end as it should."""

    body: bytes
    failure: Failure | None


async def take(
    client: RelayClient,
    url: str,
    *,
    first: Callable[[], Awaitable[None]] | None = None,
    watch: bool = True,
) -> Taken:
    """Reads to the end; ``first`` is done before."""
    body = b""
    try:
        async with client.read(url, PATH, {}, JSON, watch=watch) as call:
            if first is not None:
                await first()
            async for piece in call:
                body += piece
    except UpstreamError as error:
        return Taken(body, error.failure)
    return Taken(body, None)


async def test_one_connection_carries_one_call_after_the_other(
    client: RelayClient, start: Started
) -> None:
    server = await start(answers(ok(b"reviewed"), CHUNKED_OK + chunk(b"{}") + b"0\r\n\r\n"))
    assert await client.review(server.url, "/reviews", b"{1}") == Answer(200, b"reviewed")
    assert await take(client, server.url) == Taken(b"{}", None)
    review, listed = server.requests
    assert server.accepted == 1
    assert review.line == b"POST /reviews HTTP/1.1"
    assert (review.body, review.get(b"content-type")) == (b"{1}", b"application/json")
    assert listed.line == b"GET /api/v1/pods HTTP/1.1"
    for received in server.requests:
        assert received.get(b"authorization") == b"Bearer first"
        assert received.get(b"host") == f"127.0.0.1:{server.port}".encode()


async def test_calls_at_once_have_a_connection_each(client: RelayClient, start: Started) -> None:
    release = asyncio.Event()

    async def script(connection: Connection, _: Received) -> None:
        await release.wait()
        connection.send(ok())

    server = await start(script)
    calls = [asyncio.create_task(client.review(server.url, "/", b"{}")) for _ in range(3)]
    await eventually(lambda: len(server.requests) == 3)
    release.set()
    assert await asyncio.gather(*calls) == [Answer(200, b"ok")] * 3
    assert server.accepted == 3


async def test_a_call_that_broke_is_not_repeated_and_its_connection_not_used_again(
    client: RelayClient, start: Started
) -> None:
    async def script(connection: Connection, received: Received) -> None:
        if received.target == b"/break":
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal")
            connection.reset()
        else:
            connection.send(ok())

    server = await start(script, secure=False)
    assert await client.review(server.url, "/", b"{}") == Answer(200, b"ok")
    assert await client.review(server.url, "/break", b"{}") == NO_ANSWER
    assert await client.review(server.url, "/", b"{}") == Answer(200, b"ok")
    assert (len(server.requests), server.accepted) == (3, 2)


async def test_what_arrived_before_a_break_is_handed_on(
    client: RelayClient, start: Started
) -> None:
    async def script(connection: Connection, _: Received) -> None:
        connection.send(CHUNKED_OK + chunk(b"event"))
        connection.writer.close()

    server = await start(script)

    async def lost() -> None:
        await eventually(lambda: not server.open)

    assert await take(client, server.url, first=lost) == Taken(b"event", Failure())


async def test_other_answers_than_200_are_told_with_the_pause_they_ask_for(
    client: RelayClient, start: Started
) -> None:
    """Also where they point elsewhere: nothing is followed."""
    server = await start(
        answers(
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 503 Unavailable\r\nRetry-After: Mon\r\nContent-Length: 0\r\n\r\n",
        )
    )
    for failure in (Failure(429, 7.0), Failure(307), Failure(503)):
        assert await take(client, server.url) == Taken(b"", failure)
    assert (len(server.requests), server.accepted) == (3, 1)


async def test_nobody_at_home_and_names_that_cannot_be_are_no_answer(client: RelayClient) -> None:
    assert (await take(client, "http://127.0.0.1:1")).failure == Failure()
    assert await client.review("http://127.0.0.1:1", "/", b"{}") == NO_ANSWER
    assert await client.review("http://127.0.0.1:1", "/a b\r\n", b"{}") == NO_ANSWER


async def test_a_certificate_that_cannot_be_verified_is_no_answer(
    certificates: Certificates, start: Started
) -> None:
    server = await start(answers(ok()))
    for tls, name in ((ssl.create_default_context(), ""), (trusting(certificates), "elsewhere")):
        stranger = RelayClient(tls, "secret", name)
        assert (await take(stranger, server.url)).failure == Failure()
        stranger.close()
    assert server.requests == []


async def test_silence_ends_a_stream_and_events_keep_it(
    client: RelayClient, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relayclient, "WATCH_SILENCE_SECONDS", 0.5)

    async def script(connection: Connection, _: Received) -> None:
        connection.send(CHUNKED_OK)
        for _number in range(8):
            await asyncio.sleep(0.1)
            connection.send(chunk(b"e"))
        await connection.gone()

    server = await start(script)
    assert await take(client, server.url) == Taken(b"e" * 8, Failure())
    await eventually(lambda: not server.open, "the connection is given up")


async def test_a_review_has_one_deadline_however_slowly_its_answer_comes(
    client: RelayClient, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relayclient, "REVIEW_SECONDS", 0.3)

    async def script(connection: Connection, _: Received) -> None:
        connection.send(CHUNKED_OK)
        while not connection.reader.at_eof():
            await asyncio.sleep(0.05)
            connection.send(chunk(b"e"))

    server = await start(script)
    begun = asyncio.get_running_loop().time()
    assert await client.review(server.url, "/", b"{}") == NO_ANSWER
    assert asyncio.get_running_loop().time() - begun < 5.0
    await eventually(lambda: not server.open)


async def test_an_answer_that_is_too_long_is_none(
    client: RelayClient, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relayclient, "LONGEST_REVIEW", 1_000)
    server = await start(answers(ok(b"x" * 1_001), ok(b"x" * 1_000)))
    assert await client.review(server.url, "/", b"{}") == NO_ANSWER
    assert await client.review(server.url, "/", b"{}") == Answer(200, b"x" * 1_000)


async def test_new_credentials_end_streams_and_replace_connections_but_let_reviews_go_on(
    client: RelayClient, start: Started, certificates: Certificates
) -> None:
    release = asyncio.Event()

    async def script(connection: Connection, received: Received) -> None:
        if received.method == b"GET":
            connection.send(CHUNKED_OK + chunk(b"event"))
        else:
            await release.wait()
            connection.send(ok())

    server = await start(script)
    review = asyncio.create_task(client.review(server.url, "/", b"{}"))

    async def change() -> None:
        await eventually(lambda: len(server.requests) == 2)
        client.use(trusting(certificates), "second")

    assert (await take(client, server.url, first=change)).failure == Failure()
    release.set()
    assert await review == Answer(200, b"ok")
    await eventually(lambda: not server.open, "connections of the past are closed")
    assert await client.review(server.url, "/", b"{}") == Answer(200, b"ok")
    assert server.accepted == 3
    assert server.requests[-1].get(b"authorization") == b"Bearer second"


async def test_who_does_not_take_what_comes_is_not_sent_everything(
    client: RelayClient, start: Started
) -> None:
    size = 32 << 20

    async def script(connection: Connection, _: Received) -> None:
        connection.send(ok(b"x" * size))

    server = await start(script, secure=False)  # its transport tells what the kernel did not take
    async with client.read(server.url, PATH, {}, JSON) as call:
        writer = server.open[0].writer
        await eventually(lambda: writer.transport.get_write_buffer_size() < size - 100_000)
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert writer.transport.get_write_buffer_size() > size // 2
        assert sum([len(piece) async for piece in call]) == size


async def test_a_call_nobody_waits_for_is_given_up(client: RelayClient, start: Started) -> None:
    async def script(connection: Connection, _: Received) -> None:
        await connection.gone()

    server = await start(script)
    review = asyncio.create_task(client.review(server.url, "/", b"{}"))
    await eventually(lambda: server.requests)
    review.cancel()
    await asyncio.gather(review, return_exceptions=True)
    await eventually(lambda: not server.open)


async def test_idle_connections_are_closed_after_a_while(
    client: RelayClient, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaywire, "IDLE_SECONDS", 0.05)
    server = await start(answers(ok()))
    assert await client.review(server.url, "/", b"{}") == Answer(200, b"ok")
    assert server.open
    await eventually(lambda: not server.open)
    assert await client.review(server.url, "/", b"{}") == Answer(200, b"ok")


async def test_bytes_nobody_asked_for_make_a_connection_useless(
    client: RelayClient, start: Started
) -> None:
    async def script(connection: Connection, _: Received) -> None:
        connection.send(ok() + b"HTTP/1.1 200 OK\r\n")

    server = await start(script)
    for _ in range(2):
        assert await client.review(server.url, "/", b"{}") == Answer(200, b"ok")
    assert server.accepted == 2
