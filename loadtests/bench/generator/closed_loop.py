"""Every connection sends its next request when it has its answer: the proxy sets the pace.

Several proxies are asked in turn, a tenth of a second each, until every one had its window. A
machine whose speed changes by a fifth from one second to the next then treats all alike; with one
window after the other, ratios of proxies that do the same differed by as much.
"""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from loadtests.bench import procfs
from loadtests.bench.generator.connection import Answers, Connection, client_tls, connect
from loadtests.bench.generator.spec import Numbers, Spec, WrongAnswerError
from loadtests.bench.traffic import TRAFFIC

TURN_SECONDS: Final = 0.1
"""Long beside the answers under way when a turn ends, short beside what a machine's speed does."""

_SILENCE = 10.0


def run(spec: Spec) -> Numbers:
    """The window of one proxy that nobody else is measured beside: all of it in one turn."""
    loop = _started(spec)
    loop.take_turn(spec.seconds)
    return loop.numbers()


def in_turn(specs: Sequence[Spec]) -> list[Numbers]:
    """Per spec ``units`` completed answers, ``cpu_seconds`` of its proxy, ``seconds`` of its turns.
    Shorter windows have ended before the longest; what a proxy does out of turn is not counted."""
    loops = [_started(spec) for spec in specs]
    for turn in range(max(_turns(spec) for spec in specs)):
        for spec, loop in zip(specs, loops, strict=True):
            if turn < _turns(spec):
                loop.take_turn(TURN_SECONDS)
    return [loop.numbers() for loop in loops]


def _turns(spec: Spec) -> int:
    return max(1, round(spec.seconds / TURN_SECONDS))


def _started(spec: Spec) -> ClosedLoop:
    """Connected and warmed up."""
    traffic = TRAFFIC[spec.traffic]()
    if spec.token or spec.certificate:
        traffic = traffic.presenting(spec.token)
    tls = client_tls(spec.authority, spec.certificate)
    connections = [connect(spec.port, tls) for _ in range(spec.connections)]
    loop = ClosedLoop(
        connections,
        Answers(traffic),
        itertools.cycle(traffic.requests),
        lambda: procfs.cpu_seconds(spec.proxy),
    )
    loop.warm_up(spec.warmup)
    return loop


class ClosedLoop:
    """Connections with one request under way each while it is their turn, none otherwise."""

    def __init__(
        self,
        connections: Sequence[Connection],
        answers: Answers,
        requests: Iterator[bytes],
        cpu_seconds: Callable[[], float],
    ) -> None:
        self._epoll = select.epoll()
        self._by_descriptor = {connection.fileno(): connection for connection in connections}
        self._answers = answers
        self._requests = requests
        self._cpu_seconds = cpu_seconds
        self._units, self._cpu, self._seconds = 0, 0.0, 0.0
        for connection in connections:
            self._epoll.register(connection.fileno(), select.EPOLLIN)

    def warm_up(self, seconds: float) -> None:
        """A turn that counts nothing."""
        self._go(seconds)

    def take_turn(self, seconds: float) -> None:
        """Ask for so long, and wait for the last answer."""
        before, started = self._cpu_seconds(), time.perf_counter()
        self._units += self._go(seconds)
        self._cpu += self._cpu_seconds() - before
        self._seconds += time.perf_counter() - started

    def numbers(self) -> Numbers:
        """Of all turns."""
        return {"units": self._units, "cpu_seconds": self._cpu, "seconds": self._seconds}

    def _go(self, seconds: float) -> int:
        """Answers to all that is asked within ``seconds``."""
        complete, requests, by_descriptor = (
            self._answers.complete,
            self._requests,
            self._by_descriptor,
        )
        under_way, units = len(by_descriptor), 0
        for connection in by_descriptor.values():
            connection.send(next(requests))
        end = time.perf_counter() + seconds
        while under_way:
            ready = self._epoll.poll(_SILENCE)
            if not ready:
                raise WrongAnswerError(f"no answer for {_SILENCE:.0f} s")
            asking = time.perf_counter() < end
            for descriptor, _ in ready:
                connection = by_descriptor[descriptor]
                data = connection.receive()
                if data and complete(connection, data):
                    units += 1
                    if asking:
                        connection.send(next(requests))
                    else:
                        under_way -= 1
        return units
