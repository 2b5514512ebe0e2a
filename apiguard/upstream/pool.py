"""Pool: use an idle connection, open one, wait, or say no.

The pool holds no socket. ``submit`` gives a job (anything that wants a connection) an idle one, or
queues it, or refuses. The driver reports what becomes of connections (``opened``,
``open_failed``, ``released``, ``closed``) and then asks for the ``plan``: which waiting job uses
which idle connection, and what to open. A connection carries one request at a time here.

Jobs and connections are of a kind of credentials and meet within it only; ceilings are an
endpoint's and hold over all kinds together. So a place freed by one kind may go to a job of the
other, whichever waited longer.

At an endpoint's ceiling an ORDINARY or COLLECTION job waits, first come first served in its lane,
within a bound and a deadline; a LONG job is refused, since no place comes back soon; an EXEMPT job
competes with exempt jobs only.

**Cheap requests do not stand behind expensive ones.** A read of a collection takes an overloaded
API server seconds, a write or a read of one object milliseconds. In one line, in a storm of lists,
every write waits for lists. kube-apiserver keeps them apart in two ways. By number:
``--max-requests-inflight`` (400) for reads and ``--max-mutating-requests-inflight`` (200) for
writes, so that no number of reads takes a write's place. By width, with priority and fairness: a
request takes seats, one for a write or a read of one object, up to ten for a list by what it has
to load, and a watch that begins with its objects as many until it has sent them. The guard does
not know how many objects there are, so it has two lanes where fair queues have widths:

* Collection reads hold at most a part of the places (``Ceilings.collection``), also while nobody
  else wants them: a place once given comes back only when its list has ended, so a share that held
  only in need would be gone when the need came. The rest are nearly always free for a write.
* Where both lanes wait, a place that comes free goes to the lane that holds less of its part, to
  the one that waited longer if both hold as much. So neither starves, whatever the other does.

A COLLECTION job that is a watch-list holds its place until its objects have been sent (``began``);
from there on it is a LONG one. The ceiling of LONG is looked at when it comes, for once it has
begun there is nobody to refuse: those that were waiting then may exceed it.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from apiguard.upstream.balancer import candidates, pick
from apiguard.upstream.endpoint import Ceilings, Endpoint, Lane
from apiguard.upstream.kind import Kind

J = TypeVar("J")
C = TypeVar("C")

_FIRST = (Lane.EXEMPT, Lane.LONG)
"""Who gets a connection first; then those who share places. LONG waits for a connection only."""


class Verdict(enum.Enum):
    """What became of a job that got no connection at once."""

    QUEUED = "queued"
    UNAVAILABLE = "unavailable"  # no endpoint can be reached
    FULL = "full"  # ceilings and queue are reached


@dataclass(frozen=True, slots=True)
class Limits:
    """Places per endpoint; jobs waiting per lane, and for how long."""

    ceilings: Ceilings
    waiting: int = 1_000
    waiting_seconds: float = 15.0


class Opening(NamedTuple):
    """A connection to open; ends in ``opened`` or ``open_failed``.

    ``counted``: a waiting job relies on it. One that tries a failing endpoint is not, so its job
    goes elsewhere at the same time.
    """

    endpoint: Endpoint
    kind: Kind
    lane: Lane
    counted: bool


class Plan(NamedTuple, Generic[J, C]):
    """What to do now: jobs that use these connections, and connections to open."""

    assign: list[tuple[J, C]]
    open: list[Opening]


class _Waiting(NamedTuple, Generic[J]):
    job: J
    deadline: float


# A plain tuple: one is built per request, and a named one costs 0.3 us more.
_Use = tuple[Endpoint, Kind, Lane]


class Pool(Generic[J, C]):
    """Connections of all kinds to all endpoints."""

    __slots__ = (
        "_ceilings",
        "_covered",
        "_idle",
        "_limits",
        "_parts",
        "_queues",
        "_rng",
        "_use",
        "endpoints",
        "waiting",
    )

    def __init__(self, endpoints: Sequence[Endpoint], limits: Limits, rng: random.Random) -> None:
        self.endpoints = tuple(endpoints)
        self.waiting = 0
        self._limits = limits
        self._ceilings = ceilings = limits.ceilings
        # What ORDINARY and COLLECTION are entitled to when both want more.
        self._parts = (max(1, ceilings.ordinary - ceilings.collection), ceilings.collection)
        self._rng = rng
        self._idle: tuple[dict[Endpoint, list[tuple[C, float]]], ...] = tuple(
            {e: [] for e in self.endpoints} for _ in Kind
        )
        self._use: dict[C, _Use] = {}
        self._queues: tuple[tuple[deque[_Waiting[J]], ...], ...] = tuple(
            tuple(deque() for _ in Kind) for _ in Lane
        )
        self._covered: tuple[list[int], ...] = tuple([0 for _ in Kind] for _ in Lane)

    @property
    def size(self) -> int:
        """Connections, in use and idle."""
        stacks = (stack for idle in self._idle for stack in idle.values())
        return len(self._use) + sum(len(stack) for stack in stacks)

    # -- jobs --------------------------------------------------------------------------------

    def submit(self, job: J, kind: Kind, lane: Lane, now: float) -> C | Verdict:
        """An idle connection, now in use by ``job``, or what became of it."""
        queues = self._queues[lane]
        if not (queues[0] or queues[1]):
            endpoint = self._pick(lane, now)
            if endpoint is not None:
                if self._idle[kind][endpoint]:
                    return self._take(endpoint, kind, lane, now)
            elif not self._reachable(now):
                return Verdict.UNAVAILABLE
            elif lane is Lane.LONG:
                return Verdict.FULL
        elif lane is Lane.LONG and len(queues[0]) + len(queues[1]) >= self._room(lane, now):
            return Verdict.FULL
        if len(queues[0]) + len(queues[1]) + self._ahead(lane) >= self._limits.waiting:
            return Verdict.FULL
        queues[kind].append(_Waiting(job, now + self._limits.waiting_seconds))
        self.waiting += 1
        return Verdict.QUEUED

    def _ahead(self, lane: Lane) -> int:
        """Jobs of another lane that count in the bound of ``lane``: no line of collection reads
        keeps others from waiting, but not the other way round."""
        if lane is not Lane.COLLECTION:
            return 0
        return sum(map(len, self._queues[Lane.ORDINARY]))

    def withdraw(self, job: J, kind: Kind, lane: Lane) -> None:
        """``job`` no longer wants a connection; no matter whether it was waiting."""
        queue = self._queues[lane][kind]
        for waiting in queue:
            if waiting.job is job:
                queue.remove(waiting)
                self.waiting -= 1
                return

    def expired(self, now: float) -> list[J]:
        """Jobs that waited their time, no longer waiting."""
        late: list[J] = []
        for queues in self._queues:
            for queue in queues:
                while queue and queue[0].deadline <= now:
                    late.append(queue.popleft().job)
        self.waiting -= len(late)
        return late

    def stranded(self, now: float) -> list[J]:
        """The jobs no endpoint is left for, no longer waiting."""
        if not self.waiting or self._reachable(now):
            return []
        jobs = [waiting.job for queues in self._queues for queue in queues for waiting in queue]
        for queues in self._queues:
            for queue in queues:
                queue.clear()
        self.waiting = 0
        return jobs

    def full(self, lane: Lane, now: float) -> bool:
        """Whether no endpoint that can be asked has a place in ``lane``."""
        return self._reachable(now) and self._room(lane, now) <= 0

    def _pick(self, lane: Lane, now: float) -> Endpoint | None:
        if len(self.endpoints) == 1:  # the usual sidecar; spares building a list per request
            only = self.endpoints[0]
            return only if only.has_room(lane, self._ceilings) and only.usable(now) else None
        return pick(self.endpoints, lane, self._ceilings, now, self._rng)

    def _reachable(self, now: float) -> bool:
        return any(e.usable(now) or (e.connecting and not e.drained) for e in self.endpoints)

    def _room(self, lane: Lane, now: float) -> int:
        """Jobs of ``lane`` that could still be given a connection."""
        ceiling = self._ceilings[lane]
        asked = [e for e in self.endpoints if e.connecting and not e.drained]
        asked += [e for e in candidates(self.endpoints, now) if e not in asked]
        return sum(ceiling - e.active[lane] for e in asked)

    def _take(self, endpoint: Endpoint, kind: Kind, lane: Lane, now: float) -> C:
        connection, _ = self._idle[kind][endpoint].pop()
        endpoint.active[lane] += 1
        self._use[connection] = (endpoint, kind, lane)
        if (endpoint.failures or endpoint.losses) and endpoint.failing:
            endpoint.trying(now)
        return connection

    # -- matching ----------------------------------------------------------------------------

    def plan(self, now: float) -> Plan[J, C]:
        """Everything that can be done for waiting jobs, done as far as the pool is concerned."""
        made: Plan[J, C] = Plan([], [])
        if self.waiting:
            for lane in _FIRST:
                while self._step(lane, now, made):
                    pass
            while self._share(now, made):
                pass
        return made

    def _share(self, now: float, made: Plan[J, C]) -> bool:
        """Gives one place to whoever of ORDINARY and COLLECTION it is due; False for none."""
        first, second = Lane.ORDINARY, Lane.COLLECTION
        since = self._waiting_since(second)
        if since < float("inf"):
            ordinary = self._held(first) * self._parts[1]
            collection = self._held(second) * self._parts[0]
            longer = since < self._waiting_since(first)
            if collection < ordinary or (collection == ordinary and longer):
                first, second = second, first
        return self._step(first, now, made) or self._step(second, now, made)

    def _held(self, lane: Lane) -> int:
        return sum(e.held(lane) for e in self.endpoints)

    def _waiting_since(self, lane: Lane) -> float:
        """The deadline of whoever waits longest in ``lane``; infinite when nobody does."""
        return min((q[0].deadline for q in self._queues[lane] if q), default=float("inf"))

    def _step(self, lane: Lane, now: float, made: Plan[J, C]) -> bool:
        """Serves the job of ``lane`` that waited longest among those that can be; False for none.

        A job is served by an idle connection, or by opening one where none is being opened for it.
        """
        best: tuple[float, Kind, Endpoint | None] | None = None
        for kind in Kind:
            queue = self._queues[lane][kind]
            if not queue:
                continue
            idle = self._with_idle(kind, lane, now)
            covered = self._covered[lane][kind]
            if idle is not None:
                since = queue[0].deadline
            elif covered < len(queue):
                since = queue[covered].deadline
            else:
                continue
            if best is None or since < best[0]:
                best = (since, kind, idle)
        if best is None:
            return False
        _, kind, idle = best
        if idle is not None:
            job = self._queues[lane][kind].popleft().job
            self.waiting -= 1
            made.assign.append((job, self._take(idle, kind, lane, now)))
            return True
        return self._open(lane, kind, now, made)

    def _open(self, lane: Lane, kind: Kind, now: float, made: Plan[J, C]) -> bool:
        endpoint = self._pick(lane, now)
        if endpoint is None:
            return False
        opening = Opening(endpoint, kind, lane, not endpoint.failures)
        endpoint.opening[lane] += 1
        if opening.counted:
            self._covered[lane][kind] += 1
        if endpoint.failing:
            endpoint.trying(now)
        made.open.append(opening)
        return True

    def _with_idle(self, kind: Kind, lane: Lane, now: float) -> Endpoint | None:
        """A candidate with room in ``lane`` and an idle connection of ``kind``."""
        stacks = self._idle[kind]
        if not any(stacks.values()):
            return None
        ready = [
            e
            for e in candidates(self.endpoints, now)
            if stacks[e] and e.has_room(lane, self._ceilings)
        ]
        return min(ready, key=lambda e: e.load, default=None)

    # -- connections -------------------------------------------------------------------------

    def opened(self, opening: Opening, connection: C, now: float) -> None:
        """A connection is there, idle."""
        self._end_opening(opening)
        opening.endpoint.connected()
        self._idle[opening.kind][opening.endpoint].append((connection, now))

    def open_failed(self, opening: Opening, reason: str, now: float) -> None:
        self._end_opening(opening)
        opening.endpoint.failed(reason, now)

    def _end_opening(self, opening: Opening) -> None:
        opening.endpoint.opening[opening.lane] -= 1
        if opening.counted:
            self._covered[opening.lane][opening.kind] -= 1

    def began(self, connection: C) -> None:
        """A watch-list has sent its objects: it gives its place back, and is a watch like any."""
        use = self._use.get(connection)
        if use is not None and use[2] is Lane.COLLECTION:
            endpoint, kind, lane = use
            endpoint.active[lane] -= 1
            endpoint.active[Lane.LONG] += 1
            self._use[connection] = (endpoint, kind, Lane.LONG)

    def released(self, connection: C, now: float) -> None:
        """Its request is over and it can carry another."""
        endpoint, kind, _ = self._end_use(connection)
        self._idle[kind][endpoint].append((connection, now))

    def closed(self, connection: C) -> None:
        """It is gone, in use or idle; no matter whether it was known."""
        if connection in self._use:
            self._end_use(connection)
            return
        for idle in self._idle:
            for stack in idle.values():
                for entry in stack:
                    if entry[0] is connection:
                        stack.remove(entry)
                        return

    def idle_since(self, before: float) -> list[C]:
        """Idle connections unused since ``before``, no longer in the pool."""
        aged: list[C] = []
        for idle in self._idle:
            for endpoint, stack in idle.items():
                aged.extend(connection for connection, since in stack if since < before)
                idle[endpoint] = [entry for entry in stack if entry[1] >= before]
        return aged

    def retire(self, kind: Kind) -> list[C]:
        """Idle connections of ``kind``, no longer in the pool: their certificate was replaced."""
        retired: list[C] = []
        for stack in self._idle[kind].values():
            retired.extend(connection for connection, _ in stack)
            stack.clear()
        return retired

    def _end_use(self, connection: C) -> _Use:
        use = self._use.pop(connection)
        use[0].active[use[2]] -= 1
        return use
