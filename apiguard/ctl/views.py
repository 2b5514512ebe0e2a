"""Which columns show which answer. Shapes are those of the HTTP API's JSON."""

from __future__ import annotations

import functools

from apiguard.ages import rough
from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.output import Column, View
from apiguard.ctl.reading import age, clock, count, items, number, pick, seconds, share, size, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from apiguard.ctl.output import Row

UNVERIFIED = "(unverified)"


def _of(path: str) -> Any:
    return lambda row: text(row, path)


def _count(path: str) -> Any:
    return lambda row: count(row, path)


# -- who is doing this

DIMENSIONS = ("userAgent", "user", "source", "request")
SORTS = ("requests", "bytes", "upstreamSeconds")
WINDOWS = ("10s", "1m", "10m")


def key_text(row: Row, dimension: str) -> str:
    """One part of a row's key."""
    if dimension == "request":
        return " ".join(filter(None, (text(row, "key.verb"), text(row, "key.resource"))))
    if dimension == "user" and not text(row, "key.user"):
        return UNVERIFIED
    return text(row, f"key.{dimension}")


def _first_seen(row: Row) -> str:
    seen = age(row, "firstSeen")
    return f"NEW {seen}".strip() if pick(row, "new") else seen


def top_view(by: str, sort: str) -> View:
    """``by`` is a dimension or two with a comma; shares are of what is sorted by."""
    dimensions = by.split(",")
    keys = tuple(
        Column(_heading(d), functools.partial(key_text, dimension=d), chosen=True)
        for d in dimensions
    )
    figures = (
        Column("REQUESTS", _count("requests")),
        Column("REQ/S", lambda row: f"{number(row, 'requestsPerSecond'):.1f}"),
        Column("SHARE", lambda row: share(row, f"share.{sort}")),
        Column("REFUSED", _count("refused")),
        Column("BYTES", lambda row: size(row, "bytes")),
        Column("UPSTREAM", lambda row: seconds(row, "upstreamSeconds")),
        Column("UNPAGED", _count("unpagedLists")),
        Column("RV-LESS", _count("rvLessLists")),
        Column("FIRST-SEEN", _first_seen),
        Column("SHARE-BYTES", lambda row: share(row, "share.bytes"), wide=True),
        Column("SHARE-UPSTREAM", lambda row: share(row, "share.upstreamSeconds"), wide=True),
    )
    return View(
        lambda answer: items(answer, "rows"),
        (*keys, *figures),
        lambda row: tuple(key_text(row, d) for d in dimensions),
        "No requests in this window.",
    )


def _heading(dimension: str) -> str:
    return {"userAgent": "USER-AGENT"}.get(dimension, dimension.upper())


# -- the guard


def _ready(row: Row) -> str:
    return "yes" if pick(row, "ready") else "no"


def _serving(row: Row) -> str:
    workers = items(row, "workers")
    return f"{sum(w.get('state') == 'serving' for w in workers)}/{len(workers)}"


def _usable(row: Row) -> str:
    servers = items(row, "upstream")
    return f"{sum(bool(s.get('usable')) for s in servers)}/{len(servers)}"


def _summed(field: str) -> Any:
    return lambda row: f"{round(sum(number(w, field) for w in items(row, 'workers')))}"


def _lag(row: Row) -> str:
    lags = [number(w, "loopLagSeconds") for w in items(row, "workers")]
    return f"{max(lags, default=0) * 1000:.0f}ms"


def _memory(row: Row) -> str:
    """``412Mi/1.0Gi`` of the worker that is nearest to its limit, or the largest without limits."""
    workers = items(row, "workers")
    return _resident(max(workers, key=_fullness)) if workers else "-"


def _fullness(worker: Row) -> tuple[float, float]:
    resident, limit = number(worker, "residentBytes"), number(worker, "memoryLimitBytes")
    return (resident / limit if limit else 0.0, resident)


def _resident(worker: Row) -> str:
    resident, limit = size(worker, "residentBytes"), size(worker, "memoryLimitBytes")
    return f"{resident}/{limit}" if number(worker, "memoryLimitBytes") else resident


STATUS = View(
    lambda answer: [answer] if isinstance(answer, dict) else [],
    (
        Column("READY", _ready),
        Column("ENFORCEMENT", _of("enforcement.enforcement")),
        Column("GENERATION", _of("policy.generation")),
        Column("WORKERS", _serving),
        Column("UPSTREAMS", _usable),
        Column("CONNECTIONS", _summed("connections")),
        Column("IN-FLIGHT", _summed("requestsInFlight")),
        Column("LAG", _lag),
        Column("UPTIME", lambda row: rough(number(row, "uptimeSeconds"))),
        Column("VERSION", _of("version")),
        Column("LISTEN", _of("listen.address"), wide=True),
        Column("WATCHES", _summed("watches"), wide=True),
        Column("BUCKETS", _summed("buckets"), wide=True),
        Column("MEMORY", _memory, wide=True),
        Column("POLICY-BY", _of("policy.origin.actor"), wide=True),
        Column("POLICY-WHY", _of("policy.why"), wide=True),
    ),
    lambda row: "",
    "No status.",
)

WEEK = 7 * 86_400

GIVEN_UP = {
    "tight": "new lists and watches are refused",
    "short": "clients that do not read are cut, too",
}
"""What a worker does at a memory level an operator should know of."""


def status_problems(answer: Any) -> list[str]:
    """What of a status an operator should not have to look for."""
    problems = [
        f"check {text(check, 'name')} fails: {text(check, 'reason')}"
        for check in items(answer, "checks")
        if not check.get("passed")
    ]
    problems += [
        f"worker {text(worker, 'worker')}: {text(worker, 'problem')}"
        for worker in items(answer, "workers")
        if worker.get("problem")
    ]
    problems += [
        f"worker {text(worker, 'worker')}: memory is {text(worker, 'memoryLevel')}"
        f" ({_resident(worker)}): {given_up}"
        for worker in items(answer, "workers")
        if (given_up := GIVEN_UP.get(text(worker, "memoryLevel")))
    ]
    problems += [
        f"upstream {text(server, 'server')} is {text(server, 'state')}: {text(server, 'detail')}"
        for server in items(answer, "upstream")
        if not server.get("usable")
    ]
    broken = pick(answer, "brokenFiles", {})
    problems += [f"{name}: {why}" for name, why in broken.items()] if broken else []
    problems += [
        f"certificate {text(c, 'file')} expires in {rough(number(c, 'expiresInSeconds'))}"
        for c in items(answer, "certificates")
        if number(c, "expiresInSeconds") < WEEK
    ]
    return problems


def _decided(decision: str) -> Any:
    return _count(f"requests.{decision}")


def _limit_texts(row: Row) -> str:
    return ", ".join(limit_text(limit) for limit in items(row, "limits"))


def limit_text(limit: Row) -> str:
    """``5/s burst 10 per user`` of a limit."""
    parts = [f"{number(limit, 'requestsPerSecond'):g}/s"]
    if number(limit, "burst"):
        parts.append(f"burst {number(limit, 'burst'):g}")
    if limit.get("per"):
        parts.append(f"per {text(limit, 'per')}")
    return " ".join(parts)


FLOWS = View(
    lambda answer: items(answer, "rules"),
    (
        Column("RULE", _of("rule")),
        Column("MODE", lambda row: "exempt" if pick(row, "exempt") else text(row, "mode")),
        Column("FORWARDED", _decided("forwarded")),
        Column("REFUSED", _decided("refused")),
        Column("WOULD-REFUSE", _decided("wouldRefuse")),
        Column("REJECTED", _decided("rejected")),
        Column("FAILED", _decided("failed")),
        Column(
            "BUCKETS",
            lambda r: f"{sum(int(number(li, 'bucketCount')) for li in items(r, 'limits'))}",
        ),
        Column("LIMITS", _limit_texts, wide=True),
    ),
    lambda row: text(row, "rule"),
    "No rules.",
)


def _bucket_rows(answer: Any) -> list[Row]:
    return [
        {**bucket, "limit": limit.get("limit"), "size": limit.get("burst")}
        for rule in items(answer, "rules")
        for limit in items(rule, "limits")
        for bucket in items(limit, "buckets")
    ]


BUCKETS = View(
    _bucket_rows,
    (
        Column("LIMIT", _of("limit")),
        Column("KEY", lambda row: "/".join(pick(row, "key", [])) or "(one for all)", chosen=True),
        Column("LEVEL", lambda row: f"{number(row, 'level'):.0f}/{number(row, 'size'):g}"),
        Column("ADMITTED", _count("admitted")),
        Column("REFUSED", _count("refused")),
        Column("WOULD-REFUSE", _count("wouldRefuse")),
        Column("LAST-SEEN", lambda row: rough(number(row, "lastSeenSecondsAgo"))),
        Column("BUCKET", _of("bucket"), wide=True),
    ),
    lambda row: text(row, "bucket"),
    "No buckets: nobody has asked under this rule.",
)


def _since(path: str) -> Callable[[Row], str]:
    """How long ago by the seconds at ``path``, "" where there are none: it never happened."""
    return lambda row: "" if pick(row, path) is None else rough(number(row, path))


UPSTREAMS = View(
    lambda answer: items(answer, "upstreams"),
    (
        Column("INDEX", _of("index")),
        Column("SERVER", _of("server")),
        Column("STATE", _of("state")),
        Column("USABLE", _of("usable")),
        Column("DRAINED", _of("drained")),
        Column("IN-FLIGHT", _count("requestsInFlight")),
        Column("PROBED", _since("probedSecondsAgo")),
        Column("DETAIL", _of("detail")),
        Column("PROBES", _of("probes"), wide=True),
    ),
    lambda row: text(row, "index"),
    "No upstream servers.",
)

# -- what was done about it


def match_text(match: Any) -> str:
    """A match in one line: ``userAgents=telemetry/* verbs=list listShape.unpaged``."""
    if not isinstance(match, dict):
        return ""
    parts: list[str] = []
    for field, value in match.items():
        if isinstance(value, dict):
            parts += [
                f"{field}.{key}" + ("" if on is True else f"={on}") for key, on in value.items()
            ]
        else:
            parts.append(f"{field}={_text_of(value)}")
    return " ".join(parts)


def _text_of(value: Any) -> str:
    return ",".join(str(v) for v in value) if isinstance(value, list) else str(value)


def override_target(row: Row) -> str:
    """Whom an override is about, or what it scales."""
    if text(row, "action") != "scale":
        return match_text(row.get("match"))
    return f"{text(row, 'rule') or '(all rules)'} x{number(row, 'factor'):g}"


def _overrides(answer: Any) -> list[Row]:
    if isinstance(answer, dict) and "id" in answer:
        return [answer]
    return items(answer, "overrides")


def _remaining(row: Row) -> str:
    return rough(number(row, "remainingSeconds"))


OVERRIDES = View(
    _overrides,
    (
        Column("ID", _of("id")),
        Column("ACTION", _of("action")),
        Column("TARGET", override_target),
        Column("LIMITS", _limit_texts),
        Column("REFUSED", _count("hits.refused")),
        Column("ADMITTED", _count("hits.admitted")),
        Column("EXPIRES-IN", _remaining),
        Column("BY", _of("actor")),
        Column("REASON", _of("reason")),
        Column("AGE", lambda row: age(row, "created"), wide=True),
        Column("EXPIRES", _of("expires"), wide=True),
        Column("END-WATCHES", _of("endWatches"), wide=True),
        Column("LAST-HIT", _since("hits.lastSecondsAgo"), wide=True),
    ),
    lambda row: text(row, "id"),
    "No overrides.",
)


ENFORCEMENT = View(
    lambda answer: [answer] if isinstance(answer, dict) else [],
    (
        Column("ENFORCEMENT", _of("enforcement")),
        Column("CONFIGURED", _of("configured")),
        Column("OVERRIDE", _of("override")),
    ),
    lambda row: "",
    "No enforcement.",
)

HISTORY = View(
    lambda answer: items(answer, "generations"),
    (
        Column("GENERATION", _of("generation")),
        Column("ACTIVE", _of("active")),
        Column("AGE", lambda row: age(row, "at")),
        Column("BY", _of("actor")),
        Column("ORIGIN", _of("origin")),
        Column("REASON", _of("reason")),
        Column("AT", _of("at"), wide=True),
        Column("DIGEST", _of("digest"), wide=True),
    ),
    lambda row: text(row, "generation"),
    "No generations.",
)

ACTIONS = View(
    lambda answer: items(answer, "events"),
    (
        Column("TIME", lambda row: clock(row, "at")),
        Column("ACTOR", _of("actor")),
        Column("ACTION", _of("action")),
        Column("TARGET", _of("target")),
        Column("REASON", _of("reason")),
        Column("RESULT", _of("result")),
        Column("ROLE", _of("role"), wide=True),
        Column("SOURCE", _of("source"), wide=True),
        Column("BEFORE", _of("before"), wide=True),
        Column("AFTER", _of("after"), wide=True),
    ),
    lambda row: text(row, "id"),
    "No admin actions in this time.",
)

REQUESTS = View(
    lambda answer: items(answer, "events"),
    (
        Column("TIME", lambda row: clock(row, "at")),
        Column("USER", lambda row: text(row, "user") or UNVERIFIED, chosen=True),
        Column("USER-AGENT", _of("userAgent"), chosen=True),
        Column("SOURCE", _of("source")),
        Column("VERB", _of("verb")),
        Column("RESOURCE", _of("resource"), chosen=True),
        Column("CODE", _of("code")),
        Column("DECISION", _of("decision")),
        Column("RULE", _of("rule")),
        Column("NAMESPACE", _of("namespace"), wide=True),
        Column("LIMIT", _of("limit"), wide=True),
        Column("PATH", _of("path"), wide=True),
        Column("AUDIT-ID", _of("auditID"), wide=True),
    ),
    lambda row: (text(row, "at"), text(row, "auditID"), text(row, "user"), text(row, "path")),
    "No sampled requests in this time.",
)

WHOAMI = View(
    lambda answer: [answer] if isinstance(answer, dict) else [],
    (Column("NAME", _of("name")), Column("ROLE", _of("role"))),
    lambda row: "",
    "Nobody.",
)
