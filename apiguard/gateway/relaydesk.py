"""RelayDesk: what becomes of a request the relay may answer.

    take -> who asks? -> may they? -> is there a cache? -> is it fresh enough? -> list or watch
              |             |              |                    |
           upstream     upstream, 403   wait, 429         wait for a proof, 429

No cached byte goes to anybody before a review allowed exactly this question. Whatever is unclear on
the way goes upstream as it came, with a word for the metric; nothing waits without a deadline.
Sans-IO: lists, watches, reviews and proofs are carried out by a ``Driver``, which hands back what
came of them; ``work`` is called once per turn of the loop, ``tick`` ten times a second.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from apiguard.gateway import replies
from apiguard.gateway.asking import (
    FeedKey,
    Wanted,
    read_accept,
    read_line,
    reads_errors,
    unservable,
)
from apiguard.gateway.decision import Decision, Forward, Serve
from apiguard.gateway.feeds import CATCH_PAUSE, CATCH_SECONDS, Catch, Feed, Level
from apiguard.gateway.serving import Serving
from apiguard.identity.accessreview import Allowed, Denied, Unknown, Verdict
from apiguard.identity.attributes import Question, Questions
from apiguard.identity.authorizer import Authorizer
from apiguard.identity.cases import Waiting, Watched
from apiguard.identity.credentials import bearer_token
from apiguard.identity.forbidden import forbidden_status
from apiguard.identity.proof import Proof, Trust
from apiguard.identity.reviews import ASKED_SECONDS, Reviews
from apiguard.kube.framing import error_frame
from apiguard.kube.groups import BUILT_IN_GROUPS
from apiguard.kube.identity import Caller, Identity
from apiguard.kube.objects import Peeked
from apiguard.kube.requestinfo import RequestInfo
from apiguard.kube.status import Status, resource_version_too_large
from apiguard.memo import Memo
from apiguard.policy.relayconfig import RelayConfig, RelayedResource
from apiguard.relay import listing, watching
from apiguard.relay.bodies import BodyCache
from apiguard.relay.digest import same
from apiguard.relay.freshness import Proof as FreshnessProof
from apiguard.relay.freshness import ProveNarrow
from apiguard.relay.listing import (
    ListQuery,
    PassUpstream,
    ReadConsistently,
    Reading,
    Refuse,
    ServeList,
    WaitFor,
)
from apiguard.relay.selection import Selection
from apiguard.relay.store import WatchCache
from apiguard.relay.watcher import Ending
from apiguard.relay.watching import Begin, BeginExpired, WatchQuery
from apiguard.wire.messages import HeaderBlock, RequestLine

WAIT_SECONDS = 10.0
"""For a cache to fill or a proof to come; then 429."""

TOKEN_SECONDS = 2.0
"""For upstream to confirm a token; then the request goes there itself."""

LONGEST_RETRY = 8
"""Seconds of Retry-After, at most: those turned away together must not come back together."""

WATCH_SECONDS = (1_800.0, 3_600.0)
"""Life of a watch that names no timeoutSeconds, as kube-apiserver draws it."""

REST_SECONDS = {"gone": 60.0, "ceiling": 600.0, "forbidden": 30.0, "unknown": 60.0}
"""How long a resource that cannot be relayed is left alone, by why."""

DIGEST_SECONDS = 300.0
"""Between two comparisons of a cache with upstream."""

FANOUT_SECONDS = 0.5
"""Between two looks at a feed's deadlines and bookmarks."""

LINES_REMEMBERED = 4_096

_TOO_MANY = "too many requests wait for the relay to be ready, please try again later"


class Driver(Protocol):
    """What the desk wishes for."""

    def start(self, feed: Feed) -> None:
        """Find out what the resource is (``discovered``), then fulfil the reflector's wishes."""

    def stop(self, feed: Feed) -> None:
        """Leave the feed alone: what is under way for it is dropped."""

    def prove(self, feed: Feed, proof: FreshnessProof) -> None:
        """Fetch it, then ``proven`` or ``unproven``."""

    def check(self, feed: Feed, revision: int) -> None:
        """Fetch a metadata-only list exactly at ``revision``, then ``checked`` if it came."""

    def reachable(self) -> bool:
        """Whether any API server can be asked."""

    def wake(self) -> None:
        """There is ``work`` for the next turn."""


class _Place:
    """What the desk keeps for one serving until it leaves."""

    __slots__ = ("deadline", "feed", "level", "proving", "question", "resume", "waiting", "watched")

    def __init__(self) -> None:
        self.deadline = 0.0  # 0: waits for nothing, or for somebody who has a deadline
        self.feed: Feed | None = None
        self.question: Question | None = None
        self.waiting: Waiting | None = None
        self.watched: Watched | None = None
        self.level: Level | None = None
        self.proving: Selection | None = None
        self.resume = False


class RelayDesk:
    """The relay of one worker, as sessions see it."""

    def __init__(
        self,
        config: RelayConfig,
        *,
        driver: Driver,
        authorizer: Authorizer,
        reviews: Callable[[], Reviews | None],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.config = config
        self.authorizer = authorizer
        self.bodies = BodyCache(config.bodies_bytes)
        self.feeds: dict[FeedKey, Feed] = {}
        self.bypasses: Counter[str] = Counter()
        self.turn = 0
        self._driver = driver
        self._reviews = reviews
        self._clock = clock
        self._rng = rng
        asked = config.authorization
        self._questions = Questions(
            trust=Trust(local_tokens=asked.local_tokens, anonymous=asked.anonymous),
            ignore_extra=asked.ignore_extra,
        )
        self._settings: Memo[tuple[str, str, str], RelayedResource | bool] = Memo(1_024)
        self._lines: Memo[RequestLine, Wanted | str] = Memo(LINES_REMEMBERED)
        self._confirmed: Memo[Caller, Caller] = Memo(1_024)
        self._places: dict[Serving, _Place] = {}
        self._waiting: dict[Serving, None] = {}  # those of _places with a deadline
        self._ready: deque[Serving] = deque()
        self._fanout_at = 0.0

    # -- what may be the relay's ---------------------------------------------------------------

    def consider(
        self, forward: Forward, line: RequestLine, block: HeaderBlock, proof: Proof
    ) -> Decision:
        """``forward``, or the same with the relay before it."""
        info = forward.info
        if self._settings_of(info) is None:
            return forward
        wanted = self._lines.get(line)
        if wanted is None:
            wanted = read_line(line, info)
            self._lines.put(line, wanted)
        if isinstance(wanted, str):
            if info.verb in ("list", "watch"):
                self.bypasses[wanted] += 1
            return forward
        why = "impersonation" if forward.caller.impersonated is not None else unservable(block)
        if not why:
            accept = block.get(b"accept").decode("latin-1")
            custom = info.api_group not in BUILT_IN_GROUPS
            form = read_accept(accept, watch=wanted.watch, custom=custom)
            if not isinstance(form, str):
                return Serve(forward, wanted, form, proof)
            why = form
        self.bypasses[why] += 1
        return forward

    def _settings_of(self, info: RequestInfo) -> RelayedResource | None:
        key = info.api_group, info.api_version, info.resource
        found = self._settings.get(key)
        if found is None:
            found = self.config.find(*key) or False
            self._settings.put(key, found)
        return found if isinstance(found, RelayedResource) else None

    # -- who asks, and may they ------------------------------------------------------------------

    def take(self, serving: Serving) -> None:
        """A request the relay may answer has arrived."""
        place = self._places[serving] = _Place()
        self._identify(serving, place, self._clock())

    def _identify(self, serving: Serving, place: _Place, now: float) -> None:
        caller, proof = serving.forward.caller, serving.serve.proof
        reviews = self._reviews()
        if reviews is not None and (proof is Proof.LOCAL or proof is Proof.NONE):
            token = bearer_token(serving.block.authorization)
            reviewed = reviews.lookup(token, now) if token else None
            if reviewed is not None and reviewed.identity is not None:
                caller, proof = self._confirm(caller, reviewed.identity), Proof.CONFIRMED
            elif reviewed is not None and not reviewed.shed:
                if reviewed.until <= now + ASKED_SECONDS:  # under way
                    self._await(serving, place, now + TOKEN_SECONDS)
                    return
                proof = Proof.NONE if self._driver.reachable() else proof
        question = self._questions.of(
            caller, proof, serving.info, reachable=self._driver.reachable()
        )
        if isinstance(question, Unknown):
            self._bypass(serving, question.why)
            return
        place.question = question
        place.deadline = 0.0
        self._waiting.pop(serving, None)
        verdict = self.authorizer.ask(question, now, lambda told: self._judged(serving, told))
        if isinstance(verdict, Waiting):
            place.waiting = verdict
        else:
            self._judged(serving, verdict)

    def _confirm(self, caller: Caller, identity: Identity) -> Caller:
        known = self._confirmed.get(caller)
        if known is None or known.identity is not identity:
            known = dataclasses.replace(caller, identity=identity)
            self._confirmed.put(caller, known)
        return known

    def _judged(self, serving: Serving, verdict: Verdict) -> None:
        place = self._places.get(serving)
        if place is None:
            return
        place.waiting = None
        if isinstance(verdict, Allowed):
            self._admit(serving, place)
        elif isinstance(verdict, Denied):
            question = place.question
            assert question is not None
            status = forbidden_status(question.user, serving.info, verdict.reason)
            self._refuse(serving, status, sniff=True)
        else:
            self._bypass(serving, verdict.why)

    # -- is there a cache --------------------------------------------------------------------------

    def _admit(self, serving: Serving, place: _Place) -> None:
        now = self._clock()
        feed = self._feed_of(serving, now)
        feed.used_at = now
        if feed.rests and now < feed.rests_until:
            self._bypass(serving, feed.rests, feed)
            return
        place.feed = feed
        if feed.ready:
            self._answer(serving, place, feed, now)
            return
        if len(self._waiting) >= self.config.waiting:
            self._turn_away(serving)
            return
        feed.filling[serving] = None
        self._await(serving, place, now + WAIT_SECONDS)
        if feed.rests or feed.reflector is None:
            feed.rests = ""
            self._driver.start(feed)

    def _feed_of(self, serving: Serving, now: float) -> Feed:
        wanted = serving.serve.wanted
        key = FeedKey(wanted.group, wanted.version, wanted.resource, serving.serve.form)
        feed = self.feeds.get(key)
        if feed is None:
            settings = self._settings_of(serving.info)
            assert settings is not None
            feed = self.feeds[key] = Feed(key, settings, self.config, now=now)
        return feed

    # -- the answer --------------------------------------------------------------------------------

    def _answer(self, serving: Serving, place: _Place, feed: Feed, now: float) -> None:
        cache = feed.cache
        assert cache is not None
        place.deadline = 0.0
        self._waiting.pop(serving, None)
        stale = b""
        if feed.lost_at and now - feed.lost_at >= 1.0:
            age = int(now - max(cache.refreshed_at, 0.0))
            if age > feed.settings.stale_seconds:
                self._bypass(serving, "stale", feed)
                return
            stale = b'Warning: 299 - "apiguard: the API server is away, %d s old"\r\n' % age
        wanted = serving.serve.wanted
        if wanted.selection.namespace and not cache.spec.namespaced:
            self._bypass(serving, "scope", feed)
        elif wanted.watch:
            self._answer_watch(serving, place, feed, cache, now, stale)
        else:
            self._answer_list(serving, place, feed, cache, now, stale)

    def _fresh(self, serving: Serving, place: _Place, feed: Feed) -> bool:
        if serving.received_at < feed.fresh_since:
            return True
        return place.level is not None and feed.still(place.level)

    def _answer_list(
        self,
        serving: Serving,
        place: _Place,
        feed: Feed,
        cache: WatchCache,
        now: float,
        stale: bytes,
    ) -> None:
        wanted = serving.serve.wanted
        query = listing.parse_list(wanted.query, wanted.selection)
        if isinstance(query, Refuse):
            self._refuse(serving, query.status)
            return
        if isinstance(query, PassUpstream):
            self._bypass(serving, query.reason, feed)
            return
        fresh = self._fresh(serving, place, feed)
        relaxed = fresh or feed.settings.relaxed_reads
        decision = listing.decide_list(query, cache, relaxed=relaxed, upstream=not feed.lost_at)
        if query.reading is Reading.EXACT and not isinstance(decision, ServeList):
            kept = feed.proven(query.revision, query.selection)
            if kept is not None:
                decision = ServeList(query, kept)
        match decision:
            case ServeList():
                self._send_list(serving, place, feed, cache, decision, stale)
            case ReadConsistently():
                self._ask_proof(serving, place, feed, now)
            case WaitFor() if query.reading is Reading.EXACT:
                self._bypass(serving, "future", feed)
            case WaitFor():
                self._wait_for(serving, place, feed, cache, query, now, stale)
            case PassUpstream():
                self._bypass(serving, decision.reason, feed)
            case Refuse():
                self._refuse(serving, decision.status)

    def _wait_for(
        self,
        serving: Serving,
        place: _Place,
        feed: Feed,
        cache: WatchCache,
        query: ListQuery,
        now: float,
        stale: bytes,
    ) -> None:
        """The client knows a later revision than the cache: a proof tells whether anything
        happened since, and whether there is such a revision at all."""
        level = place.level
        if level is None or not feed.still(level):
            self._ask_proof(serving, place, feed, now)
        elif level.revision < query.revision:
            self._refuse(serving, resource_version_too_large(query.revision, level.revision))
        else:
            serve = ServeList(query, cache.snapshot())
            self._send_list(serving, place, feed, cache, serve, stale)

    def _send_list(
        self,
        serving: Serving,
        place: _Place,
        feed: Feed,
        cache: WatchCache,
        serve: ServeList,
        stale: bytes,
    ) -> None:
        level, query = place.level, serve.query
        if level is not None and query.reading is not Reading.EXACT:
            snapshot = serve.snapshot
            if level.revision > snapshot.revision:
                snapshot = snapshot.at(level.revision)
                serve = ServeList(query, snapshot)
                if query.limit:
                    feed.prove(level.revision, query.selection, snapshot)
        feed.counts.lists += 1
        if stale:
            feed.counts.stale += 1
        serving.answer_list(listing.answer(serve, cache, self.bodies), stale)

    def _answer_watch(
        self,
        serving: Serving,
        place: _Place,
        feed: Feed,
        cache: WatchCache,
        now: float,
        stale: bytes,
    ) -> None:
        wanted = serving.serve.wanted
        query = watching.parse_watch(wanted.query, wanted.selection)
        if isinstance(query, Refuse):
            self._refuse(serving, query.status)
            return
        if isinstance(query, PassUpstream):
            self._bypass(serving, query.reason, feed)
            return
        fresh = self._fresh(serving, place, feed) or feed.settings.relaxed_reads
        decision = watching.decide_watch(query, cache, fresh=fresh)
        level = place.level if place.level is not None and feed.still(place.level) else None
        match decision:
            case Begin():
                self._open_watch(serving, place, feed, _raised(decision, level), now, stale)
            case PassUpstream():
                self._bypass(serving, decision.reason, feed)
            case BeginExpired():
                serving.answer_stream(error_frame(decision.status, serving.representation), now)
            case watching.BeginAt() if level is not None:
                self._begin_at(serving, place, feed, cache, query, level, now, stale)
            case _:
                self._ask_proof(serving, place, feed, now)

    def _begin_at(
        self,
        serving: Serving,
        place: _Place,
        feed: Feed,
        cache: WatchCache,
        query: WatchQuery,
        level: Level,
        now: float,
        stale: bytes,
    ) -> None:
        revision = query.revision or 0
        if level.revision < revision:
            status = resource_version_too_large(revision, level.revision)
            serving.answer_stream(error_frame(status, serving.representation), now)
            return
        snapshot = cache.snapshot().at(level.revision)
        begin = Begin(query, snapshot, cache.log.end, level.revision)
        self._open_watch(serving, place, feed, begin, now, stale)

    def _open_watch(
        self, serving: Serving, place: _Place, feed: Feed, begin: Begin, now: float, stale: bytes
    ) -> None:
        question, fanout = place.question, feed.fanout
        assert question is not None
        assert fanout is not None
        watched = self.authorizer.watch(question, now, lambda _: self._revoked(serving))
        if isinstance(watched, Unknown):
            self._bypass(serving, watched.why, feed)
            return
        place.watched = watched
        feed.counts.watches += 1
        seconds = float(begin.query.timeout) or self._rng.uniform(*WATCH_SECONDS)
        serving.answer_watch(fanout, begin, now + seconds, now, stale)

    def _revoked(self, serving: Serving) -> None:
        place = self._places.get(serving)
        if place is None or place.feed is None or place.feed.fanout is None:
            return
        place.watched = None
        if serving.watcher is not None:
            place.feed.fanout.close(serving.watcher, Ending.REVOKED)
            self._driver.wake()

    # -- proofs ------------------------------------------------------------------------------------

    def _ask_proof(self, serving: Serving, place: _Place, feed: Feed, now: float) -> None:
        selection = serving.serve.wanted.selection
        proofs = feed.freshness.ask(selection, serving)
        if proofs is None:
            self._turn_away(serving)
            return
        place.proving = selection
        self._await(serving, place, min(now, serving.received_at + WAIT_SECONDS) + WAIT_SECONDS)
        for proof in proofs:
            feed.counts.proofs += 1
            self._driver.prove(feed, proof)

    def proven(
        self, feed: Feed, proof: FreshnessProof, revision: int, listed: Sequence[Peeked]
    ) -> None:
        """The metadata-only list a proof asked for, consistent at ``revision``."""
        waiters = self._done(feed, proof)
        if not waiters:
            return
        selection = proof.selection if isinstance(proof, ProveNarrow) else Selection()
        catch = Catch(revision, selection, listed, waiters, self._clock() + CATCH_SECONDS)
        if not self._caught(feed, catch):
            feed.catching.append(catch)

    def unproven(self, feed: Feed, proof: FreshnessProof) -> None:
        """There was no answer: upstream tells its readers itself."""
        for serving in self._done(feed, proof):
            self._bypass(serving, "unproven", feed)

    def _done(self, feed: Feed, proof: FreshnessProof) -> list[Serving]:
        waiters, proofs = feed.freshness.done(proof)
        for serving in waiters:
            place = self._places.get(serving)
            if place is not None:
                place.proving = None
        for following in proofs:
            feed.counts.proofs += 1
            self._driver.prove(feed, following)
        return [serving for serving in waiters if serving in self._places]

    def _caught(self, feed: Feed, catch: Catch) -> bool:
        level = feed.level(catch.revision, catch.selection, catch.listed)
        if level is None:
            return False
        for serving in catch.waiters:
            place = self._places.get(serving)
            if place is not None:
                place.level = level
                place.resume = True
                self.soon(serving)
        return True

    # -- what the driver tells ---------------------------------------------------------------------

    def discovered(self, feed: Feed, namespaced: bool) -> None:
        feed.open(namespaced=namespaced, bodies=self.bodies, rng=self._rng)

    def advanced(self, feed: Feed, now: float) -> None:
        """The cache may hold more than before."""
        if feed.filling and feed.ready:
            for serving in feed.filling:
                self._places[serving].resume = True
                self.soon(serving)
            feed.filling.clear()
        if feed.catching:
            feed.catching = [one for one in feed.catching if not self._try_catch(feed, one, now)]

    def _try_catch(self, feed: Feed, catch: Catch, now: float) -> bool:
        cache = feed.cache
        if now < catch.again and (cache is None or cache.revision < catch.revision):
            return False
        catch.again = now + CATCH_PAUSE
        if self._caught(feed, catch):
            return True
        if now < catch.deadline:
            return False
        for serving in catch.waiters:
            self._bypass(serving, "behind", feed)
        return True

    def rested(self, feed: Feed, reason: str, now: float) -> None:
        """The feed stopped by itself: whoever waits for it goes upstream."""
        feed.rests = reason
        feed.rests_until = now + REST_SECONDS.get(reason, 0.0)
        feed.forget()
        waiting = [*feed.filling, *(s for catch in feed.catching for s in catch.waiters)]
        feed.filling.clear()
        feed.catching.clear()
        for serving in waiting:
            self._bypass(serving, reason, feed)

    def checked(self, feed: Feed, revision: int, listed: Sequence[Peeked]) -> bool:
        """Whether the cache held at ``revision`` what upstream did; True where nobody can tell."""
        cache = feed.cache
        snapshot = cache.snapshot_at(revision) if cache is not None and cache.ready else None
        feed.counts.digests += 1
        equal = snapshot is None or same(snapshot, listed)
        feed.counts.mismatches += not equal
        return equal

    # -- turns and time ----------------------------------------------------------------------------

    def soon(self, serving: Serving) -> None:
        self._ready.append(serving)
        self._driver.wake()

    def work(self, until: float) -> bool:
        """Lets those who are ready go on, each by one step, until the clock says ``until``; returns
        whether somebody is left. What they write must be flushed before the next call."""
        self.turn += 1
        for _ in range(len(self._ready)):
            serving = self._ready.popleft()
            place = self._places.get(serving)
            if place is not None:
                try:
                    self._go_on(serving, place)
                except Exception:
                    serving.cut()  # a defect of ours: this one pays for it, nobody else
                    raise
            if self._clock() >= until:
                break
        return bool(self._ready)

    def _go_on(self, serving: Serving, place: _Place) -> None:
        if not place.resume:
            if serving.step():
                self._ready.append(serving)
            return
        place.resume = False
        if place.feed is not None and place.feed.ready:
            self._answer(serving, place, place.feed, self._clock())
        else:
            self._bypass(serving, "unready")

    def tick(self, now: float) -> None:
        """Deadlines, bookmarks, idle caches, digest checks."""
        self.authorizer.tick(now)
        for serving in list(self._waiting):
            place = self._places[serving]
            if place.question is None:
                if now < place.deadline:
                    self._identify_again(serving, place, now)
                else:
                    self._bypass(serving, "unproven")
            elif now >= place.deadline:
                self._turn_away(serving)
        if now - self._fanout_at < FANOUT_SECONDS:
            return
        self._fanout_at = now
        for feed in list(self.feeds.values()):
            self._tick_feed(feed, now)

    def _identify_again(self, serving: Serving, place: _Place, now: float) -> None:
        deadline = place.deadline
        self._identify(serving, place, now)
        if place.question is None and serving in self._waiting:
            place.deadline = deadline

    def _tick_feed(self, feed: Feed, now: float) -> None:
        if feed.fanout is None or feed.rests:
            return
        feed.fanout.tick(now)
        self.advanced(feed, now)
        if feed.watchers:
            feed.used_at = now
        elif now - feed.used_at >= feed.settings.idle_seconds and not feed.filling:
            self._driver.stop(feed)
            assert feed.reflector is not None
            feed.reflector.stop("idle", now)
            self.rested(feed, "idle", now)
            return
        if feed.ready and not feed.lost_at and now >= feed.digest_at:
            if feed.digest_at and feed.cache is not None:
                self._driver.check(feed, feed.cache.revision)
            feed.digest_at = now + DIGEST_SECONDS * self._rng.uniform(0.8, 1.2)

    # -- other ways out ----------------------------------------------------------------------------

    def _await(self, serving: Serving, place: _Place, deadline: float) -> None:
        place.deadline = deadline
        self._waiting[serving] = None

    def _bypass(self, serving: Serving, reason: str, feed: Feed | None = None) -> None:
        self.bypasses[reason] += 1
        if feed is not None:
            feed.counts.bypasses[reason] += 1
        serving.pass_upstream()
        self._driver.wake()

    def _refuse(self, serving: Serving, status: Status, *, sniff: bool = False) -> None:
        if reads_errors(serving.block.get(b"accept").decode("latin-1")):
            serving.refuse_with(status, sniff=sniff)
            self._driver.wake()
        else:
            self._bypass(serving, "accept")

    def _turn_away(self, serving: Serving) -> None:
        self.bypasses["herd"] += 1
        retry = self._rng.randint(1, LONGEST_RETRY)
        serving.refuse(replies.too_busy(_TOO_MANY, retry, serving.error_form))
        self._driver.wake()

    def left(self, serving: Serving) -> None:
        """The serving is over: nothing is kept for it."""
        place = self._places.pop(serving, None)
        if place is None:
            return
        self._waiting.pop(serving, None)
        if place.waiting is not None:
            self.authorizer.give_up(place.waiting)
        if place.watched is not None:
            self.authorizer.close(place.watched)
        feed = place.feed
        if feed is not None:
            feed.filling.pop(serving, None)
            if place.proving is not None:
                feed.freshness.leave(place.proving, serving)


def _raised(begin: Begin, level: Level | None) -> Begin:
    """The same at the proof's revision, so that nobody sees revisions go back."""
    if level is None or begin.query.revision is not None or level.revision <= begin.above:
        return begin
    initial = begin.initial.at(level.revision) if begin.initial is not None else None
    return Begin(begin.query, initial, begin.position, level.revision)
