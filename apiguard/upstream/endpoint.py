"""One API server as the pool sees it: what it carries, and whether it can be asked.

Three voices decide. Probes say whether it is fit (``verdict``; see ``health``). Traffic itself
says more quickly when it is not. A connection that cannot be opened makes it unusable for
``BACKOFF_SECONDS``; requests lost one after the other make it unfit for as long, yet usable where
nobody else is. Afterwards one attempt per backoff tries it again, so that a server which returns
is used within two seconds and one that stays away costs few. And the operator may have drained
it: then it gets no new request at all, whatever else fails.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from apiguard.upstream.health import UNPROBED, Verdict

BACKOFF_SECONDS = 0.5
"""How long after a failed attempt an endpoint is left alone: well below the promised 2 s."""

LOSSES = 3
"""Requests lost in a row, without an answer between, that make it unfit: a server that
closes an idle connection just as a request goes out loses one, now and then."""


class Lane(enum.IntEnum):
    """Traffic that waits in one line. Exempt traffic has places of its own, so that nobody can
    fill them; collection reads have a part of the ordinary ones."""

    ORDINARY = 0  # one object, or none: what takes upstream a millisecond
    EXEMPT = 1
    LONG = 2  # watches and other long-running requests: they hold a connection, not a place
    COLLECTION = 3  # lists, and watch-lists until their objects are there


class Ceilings(NamedTuple):
    """Requests one endpoint may carry at a time, by lane; of ``ordinary`` ones ``collection`` at
    most may read collections."""

    ordinary: int
    exempt: int
    long: int
    collection: int


# Members off their Enum cost 40 ns a look on Python 3.11, globals 10.
_ORDINARY, _COLLECTION = Lane.ORDINARY, Lane.COLLECTION


class State(enum.Enum):
    """An endpoint in one word."""

    FIT = "fit"
    UNFIT = "unfit"  # probes exclude it
    FAILING = "failing"  # traffic found it failing; tried again after the backoff
    DRAINED = "drained"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect. ``tls`` decides the scheme."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


class Endpoint:
    """Load and health of one address.

    ``active[lane]`` counts requests under way, ``opening[lane]`` connections being opened for
    jobs of that lane, whatever their kind; together they never exceed the lane's ceiling, nor
    those of ORDINARY and COLLECTION together that of ORDINARY.
    """

    __slots__ = (
        "active",
        "address",
        "drained",
        "failures",
        "last_error",
        "losses",
        "opening",
        "retry_at",
        "verdict",
    )

    def __init__(self, address: Address) -> None:
        self.address = address
        self.active = [0] * len(Lane)
        self.opening = [0] * len(Lane)
        self.verdict: Verdict = UNPROBED
        self.drained = False
        self.failures = 0
        self.losses = 0
        self.retry_at = 0.0
        self.last_error = ""

    @property
    def load(self) -> int:
        return sum(self.active) + sum(self.opening)

    def held(self, lane: Lane) -> int:
        """Places of ``lane`` that are taken."""
        return self.active[lane] + self.opening[lane]

    def has_room(self, lane: Lane, ceilings: Ceilings) -> bool:
        """Whether one more request of ``lane`` has a place."""
        active, opening = self.active, self.opening
        if active[lane] + opening[lane] >= ceilings[lane]:
            return False
        if lane is _ORDINARY or lane is _COLLECTION:
            # Spelled out: once per request, and a call more each would double its 0.25 us.
            return (
                active[_ORDINARY] + opening[_ORDINARY] + active[_COLLECTION] + opening[_COLLECTION]
                < ceilings[_ORDINARY]
            )
        return True

    @property
    def connecting(self) -> bool:
        return any(self.opening)

    @property
    def failing(self) -> bool:
        """Traffic found it so, and nothing has answered since."""
        return self.failures > 0 or self.losses >= LOSSES

    def usable(self, now: float) -> bool:
        """It may be asked when nothing better is there: it can be connected to, as far as is
        known, or is due for one attempt."""
        if self.failures:
            return not self.drained and now >= self.retry_at and not self.connecting
        return not self.drained

    def fit(self, now: float) -> bool:
        """Usable, and neither probes nor lost requests speak against it."""
        if self.losses >= LOSSES and now < self.retry_at:
            return False
        return self.verdict.fit and self.usable(now)

    def state(self, now: float) -> State:
        if self.drained:
            return State.DRAINED
        if not self.verdict.fit:
            return State.UNFIT
        return State.FAILING if self.failing else State.FIT

    def detail(self) -> str:
        """Why it is in its state: one line, "" for no reason."""
        return self.last_error or self.verdict.detail

    # -- what traffic finds ------------------------------------------------------------------

    def trying(self, now: float) -> None:
        """A failing endpoint is about to be tried; nobody else tries it within the backoff."""
        self.retry_at = now + BACKOFF_SECONDS

    def failed(self, reason: str, now: float) -> None:
        """An attempt to connect failed."""
        self.failures += 1
        self.retry_at = now + BACKOFF_SECONDS
        self.last_error = reason

    def lost(self, now: float) -> None:
        """A request got no answer: its connection ended first."""
        self.losses += 1
        if self.losses >= LOSSES:
            self.retry_at = now + BACKOFF_SECONDS
            self.last_error = f"{self.losses} requests in a row got no answer"

    def connected(self) -> None:
        """A connection was opened; that says nothing of requests that are lost on it."""
        self.failures = 0
        if not self.losses:
            self.last_error = ""

    def answered(self) -> None:
        """A response began."""
        self.failures = 0
        self.losses = 0
        self.last_error = ""
