"""exec, attach and port-forward: a real 101 and something that answers behind it.

A WebSocket client (``v5.channel.k8s.io`` and older) speaks to a fake process that prints its
command and echoes standard input. Any other upgrade (``SPDY/3.1``, port-forward over
``SPDY/3.1+portforward.k8s.io``) gets its 101 and then every byte back: the proof of a tunnel is
that bytes pass it unchanged, not that the double speaks SPDY.
"""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, hdrs, web

from apiguard.demo import problems
from apiguard.demo.encoding import encode
from apiguard.demo.target import Target

CHANNEL_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _ERROR, _CLOSE = 0, 1, 3, 255
_SUCCESS = encode({"metadata": {}, "status": "Success"})
_PORT_FORWARD = "SPDY/3.1+portforward.k8s.io"


class EchoTunnel(asyncio.Protocol):
    """Sends back what it receives until the peer ends; then ends itself."""

    def __init__(self, transport: asyncio.Transport, previous: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._previous = previous
        self.received = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._transport.write(data)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        self._previous.connection_lost(exc)


async def upgrade(request: web.BaseRequest, target: Target) -> web.StreamResponse:
    """Answers an upgrade request; raises ``ApiError`` 400 when it is none."""
    protocol = request.headers.get(hdrs.UPGRADE, "")
    if "upgrade" not in request.headers.get(hdrs.CONNECTION, "").lower() or not protocol:
        raise problems.bad_request("Upgrade request required")
    if protocol.lower() == "websocket":
        offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
        if any(name in offered for name in CHANNEL_PROTOCOLS):
            return await _run_process(request, target)
    return await _echo(request, protocol)


async def _run_process(request: web.BaseRequest, target: Target) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=CHANNEL_PROTOCOLS, heartbeat=None)
    await socket.prepare(request)
    command = target.query.all("command")
    shown = " ".join(command) if command else target.subresource
    await socket.send_bytes(bytes([_STDOUT]) + f"{shown}\n".encode())
    if target.query.flag("stdin"):
        async for message in socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel = message.data[0]
            if channel == _STDIN:
                await socket.send_bytes(bytes([_STDOUT]) + message.data[1:])
            elif channel == _CLOSE:
                break
    if not socket.closed:
        await socket.send_bytes(bytes([_ERROR]) + _SUCCESS)
        await socket.close()
    return socket


async def _echo(request: web.BaseRequest, protocol: str) -> web.StreamResponse:
    headers: dict[str, str] = {hdrs.CONNECTION: "Upgrade", hdrs.UPGRADE: protocol}
    offered = request.headers.getall("X-Stream-Protocol-Version", [])
    if offered:
        headers["X-Stream-Protocol-Version"] = offered[0]
    if request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL) == _PORT_FORWARD:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = _PORT_FORWARD
    response = web.StreamResponse(status=101, headers=headers)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    await response.prepare(request)
    tunnel = EchoTunnel(transport, transport.get_protocol())
    transport.set_protocol(tunnel)
    await tunnel.closed
    return response
