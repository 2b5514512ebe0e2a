"""A case and its rows, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from loadtests.bench.peers.peer import Peer

EVENTS_PER_SECOND = 100.0

FIXED = "loadtests.bench.responder"
PODS = "loadtests.bench.podserver"
"""Upstreams: fixed answers, or a collection of pods that changes when told to."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a case's table: one proxy under one kind of traffic.

    ``label`` defaults to the peer's name; a peer in several rows of a case runs once.
    ``connections`` of the generator, ``seconds`` as a factor of the run's window. ``caller`` is one
    of those the running peer knows; "" sends the tokens of the traffic.

    For relays: ``rate`` changes a second upstream, of the first ``pods``; ``stalled`` of the
    watchers read nothing; ``each_changed``: something changes before every list.
    """

    peer: Peer
    mode: str = "closed"
    traffic: str = "common"
    connections: int = 64
    label: str = ""
    warmup: float = 0.5
    seconds: float = 1.0
    caller: str = ""
    rate: float = 0.0
    pods: int = 0
    stalled: int = 0
    each_changed: bool = False

    @property
    def name(self) -> str:
        return self.label or self.peer.name


@dataclass(frozen=True, slots=True)
class Case:
    """``title`` and ``unit`` are for readers; ``unit`` is what ``cpu_us`` is divided by.

    ``half_load_of`` names the row whose closed-loop throughput, measured once beforehand, is
    halved to give every row the rate of its open loop; "" when the proxy sets the pace.
    ``fresh`` starts new proxies for every round: memory once used is not given back, so a second
    round in the same process would find it cheap. ``rounds`` are those of a run that asks for no
    number: three where a verdict lies near its gate, one where starting is slow or nothing is
    judged; all cases together stay below ten minutes that way.
    """

    name: str
    title: str
    unit: str
    rows: tuple[Row, ...]
    secure: bool = True
    upstream: str = FIXED
    half_load_of: str = ""
    fresh: bool = False
    rounds: int = 2
    columns: tuple[str, ...] = field(default=("cpu_us",))
