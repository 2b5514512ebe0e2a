"""Counters of one worker, and their sum over all workers.

A worker increments plain integers (one thread, no locks) and every 200 ms hands over a ``Delta``:
what was added since the last one. The supervisor adds deltas up in ``Totals``. Deltas rather than
totals, because then a worker's death loses at most the last interval and no counter ever goes
down, without remembering who had counted what.

Label values are bounded by construction: rule names come from the policy, verbs from
``KNOWN_VERBS``, decisions from ``DECISIONS``, codes have three digits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from apiguard.telemetry.bounds import BOUNDS

K = TypeVar("K")

RequestKey = tuple[str, str, str, int]
"""(rule, decision, verb, code); code 0 when the client got none (it left, or a tunnel was cut)."""

DECISIONS = ("forwarded", "refused", "would_refuse", "rejected", "failed")
"""Answered by upstream; refused over a limit; forwarded but over a limit not enforced; malformed
or not allowed by the guard; no answer from upstream."""

OTHER_VERB = "other"
KNOWN_VERBS = frozenset(
    {
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "post",
        "put",
        "head",
        "options",
        "proxy",
    }
)
"""Verbs of resource requests, and HTTP methods in lower case as non-resource requests have them."""

GUARD_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
"""Upper bounds in seconds for the guard's own time: 0.3 ms is the aim, a loop stall is visible."""

UPSTREAM_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds in seconds for upstream's time to first byte: up to its own 60 s deadline."""

SAMPLES_PER_DELTA = 1
"""Refusals described in full per delta: at five deltas a second, five log lines a second."""


def verb_label(verb: str) -> str:
    """``verb`` when it is one of ``KNOWN_VERBS``, else ``other``."""
    return verb if verb in KNOWN_VERBS else OTHER_VERB


class Histogram:
    """Observations in fixed buckets; ``counts[i]`` holds those ``<= bounds[i]``, the last the rest.

    Counts are per bucket, not cumulative: an observation touches one integer.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def add(self, counts: Sequence[int], total: float) -> None:
        """Adds another histogram over the same bounds; raises ValueError on another length."""
        if len(counts) != len(self.counts):
            raise ValueError(f"{len(counts)} histogram buckets where {len(self.counts)} are kept")
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.sum += total


@dataclass(frozen=True, slots=True)
class RefusalSample:
    """One refused request, for the log. Texts are as received: whoever writes them escapes them."""

    rule: str
    limit: str
    verb: str
    target: str
    user: str
    user_agent: str
    source: str
    retry_after: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What a worker counted since its last delta."""

    requests: dict[RequestKey, int] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)
    guard_counts: tuple[int, ...] = (0,) * (len(GUARD_BUCKETS) + 1)
    guard_sum: float = 0.0
    upstream_counts: tuple[int, ...] = (0,) * (len(UPSTREAM_BUCKETS) + 1)
    upstream_sum: float = 0.0
    bytes_received: int = 0
    bytes_sent: int = 0
    connections: int = 0
    samples: tuple[RefusalSample, ...] = ()


class Counters:
    """What one worker counts. Everything only grows.

    ``bytes_received`` and ``bytes_sent`` are bytes from and to clients after TLS;
    ``connections`` are accepted client connections.
    """

    __slots__ = (
        "_sent",
        "bounds",
        "bytes_received",
        "bytes_sent",
        "connections",
        "guard_seconds",
        "requests",
        "sample_budget",
        "samples",
        "upstream_seconds",
    )

    def __init__(self) -> None:
        self.requests: dict[RequestKey, int] = {}
        self.bounds: dict[str, int] = dict.fromkeys(BOUNDS, 0)
        self.guard_seconds = Histogram(GUARD_BUCKETS)
        self.upstream_seconds = Histogram(UPSTREAM_BUCKETS)
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connections = 0
        self.sample_budget = SAMPLES_PER_DELTA
        self.samples: list[RefusalSample] = []
        self._sent = Delta()

    def count(self, rule: str, decision: str, verb: str, code: int) -> None:
        """Counts one finished request; ``verb`` may be anything, it is bounded here."""
        key = (rule, decision, verb if verb in KNOWN_VERBS else OTHER_VERB, code)
        self.requests[key] = self.requests.get(key, 0) + 1

    def hit(self, bound: str) -> None:
        """Counts one hit of a bound named in ``telemetry.bounds``; raises KeyError for others."""
        self.bounds[bound] += 1

    def sample(self, refusal: RefusalSample) -> None:
        """Keeps a refusal for the log while the budget lasts; check ``sample_budget`` first to
        spare building one that would be dropped."""
        if self.sample_budget > 0:
            self.sample_budget -= 1
            self.samples.append(refusal)

    def take_delta(self) -> Delta:
        """What was counted since the previous call; also renews the budget of samples."""
        sent = self._sent
        delta = Delta(
            requests=_grown(self.requests, sent.requests),
            bounds=_grown(self.bounds, sent.bounds),
            guard_counts=_difference(self.guard_seconds.counts, sent.guard_counts),
            guard_sum=self.guard_seconds.sum - sent.guard_sum,
            upstream_counts=_difference(self.upstream_seconds.counts, sent.upstream_counts),
            upstream_sum=self.upstream_seconds.sum - sent.upstream_sum,
            bytes_received=self.bytes_received - sent.bytes_received,
            bytes_sent=self.bytes_sent - sent.bytes_sent,
            connections=self.connections - sent.connections,
            samples=tuple(self.samples),
        )
        self._sent = self._total()
        self.samples.clear()
        self.sample_budget = SAMPLES_PER_DELTA
        return delta

    def _total(self) -> Delta:
        """Everything counted so far, as a delta from nothing."""
        return Delta(
            requests=dict(self.requests),
            bounds=dict(self.bounds),
            guard_counts=tuple(self.guard_seconds.counts),
            guard_sum=self.guard_seconds.sum,
            upstream_counts=tuple(self.upstream_seconds.counts),
            upstream_sum=self.upstream_seconds.sum,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            connections=self.connections,
        )


class Totals:
    """Sum of deltas, from any number of workers and their successors.

    Rules that left the policy keep their counts (a Prometheus counter must not vanish while
    somebody computes its rate) up to ``MAX_SERIES`` keys; beyond, new keys are counted under the
    rule ``other``. Only many renamed rules get there.
    """

    MAX_SERIES = 20_000

    __slots__ = (
        "bounds",
        "bytes_received",
        "bytes_sent",
        "connections",
        "guard_seconds",
        "requests",
        "upstream_seconds",
    )

    def __init__(self) -> None:
        self.requests: dict[RequestKey, int] = {}
        self.bounds: dict[str, int] = dict.fromkeys(BOUNDS, 0)
        self.guard_seconds = Histogram(GUARD_BUCKETS)
        self.upstream_seconds = Histogram(UPSTREAM_BUCKETS)
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connections = 0

    def add(self, delta: Delta) -> None:
        """Raises ValueError when the delta was made with other histogram buckets."""
        self.guard_seconds.add(delta.guard_counts, delta.guard_sum)
        self.upstream_seconds.add(delta.upstream_counts, delta.upstream_sum)
        for key, added in delta.requests.items():
            known = self._known(key)
            self.requests[known] = self.requests.get(known, 0) + added
        for bound, added in delta.bounds.items():
            if bound in self.bounds:
                self.bounds[bound] += added
        self.bytes_received += delta.bytes_received
        self.bytes_sent += delta.bytes_sent
        self.connections += delta.connections

    def _known(self, key: RequestKey) -> RequestKey:
        if key in self.requests or len(self.requests) < self.MAX_SERIES:
            return key
        return ("other", key[1], OTHER_VERB, key[3])


def _grown(now: Mapping[K, int], before: Mapping[K, int]) -> dict[K, int]:
    return {key: n - before.get(key, 0) for key, n in now.items() if n != before.get(key, 0)}


def _difference(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(now, before, strict=True))
