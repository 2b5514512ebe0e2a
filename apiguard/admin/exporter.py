"""Totals and reports as Prometheus metrics, made when they are asked for.

Counting costs nothing here: the supervisor's totals are turned into metric families per scrape.
Label values come from the policy, the configuration or fixed lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

import apiguard
from apiguard.policy.config import Enforcement
from apiguard.runtime.process import resident_bytes
from apiguard.runtime.supervisor import Slot, State, Supervisor
from apiguard.telemetry import names
from apiguard.telemetry.counters import Histogram
from apiguard.telemetry.names import Metric


class Exporter(Collector):
    """Everything the guard exports, from one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        yield from self._traffic()
        yield from self._workers()
        yield from self._upstream()
        yield from self._files()
        yield from self._guard()

    def _traffic(self) -> Iterator[Family]:
        totals = self._supervisor.totals
        requests = _counter(names.REQUESTS)
        for (rule, decision, verb, code), number in totals.requests.items():
            requests.add_metric([rule, decision, verb, str(code)], number)
        yield requests
        hits = _counter(names.BOUND_HITS)
        for bound, number in totals.bounds.items():
            hits.add_metric([bound], number)
        yield hits
        yield _histogram(names.GUARD_SECONDS, totals.guard_seconds)
        yield _histogram(names.UPSTREAM_SECONDS, totals.upstream_seconds)
        yield _counter(names.RECEIVED_BYTES, totals.bytes_received)
        yield _counter(names.SENT_BYTES, totals.bytes_sent)
        yield _counter(names.ACCEPTED, totals.connections)

    def _upstream(self) -> Iterator[Family]:
        usable, state = _gauge(names.UPSTREAM_USABLE), _gauge(names.UPSTREAM_STATE)
        in_flight = _gauge(names.UPSTREAM_IN_FLIGHT)
        reports = [slot.mirror.traffic.endpoints for slot in self._supervisor.slots]
        for index, server in enumerate(self._supervisor.prober.servers):
            usable.add_metric([server.url], server.usable)
            for name in names.UPSTREAM_STATES:
                state.add_metric([server.url, name], name == server.state)
            carried = sum(views[index].open for views in reports if index < len(views))
            in_flight.add_metric([server.url], carried)
        yield from (usable, state, in_flight)

    def _files(self) -> Iterator[Family]:
        rotation = self._supervisor.rotation
        first: dict[str, float] = {}
        for expiry in rotation.expiries:
            first[expiry.name] = min(expiry.not_after, first.get(expiry.name, expiry.not_after))
        expires, broken = _gauge(names.CERTIFICATE_EXPIRY), _gauge(names.FILE_BROKEN)
        for name, not_after in first.items():
            expires.add_metric([name], not_after)
        for name in rotation.groups:
            broken.add_metric([name], name in rotation.problems)
        yield from (expires, broken)
        yield _counter(names.FILES_REJECTED, rotation.rejected)

    def _workers(self) -> Iterator[Family]:
        now = time.monotonic()
        slots = self._supervisor.slots
        per_worker: tuple[tuple[Metric, Callable[[Slot], float]], ...] = (
            (names.CONNECTIONS, lambda slot: slot.mirror.traffic.connections),
            (names.EXCHANGES, lambda slot: slot.mirror.traffic.exchanges),
            (names.WATCHES, lambda slot: slot.mirror.traffic.watches),
            (names.LOOP_LAG, lambda slot: slot.mirror.loop_lag),
            (names.WORKER_MEMORY, lambda slot: slot.mirror.resident),
            (names.REPORT_AGE, lambda slot: slot.mirror.age(now) or 0.0),
        )
        for metric, value in per_worker:
            family = _gauge(metric)
            for slot in slots:
                family.add_metric([str(slot.index)], value(slot))
            yield family
        yield _gauge(names.BUCKETS, sum(slot.mirror.remembered for slot in slots))
        yield _gauge(names.WORKERS, len(slots))
        yield _gauge(names.WORKERS_READY, sum(slot.state is State.SERVING for slot in slots))
        restarts = _counter(names.WORKER_RESTARTS)
        for cause, number in self._supervisor.restarts.items():
            restarts.add_metric([cause], number)
        yield restarts

    def _guard(self) -> Iterator[Family]:
        supervisor = self._supervisor
        keeper = supervisor.keeper
        yield _gauge(names.GENERATION, keeper.active.revision.generation)
        changes = _counter(names.POLICY_CHANGES)
        for result, number in keeper.changes.items():
            changes.add_metric([result], number)
        yield changes
        mode = _gauge(names.ENFORCEMENT)
        for enforcement in Enforcement:
            mode.add_metric([enforcement.value], enforcement.value == supervisor.enforcement)
        yield mode
        yield _gauge(names.SUPERVISOR_MEMORY, resident_bytes())
        yield _gauge(names.START_TIME, supervisor.started_at)
        yield _counter(names.LOG_DROPPED, supervisor.log.dropped)
        build = _gauge(names.BUILD)
        build.add_metric([apiguard.__version__], 1)
        yield build


def _counter(metric: Metric, value: float | None = None) -> CounterMetricFamily:
    name = metric.name.removesuffix("_total")
    return CounterMetricFamily(name, metric.help, value=value, labels=_labels(metric, value))


def _gauge(metric: Metric, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, value=value, labels=_labels(metric, value))


def _labels(metric: Metric, value: float | None) -> tuple[str, ...] | None:
    return metric.labels if value is None else None


def _histogram(metric: Metric, histogram: Histogram) -> HistogramMetricFamily:
    buckets = []
    running = 0
    for bound, count in zip((*histogram.bounds, None), histogram.counts, strict=True):
        running += count
        buckets.append(("+Inf" if bound is None else str(bound), running))
    return HistogramMetricFamily(metric.name, metric.help, buckets=buckets, sum_value=histogram.sum)
