"""The supervisor's state as plain values: what operators read, and what readiness means.

Everything is computed from the last reports; ``reportAgeSeconds`` says how old they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import apiguard
from apiguard.admin.files import AdminFiles
from apiguard.gateway.pressure import Level
from apiguard.limiter.flow import Flow, LimitSpec
from apiguard.limiter.table import BucketView
from apiguard.runtime.fleet import Slot, State
from apiguard.runtime.probe import Server
from apiguard.runtime.results import Acks, GenerationView, OverrideView
from apiguard.runtime.rotation import Expiry
from apiguard.runtime.state import Active
from apiguard.runtime.supervisor import Supervisor
from apiguard.telemetry.counters import OVERRIDE_PREFIX, OverrideHits, Totals
from apiguard.telemetry.firstseen import FirstSeen
from apiguard.telemetry.toptalkers import USER, USER_AGENT, Sums, Talker, Top

MEMORY_LEVELS: Final = tuple(level.name.lower() for level in Level)

FRESH_SECONDS: Final = 3.0
"""A worker that reported within this time serves: reports come every 200 ms, a saturated loop
may delay them, a stalled one is replaced much later."""

Value = object


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness; ``reason`` names no address, since anybody may ask."""

    name: str
    passed: bool
    reason: str = ""


def readiness(supervisor: Supervisor, now: float) -> tuple[Check, ...]:
    """Policy, workers, upstream, and not shutting down."""
    serves = any(_serves(slot, now) for slot in supervisor.slots)
    return (
        Check("policy", True),  # the supervisor does not start without one
        Check("workers", serves, "no worker serves"),
        Check("upstream", supervisor.prober.any_usable, "no upstream server is usable"),
        Check("shutdown", not supervisor.draining, "draining"),
    )


def _serves(slot: Slot, now: float) -> bool:
    age = slot.mirror.age(now)
    return slot.state is State.SERVING and age is not None and age < FRESH_SECONDS


def status(supervisor: Supervisor, files: AdminFiles, now: float) -> dict[str, Value]:
    checks = readiness(supervisor, now)
    return {
        "version": apiguard.__version__,
        "startedAt": instant(supervisor.started_at),
        "uptimeSeconds": round(time.time() - supervisor.started_at, 1),
        "ready": all(check.passed for check in checks),
        "checks": [
            {"name": check.name, "passed": check.passed, "reason": _reason(check)}
            for check in checks
        ],
        "enforcement": enforcement(supervisor),
        "policy": policy(supervisor.keeper.active),
        "listen": {
            "address": joined(*supervisor.address),
            "tls": supervisor.config.listen.tls is not None,
        },
        "workers": [_worker(slot, now) for slot in supervisor.slots],
        "restarts": dict(supervisor.restarts),
        "upstream": [_server(server) for server in supervisor.prober.servers],
        "certificates": [
            _certificate(expiry) for expiry in (*supervisor.rotation.expiries, *files.expiries)
        ],
        "brokenFiles": {**supervisor.rotation.problems, **files.problems},
        "keySets": [
            {"usable": not fetcher.detail, "detail": fetcher.detail} for fetcher in supervisor.keys
        ],
        "boundHits": {k: n for k, n in supervisor.totals.bounds.items() if n},
        "logLinesDropped": supervisor.log.dropped,
    }


def _reason(check: Check) -> str:
    return "" if check.passed else check.reason


def _server(server: Server) -> dict[str, Value]:
    return {
        "server": server.url,
        "state": server.state,
        "usable": server.usable,
        "detail": server.health.verdict.detail,
    }


def _certificate(expiry: Expiry) -> dict[str, Value]:
    return {
        "setting": expiry.name,
        "file": expiry.path,
        "subject": expiry.subject,
        "notAfter": instant(expiry.not_after),
        "expiresInSeconds": round(expiry.not_after - time.time()),
    }


# -- upstream servers


def upstreams(supervisor: Supervisor, now: float) -> dict[str, Value]:
    """Every server: what probes found, what workers see, what is under way on it."""
    servers = supervisor.prober.servers
    return {"upstreams": [upstream(supervisor, index, now) for index in range(len(servers))]}


def upstream(supervisor: Supervisor, index: int, now: float) -> dict[str, Value]:
    server = supervisor.prober.servers[index]
    views = [
        (slot.index, slot.mirror.traffic.endpoints[index])
        for slot in supervisor.slots
        if index < len(slot.mirror.traffic.endpoints)
    ]
    age = None if not server.probed_at else round(max(0.0, now - server.probed_at), 3)
    return {
        "index": index,
        **_server(server),
        "condition": server.health.verdict.condition.name.lower(),
        "drained": server.drained,
        "probes": server.health.probes,
        "probedSecondsAgo": age,
        "requestsInFlight": sum(view.open for _, view in views),
        "workers": [
            {"worker": worker, "state": v.state, "requestsInFlight": v.open, "detail": v.detail}
            for worker, v in views
        ],
    }


def server_checks(supervisor: Supervisor) -> tuple[Check, ...]:
    """One line per server for ``/readyz?verbose``: no condition of readiness, since one usable
    server is enough, and no address, since anybody may ask."""
    return tuple(
        Check(f"upstream-{index}", server.usable, f"{server.state}: {_condition(server)}")
        for index, server in enumerate(supervisor.prober.servers)
    )


def _condition(server: Server) -> str:
    return server.health.verdict.condition.name.lower().replace("_", " ")


def enforcement(supervisor: Supervisor) -> dict[str, Value]:
    override = supervisor.keeper.active.revision.enforcement
    return {
        "enforcement": supervisor.enforcement,
        "configured": supervisor.config.enforcement.value,
        "override": override or None,
    }


def policy(active: Active) -> dict[str, Value]:
    revision = active.revision
    return {
        "generation": revision.generation,
        "digest": revision.policy_digest,
        "origin": {
            "kind": revision.origin.kind,
            "name": revision.policy_name,
            "actor": revision.origin.actor,
            "at": instant(revision.origin.at),
        },
        "why": active.why,
        "rules": len(active.policy.rules),
    }


def _worker(slot: Slot, now: float) -> dict[str, Value]:
    mirror = slot.mirror
    age = mirror.age(now)
    return {
        "worker": slot.index,
        "pid": slot.worker.pid if slot.worker else None,
        "state": slot.state.value,
        "policyDigest": slot.digest,
        "reportAgeSeconds": None if age is None else round(age, 3),
        "loopLagSeconds": round(mirror.loop_lag, 4),
        "residentBytes": mirror.resident,
        "memoryLimitBytes": mirror.memory_limit or None,
        "memoryLevel": MEMORY_LEVELS[mirror.memory_level],
        "cpuSeconds": round(mirror.cpu, 2),
        "connections": mirror.traffic.connections,
        "requestsInFlight": mirror.traffic.exchanges,
        "watches": mirror.traffic.watches,
        "buckets": mirror.remembered,
        "problem": slot.failure,
    }


def acknowledged(workers: Acks) -> list[Value]:
    """Which workers carried a change out."""
    return [
        {"worker": one.worker, "applied": not one.problem, "problem": one.problem}
        for one in workers
    ]


# -- what operators changed


def generation(one: GenerationView) -> dict[str, Value]:
    return {
        "generation": one.generation,
        "active": one.active,
        "digest": one.digest,
        "name": one.name,
        "actor": one.actor,
        "at": instant(one.at),
        "reason": one.reason,
        "origin": one.origin,
    }


def override(view: OverrideView, hits: OverrideHits | None, now: float) -> dict[str, Value]:
    """``now`` is monotonic, as the time of the last hit."""
    hits = hits or OverrideHits()
    last = None if hits.last_at is None else round(max(0.0, now - hits.last_at), 1)
    return {
        "id": view.id,
        **view.document,
        "reason": view.reason,
        "actor": view.actor,
        "created": instant(view.created),
        "expires": instant(view.expires),
        "remainingSeconds": round(view.remaining_seconds, 1),
        "endWatches": view.end_watches,
        "endWatchesSeconds": view.end_watches_seconds,
        "hits": {"refused": hits.refused, "admitted": hits.admitted, "lastSecondsAgo": last},
        "workers": acknowledged(view.workers),
    }


# -- who is doing this


def top(found: Top, first_seen: FirstSeen, since: float) -> dict[str, Value]:
    """``since`` is Unix time: whoever was first seen later is new."""
    return {
        "by": found.by,
        "over": found.over,
        "sort": found.sort,
        "seconds": round(found.seconds, 1),
        "totals": _sums(found.totals),
        "rows": [_talker(row, found, first_seen, since) for row in found.rows],
    }


def _sums(sums: Sums) -> dict[str, Value]:
    return {
        "requests": sums.requests,
        "refused": sums.refused,
        "bytes": sums.bytes,
        "upstreamSeconds": round(sums.upstream_seconds, 3),
        "unpagedLists": sums.unpaged,
        "rvLessLists": sums.rv_less,
    }


def _talker(row: Talker, found: Top, first_seen: FirstSeen, since: float) -> dict[str, Value]:
    """Of a pair of names the one that came later counts: before it there was no such pair."""
    names = [(kind, row.key[kind]) for kind in (USER_AGENT, USER) if row.key.get(kind)]
    seen = [first for name in names if (first := first_seen.first(*name)) is not None]
    totals = found.totals
    return {
        "key": row.key,
        **_sums(row.sums),
        "requestsPerSecond": round(row.sums.requests / max(found.seconds, 0.1), 2),
        "share": {
            "requests": _share(row.sums.requests, totals.requests),
            "bytes": _share(row.sums.bytes, totals.bytes),
            "upstreamSeconds": _share(row.sums.upstream_seconds, totals.upstream_seconds),
        },
        "firstSeen": instant(max(seen)) if seen else None,
        "new": any(first_seen.is_new(*name, since) for name in names),
    }


def _share(part: float, whole: float) -> float:
    return round(min(1.0, part / whole), 4) if whole > 0 else 0.0


# -- flows


@dataclass(slots=True)
class _Merged:
    """One bucket over all workers: each holds a part, so parts add up."""

    id: str
    values: tuple[str, ...]
    level: float = 0.0
    admitted: int = 0
    refused: int = 0
    would_refuse: int = 0
    last_seen: float = 0.0

    def add(self, view: BucketView, spec: LimitSpec, now: float) -> None:
        self.level += min(spec.bucket.burst, view.level + (now - view.at) * spec.bucket.rate)
        self.admitted += view.admitted
        self.refused += view.refused
        self.would_refuse += view.would_refuse
        self.last_seen = max(self.last_seen, view.last_seen)


def flows(supervisor: Supervisor, rule: str, most: int, now: float) -> dict[str, Value]:
    """Rules with their buckets: most refused first, at most ``most`` per limit.

    ``rule`` restricts to one rule, "" means all.
    """
    chosen = list(supervisor.operations.policy.flows())
    if rule:
        chosen = [flow for flow in chosen if flow.name == rule]
    wanted = {spec.id: spec for flow in chosen for spec in flow.limits}
    merged = _merge(supervisor.slots, wanted, now)
    return {
        "rules": [
            _flow(flow, _counted(supervisor.totals, flow.name), merged, most, now)
            for flow in chosen
        ]
    }


def _counted(totals: Totals, rule: str) -> Mapping[str, int]:
    """Requests by decision."""
    hits = totals.overrides.get(rule.removeprefix(OVERRIDE_PREFIX))
    if not rule.startswith(OVERRIDE_PREFIX):
        return totals.rules.get(rule, {})
    return {} if hits is None else {"forwarded": hits.admitted, "refused": hits.refused}


def _merge(
    slots: Iterable[Slot], wanted: dict[str, LimitSpec], now: float
) -> dict[str, list[_Merged]]:
    """Buckets by limit id. A level is what all workers' parts hold by now."""
    merged: dict[tuple[str, tuple[str, ...]], _Merged] = {}
    by_limit: dict[str, list[_Merged]] = {}
    for slot in slots:
        for address, view in slot.mirror.buckets.items():
            limit = view.id.partition("!")[0]
            spec = wanted.get(limit)
            if spec is None:
                continue
            bucket = merged.get(address)
            if bucket is None:
                bucket = merged[address] = _Merged(view.id, view.values)
                by_limit.setdefault(limit, []).append(bucket)
            bucket.add(view, spec, now)
    return by_limit


def _flow(
    flow: Flow,
    counts: Mapping[str, int],
    merged: dict[str, list[_Merged]],
    most: int,
    now: float,
) -> dict[str, Value]:
    return {
        "rule": flow.name,
        "mode": flow.mode.value,
        "exempt": flow.exempt,
        "requests": {
            "forwarded": counts.get("forwarded", 0),
            "refused": counts.get("refused", 0),
            "wouldRefuse": counts.get("would_refuse", 0),
            "rejected": counts.get("rejected", 0),
            "failed": counts.get("failed", 0),
        },
        "limits": [_limit(spec, merged.get(spec.id, []), most, now) for spec in flow.limits],
    }


def _limit(spec: LimitSpec, buckets: list[_Merged], most: int, now: float) -> dict[str, Value]:
    buckets.sort(key=lambda b: (b.refused, b.would_refuse, b.admitted), reverse=True)
    return {
        "limit": spec.id,
        "per": [field.value for field in spec.per],
        "requestsPerSecond": spec.bucket.rate,
        "burst": spec.bucket.burst,
        "bucketCount": len(buckets),
        "buckets": [_bucket(bucket, spec, now) for bucket in buckets[:most]],
    }


def _bucket(bucket: _Merged, spec: LimitSpec, now: float) -> dict[str, Value]:
    return {
        "bucket": bucket.id,
        "key": [value.replace("\x00", "") for value in bucket.values],
        "level": round(min(bucket.level, spec.bucket.burst), 3),
        "admitted": bucket.admitted,
        "refused": bucket.refused,
        "wouldRefuse": bucket.would_refuse,
        "lastSeenSecondsAgo": round(max(0.0, now - bucket.last_seen), 1),
    }


def joined(host: str, port: int) -> str:
    """``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def instant(unix: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
