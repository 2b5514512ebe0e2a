"""Connections of the relay's own to API servers: opened when needed, kept while they are idle.

The codec is the one that carries clients' requests (``wire.http1_client``); here it is given a
transport, and a sink that hands the body on piece by piece to whoever awaits it. A review of 1 KB
over TLS costs 0.17 ms of CPU this way and 0.36 through aiohttp (0.5 and 0.9 on a loop that was idle
before), of which 0.11 are TLS and the kernel.

A call is made once. One that comes to nothing takes its connection with it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

from apiguard.runtime import alive
from apiguard.runtime.defects import report_defect
from apiguard.runtime.reading import Reader
from apiguard.wire.http1_client import Http1Client
from apiguard.wire.messages import RequestLine, ResponseHead

CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 15.0
"""Kept for another call at most so long: Go's servers and load balancers wait for longer, so that
a call seldom meets a connection that is being closed."""

HELD_BYTES: Final = 256 << 10
"""Of a body nobody has taken yet; beyond it upstream is not read."""


class CallBrokenError(Exception):
    """No answer, or not all of it; the message is one line for the operator."""


class _Server(NamedTuple):
    host: str
    port: int
    tls: bool
    authority: str


def _parsed(server: str) -> _Server:
    """``scheme://host:port``. Raises ValueError."""
    url = urlsplit(server)
    tls = url.scheme == "https"
    return _Server(url.hostname or "", url.port or (443 if tls else 80), tls, url.netloc)


class Call:
    """One request under way; the sink of its answer. ``begun``, then iterate over the body.

    Breaks off after ``seconds``: where it is ``lasting``, of silence, else altogether. A lasting
    one also ends when credentials change.
    """

    __slots__ = (
        "_alarm",
        "_broken",
        "_connection",
        "_due",
        "_ended",
        "_held",
        "_loop",
        "_pieces",
        "_seconds",
        "_waiter",
        "head",
        "lasting",
    )

    def __init__(self, connection: _Connection, seconds: float, *, lasting: bool) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._broken = ""
        self._seconds = seconds
        self._due = loop.time() + seconds
        self._alarm = loop.call_at(self._due, self._look)
        self.head: ResponseHead | None = None
        self.lasting = lasting

    async def begun(self) -> ResponseHead:
        """Raises CallBrokenError, as everything here."""
        while self.head is None:
            if self._broken:
                raise CallBrokenError(self._broken)
            await self._news()
        return self.head

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> bytes:
        """Everything that has arrived meanwhile, which is something."""
        while not self._pieces:
            if self._ended:
                raise StopAsyncIteration
            if self._broken:
                raise CallBrokenError(self._broken)
            await self._news()
        pieces, self._held = self._pieces, 0
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._heard()
        self._connection.resume(self)
        return piece

    async def whole(self, most: int) -> bytes:
        """The body, if it has no more than ``most`` bytes."""
        parts: list[bytes] = []
        async for piece in self:
            parts.append(piece)
            most -= len(piece)
            if most < 0:
                raise CallBrokenError("an answer that is too long")
        return b"".join(parts)

    def close(self) -> None:
        """Nobody is interested any more: what is not complete is given up."""
        self._alarm.cancel()
        if not (self._ended or self._broken):
            self._broken = "given up"
            self._connection.give_up()

    def break_off(self, reason: str) -> None:
        """Whoever awaits something gets CallBrokenError, after what has arrived."""
        if not (self._ended or self._broken):
            self.response_aborted(reason)
            self._connection.give_up()

    def _news(self) -> asyncio.Future[None]:
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _look(self) -> None:
        """One timer a call, set anew when it rings: setting it for each piece costs as much as
        taking the piece."""
        if self._pieces:
            self._heard()  # it is not upstream that keeps us waiting
        if self._due > self._loop.time():
            self._alarm = self._loop.call_at(self._due, self._look)
        else:
            self.break_off(f"no answer within {self._seconds:g} s")

    def _heard(self) -> None:
        if self.lasting:
            self._due = self._loop.time() + self._seconds

    # -- sink of the answer ------------------------------------------------------------------

    def response_interim(self, head: ResponseHead) -> None:
        """Nothing that anybody asked for."""

    def response_head(self, head: ResponseHead) -> None:
        self.head = head
        self._heard()
        self._wake()

    def response_data(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        self._heard()
        if self._held > HELD_BYTES:
            self._connection.pause()
        self._wake()

    def response_end(self) -> None:
        self._ended = True
        self._alarm.cancel()
        self._wake()

    def response_aborted(self, reason: str) -> None:
        self._broken = reason
        self._alarm.cancel()
        self._wake()

    def upstream_writable(self, writable: bool) -> None:
        """Requests are small: they are handed to the transport whole."""


class _Connection(Reader):
    """``context`` is what it was opened with, None without TLS; ``call`` its latest one."""

    __slots__ = ("_reading", "_transport", "_wire", "call", "codec", "context", "idle_at", "server")

    def __init__(self, wire: RelayWire, server: str, context: ssl.SSLContext | None) -> None:
        self._wire = wire
        self._transport = cast(asyncio.Transport, None)
        self._reading = True
        self.server = server
        self.context = context
        self.call: Call | None = None
        self.idle_at = 0.0
        # Whoever calls the codec flushes afterwards, so it need not tell of its output.
        self.codec = Http1Client(on_output=lambda: None, on_released=self._released)

    # -- transport calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        alive.notice_silence(transport.get_extra_info("socket"))
        self._wire.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self.codec.receive_data(data)
        except Exception as defect:  # ours: the call on this connection pays, nobody else
            self.codec.fail(f"incident {report_defect(defect)}")
        self._flush()

    def eof_received(self) -> None:
        self.codec.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.codec.lost()
        self.call = None
        self._wire.lost(self)

    # -- calls -------------------------------------------------------------------------------

    def begin(
        self, line: RequestLine, lines: bytes, body: bytes, seconds: float, *, lasting: bool
    ) -> Call:
        call = self.call = Call(self, seconds, lasting=lasting)
        self.codec.start(call, line, lines, length=len(body), upgrade=b"")
        if body:
            self.codec.send_data(body)
            self.codec.send_end()
        self._flush()
        return call

    def pause(self) -> None:
        self.codec.pause_body()

    def resume(self, call: Call) -> None:
        """``call`` has taken everything; the connection may carry another one by now."""
        if self.codec.reading_paused and self.call is call:
            self.codec.resume_body()
            self._flush()

    def give_up(self) -> None:
        self.codec.cancel()
        self._flush()

    def close(self) -> None:
        """At once: nothing on it is of value, and a farewell of TLS is waited for long."""
        self._transport.abort()

    def _released(self) -> None:
        self._wire.released(self)

    def _flush(self) -> None:
        codec = self.codec
        pieces = codec.pieces_to_send()
        if codec.should_close:
            self._transport.abort()
        if self._transport.is_closing():
            return
        for piece in pieces:  # one, for requests are small
            self._transport.write(piece)
        reading = not codec.reading_paused
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


class RelayWire:
    """All connections of one relay. ``server_name`` is verified instead of a URL's host."""

    def __init__(self, tls: ssl.SSLContext, server_name: str = "") -> None:
        self._loop = asyncio.get_running_loop()
        self._tls = tls
        self._server_name = server_name
        self._servers: dict[str, _Server] = {}
        self._open: set[_Connection] = set()
        self._idle: dict[str, list[_Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def use(self, tls: ssl.SSLContext) -> None:
        """Calls from now on are made on connections opened with ``tls``; lasting ones under way
        end, others go on."""
        self._tls = tls
        for connection in list(self._open):
            call = connection.call
            if connection.codec.reusable:
                connection.close()
            elif call is not None and call.lasting:
                call.break_off("the guard's credentials have changed")
        self._idle.clear()

    def close(self) -> None:
        """Every call under way is broken off."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.clear()
        for connection in list(self._open):
            connection.close()

    async def call(
        self,
        server: str,
        line: RequestLine,
        lines: bytes,
        *,
        body: bytes = b"",
        seconds: float,
        lasting: bool = False,
    ) -> Call:
        """Sends a request. ``lines`` are its fields beside Host and Content-Length; ``seconds``
        and ``lasting`` are the Call's. Raises CallBrokenError."""
        connection = self._take(server) or await self._connect(server)
        lines = b"Host: %b\r\n%b" % (self._server(server).authority.encode("ascii"), lines)
        if body:
            lines += b"Content-Length: %d\r\n" % len(body)
        return connection.begin(line, lines, body, seconds, lasting=lasting)

    # -- connections -------------------------------------------------------------------------

    def _server(self, server: str) -> _Server:
        found = self._servers.get(server)
        if found is None:
            found = self._servers[server] = _parsed(server)
        return found

    def _take(self, server: str) -> _Connection | None:
        """The one used last, so that those not needed any more grow old."""
        idle = self._idle.get(server)
        while idle:
            connection = idle.pop()
            if connection.codec.reusable:
                return connection
        return None

    async def _connect(self, server: str) -> _Connection:
        try:
            host, port, secure, _ = self._server(server)
            context = self._tls if secure else None
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self, server, context),
                    host,
                    port,
                    ssl=context,
                    server_hostname=(self._server_name or host) if secure else None,
                )
        except (OSError, ValueError) as error:
            raise CallBrokenError(str(error) or type(error).__name__) from None
        if not connection.codec.reusable:
            raise CallBrokenError("closed as soon as it was opened")
        return connection

    def opened(self, connection: _Connection) -> None:
        """From the connection itself."""
        self._open.add(connection)

    def lost(self, connection: _Connection) -> None:
        """From the connection itself."""
        self._open.discard(connection)
        idle = self._idle.get(connection.server)
        if idle and connection in idle:
            idle.remove(connection)

    def released(self, connection: _Connection) -> None:
        """From the connection itself: its answer is complete. One that carries nothing more
        closes itself."""
        if not connection.codec.reusable:
            return
        if connection.context is not None and connection.context is not self._tls:
            connection.close()
            return
        connection.idle_at = self._loop.time()
        self._idle.setdefault(connection.server, []).append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Closes what was idle for long; once more while anything is idle."""
        self._sweeper = None
        until = self._loop.time() - IDLE_SECONDS
        for server, idle in list(self._idle.items()):
            old = [connection for connection in idle if connection.idle_at <= until]
            self._idle[server] = [connection for connection in idle if connection not in old]
            for connection in old:
                connection.close()
        if any(self._idle.values()):
            self._sweeper = self._loop.call_later(IDLE_SECONDS, self._sweep)
