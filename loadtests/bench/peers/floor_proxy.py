"""The measuring stick: bare uvloop protocols and httptools on both sides.

Copies headers, looks up one bucket, keeps upstream connections, couples flow control; knows no
policy, no identity, no deadlines and no error but closing. What the guard costs above this is
what its work costs; what this costs is Python's and uvloop's.

Run as ``python -m loadtests.bench.peers.floor_proxy PORT UPSTREAM [CA CERT KEY]``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

from loadtests.bench.peers.proxy_tls import ProxyTls

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"})


class Downstream(asyncio.Protocol):
    """A client's connection; one request at a time, without a body."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._parser = httptools.HttpRequestParser(self)
        self._lines: list[bytes] = []
        self._agent = b""
        self._target = b""
        self.upstream: Upstream | None = None
        self.full = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.upstream is not None:
            self.upstream.transport.abort()

    def pause_writing(self) -> None:
        self.full = True
        if self.upstream is not None:
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self.upstream is not None:
            self.upstream.transport.resume_reading()

    def on_message_begin(self) -> None:
        self._lines = []
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower not in _HOP_BY_HOP:
            self._lines.append(b"%b: %b\r\n" % (name, value))
            if lower == b"user-agent":
                self._agent = value

    def on_message_complete(self) -> None:
        if not self._proxy.admit(self._agent):
            self.transport.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
            return
        method = self._parser.get_method()
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, self._target, b"".join(self._lines))
        self._proxy.forward(head, self)


class Upstream(asyncio.Protocol):
    """A connection to the upstream; serves one client's request at a time."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._parser = httptools.HttpResponseParser(self)
        self._lines: list[bytes] = []
        self._chunked = False
        self._head = b""
        self.client: Downstream | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.forget(self)
        if self.client is not None:
            self.client.transport.abort()

    def on_message_begin(self) -> None:
        self._lines = []
        self._chunked = False

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"transfer-encoding":
            self._chunked = True
            self._lines.append(b"Transfer-Encoding: chunked\r\n")
        elif lower not in _HOP_BY_HOP:
            self._lines.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        self._head = b"HTTP/1.1 %d OK\r\n%b\r\n" % (
            self._parser.get_status_code(),
            b"".join(self._lines),
        )

    def on_body(self, body: bytes) -> None:
        data = (
            b"%b%x\r\n%b\r\n" % (self._head, len(body), body)
            if self._chunked
            else (self._head + body)
        )
        self._head = b""
        if self.client is not None:
            self.client.transport.write(data)

    def on_message_complete(self) -> None:
        client, self.client = self.client, None
        if client is None:
            return
        if self._chunked or self._head:
            client.transport.write(self._head + (b"0\r\n\r\n" if self._chunked else b""))
        client.upstream = None
        if client.full:  # its last bytes paused what the next client is to read from
            self.transport.resume_reading()
        self._proxy.release(self)


class Proxy:
    """Idle upstream connections and one bucket per user-agent."""

    def __init__(self, upstream_port: int, tls: ProxyTls | None) -> None:
        self._port = upstream_port
        self._tls = tls
        self._idle: list[Upstream] = []
        self._levels: dict[bytes, float] = {}
        self._opening: set[asyncio.Task[None]] = set()

    def admit(self, agent: bytes) -> bool:
        level = self._levels.get(agent, 1e12) - 1.0
        self._levels[agent] = level
        return level > 0.0 and not agent.startswith(b"bad-agent/")

    def forward(self, head: bytes, client: Downstream) -> None:
        if self._idle:
            self._couple(self._idle.pop(), head, client)
            return
        task = asyncio.get_running_loop().create_task(self._open(head, client))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def release(self, upstream: Upstream) -> None:
        self._idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        if upstream in self._idle:
            self._idle.remove(upstream)

    async def _open(self, head: bytes, client: Downstream) -> None:
        _, upstream = await asyncio.get_running_loop().create_connection(
            lambda: Upstream(self),
            "127.0.0.1",
            self._port,
            ssl=self._tls.client if self._tls else None,
            server_hostname=self._tls.name if self._tls else None,
        )
        self._couple(upstream, head, client)

    def _couple(self, upstream: Upstream, head: bytes, client: Downstream) -> None:
        upstream.client, client.upstream = client, upstream
        upstream.transport.write(head)


async def serve(port: int, upstream_port: int, tls: ProxyTls | None) -> None:
    proxy = Proxy(upstream_port, tls)
    server = await asyncio.get_running_loop().create_server(
        lambda: Downstream(proxy),
        "127.0.0.1",
        port,
        ssl=tls.server if tls else None,
        backlog=4096,
    )
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    port, upstream_port, *files = arguments
    # Freed at once: until something large was, glibc maps the block of every read of TLS anew, at
    # twice the CPU per request, by luck.
    bytearray(1 << 20)
    uvloop.run(serve(int(port), int(upstream_port), ProxyTls.load(files)))


if __name__ == "__main__":
    main(sys.argv[1:])
