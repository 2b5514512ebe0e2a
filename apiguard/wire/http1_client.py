"""The side of HTTP/1.1 that faces upstream, strictly by RFC 9112.

A connection carries one request at a time; it may carry another only after a proven message end.
A body delimited by the end of the connection, or anything behind a message, is the last of it.
"""

from __future__ import annotations

from collections.abc import Callable

from apiguard.errors import UpstreamProtocolError
from apiguard.wire.chunked import ChunkedDecoder, ChunkError
from apiguard.wire.heads import parse_response
from apiguard.wire.http1 import BODY, CLOSED, HEAD, TUNNEL, End
from apiguard.wire.messages import CHUNKED, UNTIL_CLOSE, RequestLine, ResponseHead, ResponseSink

RESPONSE_HEAD_LIMIT = 256 * 1024
"""Bytes of a response head; Go's own default for clients is 10 MiB, Kubernetes needs a few KiB."""


class Http1Client(End):
    """The side that faces upstream; is the ClientStream of its current request.

    ``reusable`` once a response has ended at a proven message end and nothing else came.
    ``linger`` asks the runtime to send everything before it closes: a tunnel's client has ended,
    what it sent before has not.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_close",
        "_left",
        "_method",
        "_request_chunked",
        "_request_done",
        "_sink",
        "_upgrade",
        "linger",
        "on_released",
        "should_close",
        "state",
    )

    def __init__(
        self, *, on_output: Callable[[], object], on_released: Callable[[], object]
    ) -> None:
        super().__init__(on_output)
        self.on_released = on_released
        self.state = HEAD
        self.should_close = False
        self.linger = False
        self._sink: ResponseSink | None = None
        self._buffer = b""
        self._chunks: ChunkedDecoder | None = None
        self._left = 0
        self._method = ""
        self._close = False
        self._request_chunked = False
        self._request_done = True
        self._upgrade = b""

    @property
    def at_boundary(self) -> bool:
        """Between two chunks: where a server that writes events ends one and begins the next."""
        return self._chunks is not None and self._chunks.between

    def set_writable(self, writable: bool) -> None:
        """Upstream's transport is full, or takes bytes again."""
        if self._sink is not None:
            self._sink.upstream_writable(writable)

    @property
    def awaits_head(self) -> bool:
        """A request went out, and no response to it has begun."""
        return self.state is HEAD and self._sink is not None

    @property
    def reusable(self) -> bool:
        return self.state is HEAD and self._sink is None and not self.should_close

    # -- the request -------------------------------------------------------------------------

    def start(
        self, sink: ResponseSink, line: RequestLine, lines: bytes, *, length: int, upgrade: bytes
    ) -> None:
        """Sends the head. ``lines`` are all its fields; ``length`` that of the body to come."""
        self._sink = sink
        self._method = line.method
        self._close = False
        self._upgrade = upgrade.lower()
        self._request_chunked = length == CHUNKED
        self._request_done = length == 0
        self._send(line.http1 + lines + b"\r\n")

    def send_data(self, data: bytes) -> None:
        if self.state is not TUNNEL and self._request_chunked:
            self._send_chunk(data)
        else:
            self._send(data)

    def send_end(self) -> None:
        if self.state is TUNNEL:
            self.linger = True
            self.cancel()
            return
        if self._request_chunked:
            self._send(b"0\r\n\r\n")
        self._request_done = True

    def cancel(self) -> None:
        self._sink = None
        self.state = CLOSED
        self.should_close = True
        self._on_output()

    # -- the answer --------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        try:
            self._consume(data)
        except (UpstreamProtocolError, ChunkError) as error:
            self.fail(str(error))

    def receive_eof(self) -> None:
        sink, state = self._sink, self.state
        until_close = state is BODY and self._left == UNTIL_CLOSE
        if sink is not None and (until_close or state is TUNNEL):
            self._finish(sink)
        else:
            self.fail("connection closed before the response was complete")

    def lost(self) -> None:
        """The connection is gone without an end of its bytes that could be trusted.

        After ``receive_eof`` this says nothing new. Without it a body that ends with its
        connection is incomplete: reset, or over TLS cut without close_notify.
        """
        if self.state is TUNNEL:
            self.receive_eof()
        else:
            self.fail("connection lost before the response was complete")

    def fail(self, reason: str) -> None:
        """Nothing on this connection can be trusted any more; whoever waits for it learns so.

        An idle one is reported released, and not reusable: until its transport is gone it would
        be given to requests that then fail though they were never sent.
        """
        sink, self._sink = self._sink, None
        idle = sink is None and self.state is HEAD
        self.state = CLOSED
        self.should_close = True
        self._on_output()
        if sink is not None:
            sink.response_aborted(reason)
        elif idle:
            self.on_released()

    def _consume(self, data: bytes) -> None:
        pos, end = 0, len(data)
        while pos < end:
            sink = self._sink
            if sink is None or self.state is CLOSED:
                if self.state is HEAD:
                    self.fail("bytes where no response was due")
                return
            if self.state is HEAD:
                at = data.find(b"\r\n\r\n", pos)
                if at < 0:
                    self._buffer = data[pos:] if pos else data
                    if len(self._buffer) > RESPONSE_HEAD_LIMIT:
                        raise UpstreamProtocolError("response head too large")
                    return
                raw, pos = data[pos : at + 4], at + 4
                self._take_head(raw, sink, pos < end)
            elif self.state is BODY:
                pos = self._take_body(data, pos, end, sink)
            else:
                sink.response_data(data[pos:] if pos else data)
                return

    def _take_head(self, raw: bytes, sink: ResponseSink, more: bool) -> None:
        """``more`` when bytes follow in the same read."""
        head = parse_response(raw, self._method)
        status = head.status
        if status < 200:
            if status == 101:
                self._take_switch(head, sink)
            else:
                sink.response_interim(head)
            return
        self._close = head.close or head.length == UNTIL_CLOSE
        length = self._left = head.length
        if length == 0:
            sink.response_head(head)
            self._finish(sink, more)
            return
        self.state = BODY
        self._chunks = ChunkedDecoder() if length == CHUNKED else None
        sink.response_head(head)

    def _take_switch(self, head: ResponseHead, sink: ResponseSink) -> None:
        if not self._upgrade or head.upgrade.lower() != self._upgrade:
            raise UpstreamProtocolError("101 where no upgrade was asked for")
        self.state = TUNNEL
        sink.response_head(head)

    def _take_body(self, data: bytes, pos: int, end: int, sink: ResponseSink) -> int:
        if self._chunks is not None:
            pieces: list[bytes] = []
            pos = self._chunks.feed(data, pos, pieces)
            if pieces:
                sink.response_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            if self._chunks.done:
                self._finish(sink, pos < end)
            return pos
        if self._left == UNTIL_CLOSE:
            sink.response_data(data[pos:] if pos else data)
            return end
        take = min(self._left, end - pos)
        self._left -= take
        sink.response_data(data if take == len(data) else data[pos : pos + take])
        if self._left == 0:
            self._finish(sink, pos + take < end)
        return pos + take

    def _finish(self, sink: ResponseSink, more: bool = False) -> None:
        """A proven message end. The connection is free before the sink hears of it.

        ``more`` bytes behind it belong to no request: the next one must not take them for its
        answer, so the connection carries none.
        """
        if self._sink is not sink:
            return  # given up by the sink while it took the last bytes
        self._sink = None
        self._chunks = None
        self.reading_paused = False
        if more or self._close or not self._request_done or self._upgrade:
            self.state = CLOSED
            self.should_close = True
            self._on_output()
        else:
            self.state = HEAD
        self.on_released()
        sink.response_end()
