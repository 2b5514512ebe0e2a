"""Answering: what an allowed reader gets from a ready cache, a list or a watch.

``relay.listing`` and ``relay.watching`` say what a query means for a cache; here that becomes bytes
for one reader, a wait for a proof, a refusal or a way upstream.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from apiguard.gateway.driver import Driver
from apiguard.gateway.feeds import Feed, Level
from apiguard.gateway.lobby import Lobby, Place
from apiguard.gateway.proving import Proving
from apiguard.gateway.serving import Serving
from apiguard.identity.accessreview import Unknown
from apiguard.identity.authorizer import Authorizer
from apiguard.kube.framing import error_frame
from apiguard.kube.status import Status, resource_version_too_large
from apiguard.relay import listing, watching
from apiguard.relay.bodies import BodyCache
from apiguard.relay.listing import (
    ListQuery,
    PassUpstream,
    ReadConsistently,
    Reading,
    Refuse,
    ServeList,
    WaitFor,
)
from apiguard.relay.store import WatchCache
from apiguard.relay.watcher import Ending
from apiguard.relay.watching import Begin, BeginExpired, WatchQuery

WATCH_SECONDS = (1_800.0, 3_600.0)
"""Life of a watch that names no timeoutSeconds, as kube-apiserver draws it."""

LOST_SECONDS = 1.0
"""Upstream is away when it was not heard for longer: a dropped watch resumes within that."""


class _Reader(NamedTuple):
    """One reader before its cache. ``stale`` is a header line, b"" while upstream is heard."""

    serving: Serving
    place: Place
    feed: Feed
    cache: WatchCache
    now: float
    stale: bytes


class Answering:
    """Of one worker's relay; keeps nothing of its own."""

    def __init__(
        self,
        lobby: Lobby,
        *,
        driver: Driver,
        proving: Proving,
        authorizer: Authorizer,
        bodies: BodyCache,
        rng: random.Random,
    ) -> None:
        self._lobby = lobby
        self._driver = driver
        self._proving = proving
        self._authorizer = authorizer
        self._bodies = bodies
        self._rng = rng

    def answer(self, serving: Serving, place: Place, feed: Feed, now: float) -> None:
        """``feed`` is ready; nobody waits afterwards but for a proof."""
        cache = feed.cache
        assert cache is not None
        self._lobby.stop_waiting(serving, place)
        stale = b""
        if feed.lost_at and now - feed.lost_at >= LOST_SECONDS:
            age = int(now - max(cache.refreshed_at, 0.0))
            if age > feed.settings.stale_seconds and not _is_resume(serving):
                self._lobby.bypass(serving, "stale", feed)
                return
            stale = b'Warning: 299 - "apiguard: the API server is away, %d s old"\r\n' % age
        reader = _Reader(serving, place, feed, cache, now, stale)
        serving.warnings = feed.warnings
        wanted = serving.serve.wanted
        if wanted.selection.namespace and not cache.spec.namespaced:
            self._lobby.bypass(serving, "scope", feed)
        elif wanted.watch:
            self._answer_watch(reader)
        else:
            self._answer_list(reader)

    def _fresh(self, reader: _Reader) -> bool:
        if reader.serving.received_at < reader.feed.fresh_since:
            return True
        return _level(reader) is not None

    def _ask_proof(self, reader: _Reader) -> None:
        self._proving.ask(reader.serving, reader.place, reader.feed, reader.now)

    # -- lists ---------------------------------------------------------------------------------

    def _answer_list(self, reader: _Reader) -> None:
        serving, _, feed, cache, _, _ = reader
        wanted = serving.serve.wanted
        query = listing.parse_list(wanted.query, wanted.selection)
        if isinstance(query, Refuse):
            self._lobby.refuse(serving, query.status)
            return
        if isinstance(query, PassUpstream):
            self._lobby.bypass(serving, query.reason, feed)
            return
        relaxed = self._fresh(reader) or reader.place.relaxed
        decision = listing.decide_list(query, cache, relaxed=relaxed)
        if query.reading is Reading.EXACT and not isinstance(decision, ServeList):
            kept = feed.proven(query.revision, query.selection)
            if kept is not None:
                decision = ServeList(query, kept)
        match decision:
            case ServeList():
                self._send_list(reader, decision)
            case ReadConsistently():
                self._ask_proof(reader)
            case WaitFor() if query.reading is Reading.EXACT:
                self._lobby.bypass(serving, "future", feed)
            case WaitFor():
                self._wait_for(reader, query)
            case PassUpstream():
                self._lobby.bypass(serving, decision.reason, feed)

    def _wait_for(self, reader: _Reader, query: ListQuery) -> None:
        """The client knows a later revision than the cache: a proof tells whether anything
        happened since, and whether there is such a revision at all."""
        level = _level(reader)
        if level is None:
            self._ask_proof(reader)
        elif level.revision < query.revision:
            status = resource_version_too_large(query.revision, level.revision)
            self._lobby.refuse(reader.serving, status)
        else:
            self._send_list(reader, ServeList(query, reader.cache.snapshot()))

    def _send_list(self, reader: _Reader, serve: ServeList) -> None:
        feed, level, query = reader.feed, _level(reader), serve.query
        if level is not None and query.reading is not Reading.EXACT:
            snapshot = serve.snapshot
            if level.revision > snapshot.revision:
                snapshot = snapshot.at(level.revision)
                serve = ServeList(query, snapshot)
                if query.limit:
                    feed.prove(level.revision, query.selection, snapshot)
        feed.counts.readings[query.reading] += 1
        if reader.stale:
            feed.counts.stale += 1
        answer = listing.answer(serve, reader.cache, self._bodies)
        reader.serving.answer_list(answer, reader.stale)

    # -- watches -------------------------------------------------------------------------------

    def _answer_watch(self, reader: _Reader) -> None:
        serving, _, feed, cache, now, _ = reader
        wanted = serving.serve.wanted
        query = watching.parse_watch(wanted.query, wanted.selection)
        if isinstance(query, Refuse):
            self._lobby.refuse(serving, query.status)
            return
        if isinstance(query, PassUpstream):
            self._lobby.bypass(serving, query.reason, feed)
            return
        fresh = self._fresh(reader) or reader.place.relaxed
        decision = watching.decide_watch(query, cache, fresh=fresh)
        level = _level(reader)
        match decision:
            case Begin():
                self._open_watch(reader, _raised(decision, level))
            case PassUpstream():
                self._lobby.bypass(serving, decision.reason, feed)
            case BeginExpired():
                self._refuse_watch(serving, decision.status, now)
            case watching.BeginAt() if level is not None:
                self._begin_at(reader, query, level)
            case _:
                self._ask_proof(reader)

    def _begin_at(self, reader: _Reader, query: WatchQuery, level: Level) -> None:
        serving, cache = reader.serving, reader.cache
        revision = query.revision or 0
        if level.revision < revision:
            status = resource_version_too_large(revision, level.revision)
            self._refuse_watch(serving, status, reader.now)
            return
        snapshot = cache.snapshot().at(level.revision)
        self._open_watch(reader, Begin(query, snapshot, cache.log.end, level.revision))

    def _refuse_watch(self, serving: Serving, status: Status, now: float) -> None:
        """A stream that only says why there is none."""
        self._lobby.refusals[status.code] += 1
        serving.answer_stream(error_frame(status, serving.representation), now)

    def _open_watch(self, reader: _Reader, begin: Begin) -> None:
        serving, place, feed, _, now, stale = reader
        question, fanout = place.question, feed.fanout
        assert question is not None
        assert fanout is not None
        watched = self._authorizer.watch(question, now, self._ender(serving))
        if isinstance(watched, Unknown):
            self._lobby.bypass(serving, watched.why, feed)
            return
        place.watched = watched
        feed.counts.watches += 1
        seconds = float(begin.query.timeout) or self._rng.uniform(*WATCH_SECONDS)
        serving.answer_watch(fanout, begin, now + seconds, now, stale)

    def _ender(self, serving: Serving) -> Callable[[object], None]:
        """Ends the watch when its reader may no longer read."""

        def revoked(_: object) -> None:
            place = self._lobby.places.get(serving)
            if place is None or place.feed is None or place.feed.fanout is None:
                return
            place.watched = None
            if serving.watcher is not None:
                place.feed.fanout.close(serving.watcher, Ending.REVOKED)
                self._driver.wake()

        return revoked


def _is_resume(serving: Serving) -> bool:
    """A watch from a revision shows nothing old: what comes after it is new whenever it comes."""
    query = serving.serve.wanted.query
    plain = query.get("resourceVersion", "0") not in ("", "0") and "sendInitialEvents" not in query
    return serving.is_watch and plain


def _level(reader: _Reader) -> Level | None:
    """What was proven for this reader, while it holds."""
    level = reader.place.level
    return level if level is not None and reader.feed.still(level) else None


def _raised(begin: Begin, level: Level | None) -> Begin:
    """The same at the proof's revision, so that nobody sees revisions go back."""
    if level is None or begin.query.revision is not None or level.revision <= begin.above:
        return begin
    initial = begin.initial.at(level.revision) if begin.initial is not None else None
    return Begin(begin.query, initial, begin.position, level.revision)
