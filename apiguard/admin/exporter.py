"""Totals and reports as Prometheus metrics, made when they are asked for.

Counting costs nothing here: the supervisor's totals are turned into metric families per scrape.
Label values come from the policy, the configuration or fixed lists, so clients cannot add series.
Beyond three for each rule of the policy there are at most 2,000: 500 requests by decision, verb
class and code (``Totals.MAX_SERIES``), 8 for each of at most 64 workers, 6 for each of at most 64
servers, 150 of the admin port's own requests, 210 of the relay's, and some 200 that are fixed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

import apiguard
from apiguard.admin.answers import Answers
from apiguard.admin.families import counter, gauge, histogram
from apiguard.admin.files import AdminFiles
from apiguard.admin.relaymetrics import relay_families
from apiguard.policy.config import Enforcement
from apiguard.policy.overrides import BREAK_GLASS, Action
from apiguard.runtime.fleet import Slot, State
from apiguard.runtime.proc import usage
from apiguard.runtime.supervisor import Supervisor
from apiguard.telemetry import names
from apiguard.telemetry.counters import OVERRIDE
from apiguard.telemetry.names import Metric

MOST_EXPIRIES: Final = 50
"""Overrides whose end is exported, the first to end; there may be ten thousand."""


class Exporter:
    """Everything the guard exports, from one supervisor."""

    def __init__(self, supervisor: Supervisor, files: AdminFiles, answers: Answers) -> None:
        self._supervisor = supervisor
        self._files = files
        self._answers = answers
        self._rendering = asyncio.Lock()

    async def text(self) -> str:
        """The exposition format, version 0.0.4.

        Figures are read on the loop, at one moment; the text is made beside it, since the library
        takes 60 us for each line and a large policy has thousands.
        """
        async with self._rendering:
            families = list(self.collect())
            return await asyncio.get_running_loop().run_in_executor(None, _rendered, families)

    def collect(self) -> Iterator[Family]:
        yield from self._traffic()
        yield from self._workers()
        yield from self._upstream()
        yield from self._processes()
        yield from self._followed()
        yield from self._guard()
        yield from self._overrides()
        yield from self._admin()
        if self._supervisor.config.relay.resources:
            yield from relay_families(self._supervisor, time.monotonic())

    def _traffic(self) -> Iterator[Family]:
        totals = self._supervisor.totals
        yield self._rules()
        requests = counter(names.REQUESTS)
        for series, number in totals.requests.items():
            requests.add_metric(series, number)
        yield requests
        hits = counter(names.BOUND_HITS)
        for bound, number in totals.bounds.items():
            hits.add_metric([bound], number)
        yield hits
        yield histogram(names.GUARD_SECONDS, totals.guard_seconds)
        yield histogram(names.QUEUE_SECONDS, totals.queue_seconds)
        yield histogram(names.UPSTREAM_SECONDS, totals.upstream_seconds)
        yield counter(names.RECEIVED_BYTES, totals.bytes_received)
        yield counter(names.SENT_BYTES, totals.bytes_sent)
        yield counter(names.ACCEPTED, totals.connections)

    def _rules(self) -> Family:
        """Three series for every rule that can decide, used or not; those of a rule that left the
        policy end with it."""
        family = counter(names.RULE_REQUESTS)
        policy = self._supervisor.keeper.active.policy
        rules = [*(rule.flow.name for rule in policy.rules), policy.default.name]
        for rule in dict.fromkeys((*rules, OVERRIDE, BREAK_GLASS)):
            counted = self._supervisor.totals.rules.get(rule, {})
            refused, would = counted.get("refused", 0), counted.get("would_refuse", 0)
            admitted = sum(counted.values()) - refused - would
            for decision, number in zip(
                names.RULE_DECISIONS, (admitted, refused, would), strict=True
            ):
                family.add_metric([rule, decision], number)
        return family

    def _upstream(self) -> Iterator[Family]:
        usable, state = gauge(names.UPSTREAM_USABLE), gauge(names.UPSTREAM_STATE)
        in_flight = gauge(names.UPSTREAM_IN_FLIGHT)
        reports = [slot.mirror.traffic.endpoints for slot in self._supervisor.slots]
        for index, server in enumerate(self._supervisor.prober.servers):
            usable.add_metric([server.url], server.usable)
            for name in names.UPSTREAM_STATES:
                state.add_metric([server.url, name], name == server.state)
            carried = sum(views[index].open for views in reports if index < len(views))
            in_flight.add_metric([server.url], carried)
        yield from (usable, state, in_flight)

    def _followed(self) -> Iterator[Family]:
        rotation, admin = self._supervisor.rotation, self._files
        first: dict[str, float] = {}
        for expiry in (*rotation.expiries, *admin.expiries):
            first[expiry.name] = min(expiry.not_after, first.get(expiry.name, expiry.not_after))
        expires, broken = gauge(names.CERTIFICATE_EXPIRY), gauge(names.FILE_BROKEN)
        for name, not_after in first.items():
            expires.add_metric([name], not_after)
        problems = {**rotation.problems, **admin.problems}
        for name in (*rotation.groups, *admin.settings):
            broken.add_metric([name], name in problems)
        yield from (expires, broken)
        yield counter(names.FILES_REJECTED, rotation.rejected)

    def _workers(self) -> Iterator[Family]:
        now = time.monotonic()
        slots = self._supervisor.slots
        per_worker: tuple[tuple[Metric, Callable[[Slot], float]], ...] = (
            (names.CONNECTIONS, lambda slot: slot.mirror.traffic.connections),
            (names.EXCHANGES, lambda slot: slot.mirror.traffic.exchanges),
            (names.WATCHES, lambda slot: slot.mirror.traffic.watches),
            (names.LOOP_LAG, lambda slot: slot.mirror.loop_lag),
            (names.REPORT_AGE, lambda slot: slot.mirror.age(now) or 0.0),
        )
        for metric, value in per_worker:
            family = gauge(metric)
            for slot in slots:
                family.add_metric([str(slot.index)], value(slot))
            yield family
        yield gauge(names.BUCKETS, sum(slot.mirror.remembered for slot in slots))
        yield gauge(names.WORKERS, len(slots))
        yield gauge(names.WORKERS_READY, sum(slot.state is State.SERVING for slot in slots))
        yield gauge(names.MEMORY_LIMIT, max(slot.mirror.memory_limit for slot in slots))
        yield gauge(names.MEMORY_LEVEL, max(slot.mirror.memory_level for slot in slots))
        restarts = counter(names.WORKER_RESTARTS)
        for cause, number in self._supervisor.restarts.items():
            restarts.add_metric([cause], number)
        yield restarts

    def _processes(self) -> Iterator[Family]:
        pids = {"supervisor": os.getpid()}
        for slot in self._supervisor.slots:
            if slot.worker is not None:
                pids[f"worker-{slot.index}"] = slot.worker.pid
        cpu, memory = counter(names.PROCESS_CPU), gauge(names.PROCESS_MEMORY)
        descriptors = gauge(names.PROCESS_DESCRIPTORS)
        for process, pid in pids.items():
            used = usage(pid)
            if used is not None:
                cpu.add_metric([process], used.cpu_seconds)
                memory.add_metric([process], used.resident_bytes)
                descriptors.add_metric([process], used.descriptors)
        yield from (cpu, memory, descriptors)

    def _overrides(self) -> Iterator[Family]:
        in_force = sorted(self._supervisor.operations.overrides(), key=lambda one: one.expires)
        actions = [str(one.document.get("action", "")) for one in in_force]
        active, ends = gauge(names.OVERRIDES), gauge(names.OVERRIDE_EXPIRY)
        for action in Action:
            active.add_metric([action.value], actions.count(action.value))
        for one, action_name in list(zip(in_force, actions, strict=True))[:MOST_EXPIRIES]:
            ends.add_metric([one.id, action_name], one.expires)
        yield from (active, ends)

    def _admin(self) -> Iterator[Family]:
        operations = self._supervisor.operations
        lines = counter(names.AUDIT_LINES)
        for kind, number in operations.written_lines.items():
            lines.add_metric([kind], number)
        yield lines
        yield counter(names.AUDIT_LINES_LOST, operations.lost_lines)
        yield counter(names.ACTIVITY_ROWS_DROPPED, operations.observing.dropped_rows)
        family = counter(names.ADMIN_REQUESTS)
        for answered, number in self._answers.counts.items():
            family.add_metric(answered, number)
        yield family

    def _guard(self) -> Iterator[Family]:
        supervisor = self._supervisor
        keeper = supervisor.keeper
        yield gauge(names.GENERATION, keeper.active.revision.generation)
        changes = counter(names.POLICY_CHANGES)
        for result, number in keeper.changes.items():
            changes.add_metric([result], number)
        yield changes
        mode = gauge(names.ENFORCEMENT)
        for enforcement in Enforcement:
            mode.add_metric([enforcement.value], enforcement.value == supervisor.enforcement)
        yield mode
        yield gauge(names.START_TIME, supervisor.started_at)
        yield counter(names.LOG_DROPPED, supervisor.log.dropped)
        build = gauge(names.BUILD)
        build.add_metric([apiguard.__version__], 1)
        yield build


class _Collected(Collector):
    """Families that are complete already."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def _rendered(families: Iterable[Family]) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return generate_latest(registry).decode()
