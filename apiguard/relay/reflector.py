"""Reflector: keeps one cache in step with upstream. Wishes out, upstream's answers in.

::

             list                     list or events
  PENDING ---------> READY <---------------------------+
     ^                 |  watch ends: resume from the   |
     |                 |  last revision; 410: relist ---+
     |                 |  and tell the difference
     |                 |-- contradicted --> DOUBTED -- list: filled anew --> READY
     +-- start ---- STOPPED <-- idle, gone, too large

READY stays READY while upstream is away: what is held stays true for its revision, and how old it
may be is for whoever serves it to judge (``WatchCache.refreshed_at``). A cache that was never
filled is never asked, one in doubt neither. Whatever contradicts the past (lower revisions, a
digest that differs, an object that cannot have been missed) ends every stream with 410 and begins
anew. Modelled on client-go's tools/cache/reflector.go; unlike it, a lost watch never leads to a
list where resuming will do.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterable
from dataclasses import dataclass

from apiguard.kube.framing import EventType, RawEvent, error_code
from apiguard.kube.lists import ListEnvelope
from apiguard.kube.objects import ObjectError
from apiguard.relay.fanout import Fanout
from apiguard.relay.gathering import Gathering
from apiguard.relay.store import BackwardsError, ContinuityError, WatchCache

FIRST_BACKOFF = 0.25
"""Seconds before the second attempt; doubled each time, with up to as much again at random."""
LONGEST_BACKOFF = 8.0
QUIET = 120.0
"""Seconds without a failure after which waiting begins small again; it also does after a watch
that was of use for longer than the longest wait."""
EMPTY_WATCH = 1.0
"""A watch that ends sooner without an event counts as a failure, or two servers that disagree
would keep each other busy."""
LAGGING_LISTS = 5
"""Lists not older than the last revision that may fail with 504 before upstream is asked for its
most recent state, whatever that is: another replica may be behind, for seconds."""
SPREAD = 20.0
"""Seconds over which streams end that cannot be continued."""
WATCH_SECONDS = (300, 600)
"""Range of timeoutSeconds asked for, as client-go does."""

_EXPIRED = 410
_NOT_FOUND = 404
_TIMEOUT = 504


class Phase(enum.Enum):
    """What may be expected of the cache."""

    PENDING = "pending"  # nothing yet
    READY = "ready"
    DOUBTED = "doubted"  # what is held may be wrong: nobody is to be answered from it
    STOPPED = "stopped"  # until somebody starts it


@dataclass(frozen=True, slots=True)
class ListFrom:
    """LIST everything: at ``revision`` or newer (resourceVersionMatch NotOlderThan); None: the
    most recent state, resourceVersion unset. Never 0, which may lead back in time."""

    revision: int | None


@dataclass(frozen=True, slots=True)
class WatchFrom:
    """WATCH from ``revision`` with allowWatchBookmarks and this timeoutSeconds."""

    revision: int
    timeout: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for ``seconds``, then call ``resume``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing more until ``start``; ``reason`` is one word for a metric."""

    reason: str


Wish = ListFrom | WatchFrom | Pause | Rest


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought nothing: HTTP ``code``, 0 for a lost or refused connection.
    ``retry_after`` in seconds, 0 where upstream names none."""

    code: int = 0
    retry_after: float = 0.0


class Reflector:
    """One wish is open at a time; the answer to an older one must not be handed in.

    ``lists``, ``watches`` and ``breaks`` count wishes and contradictions, for metrics.
    """

    def __init__(self, cache: WatchCache, fanout: Fanout, rng: random.Random) -> None:
        self.phase = Phase.PENDING
        self.lists = 0
        self.watches = 0
        self.breaks = 0
        self._cache = cache
        self._fanout = fanout
        self._rng = rng
        self._backoff = FIRST_BACKOFF
        self._failed_at = float("-inf")
        self._behind = 0  # lists in a row that upstream could not serve at our revision
        self._relist = False  # the watch cannot be resumed
        self._anew = False  # our revision means nothing to upstream
        self._watched_at = 0.0
        self._heard = False  # the running watch brought something

    @property
    def relisting(self) -> bool:
        """What is held is to be replaced: a list was or will be asked for."""
        return self._relist or self._anew

    # --- what to do -----------------------------------------------------------------------------

    def start(self, now: float) -> Wish:
        """From PENDING or STOPPED."""
        self.phase = Phase.READY if self._cache.ready else Phase.PENDING
        return self._next(now)

    def resume(self, now: float) -> Wish:
        """A pause is over."""
        if now - self._failed_at > QUIET:
            self._backoff = FIRST_BACKOFF
        return self._next(now)

    def stop(self, reason: str, now: float) -> Wish:
        """Frees everything: idle, or the operator's wish. Streams end spread over time."""
        self.phase = Phase.STOPPED
        self._fanout.reset(now, SPREAD)
        self._cache.clear()
        self._relist = self._anew = False
        return Rest(reason)

    def _next(self, now: float) -> Wish:
        if not self._cache.ready or self._anew:
            self.lists += 1
            return ListFrom(None)
        if self._relist:
            self.lists += 1
            return ListFrom(self._cache.revision)
        self.watches += 1
        self._watched_at = now
        self._heard = False
        return WatchFrom(self._cache.revision, self._rng.randint(*WATCH_SECONDS))

    # --- lists ----------------------------------------------------------------------------------

    def listed(self, envelope: ListEnvelope, gathered: Gathering, now: float) -> Wish:
        """A whole list, its items gathered as ``WatchCache.gather`` and ``item`` make them."""
        cache, fanout = self._cache, self._fanout
        try:
            if not cache.ready:
                cache.fill(envelope, gathered, now)
            elif envelope.resource_version < cache.revision:
                if not self._anew:
                    return self._behind_us(now)
                self._refill(envelope, gathered, now, spread=0.0)
            elif self.phase is Phase.DOUBTED:
                self._refill(envelope, gathered, now, SPREAD)
            elif cache.converge(
                envelope,
                gathered,
                now,
                tell=lambda event: fanout.deliver(event, now),
                bridge=lambda events, low, high: fanout.bridge(events, low, high, now, SPREAD),
            ):
                fanout.bookmark(now)
            else:
                self._refill(envelope, gathered, now, SPREAD)
        except ObjectError:
            return self.failed(Failure(), now)
        self._relist = self._anew = False
        self._behind = 0
        self.phase = Phase.READY
        return self._within_ceiling(now) or self._next(now)

    def _refill(
        self, envelope: ListEnvelope, gathered: Gathering, now: float, spread: float
    ) -> None:
        self.breaks += 1
        self._fanout.reset(now, spread)
        self._cache.fill(envelope, gathered, now)

    def _behind_us(self, now: float) -> Wish:
        """Upstream serves less than we know: another replica behind, or a restored storage."""
        self._behind += 1
        if self._behind >= LAGGING_LISTS:
            self._anew = True
        return self._pause(0.0, now)

    def _within_ceiling(self, now: float) -> Wish | None:
        if self._cache.size <= self._cache.spec.ceiling:
            return None
        return self.stop("ceiling", now)

    # --- watches --------------------------------------------------------------------------------

    def received(self, events: Iterable[RawEvent], now: float) -> Wish | None:
        """Events of the running watch, in order. None: go on watching. Otherwise the watch is to
        be dropped and the wish fulfilled."""
        cache, fanout = self._cache, self._fanout
        for raw in events:
            if raw.type is EventType.ERROR:
                return self.failed(Failure(error_code(raw, cache.spec.representation)), now)
            try:
                event = cache.apply(raw, now)
            except BackwardsError:
                return self.contradicted(now)
            except (ContinuityError, ObjectError):
                return self._broken(now)
            self._heard = True
            if event is not None:
                fanout.deliver(event, now)
        return self._within_ceiling(now)

    def _broken(self, now: float) -> Wish:
        """Something was missed: only a list can tell what."""
        self.breaks += 1
        self._relist = True
        return self._pause(0.0, now)

    def ended(self, now: float) -> Wish:
        """The watch ended cleanly: resume where it was, at once unless it was good for nothing."""
        if not self._heard and now - self._watched_at < EMPTY_WATCH:
            return self._pause(0.0, now)
        return self._next(now)

    def failed(self, failure: Failure, now: float) -> Wish:
        """A list or a watch failed, before or in its stream, or its connection was lost."""
        if failure.code == _NOT_FOUND:
            return self.stop("gone", now)
        if failure.code == _EXPIRED:
            if self._relist:
                self._anew = True
            self._relist = True
            return self._next(now)
        if failure.code == _TIMEOUT and self._relist:
            return self._behind_us(now)
        return self._pause(failure.retry_after, now)

    def contradicted(self, now: float) -> Wish:
        """Upstream was seen at a lower revision, or a digest differs from what is held: whatever
        is open is to be dropped. The most recent state decides who is right."""
        self.doubt()
        return self._broken(now)

    def doubt(self) -> None:
        """The same at once, whatever wish is open; its answer is still to be handed in."""
        if self.phase is Phase.READY:
            self.phase = Phase.DOUBTED
            self._anew = True

    def _pause(self, at_least: float, now: float) -> Wish:
        useful, self._heard = self._heard and now - self._watched_at > LONGEST_BACKOFF, False
        if useful or now - self._failed_at > QUIET:
            self._backoff = FIRST_BACKOFF
        self._failed_at = now
        backoff = self._backoff
        self._backoff = min(2 * backoff, LONGEST_BACKOFF)
        return Pause(max(at_least, backoff * (1 + self._rng.random())))
