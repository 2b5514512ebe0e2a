"""What a worker does when its memory is said to be short, to whom, and to whom not."""

from __future__ import annotations

import pytest

from apiguard.gateway.pressure import Level
from apiguard.runtime.log import Field, RelayLog
from apiguard.runtime.shedding import Shedding
from apiguard.telemetry import bounds

from .client import BrokenResponseError, Client, request
from .conftest import StartGuard, StartUpstream
from .guard import Guard
from .upstreams import CHUNKED_OK, Connection, Received, answers, chunk, ok
from .waiting import eventually

LIMIT = 1_000_000
TIGHT, SHORT = 850_000, 950_000
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1"
NODE = "/api/v1/nodes/node-1"

EXEMPT = """
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
- name: control-plane
  match: {users: [alice]}
  exempt: true
default:
  limits: [{requestsPerSecond: 1000000, burst: 1000000}]
"""


class Worker:
    """What sheds, and what it says, on a clock of its own."""

    def __init__(self, guard: Guard) -> None:
        self.lines: list[tuple[str, str, dict[str, Field]]] = []
        log = RelayLog(lambda *line: self.lines.append(line))
        self._shedding = Shedding(LIMIT, guard.gateway, guard.traffic, log)
        self._clock = guard.traffic.clock

    @property
    def level(self) -> Level:
        return self._shedding.level

    def look(self, resident: int, *, later: float = 0.0) -> None:
        """As if so much were resident, ``later`` seconds from now."""
        self._shedding.look(resident, self._clock() + later)

    def said(self, message: str) -> list[dict[str, Field]]:
        return [fields for _, text, fields in self.lines if text == message]


async def flood(connection: Connection, _: Received) -> None:
    """More than a client that does not read can be sent."""
    connection.send(CHUNKED_OK + chunk(bytes(1 << 20)) * 16)
    await connection.gone()


def asked(target: str, user: str) -> bytes:
    """``user`` is one of ``guard.TOKENS``."""
    lines = b"User-Agent: test/1\r\nAuthorization: Bearer %b-token\r\n" % user.encode()
    return request(target, headers=lines)


async def stalled(started: Guard, target: str = "/api/v1/pods", user: str = "bob") -> Client:
    """A client that asked for much and does not read it."""
    before = len(started.traffic.stalled())
    client = await Client.open(started.port, receive_buffer=4_096)
    client.send(asked(target, user))
    await eventually(lambda: len(started.traffic.stalled()) > before)
    return client


async def status(started: Guard, target: str, user: str = "bob") -> int:
    client = await Client.open(started.port)
    client.send(asked(target, user))
    try:
        return (await client.response()).status
    finally:
        await client.close()


async def test_collections_are_refused_and_single_objects_are_not(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(answers(ok()))).url, policy=EXEMPT)
    worker = Worker(started)
    worker.look(TIGHT)
    client = await Client.open(started.port)
    client.send(request("/api/v1/pods"))
    refused = await client.response()
    await client.close()
    assert refused.status == 429
    assert int(refused.get(b"retry-after") or b"0") >= 1
    assert await status(started, "/api/v1/pods?watch=1") == 429
    assert await status(started, LEASE) == 200
    assert await status(started, NODE) == 200
    assert await status(started, "/api/v1/pods", "alice") == 200
    assert started.hits(bounds.MEMORY_READS) == 2
    worker.look(0)
    assert await status(started, "/api/v1/pods") == 200
    assert [text for _, text, _ in worker.lines] == ["memory is tight", "memory is ample"]


async def test_who_does_not_read_is_cut_with_a_word_and_exempt_ones_are_not(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(flood)).url, policy=EXEMPT)
    slow = await stalled(started)
    exempt = await stalled(started, user="alice")
    lease = await stalled(started, LEASE)
    worker = Worker(started)
    worker.look(100 * LIMIT)
    await eventually(lambda: len(started.traffic.stalled()) == 2)
    assert started.hits(bounds.MEMORY_CLIENTS) == 1
    (told,) = worker.said("client cut for memory")
    assert (told["verb"], told["target"], told["user"]) == ("list", "pods", "bob")
    assert isinstance(told["heldBytes"], int)
    assert told["heldBytes"] > 512 << 10
    for client in (slow, exempt, lease):
        await client.close()


async def test_there_is_patience_while_memory_is_only_tight(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(flood)).url)
    slow = await stalled(started)
    await eventually(lambda: started.traffic.stalled()[0].stalled_at)
    worker = Worker(started)
    worker.look(TIGHT)
    worker.look(TIGHT, later=1.0)
    assert not started.hits(bounds.MEMORY_CLIENTS)
    worker.look(TIGHT, later=6.0)
    assert started.hits(bounds.MEMORY_CLIENTS) == 1
    await slow.close()


async def test_connections_are_refused_when_nobody_is_left_to_cut(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(answers(ok()))).url)
    kubelet = await Client.open(started.port)
    kubelet.send(request(LEASE))
    assert (await kubelet.response()).status == 200
    worker = Worker(started)
    worker.look(SHORT)
    assert await status(started, NODE) == 200, "not before it is known"
    worker.look(SHORT, later=0.2)
    with pytest.raises(BrokenResponseError):
        await status(started, NODE)
    assert started.hits(bounds.MEMORY_CONNECTIONS) == 1
    kubelet.send(request(LEASE))
    assert (await kubelet.response()).status == 200
    worker.look(0, later=0.4)
    assert await status(started, NODE) == 200
    await kubelet.close()


async def test_idle_upstream_connections_are_comfort(
    upstream: StartUpstream, guard: StartGuard
) -> None:
    started = await guard((await upstream(answers(ok()))).url)
    assert await status(started, NODE) == 200
    await eventually(lambda: started.idle_upstream == 1)
    worker = Worker(started)
    worker.look(750_000)
    assert started.idle_upstream == 1, "in use a moment ago"
    worker.look(750_000, later=60.0)
    assert started.idle_upstream == 0
    assert started.hits(bounds.MEMORY_COMFORT) == 2
    assert worker.level is Level.NEAR
