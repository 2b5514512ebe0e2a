"""What ``/v1/relay`` answers, as types; see ``openapi_shapes``."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from apiguard.admin.openapi_shapes import Count, Shape
from apiguard.runtime.relayreport import MOST_STANDOUTS, CacheState

Revision = Annotated[
    str,
    msgspec.Meta(pattern="^[0-9]*$", description='A resourceVersion, "" where nothing is held.'),
]
ByLabel = Annotated[dict[str, Count], msgspec.Meta(description="The most frequent first.")]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Lag(Shape):
    """Of the worker for which it is longest ago; null where it never happened. ``lostSeconds``: how
    long some worker has not heard upstream, 0 while all do."""

    heard_seconds_ago: Seconds | None
    event_seconds_ago: Seconds | None
    proven_seconds_ago: Seconds | None
    lost_seconds: Seconds


class CacheBytes(Shape):
    """Of all workers together; ``indexes`` is an estimate."""

    objects: Count
    indexes: Count
    bodies: Count
    log: Count


class Held(Shape):
    """One cache as one worker holds it."""

    worker: Count
    state: CacheState
    why: str
    objects: Count
    resource_version: Revision
    watchers: Count
    slow_watchers: Count
    waiting: Count


class Cache(Shape):
    """One resource in one form. ``state`` is that of the worker that is worst off, ``objects`` what
    the fullest holds, ``resourceVersion`` the lowest; watchers and waiting requests are those of
    all workers together, and counts those since the guard began, workers that are gone included.

    ``form`` and ``version`` may be empty or ``*`` where nobody has asked for the resource yet.
    """

    name: str
    group: str
    version: str
    resource: str
    form: str
    state: CacheState
    why: str
    objects: Count
    bytes: CacheBytes
    resource_version: Revision
    lag: Lag
    watchers: Count
    slow_watchers: Count
    waiting: Count
    lists: ByLabel
    bypasses: ByLabel
    endings: ByLabel
    upstream: ByLabel
    watches: Count
    events: Count
    stale_reads: Count
    watcher_lags: Count
    proofs: Count
    digests: Count
    digest_mismatches: Count
    rebuilds: Count
    workers: list[Held]


class Reviews(Shape):
    """How the relay asks upstream who may read. ``stretchedSeconds``: by how much the oldest
    verdict in use is overdue."""

    budget_per_second: Seconds
    asked_last_second: Count
    answered: Count
    failed: Count
    queued: Count
    stretched_seconds: Seconds
    verdicts_held: Count
    watch_questions: Count


class Relay(Shape):
    """``waiting`` counts requests that wait for the relay in any worker."""

    enabled: bool
    caches: list[Cache]
    waiting: Count
    refusals: ByLabel
    waits: ByLabel
    bypasses: ByLabel
    revocations: ByLabel
    verdicts: ByLabel
    reviews: Reviews


class Elephant(Shape):
    object: str
    bytes: Count


class HotKey(Shape):
    object: str
    changes_per_minute: Seconds


_FIRST: Final = msgspec.Meta(max_length=MOST_STANDOUTS)


class CacheInDetail(Cache, kw_only=True):
    """With the largest objects and those that change most, as the worker holds them that says so
    most; empty where none holds the resource or answers in time."""

    elephants: Annotated[list[Elephant], _FIRST]
    hot_keys: Annotated[list[HotKey], _FIRST]


class Relayed(Shape):
    """Every form of one resource."""

    resource: str
    caches: list[CacheInDetail]
