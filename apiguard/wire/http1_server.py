"""The side of HTTP/1.1 that faces a client, strictly by RFC 9112.

A connection is one stream at a time and goes round this cycle::

    HEAD --head--> BODY --last byte--> WAIT --answer complete--> HEAD
      |              `---answer complete first: the rest is skipped or the connection closed
      `--anything malformed--> CLOSED (answered once, never read again)
    WAIT --101--> TUNNEL (bytes pass unread)

Bytes that arrive in WAIT are pipelined requests (or, for an upgrade, tunnel bytes sent early):
they are held unread, and ``held`` tells the runtime when to stop reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from apiguard.errors import WireError
from apiguard.wire.chunked import ChunkedDecoder, ChunkError
from apiguard.wire.heads import RequestHeads
from apiguard.wire.http1 import BODY, CLOSED, COPY_LIMIT, HEAD, TUNNEL, WAIT, End
from apiguard.wire.messages import (
    CHUNKED,
    HeaderBlock,
    Reply,
    RequestHandler,
    RequestLine,
    RequestSink,
    ResponseHead,
    Shared,
)

SKIP_LIMIT = 64 * 1024
"""Bytes of an unwanted request body read to keep its connection; a longer one costs it."""

_NOT_A_REQUEST = re.compile(rb"(?<!\r)\n|\A[^A-Za-z]")


def _too_large(limit: int) -> WireError:
    return WireError(431, "", f"the request headers exceed {limit} bytes")


def _framing(head: ResponseHead) -> bytes:
    if head.length < 0:
        return b"Transfer-Encoding: chunked\r\n"
    return b"Content-Length: %d\r\n" % head.declared if head.declared >= 0 else b""


class Http1Server(End):
    """The side that faces a client; is the ServerStream of its current request.

    ``should_close`` asks the runtime to close once everything is sent; ``broken`` to reset the
    connection at once, so that an incomplete answer cannot pass for a complete one. ``linger``
    asks to read on for a moment before closing: closing on unread bytes resets the connection,
    and the client might lose the answer. ``draining`` makes the next answer the last.
    """

    __slots__ = (
        "_answering",
        "_block",
        "_buffer",
        "_chunks",
        "_close",
        "_consuming",
        "_handler",
        "_head_limit",
        "_heads",
        "_held_heads",
        "_holding",
        "_last_block",
        "_last_raw",
        "_left",
        "_line",
        "_line_end",
        "_received",
        "_scanned",
        "_send_left",
        "_sink",
        "_skip",
        "body_limit",
        "broken",
        "draining",
        "linger",
        "requests",
        "should_close",
        "state",
        "writable",
        "write_through",
    )

    def __init__(
        self,
        handler: RequestHandler,
        heads: RequestHeads,
        *,
        header_bytes: int,
        on_output: Callable[[], object],
    ) -> None:
        super().__init__(on_output)
        self._handler = handler
        self._heads = heads
        self._head_limit = header_bytes
        self.state = HEAD
        self.requests = 0
        self.body_limit = -1
        self.should_close = False
        self.write_through: Callable[[bytes], object] | None = None
        self.broken = False
        self.draining = False
        self.linger = False
        self.writable = True
        self._buffer = bytearray()
        self._held_heads = 0
        self._holding = False
        self._scanned = 0  # bytes of an incomplete head already looked at
        self._line_end = -1  # where its first line ends
        self._consuming = False
        self._last_raw = b""
        self._last_block: HeaderBlock | None = None
        self._line: RequestLine | None = None
        self._block: HeaderBlock | None = None
        self._sink: RequestSink | None = None
        self._chunks: ChunkedDecoder | None = None
        self._left = 0
        self._received = 0
        self._skip = False  # nobody wants the rest of this body
        self._close = False  # this answer is the last
        self._answering = False  # a final head has been sent, its end has not
        self._send_left = 0  # body bytes promised to the client, or CHUNKED

    # -- reading ---------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes received ahead of their turn."""
        return len(self._buffer)

    @property
    def held_heads(self) -> int:
        """Requests among them, as far as one can tell without reading them."""
        return self._held_heads if self._buffer else 0

    @property
    def awaits_continue(self) -> bool:
        """The client waits for a 100 before it sends its body.

        Answered otherwise it may send the body or its next request: nobody can tell them apart,
        so that answer is the last.
        """
        block = self._block
        return block is not None and block.expects and not self._received

    @property
    def head_begun(self) -> bool:
        """Part of a head is here, the rest is not."""
        return self.state is HEAD and bool(self._buffer)

    @property
    def body_received(self) -> int:
        """Bytes of the current request's body so far."""
        return self._received

    def receive_data(self, data: bytes) -> None:
        if self._consuming:
            # Only a sink that feeds its own connection could come here; order must hold.
            self._buffer += data
            return
        if self.state is TUNNEL:
            if self._sink is not None:
                self._sink.request_data(data)
            return
        if self._buffer:
            self._hold(data)
            self._advance()
            return
        read = self._consume(data)
        if read < len(data):
            self._keep(data, read)

    def receive_eof(self) -> None:
        """The client is gone. kube-apiserver, too, gives up a request whose client half-closes."""
        tunnel = self.state is TUNNEL
        self.state = CLOSED
        self.should_close = True
        self._buffer.clear()
        sink, self._sink = self._sink, None
        if sink is not None:
            if tunnel:
                sink.request_end()
            else:
                sink.request_aborted(None)

    def hold_requests(self) -> None:
        """Take no further request, not even one that is here, until ``release_requests``."""
        self._holding = True

    def release_requests(self) -> None:
        self._holding = False
        self._advance()

    def give_up(self, error: WireError) -> None:
        """A deadline passed: answer with ``error`` if that can still be understood, then close."""
        if self.state is CLOSED:
            return
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._skip = True
            sink.request_aborted(error)
        elif self.state is HEAD:
            self._malformed(error)
        elif self.state is BODY:
            self._shut()  # the rest of a body whose answer is out already

    def _advance(self) -> None:
        """Reads on in what was held."""
        if self.state is WAIT or self._consuming or self._holding or not self._buffer:
            return
        if self.state is TUNNEL or self.state is BODY:
            self._drain_buffer()
            return
        if self.state is HEAD:
            at = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
            if at < 0:
                self._check_partial()
                return
            self._drain_buffer()

    def _drain_buffer(self) -> None:
        data = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        self._line_end = -1
        if self.state is TUNNEL:
            self.receive_data(data)
            return
        read = self._consume(data)
        if read < len(data):
            self._keep(data, read)

    def _hold(self, data: bytes) -> None:
        if not self._buffer:
            self._held_heads = 0
        self._held_heads += data.count(b"\r\n\r\n")
        self._buffer += data

    def _keep(self, data: bytes, pos: int) -> None:
        if self.state is not CLOSED:
            self._hold(data[pos:] if pos else data)
            if self.state is HEAD and not self._holding:
                self._check_partial()

    def _consume(self, data: bytes) -> int:
        """Reads ``data`` as far as its turn has come; returns how far."""
        pos, end = 0, len(data)
        self._consuming = True
        try:
            while pos < end:
                state = self.state
                if state is HEAD:
                    at = data.find(b"\r\n\r\n", pos)
                    if at < 0 or self._holding:
                        break
                    self._take_head(data, pos, at)
                    pos = at + 4
                elif state is BODY:
                    pos = self._take_body(data, pos, end)
                else:
                    break
        except WireError as error:
            self._malformed(error)
            return end
        finally:
            self._consuming = False
        if self.state is CLOSED:
            return end
        if self.state is TUNNEL and pos < end:
            self.receive_data(data[pos:])
            return end
        return pos

    def _check_partial(self) -> None:
        """What is here of an incomplete head is within its bounds and can still become one.

        Looks at new bytes only: a head that arrives byte by byte must not cost its square.
        """
        data, limit = self._buffer, self._head_limit
        if self._line_end < 0:
            self._line_end = data.find(b"\r\n", max(0, self._scanned - 1))
        if _NOT_A_REQUEST.search(data, max(0, self._scanned - 1)):
            self._malformed(WireError(400, "BadRequest", "malformed request"))
        elif self._line_end < 0 and len(data) > self._heads.target_bytes + 32:
            self._malformed(self._heads.too_long())
        elif self._line_end >= 0 and len(data) - self._line_end - 2 > limit + 3:
            self._malformed(_too_large(limit))
        else:
            self._scanned = len(data)

    def _take_head(self, data: bytes, pos: int, at: int) -> None:
        cut = data.find(b"\r\n", pos, at + 2)
        line = self._line = self._heads.line(data[pos:cut])
        raw = data[cut + 2 : at + 2]
        # A client's block repeats from request to request; comparing 1 KiB costs 30 ns where
        # parsing it costs 10 us.
        if raw == self._last_raw and self._last_block is not None:
            block = self._last_block
        else:
            if len(raw) > self._head_limit:
                raise _too_large(self._head_limit)
            block = self._heads.block(raw)
            self._last_raw, self._last_block = raw, block
        self._begin(line, block)

    def _begin(self, line: RequestLine, block: HeaderBlock) -> None:
        self.requests += 1
        self._block = block
        self._close = block.close or self.draining
        self._skip = False
        self._received = 0
        self.body_limit = -1
        length = self._left = block.length
        if length == 0:
            self.state = WAIT
        else:
            self.state = BODY
            self._chunks = self._decoder() if length == CHUNKED else None
        sink = self._handler.request_received(self, line, block)
        if sink is None:
            self._skip = True
            return
        self._sink = sink
        if length == 0:
            sink.request_end()

    def _decoder(self) -> ChunkedDecoder:
        return ChunkedDecoder(
            trailer_bytes=self._head_limit, trailer_fields=self._heads.header_fields
        )

    def _take_body(self, data: bytes, pos: int, end: int) -> int:
        if self._chunks is not None:
            return self._take_chunks(data, pos)
        take = min(self._left, end - pos)
        self._left -= take
        self._deliver(data if take == len(data) else data[pos : pos + take])
        if self._left == 0 and self.state is BODY:
            self._body_complete()
        return pos + take

    def _take_chunks(self, data: bytes, pos: int) -> int:
        assert self._chunks is not None
        pieces: list[bytes] = []
        try:
            pos = self._chunks.feed(data, pos, pieces)
        except ChunkError as error:
            code, reason = (431, "") if error.too_large else (400, "BadRequest")
            self._body_error(WireError(code, reason, str(error)))
            return len(data)
        if pieces:
            self._deliver(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._chunks.done and self.state is BODY:
            self._body_complete()
        return pos

    def _deliver(self, data: bytes) -> None:
        self._received += len(data)
        if 0 <= self.body_limit < self._received:
            limit = self.body_limit
            error = WireError(
                413, "RequestEntityTooLarge", f"the request body exceeds {limit} bytes"
            )
            self._body_error(error)
        elif self._sink is not None:
            self._sink.request_data(data)
        elif self._received > SKIP_LIMIT:
            self._shut()

    def _body_error(self, error: WireError) -> None:
        """The body cannot be read on: whoever takes the request answers; nobody reads further."""
        sink, self._sink = self._sink, None
        self._close = True
        self.linger = True
        self.state = CLOSED
        if sink is not None:
            sink.request_aborted(error)
        else:
            self._shut()

    def _body_complete(self) -> None:
        self.state = WAIT
        self._chunks = None
        if self._skip:
            self._cycle()
        elif self._sink is not None:
            self._sink.request_end()

    def _malformed(self, error: WireError) -> None:
        self.state = CLOSED
        self._buffer.clear()
        self._handler.request_malformed(self, error)
        self.should_close = True

    # -- body flow ---------------------------------------------------------------------------

    def set_writable(self, writable: bool) -> None:
        """The client's transport is full, or takes bytes again."""
        self.writable = writable
        if self._sink is not None:
            self._sink.client_writable(writable)

    # -- answering ---------------------------------------------------------------------------

    def send_interim(self, head: ResponseHead) -> None:
        self._send(head.line + head.lines + b"\r\n")

    def send_head(self, head: ResponseHead, *, close: bool = False) -> None:
        self._answering = True
        if close or self.draining or (self.state is BODY and self.awaits_continue):
            self._close = True
        length = head.length
        self._send_left = length if length >= 0 else CHUNKED
        framing = b"Connection: close\r\n" if self._close else b""
        if not head.framed:
            framing += _framing(head)
        self._send(head.line + head.lines + framing + b"\r\n")

    def send_data(self, data: bytes) -> None:
        if self.state is TUNNEL:
            self._send(data)
        elif self._send_left == CHUNKED:
            self._send_chunk(data)
        else:
            self._send_left -= len(data)
            self._send(data)

    def send_shared(self, piece: Shared, *, alone: bool = False) -> None:
        """Framing an event of 4 KB anew for each of its watchers takes 1.0 us, sharing it 0.25. A
        long one is not copied for its frame, as in ``send_data``. One that is ``alone`` is written
        through: with a thousand watchers whatever a flush looks at has left the CPU's caches since,
        and all of the relay costs 1.16 times a bare TLS write of 4 KB instead of 1.24."""
        if self._send_left != CHUNKED or self.state is TUNNEL or piece.size >= COPY_LIMIT:
            self.send_data(piece.data)
            return
        wire = piece.wire
        if wire is None:
            wire = piece.framed(b"%x\r\n" % piece.size, b"\r\n")
        if alone and not self._out and self.write_through is not None:
            self.write_through(wire)
        else:
            self._send(wire)

    def send_end(self) -> None:
        if self.state is TUNNEL:
            self._shut()
            return
        if self._send_left > 0:
            self.abort()
            return
        if self._send_left == CHUNKED:
            self._send(b"0\r\n\r\n")
        self._answered()

    def send_reply(self, reply: Reply, *, close: bool = False) -> None:
        if self._answering:
            self.abort()  # half of another answer is out already
            return
        if close or self.draining or (self.state is BODY and self.awaits_continue):
            self._close = True
        body = b"" if self._line is not None and self._line.method == "HEAD" else reply.body
        self._send(
            b"HTTP/1.1 %d %b\r\n%b%b\r\n%b"
            % (
                reply.status,
                reply.reason,
                reply.lines,
                b"Connection: close\r\n" if self._close else b"",
                body,
            )
        )
        self._answered()

    def _answered(self) -> None:
        """The answer is complete; so may be the request."""
        self._answering = False
        self._sink = None
        self._skip = True
        if self.state is WAIT:
            self._cycle()
        elif self.state is BODY:
            self.reading_paused = False  # whoever held the body back wants no more of it
            left = self._left if self._chunks is None else 0
            if self._close or left > SKIP_LIMIT:
                self._shut()
        else:
            self._shut()

    def _shut(self) -> None:
        """Nothing more is read as a request; the runtime closes after sending."""
        self.linger = self.linger or self.state is BODY
        self.state = CLOSED
        self.should_close = True
        self.reading_paused = False
        self._sink = None
        self._buffer.clear()
        self._on_output()

    def _cycle(self) -> None:
        """Answer and request are both complete: on to the next."""
        self._sink = None
        self._line = None  # a refusal of the next head must not be framed by this one
        self._block = None
        self.reading_paused = False
        if self._close or self.draining:
            self._shut()
            return
        self.state = HEAD
        if self._buffer and not self._consuming:
            self._advance()

    def start_tunnel(self, head: ResponseHead) -> None:
        self._send(
            b"%b%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
            % (head.line, head.lines, head.upgrade)
        )
        self.state = TUNNEL
        if not self._consuming:
            self._advance()

    def abort(self) -> None:
        self.state = CLOSED
        self.broken = True
        self.should_close = True
        self._sink = None
        self._buffer.clear()
        self._out.clear()
        self._on_output()

    def drain(self) -> None:
        """Finish what is under way; take no other request."""
        self.draining = True
        if self.state is HEAD and not self._buffer:
            self._shut()
