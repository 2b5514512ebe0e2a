"""Feed: one cache with everything around it, and who waits for it.

::

    discovered -> reflector fills -> READY: readers are answered
                                     reader must see the latest -> freshness -> proof -> level?
                                       yes: answered at the proof's revision
                                       no: waits until the cache is level (``Catch``)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from apiguard.gateway.asking import FeedKey
from apiguard.gateway.serving import Serving
from apiguard.kube.objects import NO_FIELDS, Peeked, custom_fields, selectable_fields
from apiguard.policy.relayconfig import RelayConfig, RelayedResource
from apiguard.relay.bodies import BodyCache
from apiguard.relay.digest import same_items
from apiguard.relay.eventlog import LogBounds
from apiguard.relay.fanout import Fanout
from apiguard.relay.freshness import Freshness
from apiguard.relay.listing import Reading
from apiguard.relay.reflector import Phase, Reflector
from apiguard.relay.selection import Selection
from apiguard.relay.snapshot import Snapshot, namespace_range
from apiguard.relay.store import CacheSpec, WatchCache

MOST_PROVEN = 64
"""Snapshots kept under revisions that only a proof knows, for lists continued there."""

CATCH_SECONDS = 3.0
"""How long a proven read waits for the cache to be level: as upstream waits for its own."""

CATCH_PAUSE = 0.05
"""Seconds between two comparisons: each walks over what is selected."""


class Definition(NamedTuple):
    """What a CRD says of its resource: what clients may select by (``.spec.color``), and which
    edition of it that is. Objects of two editions may differ under the same revisions."""

    paths: tuple[str, ...]
    edition: str


UNDEFINED = Definition((), "")
"""Of a resource that has none, or none that can be read."""


@dataclass(slots=True)
class Catch:
    """Readers whose proof shows a state the cache has not reached."""

    revision: int
    selection: Selection
    listed: Sequence[Peeked]
    waiters: list[Serving]
    deadline: float
    again: float = 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """The cache was proven to show ``revision`` for a selection, as long as it does not change."""

    revision: int
    epoch: int
    change: int


@dataclass(slots=True)
class FeedCounts:
    """Each only grows. ``readings``: lists answered, by the state they had to show."""

    watches: int = 0
    stale: int = 0
    proofs: int = 0
    digests: int = 0
    mismatches: int = 0
    readings: Counter[Reading] = field(default_factory=Counter)
    bypasses: Counter[str] = field(default_factory=Counter)

    @property
    def lists(self) -> int:
        return self.readings.total()


class Feed:
    """One resource in one form. ``fresh_since``: a consistent list that began then is in the
    cache. ``lost_at``: since when upstream is not heard, 0.0 while it is; ``used_at``: when
    somebody last asked, ``proven_at``: when a proof last found the cache level. ``rests_until``:
    not started again before; ``rests`` says why."""

    def __init__(
        self, key: FeedKey, settings: RelayedResource, relay: RelayConfig, *, now: float
    ) -> None:
        self.key = key
        self.settings = settings
        self.freshness: Freshness[Serving] = Freshness(relay.waiting)
        self.counts = FeedCounts()
        self.filling: dict[Serving, None] = {}
        self.catching: list[Catch] = []
        self.fresh_since = float("-inf")
        self.lost_at = 0.0
        self.unreached = False  # nobody answered at all, since lost_at
        self.used_at = now
        self.digest_at = 0.0
        self.proven_at = 0.0
        self.rests = ""
        self.rests_until = 0.0
        self.cache: WatchCache | None = None
        self.fanout: Fanout | None = None
        self.reflector: Reflector | None = None
        self.definition = UNDEFINED
        self.warnings = b""  # header lines that upstream sends with it, such as of deprecation
        self._relay = relay
        self._proven: dict[tuple[int, Selection], Snapshot] = {}

    def open(
        self, *, namespaced: bool, definition: Definition, bodies: BodyCache, rng: random.Random
    ) -> Reflector:
        """What the resource is has been found out: the cache can be filled."""
        key, relay, paths = self.key, self._relay, definition.paths
        self.definition = definition
        table = NO_FIELDS
        if not key.form.metadata_only:
            known = selectable_fields(key.group, key.resource)
            table = custom_fields(paths) if paths else known
        log = LogBounds(float(relay.log_seconds), relay.log_bytes, relay.log_events)
        spec = CacheSpec(
            key.group,
            key.version,
            key.resource,
            key.form.representation,
            metadata_only=key.form.metadata_only,
            namespaced=namespaced,
            table=table.for_representation(key.form.representation),
            cached_upstream=key.resource != "events",
            ceiling=self.settings.memory_bytes,
            log=log,
        )
        self.cache = WatchCache(spec)
        self.fanout = Fanout(self.cache, bodies, rng)
        self.reflector = Reflector(self.cache, self.fanout, rng)
        return self.reflector

    def close(self, now: float) -> None:
        """What was found out is void. Every stream ends now, as upstream ends them too when a
        resource is defined anew; the next reader begins with a cache of its own."""
        assert self.fanout is not None
        assert self.reflector is not None
        self.fanout.reset(now, 0.0)
        self.reflector.stop("redefined", now)
        self.cache = self.fanout = self.reflector = None

    @property
    def phase(self) -> Phase:
        if self.rests:
            return Phase.STOPPED
        return Phase.PENDING if self.reflector is None else self.reflector.phase

    @property
    def ready(self) -> bool:
        return self.cache is not None and self.cache.ready and self.phase is Phase.READY

    @property
    def forgettable(self) -> bool:
        """Whether it is at rest and nobody waits for it or reads from it."""
        waiting = bool(self.filling or self.catching or len(self.freshness))
        return bool(self.rests) and not waiting and not self.watchers

    @property
    def watchers(self) -> int:
        return 0 if self.fanout is None else len(self.fanout)

    # -- proofs ------------------------------------------------------------------------------

    def level(self, revision: int, selection: Selection, listed: Sequence[Peeked]) -> Level | None:
        """Whether the cache shows what upstream had at ``revision``: it has come that far, or holds
        the same objects in the same versions."""
        cache = self.cache
        if cache is None or not cache.ready:
            return None
        snapshot = cache.snapshot()
        if cache.revision < revision:
            items = snapshot.walk(*namespace_range(selection.namespace))
            if not selection.unselective:
                items = filter(selection.compile(cache.fields), items)
            if not same_items(items, listed):
                return None
        return Level(revision, cache.epoch, snapshot.change)

    def still(self, level: Level) -> bool:
        cache = self.cache
        if cache is None or not cache.ready or cache.epoch != level.epoch:
            return False
        return cache.revision >= level.revision or cache.snapshot().change == level.change

    def prove(self, revision: int, selection: Selection, snapshot: Snapshot) -> None:
        """Keeps what a proof has shown, for pages that follow at its revision."""
        while len(self._proven) >= MOST_PROVEN:
            del self._proven[next(iter(self._proven))]
        self._proven[revision, selection] = snapshot

    def proven(self, revision: int, selection: Selection) -> Snapshot | None:
        return self._proven.get((revision, selection))

    def forget(self) -> None:
        """The cache was emptied or filled anew: what was proven of it is void."""
        self._proven.clear()
