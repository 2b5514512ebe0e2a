"""What limits admit, measured on real sockets and the real clock."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from typing import cast

import pytest

from apiguard.gateway.decision import Forward, Peer
from apiguard.wire.messages import HeaderBlock, RequestLine

from .conftest import StartEcho, StartGuard
from .upstreams import EchoUpstream
from .waiting import eventually

RATE, BURST = 50, 100
BURST_POLICY = f"""
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
- name: telemetry
  match: {{userAgents: ["telemetry/*"]}}
  limits: [{{requestsPerSecond: {RATE}, burst: {BURST}}}]
default:
  limits: [{{requestsPerSecond: 100000, burst: 100000, per: [user]}}]
"""

USER_AGENT_POLICY = """
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules: []
default:
  limits: [{requestsPerSecond: 1, burst: 5, per: [user, userAgent]}]
"""
USER_AGENTS_PER_CALLER = 10


class _Asker(asyncio.Protocol):
    """Asks one request at a time, and the next one ``gap`` seconds after its answer."""

    transport: asyncio.Transport

    def __init__(self, request: bytes, gap: float) -> None:
        self._request = request
        self._gap = gap
        self.statuses: list[int] = []

    @classmethod
    async def connect(cls, port: int, request: bytes, gap: float) -> _Asker:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: cls(request, gap), "127.0.0.1", port))[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 "), data[:80]
        self.statuses.append(int(data[9:12]))
        asyncio.get_running_loop().call_later(self._gap, self.ask)


def asking(user_agent: str, tag: str) -> bytes:
    return (
        f"GET /api/v1/pods?tag={tag}&size=2 HTTP/1.1\r\nHost: guard\r\n"
        f"User-Agent: {user_agent}\r\nAuthorization: Bearer {tag}-token\r\n\r\n"
    ).encode()


async def test_a_burst_at_twenty_times_the_rate_admits_burst_and_rate_and_harms_nobody_else(
    rng: random.Random, echo: StartEcho, guard: StartGuard
) -> None:
    """Offenders ignore Retry-After: 400 connections, each read again a second after its penalty.

    Each connection gets at most 6 refusals a second before it is not read, so 400 offer 2,400.
    The bucket is full until its first request arrives somewhere between two readings of the clock:
    no more may be admitted than since the first of them, no less than since the second.
    """
    server = await echo(EchoUpstream(rng))
    started = await guard(server.url, policy=BURST_POLICY)
    telemetry, kubectl = asking("telemetry/1", "alice"), asking("kubectl/1", "bob")
    offenders = [await _Asker.connect(started.port, telemetry, 0.0) for _ in range(400)]
    others = [await _Asker.connect(started.port, kubectl, 0.02) for _ in range(4)]
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    for each in others:
        each.ask()
    for place, each in enumerate(offenders):  # penalties at different times: demand never pauses
        loop.call_later(place / len(offenders), each.ask)
    await eventually(lambda: any(each.statuses for each in offenders), within=30.0)
    answered = time.monotonic()
    await eventually(lambda: server.seen[b"alice"] >= BURST + 6 * RATE, within=30.0)
    ended = time.monotonic()

    (view,) = [v for v in started.gateway.limiter.changed() if "telemetry" in v.id]
    admitted = view.admitted
    # On a busy machine all offenders may be in their penalty at once: then tokens wait for them,
    # and what was admitted may still be on its way upstream.
    unclaimed = view.level + RATE * (ended - view.at)
    on_its_way = started.traffic.view().exchanges
    assert server.seen[b"alice"] <= admitted <= server.seen[b"alice"] + on_its_way
    offered = sum(len(each.statuses) for each in offenders)
    most, least = (BURST + RATE * (ended - since) for since in (began, answered))
    print(f"{admitted} of {offered}, {least:.1f} to {most:.1f} allowed")  # noqa: T201 - a figure
    assert admitted <= most * 1.02
    assert admitted + unclaimed >= least * 0.98
    assert offered > 20 * RATE * (ended - began), "the offenders did offer twenty times the rate"
    assert {status for each in others for status in each.statuses} == {200}
    assert min(len(each.statuses) for each in others) > 10
    for each in (*offenders, *others):
        each.transport.abort()


@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_million_user_agents_win_no_admission_and_little_memory(guard: StartGuard) -> None:
    """Half with alice's token, half without one from a single address; 20 virtual seconds."""
    started = await guard("http://127.0.0.1:1", policy=USER_AGENT_POLICY)
    decide = started.gateway.decide
    line = RequestLine("GET", "/api/v1/pods", b"GET /api/v1/pods HTTP/1.1\r\n")
    peer = Peer.at("192.0.2.1")
    begun = time.monotonic()
    admitted = [0, 0]
    resident = 0
    for i in range(1_000_000):
        if i == 100_000:
            resident = memory()
        block = header_block(b"agent-%d/1" % i, b"Bearer alice-token" if i % 2 else b"")
        if isinstance(decide(line, block, peer, begun + i * 20e-6), Forward):
            admitted[i % 2] += 1
    # Ten buckets and the one shared by all further user-agents, each its burst and 20 s of rate.
    assert max(admitted) <= (USER_AGENTS_PER_CALLER + 1) * (5 + 20)
    assert started.gateway.limiter.size <= started.config.bounds.process.buckets
    assert memory() - resident < 16 << 20, "nothing grew over the last 900,000"


def header_block(user_agent: bytes, authorization: bytes) -> HeaderBlock:
    return HeaderBlock(
        fields=(),
        forward=b"Host: guard\r\n",
        length=0,
        declared=False,
        upgrade=b"",
        close=False,
        expects=False,
        authorization=authorization,
        user_agent=user_agent,
        websocket_protocols=b"",
    )


def memory() -> int:
    """The most bytes this process ever had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
