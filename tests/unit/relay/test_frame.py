"""Frames: one event, framed once for all who are sent it."""

from __future__ import annotations

from apiguard.relay.eventlog import Frame
from apiguard.wire.headers import HeaderRules
from apiguard.wire.heads import RequestHeads
from apiguard.wire.http1 import COPY_LIMIT
from apiguard.wire.http1_server import Http1Server
from apiguard.wire.messages import (
    CHUNKED,
    HeaderBlock,
    RequestLine,
    RequestSink,
    ResponseHead,
    ServerStream,
)

HEAD = ResponseHead(200, b"HTTP/1.1 200 OK\r\n", b"", False, CHUNKED, -1, b"", False)


class Taker:
    """Takes requests and leaves the answer to the test."""

    def request_received(
        self, stream: ServerStream, line: RequestLine, block: HeaderBlock
    ) -> RequestSink | None:
        return None

    def request_malformed(self, stream: ServerStream, error: Exception) -> None:
        raise AssertionError(error)


def a_stream() -> Http1Server:
    """A stream in the middle of a chunked answer."""
    heads = RequestHeads(HeaderRules(), target_bytes=1024, header_fields=16)
    server = Http1Server(Taker(), heads, header_bytes=1024, on_output=lambda: None)
    server.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server.send_head(HEAD)
    server.data_to_send()
    return server


def test_every_stream_is_handed_the_very_same_chunk() -> None:
    frame, first, second = Frame(b"event\n"), a_stream(), a_stream()
    first.send_shared(frame)
    second.send_shared(frame)
    (one,), (other,) = first.pieces_to_send(), second.pieces_to_send()
    assert one == b"6\r\nevent\n\r\n"
    assert one is other


def test_a_framed_event_is_still_known_as_it_was_and_held_once() -> None:
    frame = Frame(b"event\n")
    frame.framed(b"6\r\n", b"\r\n")
    assert frame.data == b"event\n"
    assert frame.framed(b"(", b")") == b"(event\n)"
    assert frame.size == 6


def test_a_long_piece_is_not_copied_for_its_frame() -> None:
    long = b"x" * COPY_LIMIT
    frame, stream = Frame(long), a_stream()
    stream.send_shared(frame)
    assert frame.wire is None
    assert any(piece is long for piece in stream.pieces_to_send())
