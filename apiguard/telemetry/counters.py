"""Counters of one worker, and their sum over all workers.

A worker increments plain integers (one thread, no locks) and every 200 ms hands over a ``Delta``:
what was added since the last one. The supervisor adds deltas up in ``Totals``. Deltas rather than
totals, because then a worker's death loses at most the last interval and no counter ever goes
down, without remembering who had counted what.

A worker counts by (rule, decision, verb, code): one key, one addition per request. ``Totals`` folds
that product, which would be a series each, into two sums that stay small whatever clients send:
by rule and decision, and by decision, class of verb and code.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from apiguard.telemetry.bounds import BOUNDS

V = TypeVar("V")

RequestKey = tuple[str, str, str, int]
"""(rule, decision, verb, code); code 0 when the client got none (it left, or a tunnel was cut)."""

SeriesKey = tuple[str, str, str]
"""(decision, class of the verb, label of the code)."""

DECISIONS = ("forwarded", "served", "refused", "would_refuse", "rejected", "failed")
"""Answered by upstream; by the relay; refused over a limit; answered but over a limit not enforced;
malformed or not allowed by the guard; no answer from upstream."""

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

VERB_CLASSES: Final[Mapping[str, str]] = {
    "get": "read",
    "head": "read",
    "options": "read",
    "list": "list",
    "watch": "watch",
    **dict.fromkeys(
        ("create", "update", "patch", "delete", "deletecollection", "post", "put"), "mutating"
    ),
}
"""By what a request costs and whether it may be repeated; every other verb is ``other``."""

KNOWN_CODES = frozenset(
    {0, 101, 200, 201, 202, 204, 304, 307, 400, 401, 403, 404, 405, 406, 408, 409, 410, 413, 415}
    | {422, 429, 431, 500, 501, 502, 503, 504}
)
"""What kube-apiserver and the guard answer, 0 for no answer. A proxied pod may answer anything:
other codes are counted by their class, such as ``4xx``."""

OVERRIDE = "override"
OVERRIDE_PREFIX = "override:"
"""Rules an operator laid over the policy are named by this and their id; they come and go, so in
sums by rule they are one, and what each did is kept apart."""

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

QUEUE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds for the wait for a connection upstream; most requests wait for none."""

SAMPLES_PER_DELTA = 1
"""Refusals described in full per delta: at five deltas a second, five log lines a second."""


def code_label(code: int) -> str:
    """``code`` where it is usual, else its class, ``other`` where it has none."""
    if code in KNOWN_CODES:
        return str(code)
    return f"{code // 100}xx" if 100 <= code < 600 else "other"


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

    def take(self) -> tuple[tuple[int, ...], float]:
        """Counts and sum since the last call."""
        taken = tuple(self.counts), self.sum
        self.counts = [0] * len(self.counts)
        self.sum = 0.0
        return taken

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
    queue_counts: tuple[int, ...] = (0,) * (len(QUEUE_BUCKETS) + 1)
    queue_sum: float = 0.0
    upstream_counts: tuple[int, ...] = (0,) * (len(UPSTREAM_BUCKETS) + 1)
    upstream_sum: float = 0.0
    bytes_received: int = 0
    bytes_sent: int = 0
    connections: int = 0
    samples: tuple[RefusalSample, ...] = ()


class Counters:
    """What one worker counts; ``take_delta`` hands it over and begins anew.

    ``bytes_received`` and ``bytes_sent`` are bytes from and to clients after TLS;
    ``connections`` are accepted client connections. ``queue_seconds`` observes only requests that
    had to wait. ``bounds`` alone goes on growing: some are counted elsewhere and set here.
    """

    __slots__ = (
        "_bounds_taken",
        "bounds",
        "bytes_received",
        "bytes_sent",
        "connections",
        "guard_seconds",
        "queue_seconds",
        "requests",
        "sample_budget",
        "samples",
        "upstream_seconds",
    )

    def __init__(self) -> None:
        self.bounds: dict[str, int] = dict.fromkeys(BOUNDS, 0)
        self._bounds_taken = dict(self.bounds)
        self.guard_seconds = Histogram(GUARD_BUCKETS)
        self.queue_seconds = Histogram(QUEUE_BUCKETS)
        self.upstream_seconds = Histogram(UPSTREAM_BUCKETS)
        self._begin()

    def _begin(self) -> None:
        self.requests: dict[RequestKey, int] = {}
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connections = 0
        self.sample_budget = SAMPLES_PER_DELTA
        self.samples: list[RefusalSample] = []

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
        guard_counts, guard_sum = self.guard_seconds.take()
        queue_counts, queue_sum = self.queue_seconds.take()
        upstream_counts, upstream_sum = self.upstream_seconds.take()
        # Who found a connection at once waited for none. Added here, so that the usual request
        # observes one histogram less.
        at_once = sum(guard_counts) - sum(queue_counts)
        delta = Delta(
            requests=self.requests,
            bounds={
                bound: number - self._bounds_taken[bound]
                for bound, number in self.bounds.items()
                if number != self._bounds_taken[bound]
            },
            guard_counts=guard_counts,
            guard_sum=guard_sum,
            queue_counts=(queue_counts[0] + at_once, *queue_counts[1:]),
            queue_sum=queue_sum,
            upstream_counts=upstream_counts,
            upstream_sum=upstream_sum,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            connections=self.connections,
            samples=tuple(self.samples),
        )
        self._bounds_taken = dict(self.bounds)
        self._begin()
        return delta


@dataclass(slots=True)
class OverrideHits:
    """What one override did; ``last_at`` is when last, None for never since the guard started."""

    admitted: int = 0
    refused: int = 0
    last_at: float | None = None

    def add(self, decision: str, number: int, now: float) -> None:
        if decision == "refused":
            self.refused += number
        else:
            self.admitted += number
        self.last_at = now


class Totals:
    """Sum of deltas, from any number of workers and their successors.

    ``rules`` holds requests by rule and decision, ``requests`` by (decision, class of verb, label
    of the code), ``overrides`` what each override did, by id. A rule that left the policy keeps
    its counts (it may come back, and a counter must not start over); of more than ``MAX_RULES``
    names, those not counted for longest go first. ``requests`` beyond ``MAX_SERIES`` keys are
    counted under the code ``other``.
    """

    MAX_RULES = 4_000
    """Twice what a policy may hold."""

    MAX_OVERRIDES = 1_000
    MAX_SERIES = 500
    """About 100 are in use anywhere; the product of all labels is 1,000."""

    __slots__ = (
        "bounds",
        "bytes_received",
        "bytes_sent",
        "connections",
        "guard_seconds",
        "overrides",
        "queue_seconds",
        "requests",
        "rules",
        "upstream_seconds",
    )

    def __init__(self) -> None:
        self.rules: dict[str, dict[str, int]] = {}
        self.requests: dict[SeriesKey, int] = {}
        self.overrides: dict[str, OverrideHits] = {}
        self.bounds: dict[str, int] = dict.fromkeys(BOUNDS, 0)
        self.guard_seconds = Histogram(GUARD_BUCKETS)
        self.queue_seconds = Histogram(QUEUE_BUCKETS)
        self.upstream_seconds = Histogram(UPSTREAM_BUCKETS)
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connections = 0

    def add(self, delta: Delta, now: float = 0.0) -> None:
        """``now`` (monotonic) is when it happened, to the interval of a delta.

        Raises ValueError when the delta was made with other histogram buckets; then nothing of it
        is added but times.
        """
        self.guard_seconds.add(delta.guard_counts, delta.guard_sum)
        self.queue_seconds.add(delta.queue_counts, delta.queue_sum)
        self.upstream_seconds.add(delta.upstream_counts, delta.upstream_sum)
        for (rule, said, verb, code), added in delta.requests.items():
            decision = said if said in DECISIONS else "failed"  # a worker's word is only a word
            self._add_to_rule(rule, decision, added, now)
            series = self._series(decision, VERB_CLASSES.get(verb, OTHER_VERB), code_label(code))
            self.requests[series] = self.requests.get(series, 0) + added
        for bound, added in delta.bounds.items():
            if bound in self.bounds:
                self.bounds[bound] += added
        self.bytes_received += delta.bytes_received
        self.bytes_sent += delta.bytes_sent
        self.connections += delta.connections

    def restore(self, rules: Mapping[str, Mapping[str, int]]) -> None:
        """Adds what ``rules`` of an earlier life held."""
        for rule, decisions in rules.items():
            for decision, number in decisions.items():
                self._add_up(rule, decision, number)

    def _add_to_rule(self, rule: str, decision: str, added: int, now: float) -> None:
        if rule.startswith(OVERRIDE_PREFIX):
            name = rule.removeprefix(OVERRIDE_PREFIX)
            _recent(self.overrides, name, OverrideHits, self.MAX_OVERRIDES).add(
                decision, added, now
            )
            rule = OVERRIDE
        if rule:  # malformed and disallowed requests met none
            self._add_up(rule, decision, added)

    def _add_up(self, rule: str, decision: str, added: int) -> None:
        decisions: dict[str, int] = _recent(self.rules, rule, dict, self.MAX_RULES)
        decisions[decision] = decisions.get(decision, 0) + added

    def _series(self, decision: str, verb_class: str, code: str) -> SeriesKey:
        key = (decision, verb_class, code)
        if key in self.requests or len(self.requests) < self.MAX_SERIES:
            return key
        return (decision, verb_class, "other")


def _recent(table: dict[str, V], key: str, new: Callable[[], V], most: int) -> V:
    """``table[key]``, now its last entry; a new one takes the place of the first when full."""
    found = table.pop(key, None)
    if found is None:
        if len(table) >= most:
            del table[next(iter(table))]
        found = new()
    table[key] = found
    return found
