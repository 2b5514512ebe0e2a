"""Requests in bursts, each connection below the rate at which refusals make the guard pause it.

The guard stops reading a connection that was refused more than five times within a second. To
measure what a refusal costs, and not how long a pause lasts, many connections take turns: groups
of 64 each work through four requests as a closed loop, and the next round over all groups starts
a little more than a second after the last one has ended. CPU is read only while a round is under
way, so the idle second is not charged to refusals.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

from loadtests.bench import procfs
from loadtests.bench.generator.connection import Answers, Connection, client_tls, connect
from loadtests.bench.generator.spec import Numbers, Spec, WrongAnswerError
from loadtests.bench.traffic import TRAFFIC

_GROUP = 64
_REQUESTS_EACH = 4
_REST = 1.1
_PAUSED = 0.5


def run(spec: Spec) -> Numbers:
    """As the closed loop; ``seconds`` counts only time under load."""
    traffic = TRAFFIC[spec.traffic]()
    tls = client_tls(spec.authority)
    connections = [connect(spec.port, tls) for _ in range(spec.connections)]
    groups = [connections[at : at + _GROUP] for at in range(0, len(connections), _GROUP)]
    answers = Answers(traffic)
    request = traffic.requests[0]
    units, cpu, busy = 0, 0.0, 0.0
    for number in range(1 + max(1, round(spec.seconds / _REST))):
        round_started, before = time.perf_counter(), procfs.cpu_seconds(spec.proxy)
        for group in groups:
            _work_through(group, answers, request)
        ended = time.perf_counter()
        if number:  # the first round warms up
            cpu += procfs.cpu_seconds(spec.proxy) - before
            units += len(connections) * _REQUESTS_EACH
            busy += ended - round_started
        time.sleep(_REST)
    return {"units": units, "cpu_seconds": cpu, "seconds": busy}


def _work_through(group: Sequence[Connection], answers: Answers, request: bytes) -> None:
    """``_REQUESTS_EACH`` answers on every connection of the group."""
    open_requests = {connection.fileno(): _REQUESTS_EACH for connection in group}
    by_descriptor = {connection.fileno(): connection for connection in group}
    with select.epoll() as epoll:
        for connection in group:
            epoll.register(connection.fileno(), select.EPOLLIN)
            connection.send(request)
        left = len(group) * _REQUESTS_EACH
        while left:
            ready = epoll.poll(_PAUSED)
            if not ready:
                raise WrongAnswerError(f"no answer for {_PAUSED} s: refusals are being paused")
            for descriptor, _ in ready:
                connection = by_descriptor[descriptor]
                data = connection.receive()
                if data and answers.complete(connection, data):
                    left -= 1
                    open_requests[descriptor] -= 1
                    if open_requests[descriptor]:
                        connection.send(request)
