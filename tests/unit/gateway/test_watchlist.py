"""A watch-list holds the place of a list until its objects are there, as far as that shows."""

from __future__ import annotations

import json

import pytest

from apiguard.gateway.watchlist import DEADLINE_SECONDS, MARK, QUIET_SECONDS, WatchList
from tests.unit.gateway.building import Guard

WATCH_LIST = (
    b"GET /api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    b"&allowWatchBookmarks=true HTTP/1.1\r\nHost: guard\r\n\r\n"
)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
POD = b'{"type":"ADDED","object":{"metadata":{"name":"p"}}}\n'
TICK = 0.5


def bookmark() -> bytes:
    annotations = {MARK.decode(): "true"}
    document = {"type": "BOOKMARK", "object": {"metadata": {"annotations": annotations}}}
    return json.dumps(document).encode() + b"\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stand:
    """A guard that carries one watch-list; ``began`` counts how often its place came back."""

    def __init__(self) -> None:
        self.guard = Guard(held=True)
        self.guard.send(WATCH_LIST)
        exchange = self.guard.session.exchange
        assert isinstance(exchange, WatchList)
        self.exchange = exchange
        self.began = 0
        exchange.on_began = self._count
        self.guard.dispatcher.assign()

    def _count(self) -> None:
        self.began += 1

    def answer(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.guard.upstream.answer(piece)

    def tick(self, seconds: float) -> None:
        """Lets time pass, looked at as a worker does."""
        until = self.guard.clock.now + seconds
        while self.guard.clock.now < until:
            self.guard.clock.now += TICK
            self.exchange.credit(self.guard.clock.now)


def test_other_watches_and_lists_are_ordinary_exchanges() -> None:
    guard = Guard()
    for query in (b"", b"?watch=1", b"?watch=1&sendInitialEvents=false"):
        guard.send(b"GET /api/v1/pods%b HTTP/1.1\r\nHost: guard\r\n\r\n" % query)
        assert guard.session.exchange is not None
        assert not isinstance(guard.session.exchange, WatchList)
        guard = Guard()


def test_the_place_comes_back_with_the_bookmark_that_ends_the_initial_events() -> None:
    stand = Stand()
    stand.answer(HEAD, chunk(POD), chunk(POD))
    assert stand.began == 0
    stand.answer(chunk(bookmark()))
    assert stand.began == 1
    stand.answer(chunk(bookmark()))
    stand.tick(2 * DEADLINE_SECONDS)
    assert stand.began == 1
    assert stand.guard.answered.count(b"BOOKMARK") == 2


@pytest.mark.parametrize("size", [1, 7, len(MARK) - 1, len(MARK), 40])
def test_the_bookmark_is_found_however_it_is_cut(size: int) -> None:
    stand = Stand()
    stand.answer(HEAD)
    text = POD + bookmark()
    end = text.index(MARK) + len(MARK)
    for at in range(0, len(text), size):
        assert stand.began == int(at >= end)
        stand.answer(chunk(text[at : at + size]))
    assert stand.began == 1


def test_without_a_bookmark_the_place_comes_back_when_upstream_falls_silent() -> None:
    stand = Stand()
    stand.tick(QUIET_SECONDS * 2)
    assert stand.began == 0, "nothing has come yet: upstream is still at it"
    stand.answer(HEAD)
    for _ in range(5):
        stand.answer(chunk(POD))
        stand.tick(QUIET_SECONDS - TICK)
    assert stand.began == 0
    stand.tick(QUIET_SECONDS)
    assert stand.began == 1


def test_a_client_that_does_not_read_is_no_silence_of_upstreams() -> None:
    stand = Stand()
    stand.answer(HEAD, chunk(POD))
    stand.guard.server.set_writable(False)
    stand.tick(DEADLINE_SECONDS - 2 * TICK)
    assert stand.began == 0
    stand.tick(3 * TICK)
    assert stand.began == 1, "nor does it keep others waiting for ever"


def test_before_the_head_the_place_is_kept_as_long_as_a_list_may_take() -> None:
    stand = Stand()
    limit = stand.guard.gateway.first_byte_seconds
    stand.tick(limit - TICK)
    assert stand.began == 0
    stand.tick(2 * TICK)
    assert stand.began == 1


def test_one_that_ends_before_is_not_told_of() -> None:
    """Its connection may carry somebody else's list by then."""
    stand = Stand()
    stand.answer(HEAD, chunk(POD), b"0\r\n\r\n")
    assert stand.exchange.finished
    stand.exchange.credit(stand.guard.clock.now + DEADLINE_SECONDS)
    assert stand.began == 0


def test_one_that_waits_for_a_connection_has_no_place_to_give_back() -> None:
    guard = Guard(held=True)
    guard.send(WATCH_LIST)
    exchange = guard.session.exchange
    assert isinstance(exchange, WatchList)
    exchange.credit(guard.clock.now + 1_000)
    assert guard.dispatcher.waiting == [exchange]
