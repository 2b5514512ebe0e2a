"""The floor for watches in Python: uvloop, TLS, and one write of the same bytes to each watcher.

Run as ``python -m loadtests.bench.peers.broadcaster PORT PACE_PORT CA CERT KEY``. No parser, no
identity, no selector, no second thought about slow readers: what a relay costs beyond this is the
relay's.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import cast

import uvloop

from loadtests.bench import pods, traffic
from loadtests.bench.peers.peer import Peer, Running, Setting
from loadtests.bench.peers.proxy_tls import ProxyTls
from loadtests.bench.processes import free_port

_PACE = re.compile(rb"rate=([\d.]+)&pods=(\d+)")


class Broadcaster:
    """All watchers, and the clock of changes."""

    def __init__(self) -> None:
        self.watchers: set[asyncio.Transport] = set()
        self._loop = asyncio.get_running_loop()
        self._revision = pods.FIRST_REVISION + pods.PODS
        self._next = 0
        self._changing = 1
        self._interval = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def pace(self, rate: float, changing: int) -> int:
        """As ``podserver``; returns the latest revision."""
        if self._timer is not None:
            self._timer.cancel()
        self._changing = changing
        if rate:
            self._interval = 1.0 / rate
            self._due = self._loop.time() + self._interval
            self._timer = self._loop.call_at(self._due, self._publish)
        return self._revision

    def _publish(self) -> None:
        number = self._next % self._changing
        self._next = number + 1
        self._revision += 1
        data = traffic.chunk(pods.event(number, self._revision))
        for watcher in self.watchers:
            watcher.write(data)
        self._due = max(self._due + self._interval, self._loop.time())
        self._timer = self._loop.call_at(self._due, self._publish)


class Watcher(asyncio.Protocol):
    """Whatever is asked, the answer is the stream."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        self._broadcaster = broadcaster
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(traffic.watch_head())
        self._broadcaster.watchers.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._broadcaster.watchers.discard(self._transport)


class Pace(asyncio.Protocol):
    """The plain port of the harness."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        self._broadcaster = broadcaster
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        wished = _PACE.search(data)
        assert wished is not None
        revision = self._broadcaster.pace(float(wished[1]), int(wished[2]))
        self._transport.write(traffic.answer(json.dumps({"revision": revision}).encode()))


async def serve(port: int, pace_port: int, tls: ProxyTls) -> None:
    loop = asyncio.get_running_loop()
    broadcaster = Broadcaster()
    await loop.create_server(lambda: Pace(broadcaster), "127.0.0.1", pace_port)
    server = await loop.create_server(
        lambda: Watcher(broadcaster), "127.0.0.1", port, ssl=tls.server, backlog=4096
    )
    await server.serve_forever()


def start(setting: Setting) -> Running:
    port, pace = free_port(), free_port()
    issued = setting.certificates
    process = setting.fleet.start(
        "uvloop",
        [
            *(sys.executable, "-m", "loadtests.bench.peers.broadcaster", str(port), str(pace)),
            *(str(issued.authority), str(issued.certificate), str(issued.key)),
        ],
        cpus=setting.cpus.proxy,
        ports=[port, pace],
    )
    return Running("uvloop", port, process, pace=pace)


BARE_UVLOOP = Peer("uvloop", start)


def main(arguments: list[str]) -> None:
    port, pace_port, *files = arguments
    tls = ProxyTls.load(files)
    assert tls is not None
    uvloop.run(serve(int(port), int(pace_port), tls))


if __name__ == "__main__":
    main(sys.argv[1:])
