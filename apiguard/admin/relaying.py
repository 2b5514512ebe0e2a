"""The relay as its workers report it, put together: one entry per resource and form.

Every worker holds caches of its own, so memory and watchers add up; objects do not, and what is
true of all of them is what is true of the worst. Counts come from ``runtime.relaytotals``, which
remembers workers that are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from apiguard.policy.relayconfig import EVERY, RelayConfig
from apiguard.runtime.control import Standouts
from apiguard.runtime.fleet import Slot
from apiguard.runtime.relayreport import (
    MOST_STANDOUTS,
    CacheName,
    CacheReport,
    CacheState,
    Kind,
    RelayReport,
)
from apiguard.runtime.relaytotals import Sums
from apiguard.runtime.supervisor import Supervisor

INDEX_BYTES: Final = 600
"""What an object costs beside its bytes: key, labels, selectable fields, places in indexes. An
estimate, measured with pods."""

Value = object

_RANK = {state: rank for rank, state in enumerate(CacheState)}
_LABELLED: Final = {
    "lists": Kind.LISTS,
    "bypasses": Kind.BYPASSES,
    "endings": Kind.ENDINGS,
    "upstream": Kind.UPSTREAM,
}
_PLAIN: Final = {
    "watches": Kind.WATCHES,
    "events": Kind.EVENTS,
    "staleReads": Kind.STALE,
    "watcherLags": Kind.LAGS,
    "proofs": Kind.PROOFS,
    "digests": Kind.DIGESTS,
    "digestMismatches": Kind.MISMATCHES,
    "rebuilds": Kind.BREAKS,
}
_OF_ALL: Final = {
    "refusals": Kind.REFUSALS,
    "waits": Kind.WAITS,
    "bypasses": Kind.BYPASSES,
    "revocations": Kind.REVOCATIONS,
    "verdicts": Kind.VERDICTS,
}


@dataclass(slots=True)
class Cache:
    """One cache over all workers: ``held`` by worker; none where nobody has asked for it."""

    name: CacheName
    held: dict[int, CacheReport] = field(default_factory=dict)

    @property
    def worst(self) -> CacheReport:
        """Of the worker whose state speaks for all."""
        unused = CacheReport(self.name, CacheState.UNUSED)
        return min(self.held.values(), key=lambda one: _RANK[one.state], default=unused)

    @property
    def objects(self) -> int:
        return max((one.objects for one in self.held.values()), default=0)

    @property
    def revision(self) -> int:
        """The lowest that any filled cache has reached; 0 without one."""
        return min((one.revision for one in self.held.values() if one.revision), default=0)

    @property
    def bytes(self) -> dict[str, int]:
        """What it costs all workers together."""
        held = self.held.values()
        return {
            "objects": sum(one.bytes for one in held),
            "indexes": sum(one.objects for one in held) * INDEX_BYTES,
            "bodies": sum(one.built for one in held),
            "log": sum(one.logged for one in held),
        }

    @property
    def watchers(self) -> int:
        return sum(one.watchers for one in self.held.values())

    @property
    def slow(self) -> int:
        return sum(one.slow for one in self.held.values())

    @property
    def waiting(self) -> int:
        return sum(one.waiting for one in self.held.values())

    def lost(self, now: float) -> float:
        """Seconds for which some worker has not heard upstream, 0.0 while all do."""
        since = min((one.lost_at for one in self.held.values() if one.lost_at), default=now)
        return max(0.0, now - since)


def reports(slots: Iterable[Slot]) -> list[tuple[int, RelayReport]]:
    """By worker; of workers that have reported."""
    return [(slot.index, slot.mirror.relay) for slot in slots if slot.mirror.relay is not None]


def caches(supervisor: Supervisor) -> list[Cache]:
    """Those that were asked for, then resources that were not, each in order of their names."""
    found: dict[CacheName, Cache] = {}
    for worker, report in reports(supervisor.slots):
        for one in report.caches:
            found.setdefault(one.name, Cache(one.name)).held[worker] = one
    return [found[name] for name in sorted(found)] + _unused(supervisor.config.relay, found)


def _unused(config: RelayConfig, found: Iterable[CacheName]) -> list[Cache]:
    used = {(name.group, name.version, name.resource) for name in found}
    versions = {(group, version, EVERY) for group, version, _ in used}
    named = sorted((one.group, one.version, one.resource) for one in config.resources)
    return [Cache(CacheName(*one, "")) for one in named if one not in used | versions]


def qualified(name: CacheName) -> str:
    """As kubectl takes it: ``deployments.apps``."""
    return f"{name.resource}.{name.group}" if name.group else name.resource


# -- as plain values


def relay(supervisor: Supervisor, now: float) -> dict[str, Value]:
    """Everything at a glance; ``now`` is monotonic."""
    heard, sums = reports(supervisor.slots), supervisor.relay.of_all
    return {
        "enabled": bool(supervisor.config.relay.resources),
        "caches": [cache(supervisor, one, now) for one in caches(supervisor)],
        "waiting": sum(report.waiting for _, report in heard),
        **{key: _by_label(sums, kind) for key, kind in _OF_ALL.items()},
        "reviews": _reviews(supervisor, sums),
    }


def _reviews(supervisor: Supervisor, sums: Sums) -> dict[str, Value]:
    states = [report.reviews for _, report in reports(supervisor.slots)]
    return {
        "budgetPerSecond": round(sum(one.budget for one in states), 3),
        "askedLastSecond": sum(one.lately for one in states),
        "answered": sums.get((Kind.REVIEWS, "answered"), 0),
        "failed": sums.get((Kind.REVIEWS, "failed"), 0),
        "queued": sum(one.queued for one in states),
        "stretchedSeconds": round(max((one.stretched for one in states), default=0.0), 1),
        "verdictsHeld": sum(one.held for one in states),
        "watchQuestions": sum(one.watched for one in states),
    }


def cache(supervisor: Supervisor, one: Cache, now: float) -> dict[str, Value]:
    name, worst = one.name, one.worst
    sums = supervisor.relay.caches.get(name, {})
    held = one.held.values()
    return {
        "name": qualified(name),
        "group": name.group,
        "version": name.version,
        "resource": name.resource,
        "form": name.form,
        "state": worst.state.value,
        "why": worst.why,
        "objects": one.objects,
        "bytes": one.bytes,
        "resourceVersion": _revision(one.revision),
        "lag": {
            "heardSecondsAgo": _ago((report.heard_at for report in held), now),
            "eventSecondsAgo": _ago((report.event_at for report in held), now),
            "provenSecondsAgo": _ago((report.proven_at for report in held), now),
            "lostSeconds": round(one.lost(now), 1),
        },
        "watchers": one.watchers,
        "slowWatchers": one.slow,
        "waiting": one.waiting,
        **{key: _by_label(sums, kind) for key, kind in _LABELLED.items()},
        **{key: sums.get((kind, ""), 0) for key, kind in _PLAIN.items()},
        "workers": [_held(worker, report) for worker, report in sorted(one.held.items())],
    }


def _held(worker: int, report: CacheReport) -> dict[str, Value]:
    return {
        "worker": worker,
        "state": report.state.value,
        "why": report.why,
        "objects": report.objects,
        "resourceVersion": _revision(report.revision),
        "watchers": report.watchers,
        "slowWatchers": report.slow,
        "waiting": report.waiting,
    }


def _revision(revision: int) -> str:
    """A string, as in the Kubernetes API: beyond 2**53 readers of JSON lose digits."""
    return str(revision) if revision else ""


def _ago(times: Iterable[float], now: float) -> float | None:
    """Of the worker for which it is longest ago; None where it never happened."""
    happened = [at for at in times if at]
    return round(max(0.0, now - min(happened)), 1) if happened else None


def _by_label(sums: Mapping[tuple[Kind, str], int], kind: Kind) -> dict[str, int]:
    """The most frequent first."""
    found = [(label, number) for (one, label), number in sums.items() if one is kind and number]
    return dict(sorted(found, key=lambda pair: -pair[1]))


# -- what stands out


def standing_out(answers: Iterable[Standouts]) -> dict[CacheName, dict[str, Value]]:
    """By cache. Workers hold the same objects and see the same changes, so what they say is not
    added up: the highest counts."""
    sizes: dict[CacheName, dict[str, float]] = {}
    rates: dict[CacheName, dict[str, float]] = {}
    for answer in answers:
        for found in answer.caches:
            _raise(sizes.setdefault(found.name, {}), found.largest, 1.0)
            per_minute = 60.0 / max(found.seconds, 0.001)
            _raise(rates.setdefault(found.name, {}), found.busiest, per_minute)
    return {
        name: {
            "elephants": [{"object": key, "bytes": int(n)} for key, n in _first(sizes[name])],
            "hotKeys": [
                {"object": key, "changesPerMinute": round(n, 1)} for key, n in _first(rates[name])
            ],
        }
        for name in sizes
    }


def _raise(highest: dict[str, float], ranked: Iterable[tuple[int, str]], factor: float) -> None:
    for number, key in ranked:
        highest[key] = max(highest.get(key, 0.0), number * factor)


def _first(ranked: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(ranked.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_STANDOUTS]
