"""The guard's own calls: each made once, bounded, and never given up for a failure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from apiguard.identity.budget import Budget
from apiguard.identity.reviews import Reviews
from apiguard.runtime.drivers import (
    KEYS_LEAST_SECONDS,
    KEYS_MOST_SECONDS,
    ApiClient,
    CallError,
    KeyFetcher,
    Reviewer,
    keys_lifetime,
)
from apiguard.runtime.tls import plain_context
from tests.net.traffic.upstreams import Connection, Received, Upstream, answers, ok
from tests.net.traffic.waiting import eventually


class Servers:
    """Names servers in a fixed order."""

    def __init__(self, *urls: str) -> None:
        self._urls = urls

    def fit(self) -> list[str]:
        return list(self._urls)


@pytest.fixture
async def client() -> AsyncIterator[ApiClient]:
    made = ApiClient(plain_context({}), "own-token")
    yield made
    await made.close()


async def test_a_body_is_read_no_further_than_asked(client: ApiClient) -> None:
    server = await Upstream(answers(ok(b"x" * 100_000))).start()
    answer = await client.get(server.url, "/", most=1_000)
    assert (answer.status, len(answer.body)) == (200, 1_000)
    await client.close()
    await server.close()


async def test_a_broken_connection_is_an_error_and_the_call_is_not_repeated(
    client: ApiClient,
) -> None:
    async def leave(connection: Connection, _: Received) -> None:
        connection.reset()

    server = await Upstream(leave).start()
    for fresh in (True, False):
        with pytest.raises(CallError):
            await client.get(server.url, "/", most=10, fresh=fresh)
    assert len(server.requests) == 2
    await server.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("public, max-age=120", 120.0),
        ("max-age=3600", KEYS_MOST_SECONDS),
        ("max-age=0, must-revalidate", KEYS_LEAST_SECONDS),
        ("no-store", KEYS_MOST_SECONDS),
        ("", KEYS_MOST_SECONDS),
        ("s-max-age=70", KEYS_MOST_SECONDS),
    ],
)
def test_keys_are_kept_as_long_as_they_say_within_bounds(header: str, seconds: float) -> None:
    assert keys_lifetime(header) == seconds


async def test_keys_come_from_the_first_server_that_has_them(client: ApiClient) -> None:
    bad = await Upstream(answers(ok(b"no keys"))).start()
    good = await Upstream(answers(ok(b"keys", b"Cache-Control: max-age=90\r\n"))).start()
    taken: list[bytes] = []

    def take(text: bytes) -> bool:
        taken.append(text)
        return text == b"keys"

    fetcher = KeyFetcher(client, Servers("http://127.0.0.1:1", bad.url, good.url), take)
    assert await fetcher.fetch() == 90.0
    assert taken == [b"no keys", b"keys"]
    assert fetcher.detail == ""
    assert good.requests[0].target == b"/openid/v1/jwks"
    assert good.requests[0].get(b"authorization") == b"Bearer own-token"
    await good.close()
    assert await KeyFetcher(client, Servers(bad.url), take).fetch() is None
    await client.close()
    await bad.close()


def _reviewed(received: Received) -> bytes:
    token = json.loads(received.body)["spec"]["token"]
    status = {"authenticated": token == "good", "user": {"username": "alice", "groups": ["devs"]}}
    return json.dumps({"kind": "TokenReview", "status": status}).encode()


async def test_tokens_are_reviewed_once_and_failures_are_reported(client: ApiClient) -> None:
    """Also when nobody can be asked: no token stays under review."""

    async def review(connection: Connection, received: Received) -> None:
        connection.send(ok(_reviewed(received)))

    server = await Upstream(review).start()
    urls = [server.url]
    servers = Servers()
    servers.fit = lambda: urls  # type: ignore[method-assign]  # the list changes below
    reviews = Reviews(secret=b"k" * 16, budget=Budget(1_000, time.monotonic()), remembered=100)
    task = asyncio.create_task(Reviewer(reviews, client, servers).run())

    async def outcome(token: str) -> str:
        for _ in range(5):
            reviews.lookup(token, time.monotonic())
        await eventually(lambda: not reviews.open)
        found = reviews.lookup(token, time.monotonic())
        return found.identity.user if found.identity else found.reason

    assert await outcome("good") == "alice"
    assert await outcome("bad") == "the review found the token bad"
    assert len(server.requests) == 2
    assert server.requests[0].line == b"POST /apis/authentication.k8s.io/v1/tokenreviews HTTP/1.1"
    urls.clear()
    assert await outcome("third") == "the review got no answer"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await client.close()
    await server.close()
