"""Requests at a constant rate, whatever the answers do.

Latency runs from the moment a request was *due*, so that a proxy that stalls pays for every
request that should have been sent meanwhile (no coordinated omission). A request that finds no
free connection waits here, at the proxy's expense.
"""

from __future__ import annotations

import ctypes
import select
import time
from collections import deque

from loadtests.bench import procfs
from loadtests.bench.figures import quantile
from loadtests.bench.generator.connection import Answers, Connection, client_tls, connect
from loadtests.bench.generator.spec import Numbers, Spec, WrongAnswerError
from loadtests.bench.traffic import TRAFFIC

_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1_000
_SILENCE = 5.0
_MS = 1_000.0


def run(spec: Spec) -> Numbers:
    """Percentiles in ms: ``p50_ms``, ``p99_ms``, ``p999_ms``, besides units and CPU."""
    # The default slack of 50 µs would be a sixth of the latency looked for.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
    traffic = TRAFFIC[spec.traffic]()
    tls = client_tls(spec.authority)
    connections = [connect(spec.port, tls) for _ in range(spec.connections)]
    loop = OpenLoop(connections, Answers(traffic), traffic.requests[0], 1.0 / spec.rate)
    loop.go_on(spec.warmup)
    loop.latencies.clear()
    before, started = procfs.cpu_seconds(spec.proxy), time.perf_counter()
    loop.go_on(spec.seconds)
    seconds = time.perf_counter() - started
    latencies = sorted(loop.latencies)
    return {
        "units": len(latencies),
        "cpu_seconds": procfs.cpu_seconds(spec.proxy) - before,
        "seconds": seconds,
        "p50_ms": quantile(latencies, 0.5) * _MS,
        "p99_ms": quantile(latencies, 0.99) * _MS,
        "p999_ms": quantile(latencies, 0.999) * _MS,
    }


class OpenLoop:
    """A schedule, the connections that are free, and those that wait for an answer."""

    def __init__(
        self, connections: list[Connection], answers: Answers, request: bytes, interval: float
    ) -> None:
        self.latencies: list[float] = []
        self._epoll = select.epoll()
        self._by_descriptor = {connection.fileno(): connection for connection in connections}
        # Oldest first: every connection keeps being used.
        self._free = deque(connections)
        self._answers = answers
        self._request = request
        self._interval = interval
        self._due = time.perf_counter()
        for connection in connections:
            self._epoll.register(connection.fileno(), select.EPOLLIN)

    def go_on(self, seconds: float) -> None:
        """Keep to the schedule for ``seconds``, noting latencies of what completes."""
        end = time.perf_counter() + seconds
        answered = time.perf_counter()
        while (now := time.perf_counter()) < end:
            self._send_due(now)
            # epoll waits in whole milliseconds; select on epoll's own descriptor in microseconds.
            select.select([self._epoll], [], [], max(0.0, self._due - time.perf_counter()))
            if self._receive():
                answered = now
            elif now - answered > _SILENCE:
                raise WrongAnswerError(f"no answer for {_SILENCE:.0f} s")

    def _send_due(self, now: float) -> None:
        while self._due <= now and self._free:
            connection = self._free.popleft()
            connection.due = self._due
            connection.send(self._request)
            self._due += self._interval

    def _receive(self) -> bool:
        ready = self._epoll.poll(0)
        for descriptor, _ in ready:
            connection = self._by_descriptor[descriptor]
            data = connection.receive()
            if data and self._answers.complete(connection, data):
                self.latencies.append(time.perf_counter() - connection.due)
                self._free.append(connection)
        return bool(ready)
