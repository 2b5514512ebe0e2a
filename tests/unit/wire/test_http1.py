"""Connections without I/O: what only a runtime or an odd peer would meet."""

from __future__ import annotations

import random

import pytest

from apiguard.errors import WireError
from apiguard.relay.eventlog import Frame
from apiguard.wire.http1 import State
from apiguard.wire.http1_client import RESPONSE_HEAD_LIMIT, Http1Client
from apiguard.wire.messages import CHUNKED, RequestLine, ResponseHead
from tests.unit.gateway.building import Guard, Touch
from tests.wire.reading import Accepted, Reader, Refused

GET = RequestLine("GET", "/", b"GET / HTTP/1.1\r\n")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET /x HTTP/1.1\r\nHost: g\r\n\r\n"


class Sink:
    """Notes what a client codec says."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.body = b""

    def response_interim(self, head: ResponseHead) -> None:
        self.events.append(f"interim {head.status}")

    def response_head(self, head: ResponseHead) -> None:
        self.events.append(f"head {head.status}")

    def response_data(self, data: bytes) -> None:
        self.body += data

    def response_end(self) -> None:
        self.events.append("end")

    def response_aborted(self, reason: str) -> None:
        self.events.append("aborted")

    def upstream_writable(self, writable: bool) -> None:
        self.events.append(f"writable {writable}")


class Connection:
    """A client codec, and whether it was reported free."""

    def __init__(self) -> None:
        self.touch = Touch()
        self.released: list[bool] = []
        self.codec = Http1Client(
            on_output=self.touch, on_released=lambda: self.released.append(self.codec.reusable)
        )

    def ask(self) -> Sink:
        sink = Sink()
        self.codec.start(sink, GET, b"Host: g\r\n", length=0, upgrade=b"")
        return sink


# --- towards upstream -------------------------------------------------------------------------


def test_a_connection_carries_one_request_after_another() -> None:
    connection = Connection()
    for _ in range(3):
        sink = connection.ask()
        assert connection.codec.data_to_send() == b"GET / HTTP/1.1\r\nHost: g\r\n\r\n"
        connection.codec.receive_data(OK)
        assert (sink.events, sink.body) == (["head 200", "end"], b"ok")
    assert connection.released == [True, True, True]


@pytest.mark.parametrize("unasked", [b"H", OK, b"\r\n", None])
def test_a_connection_that_ends_or_speaks_while_idle_is_given_to_nobody(
    unasked: bytes | None,
) -> None:
    """Its transport learns of it later than the next request may come."""
    connection = Connection()
    connection.ask()
    connection.codec.receive_data(OK)
    if unasked is None:
        connection.codec.receive_eof()
    else:
        connection.codec.receive_data(unasked)
    assert not connection.codec.reusable
    assert connection.released == [True, False]
    assert connection.touch.pending


def test_a_given_up_request_takes_its_connection_with_it() -> None:
    connection = Connection()
    sink = connection.ask()
    connection.codec.receive_data(OK[:-1])
    connection.codec.cancel()
    connection.codec.receive_data(OK[-1:])
    assert sink.events == ["head 200"]
    assert not connection.codec.reusable
    assert connection.codec.should_close


def test_a_response_head_without_end_is_given_up_at_its_bound() -> None:
    connection = Connection()
    sink = connection.ask()
    connection.codec.receive_data(b"HTTP/1.1 200 OK\r\n")
    piece = b"X: " + b"y" * 995 + b"\r\n"
    for _ in range(RESPONSE_HEAD_LIMIT // len(piece) + 1):
        connection.codec.receive_data(piece)
    assert sink.events == ["aborted"]


# --- towards a client -------------------------------------------------------------------------


def test_a_wish_to_close_is_always_announced() -> None:
    """Whatever ends a connection: the runtime looks only at those that called."""
    for ending in (b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"):
        for close in (b"", b"Connection: close\r\n"):
            for body in (b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"zz\r\n"):
                reader = Reader()
                head = b"POST / HTTP/1.1\r\nHost: g\r\n" + ending + close + b"\r\n"
                for byte in head + body:
                    reader.touch.pending = False
                    reader.server.receive_data(bytes([byte]))
                    if reader.server.should_close:
                        assert reader.touch.pending
                        break
                    reader.server.data_to_send()


def test_draining_finishes_what_is_under_way_and_takes_nothing_else() -> None:
    guard = Guard()
    guard.send(REQUEST, REQUEST)
    guard.server.drain()
    assert guard.answered == b""
    guard.upstream.answer(OK)
    assert guard.server.should_close
    assert guard.answered.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in guard.answered


def test_draining_ends_an_idle_connection_at_once_and_says_so() -> None:
    guard = Guard()
    guard.server.drain()
    assert guard.server.should_close
    assert guard.touch.pending


def test_a_head_that_began_before_draining_is_still_served() -> None:
    guard = Guard()
    guard.send(REQUEST[:5])
    guard.server.drain()
    guard.send(REQUEST[5:])
    guard.upstream.answer(OK)
    assert b"Connection: close" in guard.answered
    assert guard.server.should_close


@pytest.mark.parametrize("begun", [b"", b"GET /x HT", REQUEST[:-1]])
def test_a_head_past_its_deadline_is_answered_and_the_connection_closed(begun: bytes) -> None:
    reader = Reader()
    if begun:
        reader.server.receive_data(begun)
    reader.server.give_up(WireError(408, "", "too slow"))
    (outcome,) = reader.outcomes
    assert isinstance(outcome, Refused)
    assert outcome.code == 408
    assert reader.server.should_close
    reader.server.receive_data(REQUEST)
    assert len(reader.outcomes) == 1


def test_a_body_past_its_deadline_is_answered_once() -> None:
    reader = Reader()
    reader.server.receive_data(b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\na")
    reader.server.give_up(WireError(408, "", "too slow"))
    reader.server.give_up(WireError(408, "", "too slow"))
    assert [type(o) for o in reader.outcomes] == [Refused]
    assert reader.server.data_to_send().count(b"HTTP/1.1 408") == 1


def test_a_head_that_arrives_by_bytes_is_searched_once() -> None:
    """64 KiB in bytes must not cost its square: this would take minutes."""
    reader = Reader()
    reader.server.receive_data(b"GET / HTTP/1.1\r\nHost: g\r\n")
    rng = random.Random(3)
    for _ in range(60):
        for byte in b"X-%d: " % rng.randrange(1000) + b"y" * 1000 + b"\r\n":
            reader.server.receive_data(bytes([byte]))
    reader.server.receive_data(b"\r\n")
    (outcome,) = reader.outcomes
    assert isinstance(outcome, Accepted)
    assert reader.server.state is State.HEAD


def test_a_malformed_head_request_is_answered_without_body() -> None:
    reader = Reader()
    reader.server.receive_data(b"HEAD / HTTP/1.1\r\nHost: g\r\nHost: g\r\n\r\n")
    assert reader.server.data_to_send().endswith(b"\r\n\r\n")
    reader = Reader()
    reader.server.receive_data(b"GET / HTTP/1.1\r\nHost: g\r\nHost: g\r\n\r\n")
    assert reader.server.data_to_send().endswith(b"}\n")


@pytest.mark.parametrize("field", [b"A: b\r c\nD: e\r\n", b"A: b\r c\n", b"A: b\n\r\n", b"A\r\n"])
def test_a_response_whose_line_ends_are_torn_or_stray_is_no_response(field: bytes) -> None:
    connection = Connection()
    sink = connection.ask()
    connection.codec.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n" % field)
    connection.codec.receive_data(b"\r\n\r\n")  # ends a head that seemed unfinished
    assert sink.events == ["aborted"]
    assert connection.codec.should_close


def test_what_comes_alone_is_written_through_but_overtakes_nothing() -> None:
    """With everything in its order on the wire, whatever was written when."""
    reader = Reader()
    server = reader.server
    server.receive_data(REQUEST)
    wire: list[bytes] = []
    server.write_through = wire.append
    server.send_head(ResponseHead(200, b"HTTP/1.1 200 OK\r\n", b"", False, CHUNKED, -1, b"", False))
    first, second, third = (Frame(b"%d" % number) for number in (1, 2, 3))
    server.send_shared(first, alone=True)  # the head is not sent yet
    assert wire == []
    wire += server.pieces_to_send()
    server.send_shared(second, alone=True)
    server.send_shared(third)
    server.send_shared(first, alone=True)
    assert b"".join(wire).endswith(b"\r\n\r\n1\r\n1\r\n1\r\n2\r\n")
    assert server.data_to_send() == b"1\r\n3\r\n1\r\n1\r\n"
