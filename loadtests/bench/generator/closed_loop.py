"""Every connection sends its next request when it has its answer: the proxy sets the pace."""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Iterator, Sequence

from loadtests.bench import procfs
from loadtests.bench.generator.connection import Answers, Connection, client_tls, connect
from loadtests.bench.generator.spec import Numbers, Spec, WrongAnswerError
from loadtests.bench.traffic import TRAFFIC

_SILENCE = 10.0


def run(spec: Spec) -> Numbers:
    """``units`` completed answers, ``cpu_seconds`` of the proxy, ``seconds`` of the window."""
    traffic = TRAFFIC[spec.traffic]()
    if spec.token or spec.certificate:
        traffic = traffic.presenting(spec.token)
    tls = client_tls(spec.authority, spec.certificate)
    connections = [connect(spec.port, tls) for _ in range(spec.connections)]
    answers = Answers(traffic)
    loop = ClosedLoop(connections, answers, itertools.cycle(traffic.requests))
    loop.go_on(spec.warmup)
    before, started = procfs.cpu_seconds(spec.proxy), time.perf_counter()
    units = loop.go_on(spec.seconds)
    return {
        "units": units,
        "cpu_seconds": procfs.cpu_seconds(spec.proxy) - before,
        "seconds": time.perf_counter() - started,
    }


class ClosedLoop:
    """Connections with one request under way each."""

    def __init__(
        self, connections: Sequence[Connection], answers: Answers, requests: Iterator[bytes]
    ) -> None:
        self._epoll = select.epoll()
        self._by_descriptor = {connection.fileno(): connection for connection in connections}
        self._answers = answers
        self._requests = requests
        for connection in connections:
            self._epoll.register(connection.fileno(), select.EPOLLIN)
            connection.send(next(requests))

    def go_on(self, seconds: float) -> int:
        """Answers completed within the next ``seconds``."""
        units = 0
        end = time.perf_counter() + seconds
        complete, requests, by_descriptor = (
            self._answers.complete,
            self._requests,
            self._by_descriptor,
        )
        while time.perf_counter() < end:
            ready = self._epoll.poll(_SILENCE)
            if not ready:
                raise WrongAnswerError(f"no answer for {_SILENCE:.0f} s")
            for descriptor, _ in ready:
                connection = by_descriptor[descriptor]
                data = connection.receive()
                if data and complete(connection, data):
                    units += 1
                    connection.send(next(requests))
        return units
