"""Downstream: the transport of one client connection.

Moves bytes between the transport and ``Http1Server``, and turns the codec's wishes into flow
control and closing. Nothing here is per request but ``data_received`` and ``flush``; deadlines
are looked at by the worker's one tick, from marks taken at earlier ticks, so that they cost
requests nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from apiguard.errors import WireError
from apiguard.gateway.decision import Peer
from apiguard.gateway.session import Session
from apiguard.identity.certificate import ClientAuthority, ClientCertificate
from apiguard.runtime.defects import report_defect
from apiguard.runtime.reading import Reader
from apiguard.runtime.tls import sent_chain
from apiguard.telemetry import bounds
from apiguard.wire.http1 import State
from apiguard.wire.http1_server import Http1Server

if TYPE_CHECKING:
    from apiguard.runtime.traffic import TrafficServer

LINGER_SECONDS = 1.0
"""How long bytes nobody wants are read before closing, so that the answer is not reset away."""

STALLED_BYTES = 512 << 10
"""Held for a client that does not read beyond what its transport says: the encrypted half of that,
the read from upstream that came on top, and both TLS sessions. Measured: 640 KiB in all."""

READS_PER_TURN = 256
"""Reads after which a connection that was read rests until the loop has come round.

libuv polls again at once, up to 48 times, whenever 1,024 sockets were ready, and looks at neither
timers nor callbacks meanwhile. Two thousand clients that ask again as soon as they are answered
kept it there for six seconds: no report, no deadline, no command was looked at. Resting costs a
connection 2 us, and only where more than this many are read in one turn.
"""

_BYTES_ACKED = struct.Struct("=Q")
_BYTES_ACKED_OFFSET = 120  # tcpi_bytes_acked in Linux's struct tcp_info

Mark = tuple[State, bool, int]


class Downstream(Reader):
    """One client connection, from accept to close."""

    __slots__ = (
        "_authority",
        "_body_mark",
        "_close_at",
        "_mark",
        "_mark_at",
        "_penalised",
        "_reading",
        "_resting",
        "_stall_acked",
        "_stalled_at",
        "_touch",
        "_traffic",
        "_transport",
        "codec",
        "connected",
        "peer",
        "session",
    )

    def __init__(
        self, traffic: TrafficServer, peer: Peer, authority: ClientAuthority | None
    ) -> None:
        """``authority`` is what the TLS handshake verifies a client certificate by."""
        self._traffic = traffic
        self._touch = partial(traffic.touched.append, self)
        self._authority = authority
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.connected = False
        self.peer = peer
        self.session = Session(
            traffic.gateway, peer, traffic.upstream, traffic.clock, report_defect
        )
        self.codec = Http1Server(
            self.session,
            traffic.heads,
            header_bytes=traffic.config.bounds.request.header_bytes,
            on_output=self._touch,
        )
        self._reading = True
        self._penalised = False
        self._resting = False
        self._mark: Mark = (State.HEAD, False, 0)
        self._mark_at = traffic.clock()
        self._body_mark = 0
        self._close_at = 0.0
        self._stalled_at = 0.0
        self._stall_acked = -1

    # -- transport calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._traffic.high_water)
        if self._authority is not None and transport.get_extra_info("peercert"):
            self._certify(transport.get_extra_info("ssl_object"), self._authority)
        self.connected = True
        self.codec.write_through = self._write_through
        self._traffic.connected(self)

    def _certify(self, tls: ssl.SSLObject, authority: ClientAuthority) -> None:
        leaf = tls.getpeercert(binary_form=True)
        assert leaf is not None
        certificate = ClientCertificate(leaf, sent_chain(tls), authority, time.time())
        self.peer = self.session.peer = Peer(self.peer.source, self.peer.source_key, certificate)

    def data_received(self, data: bytes) -> None:
        traffic = self._traffic
        traffic.counters.bytes_received += len(data)
        traffic.reads += 1
        codec = self.codec
        try:
            codec.receive_data(data)
        except Exception as defect:  # ours, outside any request: only this connection ends
            report_defect(defect)
            self._transport.abort()
        traffic.flush()
        if traffic.reads > READS_PER_TURN:
            traffic.rest(self)
        elif codec.held:
            self._adjust_reading()

    def eof_received(self) -> None:
        self.codec.receive_eof()
        self._traffic.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.codec.receive_eof()
        self._traffic.disconnected(self)
        self._traffic.flush()

    def pause_writing(self) -> None:
        self.codec.set_writable(False)
        self._stalled_at = 0.0
        self._touch()

    def resume_writing(self) -> None:
        self.codec.set_writable(True)
        self._touch()
        self._traffic.flush()

    def _write_through(self, data: bytes) -> None:
        """Nothing the codec has collected stands before ``data``."""
        self._traffic.counters.bytes_sent += len(data)
        self._transport.write(data)

    # -- after every batch of calls ----------------------------------------------------------

    def flush(self) -> None:
        """Send what the codec has collected; pause, resume or close as it wishes."""
        codec = self.codec
        pieces = codec.pieces_to_send()
        if len(pieces) == 1:
            self._traffic.counters.bytes_sent += len(pieces[0])
            self._transport.write(pieces[0])
        elif pieces:
            self._traffic.counters.bytes_sent += sum(map(len, pieces))
            self._transport.writelines(pieces)
        if codec.should_close:
            self._close()
        elif (
            codec.reading_paused
            or codec.held
            or self.session.quiet_until
            or not (self._reading and codec.writable)
        ):
            self._adjust_reading()

    def _close(self) -> None:
        if self.codec.broken:
            self._transport.abort()
        elif not self.codec.linger:
            if not self._transport.is_closing():  # asyncio's, closed twice, can not be aborted
                self._transport.close()
        elif not self._close_at:
            self._close_at = self._traffic.clock() + LINGER_SECONDS
            self._adjust_reading()

    def _adjust_reading(self) -> None:
        reading = not self._must_wait()
        if reading is self._reading:
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _must_wait(self) -> bool:
        codec = self.codec
        if self._resting or codec.reading_paused or not codec.writable:
            return True
        if self.session.quiet_until:
            self._sit_out_penalty()
            return True
        if codec.held:
            limits = self._traffic.config.bounds.connection
            if codec.held_heads >= limits.pipelined_requests:
                if self._reading:
                    self._traffic.counters.hit(bounds.PIPELINED)
                return True
            if codec.held >= limits.buffered_bytes:
                if self._reading:
                    self._traffic.counters.hit(bounds.BUFFERED)
                return True
        return False

    def set_resting(self, resting: bool) -> None:
        """Not read while it rests; see ``READS_PER_TURN``."""
        self._resting = resting
        if not self._transport.is_closing():
            self._adjust_reading()

    def _sit_out_penalty(self) -> None:
        """Refused too often: neither read nor answered until a timer says otherwise."""
        if not self._penalised:
            self._penalised = True
            left = self.session.quiet_until - self._traffic.clock()
            self._traffic.loop.call_later(max(0.0, left), self._end_penalty)

    def _end_penalty(self) -> None:
        self._penalised = False
        self.session.quiet_until = 0.0
        self.codec.release_requests()
        self._touch()
        self._traffic.flush()

    # -- deadlines, from the tick ------------------------------------------------------------

    def tick(self, now: float) -> None:
        if self._transport.is_closing() or self._close_at:
            self._tick_closing(now)
            return
        codec = self.codec
        if not self._reading:
            self._adjust_reading()  # a penalty that began while something else paused has no timer
        if not codec.writable:
            self._tick_stall(now)
        exchange = self.session.exchange
        if exchange is not None:
            if exchange.overdue(now):
                self._traffic.counters.hit(bounds.UPSTREAM_FIRST_BYTE)
                exchange.silent()
                return
            exchange.credit(now)
        mark = (codec.state, codec.head_begun, codec.requests)
        if mark != self._mark:
            self._mark = mark
            self._mark_at = now
            self._body_mark = codec.body_received
        elif codec.state is State.HEAD:
            self._tick_head(now)
        elif codec.state is State.BODY:
            self._tick_body(now)

    def _tick_head(self, now: float) -> None:
        waited = now - self._mark_at
        limits = self._traffic.config.bounds
        if self.codec.head_begun:
            if waited >= limits.request.header_seconds:
                self._traffic.counters.hit(bounds.HEADER_DEADLINE)
                self.codec.give_up(WireError(408, "", "the request headers did not arrive in time"))
        elif waited >= limits.connection.idle_client_seconds:
            self._traffic.counters.hit(bounds.CLIENT_IDLE)
            self._transport.close()

    def _tick_body(self, now: float) -> None:
        """Least rate, over windows of the grace period in which nobody but the client held up."""
        limits, codec = self._traffic.config.bounds.request, self.codec
        if codec.reading_paused or codec.awaits_continue or not self._reading:
            self._mark_at = now
            self._body_mark = codec.body_received
            return
        window = now - self._mark_at
        if window < limits.body_grace_seconds:
            return
        if codec.body_received - self._body_mark < limits.body_min_bytes_per_second * window:
            self._traffic.counters.hit(bounds.BODY_RATE)
            codec.give_up(WireError(408, "", "the request body arrives too slowly"))
        self._mark_at = now
        self._body_mark = codec.body_received

    def _tick_stall(self, now: float) -> None:
        """A client that accepts no byte for long is cut; one that accepts few is waited for."""
        acked = self._bytes_acked()
        if not self._stalled_at or acked != self._stall_acked:
            self._stalled_at = now
            self._stall_acked = acked
        elif now - self._stalled_at >= self._traffic.config.bounds.connection.write_stall_seconds:
            self._traffic.counters.hit(bounds.WRITE_STALL)
            self._transport.abort()

    def _bytes_acked(self) -> int:
        """What the client's kernel has acknowledged since the connection began."""
        sock = self._transport.get_extra_info("socket")
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        if len(info) < _BYTES_ACKED_OFFSET + 8:
            return 0  # a kernel older than 4.1: the stall deadline then counts from the pause
        return int(_BYTES_ACKED.unpack_from(info, _BYTES_ACKED_OFFSET)[0])

    def _tick_closing(self, now: float) -> None:
        if not self._close_at:
            # With everything sent, only the farewell of TLS is missing. A client that is idle and
            # does not read never answers it, and uvloop would wait 30 s: as long as a drain.
            sent = self._transport.get_write_buffer_size() == 0
            stall = self._traffic.config.bounds.connection.write_stall_seconds
            self._close_at = now + (LINGER_SECONDS if sent else stall)
        elif now >= self._close_at:
            if self._transport.is_closing():
                self._transport.abort()
            else:
                self._transport.close()
            self._close_at = now + LINGER_SECONDS

    # -- memory ------------------------------------------------------------------------------

    @property
    def stalled(self) -> bool:
        """Its client does not take what there is for it."""
        return not (self.codec.writable or self._transport.is_closing())

    @property
    def stalled_at(self) -> float:
        """When its client last took a byte, as ticks saw it; 0.0 where no tick has looked yet."""
        return self._stalled_at

    @property
    def held(self) -> int:
        """Bytes its client has not taken, about: see ``STALLED_BYTES``."""
        return self._transport.get_write_buffer_size() + STALLED_BYTES

    # -- draining ----------------------------------------------------------------------------

    def drain(self) -> None:
        self.codec.drain()

    def cut(self) -> None:
        exchange = self.session.exchange
        if exchange is not None:
            exchange.cut()
        self._transport.abort()
