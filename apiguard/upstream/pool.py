"""Pool: use an idle connection, open one, wait, or say no.

The pool holds no socket. ``submit`` gives a job (anything that wants a connection) an idle one, or
queues it, or refuses; the driver opens what ``to_open`` asks for and reports ``opened``,
``open_failed``, ``released`` and ``closed``, of which each may hand a waiting job its connection.
A connection carries one request at a time here.

Lanes have ceilings per endpoint. At its ceiling an ORDINARY job waits, first come first served,
within a bound and a deadline; a LONG job is refused, since no slot comes back soon; an EXEMPT job
competes with exempt jobs only.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from apiguard.upstream.balancer import pick
from apiguard.upstream.endpoint import Endpoint, Lane

J = TypeVar("J")
C = TypeVar("C")

_SERVING_ORDER = (Lane.EXEMPT, Lane.LONG, Lane.ORDINARY)
"""Who gets a freed connection first. LONG before ORDINARY: it waits for a connection only."""


class Verdict(enum.Enum):
    """What became of a job that got no connection at once."""

    QUEUED = "queued"
    UNAVAILABLE = "unavailable"  # no endpoint can be reached
    FULL = "full"  # ceilings and queue are reached


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Requests under way per endpoint and lane; jobs waiting per lane, and for how long."""

    ordinary: int = 600
    exempt: int = 600
    long: int = 20_000
    waiting: int = 1_000
    waiting_seconds: float = 15.0

    def by_lane(self) -> tuple[int, int, int]:
        return self.ordinary, self.exempt, self.long


class _Waiting(NamedTuple, Generic[J]):
    job: J
    deadline: float


class Pool(Generic[J, C]):
    """Connections to all endpoints, for one kind of credentials."""

    __slots__ = ("_ceilings", "_idle", "_limits", "_queues", "_rng", "_use", "endpoints")

    def __init__(self, endpoints: Sequence[Endpoint], limits: Ceilings, rng: random.Random) -> None:
        self.endpoints = tuple(endpoints)
        self._limits = limits
        self._ceilings = limits.by_lane()
        self._rng = rng
        self._idle: dict[Endpoint, list[tuple[C, float]]] = {e: [] for e in self.endpoints}
        self._use: dict[C, tuple[Endpoint, Lane]] = {}
        self._queues: tuple[deque[_Waiting[J]], ...] = (deque(), deque(), deque())

    @property
    def waiting(self) -> int:
        """Jobs without a connection."""
        return sum(len(queue) for queue in self._queues)

    @property
    def size(self) -> int:
        """Connections, in use and idle."""
        return len(self._use) + sum(len(stack) for stack in self._idle.values())

    # -- jobs --------------------------------------------------------------------------------

    def submit(self, job: J, lane: Lane, now: float) -> C | Verdict:
        """An idle connection, now in use by ``job``, or what became of it."""
        queue = self._queues[lane]
        if not queue:
            endpoint = self._pick(lane, now)
            if endpoint is not None:
                stack = self._idle[endpoint]
                if stack:
                    connection, _ = stack.pop()
                    endpoint.active[lane] += 1
                    self._use[connection] = (endpoint, lane)
                    return connection
            elif not self._reachable(now):
                return Verdict.UNAVAILABLE
            elif lane is Lane.LONG:
                return Verdict.FULL
        elif lane is Lane.LONG and len(queue) >= self._room(lane, now):
            return Verdict.FULL
        if len(queue) >= self._limits.waiting:
            return Verdict.FULL
        queue.append(_Waiting(job, now + self._limits.waiting_seconds))
        return Verdict.QUEUED

    def withdraw(self, job: J, lane: Lane) -> None:
        """``job`` no longer wants a connection; no matter whether it was waiting."""
        queue = self._queues[lane]
        for waiting in queue:
            if waiting.job is job:
                queue.remove(waiting)
                return

    def expired(self, now: float) -> list[J]:
        """Jobs that waited their time, no longer waiting."""
        late: list[J] = []
        for queue in self._queues:
            while queue and queue[0].deadline <= now:
                late.append(queue.popleft().job)
        return late

    def _pick(self, lane: Lane, now: float) -> Endpoint | None:
        ceiling = self._ceilings[lane]
        if len(self.endpoints) == 1:  # the usual sidecar; spares building a list per request
            only = self.endpoints[0]
            if only.active[lane] + only.opening[lane] < ceiling and only.usable(now):
                return only
            return None
        return pick(self.endpoints, lane, ceiling, now, self._rng)

    def _reachable(self, now: float) -> bool:
        return any(e.usable(now) or e.connecting for e in self.endpoints)

    def _room(self, lane: Lane, now: float) -> int:
        """Jobs of ``lane`` that could still be given a connection."""
        ceiling = self._ceilings[lane]
        return sum(
            ceiling - e.active[lane] for e in self.endpoints if e.usable(now) or e.connecting
        )

    # -- connections -------------------------------------------------------------------------

    def to_open(self, now: float) -> list[tuple[Endpoint, Lane]]:
        """Connections to open for jobs that wait; each must end in opened or open_failed."""
        wanted: list[tuple[Endpoint, Lane]] = []
        for lane in _SERVING_ORDER:
            missing = len(self._queues[lane]) - sum(e.opening[lane] for e in self.endpoints)
            while missing > 0:
                endpoint = self._pick(lane, now)
                if endpoint is None:
                    break
                endpoint.opening[lane] += 1
                wanted.append((endpoint, lane))
                missing -= 1
        return wanted

    def opened(self, endpoint: Endpoint, lane: Lane, connection: C, now: float) -> J | None:
        """A connection is there; returns the job that now uses it, if one waits."""
        endpoint.opening[lane] -= 1
        endpoint.succeeded()
        return self._hand_out(endpoint, connection, now)

    def open_failed(self, endpoint: Endpoint, lane: Lane, reason: str, now: float) -> list[J]:
        """Returns the jobs no endpoint is left for, no longer waiting."""
        endpoint.opening[lane] -= 1
        endpoint.failed(reason, now)
        if self._reachable(now):
            return []
        stranded = [waiting.job for queue in self._queues for waiting in queue]
        for queue in self._queues:
            queue.clear()
        return stranded

    def released(self, connection: C, now: float) -> J | None:
        """Its request is over and it can carry another; returns the job that now uses it."""
        return self._hand_out(self._end_use(connection), connection, now)

    def closed(self, connection: C) -> None:
        """It is gone, in use or idle; no matter whether it was known."""
        if connection in self._use:
            self._end_use(connection)
            return
        for stack in self._idle.values():
            for entry in stack:
                if entry[0] is connection:
                    stack.remove(entry)
                    return

    def idle_since(self, before: float) -> list[C]:
        """Idle connections unused since ``before``, no longer in the pool."""
        aged: list[C] = []
        for endpoint, stack in self._idle.items():
            aged.extend(connection for connection, since in stack if since < before)
            self._idle[endpoint] = [entry for entry in stack if entry[1] >= before]
        return aged

    def _end_use(self, connection: C) -> Endpoint:
        endpoint, lane = self._use.pop(connection)
        endpoint.active[lane] -= 1
        return endpoint

    def _hand_out(self, endpoint: Endpoint, connection: C, now: float) -> J | None:
        for lane in _SERVING_ORDER:
            queue = self._queues[lane]
            if queue and endpoint.active[lane] + endpoint.opening[lane] < self._ceilings[lane]:
                endpoint.active[lane] += 1
                self._use[connection] = (endpoint, lane)
                return queue.popleft().job
        self._idle[endpoint].append((connection, now))
        return None
