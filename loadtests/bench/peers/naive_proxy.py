"""What one writes with aiohttp in an afternoon: a server, a client session, a dict of counts.

Run as ``python -m loadtests.bench.peers.naive_proxy PORT UPSTREAM [CA CERT KEY]``.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from loadtests.bench.peers.proxy_tls import ProxyTls

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te"})


class Forwarder:
    """Passes requests on as they are, counting them by user-agent."""

    def __init__(self, upstream_port: int, tls: ProxyTls | None) -> None:
        self._base = f"{'https' if tls else 'http'}://127.0.0.1:{upstream_port}"
        self._name = tls.name if tls else None
        self._counts: Counter[str] = Counter()
        connector = TCPConnector(limit=0, ssl=tls.client if tls else True)
        self._session = ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=DummyCookieJar()
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        agent = request.headers.get("User-Agent", "")
        self._counts[agent] += 1
        if agent.startswith("bad-agent/"):
            return web.Response(status=429, headers={"Retry-After": "1"})
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        async with self._session.request(
            request.method,
            self._base + request.raw_path,
            headers=headers,
            server_hostname=self._name,
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response


async def serve(port: int, upstream_port: int, tls: ProxyTls | None) -> None:
    forwarder = Forwarder(upstream_port, tls)
    runner = web.ServerRunner(web.Server(forwarder.handle, access_log=None))
    await runner.setup()
    await web.TCPSite(
        runner, "127.0.0.1", port, ssl_context=tls.server if tls else None, backlog=4096
    ).start()
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    port, upstream_port, *files = arguments
    uvloop.run(serve(int(port), int(upstream_port), ProxyTls.load(files)))


if __name__ == "__main__":
    main(sys.argv[1:])
