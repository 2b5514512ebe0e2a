"""The relay as metrics: what may be exported of clients' demand without growing with it.

At most 210 series: 60 for the caches asked for first, 49 reasons, 72 by other labels, which
``runtime.relaytotals`` bounds, and the rest fixed. They exist where a relay is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import Metric as Family

from apiguard.admin.families import counter, gauge
from apiguard.admin.relaying import Cache, caches, reports
from apiguard.runtime.relayreport import CacheName, CacheState, Kind
from apiguard.runtime.supervisor import Supervisor
from apiguard.telemetry import names
from apiguard.telemetry.names import Metric

MOST_CACHES: Final = 12
"""Caches with series of their own. Those that were asked for first, so that none comes and goes."""

_PLAIN: Final = (
    (names.RELAY_WATCHES, Kind.WATCHES),
    (names.RELAY_EVENTS, Kind.EVENTS),
    (names.RELAY_STALE_READS, Kind.STALE),
    (names.RELAY_WATCHER_LAGS, Kind.LAGS),
    (names.RELAY_PROOFS, Kind.PROOFS),
    (names.RELAY_DIGESTS, Kind.DIGESTS),
    (names.RELAY_MISMATCHES, Kind.MISMATCHES),
    (names.RELAY_COMPRESSED, Kind.PACKED),
    (names.RELAY_REBUILDS, Kind.BREAKS),
)
_LABELLED: Final = (
    (names.RELAY_LISTS, Kind.LISTS),
    (names.RELAY_BYPASSES, Kind.BYPASSES),
    (names.RELAY_REFUSALS, Kind.REFUSALS),
    (names.RELAY_WAITS, Kind.WAITS),
    (names.RELAY_ENDINGS, Kind.ENDINGS),
    (names.RELAY_REVOCATIONS, Kind.REVOCATIONS),
    (names.RELAY_UPSTREAM, Kind.UPSTREAM),
    (names.RELAY_REVIEWS, Kind.REVIEWS),
    (names.RELAY_VERDICTS, Kind.VERDICTS),
)


def relay_families(supervisor: Supervisor, now: float) -> Iterator[Family]:
    """``now`` is monotonic, as the times in reports."""
    found = caches(supervisor)
    yield from _caches(found, list(supervisor.relay.caches)[:MOST_CACHES], now)
    yield from _together(supervisor, found)
    yield from _counted(supervisor)
    yield from _reviews(supervisor)


def _caches(found: list[Cache], chosen: list[CacheName], now: float) -> Iterator[Family]:
    by_name = {one.name: one for one in found}
    per_cache: tuple[tuple[Metric, Callable[[Cache], float]], ...] = (
        (names.RELAY_CACHE_READY, lambda one: one.worst.state is CacheState.READY),
        (names.RELAY_CACHE_OBJECTS, lambda one: one.objects),
        (names.RELAY_CACHE_BYTES, lambda one: one.bytes["objects"]),
        (names.RELAY_CACHE_LOST, lambda one: one.lost(now)),
        (names.RELAY_CACHE_WATCHERS, lambda one: one.watchers),
    )
    for metric, value in per_cache:
        family = gauge(metric)
        for name in chosen:
            labels = [name.group, name.version, name.resource, name.form]
            family.add_metric(labels, value(by_name.get(name) or Cache(name)))
        yield family


def _together(supervisor: Supervisor, found: list[Cache]) -> Iterator[Family]:
    states = [report.state for one in found for report in one.held.values()]
    states += [CacheState.UNUSED for one in found if not one.held]
    family = gauge(names.RELAY_CACHES)
    for state in CacheState:
        family.add_metric([state.value], states.count(state))
    yield family
    family = gauge(names.RELAY_MEMORY)
    for kind in Cache(_NO_CACHE).bytes:
        family.add_metric([kind], sum(one.bytes[kind] for one in found))
    yield family
    yield gauge(names.RELAY_WATCHERS, sum(one.watchers for one in found))
    yield gauge(names.RELAY_SLOW_WATCHERS, sum(one.slow for one in found))
    waiting = sum(report.waiting for _, report in reports(supervisor.slots))
    yield gauge(names.RELAY_WAITING, waiting)


def _counted(supervisor: Supervisor) -> Iterator[Family]:
    sums = supervisor.relay.of_all
    for metric, kind in _PLAIN:
        yield counter(metric, sums.get((kind, ""), 0))
    for metric, kind in _LABELLED:
        family = counter(metric)
        for (one, label), number in sums.items():
            if one is kind:
                family.add_metric([label], number)
        yield family


def _reviews(supervisor: Supervisor) -> Iterator[Family]:
    states = [report.reviews for _, report in reports(supervisor.slots)]
    budget, lately = sum(one.budget for one in states), sum(one.lately for one in states)
    yield gauge(names.RELAY_BUDGET, budget)
    yield gauge(names.RELAY_BUDGET_USED, lately / budget if budget else 0.0)
    yield gauge(names.RELAY_STRETCH, max((one.stretched for one in states), default=0.0))
    yield gauge(names.RELAY_VERDICTS_HELD, sum(one.held for one in states))
    yield gauge(names.RELAY_WATCH_QUESTIONS, sum(one.watched for one in states))


_NO_CACHE = CacheName("", "", "", "")
