"""RelayDesk: what becomes of a request the relay may answer.

    take -> who asks? -> may they? -> is there a cache? -> is it fresh enough? -> list or watch
              |             |              |                    |
           upstream     upstream, 403   wait, 429         wait for a proof, 429

No cached byte goes to anybody before a review allowed exactly this question. Whatever is unclear on
the way goes upstream as it came, with a word for the metric; nothing waits without a deadline.
Sans-IO: lists, watches, reviews and proofs are carried out by a ``Driver``, which hands back what
came of them; ``work`` is called once per turn of the loop, ``tick`` ten times a second.

The way has a file for each stretch: ``eligible``, ``clearance``, ``proving``, ``answering``; here
they are put together, and caches are begun and put to rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from apiguard.gateway.answering import Answering
from apiguard.gateway.asking import FeedKey
from apiguard.gateway.clearance import Clearance
from apiguard.gateway.compressing import Compressing
from apiguard.gateway.decision import Decision, Forward
from apiguard.gateway.driver import Driver
from apiguard.gateway.eligible import Eligible, allows_relaxed
from apiguard.gateway.feedbook import FeedBook
from apiguard.gateway.feeds import UNDEFINED, Definition, Feed
from apiguard.gateway.lobby import Lobby, Place
from apiguard.gateway.proving import Proving
from apiguard.gateway.serving import Serving
from apiguard.identity.attributes import Questions
from apiguard.identity.authorizer import Authorizer
from apiguard.identity.proof import Proof, Trust
from apiguard.identity.reviews import Reviews
from apiguard.kube.objects import Peeked
from apiguard.policy.policy import Policy
from apiguard.policy.relayconfig import RelayConfig
from apiguard.policy.relayrule import RelayUse
from apiguard.relay.bodies import BodyCache
from apiguard.relay.digest import same
from apiguard.relay.freshness import Proof as FreshnessProof
from apiguard.relay.packing import Block, Pack
from apiguard.relay.reflector import Phase
from apiguard.wire.messages import HeaderBlock, RequestLine

REST_SECONDS = {
    "gone": 60.0,
    "ceiling": 600.0,
    "forbidden": 30.0,
    "unknown": 60.0,
    "redefined": 1.0,
}
"""How long a resource that cannot be relayed is left alone, by why. A redefined one because other
API servers learn of it a moment later, and would still list what it was."""

DIGEST_SECONDS = 300.0
"""Between two comparisons of a cache with upstream."""

FANOUT_SECONDS = 0.5
"""Between two looks at a feed's deadlines and bookmarks."""


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
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """``clock`` is monotonic, ``wall`` tells Unix seconds."""
        self.config = config
        self.authorizer = authorizer
        self.bodies = BodyCache(config.bodies_bytes)
        self._book = FeedBook(config)
        self.feeds = self._book.feeds
        self.turn = 0
        self.alone = False
        self._driver = driver
        self._clock = clock
        self._rng = rng
        self._lobby = lobby = Lobby(driver, rng, config.waiting)
        self.bypasses, self.refusals, self.waits = lobby.bypasses, lobby.refusals, lobby.waits
        self._eligible = Eligible(config, lobby.bypasses)
        asked = config.authorization
        self._clearance = Clearance(
            lobby,
            driver=driver,
            authorizer=authorizer,
            questions=Questions(
                trust=Trust(local_tokens=asked.local_tokens, anonymous=asked.anonymous),
                ignore_extra=asked.ignore_extra,
            ),
            reviews=reviews,
            lately_seconds=float(asked.stale_allow_seconds),
            clock=clock,
            wall=wall,
            admit=self._admit,
        )
        self._proving = Proving(lobby, driver, clock, float(config.wait_seconds))
        self._answering = Answering(
            lobby,
            driver=driver,
            proving=self._proving,
            authorizer=authorizer,
            bodies=self.bodies,
            rng=rng,
        )
        self.compressing = Compressing(lobby, driver)
        self._fanout_at = 0.0

    # -- a request -----------------------------------------------------------------------------

    def consider(
        self,
        forward: Forward,
        line: RequestLine,
        block: HeaderBlock,
        proof: Proof,
        policy: Policy,
    ) -> Decision:
        """``forward``, or the same with the relay before it."""
        return self._eligible.consider(forward, line, block, proof, policy)

    @property
    def waiting(self) -> int:
        """Requests that wait for a token, a cache or a proof."""
        return len(self._lobby.waiting)

    def take(self, serving: Serving) -> None:
        """A request the relay may answer has arrived."""
        self._clearance.identify(serving, self._lobby.enter(serving), self._clock())

    def _admit(self, serving: Serving, place: Place) -> None:
        """Its reader may read: now there must be something to read."""
        now = self._clock()
        rule = serving.serve.policy.relaying(serving.info, place.caller)
        if rule.use is RelayUse.BYPASS:
            self._lobby.bypass(serving, "rule")
            return
        feed = self._feed_of(serving, now)
        if isinstance(feed, str):
            self._lobby.bypass(serving, feed)
            return
        place.relaxed = allows_relaxed(rule, feed.settings)
        feed.used_at = now
        if feed.rests and now < feed.rests_until:
            self._lobby.bypass(serving, feed.rests, feed)
            return
        if feed.phase is Phase.DOUBTED:
            self._lobby.bypass(serving, "doubted", feed)
            return
        place.feed = feed
        if feed.ready:
            self._answering.answer(serving, place, feed, now)
            return
        if self._lobby.full:
            self._lobby.turn_away(serving)
            return
        feed.filling[serving] = None
        self._lobby.wait(serving, place, now + self.config.wait_seconds, "cache")
        if feed.rests or feed.reflector is None:
            feed.rests = ""
            self._driver.start(feed)

    def _feed_of(self, serving: Serving, now: float) -> Feed | str:
        """The feed of what is asked for, or why there is none."""
        wanted = serving.serve.wanted
        settings = self._eligible.settings_of(serving.info)
        assert settings is not None
        key = FeedKey(wanted.group, wanted.version, wanted.resource, serving.serve.form)
        return self._book.open(key, settings, now)

    def left(self, serving: Serving) -> None:
        """The serving is over: nothing is kept for it."""
        place = self._lobby.leave(serving)
        if place is None:
            return
        if place.waiting is not None:
            self.authorizer.give_up(place.waiting)
        if place.watched is not None:
            self.authorizer.close(place.watched)
        feed = place.feed
        if feed is not None:
            feed.filling.pop(serving, None)
            if place.proving is not None:
                feed.freshness.leave(place.proving, serving)

    # -- what the driver tells -----------------------------------------------------------------

    def discovered(self, feed: Feed, namespaced: bool, definition: Definition = UNDEFINED) -> None:
        """What the resource is."""
        feed.open(namespaced=namespaced, definition=definition, bodies=self.bodies, rng=self._rng)

    def redefined(self, feed: Feed, now: float) -> None:
        """It is not what it was any more; ``rested`` follows."""
        feed.close(now)

    def advanced(self, feed: Feed, now: float) -> None:
        """The cache may hold more than before."""
        if feed.filling and feed.ready:
            for serving in feed.filling:
                self._lobby.resume(serving)
            feed.filling.clear()
        self._proving.advanced(feed, now)

    def proven(
        self, feed: Feed, proof: FreshnessProof, revision: int, listed: Sequence[Peeked]
    ) -> None:
        """The metadata-only list a proof asked for, consistent at ``revision``."""
        self._proving.proven(feed, proof, revision, listed)

    def unproven(self, feed: Feed, proof: FreshnessProof) -> None:
        """There was no answer to a proof."""
        self._proving.unproven(feed, proof)

    def packed(self, wish: Pack, block: Block | None) -> None:
        """A piece is compressed; None where that failed."""
        self.compressing.done(wish, block)

    def rested(self, feed: Feed, reason: str, now: float) -> None:
        """The feed stopped by itself: whoever waits for it goes upstream, which alone can answer
        what cannot be relayed; where only filling failed, not all of them together."""
        feed.lost_at = 0.0
        feed.unreached = False
        feed.rests = reason
        feed.rests_until = now + REST_SECONDS.get(reason, 0.0)
        feed.forget()
        waiting = [*feed.filling, *(s for catch in feed.catching for s in catch.waiters)]
        feed.filling.clear()
        feed.catching.clear()
        if reason == "failed":
            self._lobby.disperse(waiting, reason, feed)
            return
        for serving in waiting:
            self._lobby.bypass(serving, reason, feed)
        if feed.fanout is None and reason in REST_SECONDS:
            self._book.strike(feed)

    def checked(self, feed: Feed, revision: int, listed: Sequence[Peeked]) -> bool:
        """Whether the cache held at ``revision`` what upstream did; True where nobody can tell."""
        cache = feed.cache
        snapshot = cache.snapshot_at(revision) if cache is not None and cache.ready else None
        feed.counts.digests += 1
        equal = snapshot is None or same(snapshot, listed)
        feed.counts.mismatches += not equal
        return equal

    # -- turns and time ------------------------------------------------------------------------

    def soon(self, serving: Serving) -> None:
        """Another step of sending, in the next turn."""
        self._lobby.soon(serving)

    def pack(self, serving: Serving, wish: Pack) -> None:
        """Another step of sending, when the piece is compressed."""
        self.compressing.want(serving, wish)

    def work(self, until: float) -> bool:
        """Lets a few of those who are ready go on, each by one step, until the clock says
        ``until``; returns whether somebody is left. What they write must be flushed before the
        next call."""
        self.turn += 1
        return self._lobby.work(self._resume, until, self._clock)

    def _resume(self, serving: Serving, place: Place) -> None:
        if place.feed is not None and place.feed.ready:
            self._answering.answer(serving, place, place.feed, self._clock())
        else:
            self._lobby.bypass(serving, "unready")

    def tick(self, now: float) -> None:
        """Deadlines, bookmarks, idle caches, digest checks."""
        self.authorizer.tick(now)
        lobby = self._lobby
        for serving in list(lobby.waiting):
            place = lobby.places[serving]
            if place.question is None:
                self._clearance.identify_again(serving, place, now)
            elif now >= place.deadline:
                lobby.turn_away(serving)
        for feed in self.feeds.values():
            self._proving.tick(feed, now)
        if now - self._fanout_at < FANOUT_SECONDS:
            return
        self._fanout_at = now
        for feed in list(self.feeds.values()):
            self._tick_feed(feed, now)

    def _tick_feed(self, feed: Feed, now: float) -> None:
        if feed.fanout is None:
            return
        feed.fanout.tick(now)  # at rest too: streams are ended one after the other
        if feed.rests:
            return
        self.advanced(feed, now)
        if feed.watchers:
            feed.used_at = now
        elif self._is_idle(feed, now):
            self._driver.stop(feed)
            assert feed.reflector is not None
            feed.reflector.stop("idle", now)
            self.rested(feed, "idle", now)
            return
        if feed.ready and not feed.lost_at and now >= feed.digest_at:
            if feed.digest_at and feed.cache is not None:
                self._driver.check(feed, feed.cache.revision)
            feed.digest_at = now + DIGEST_SECONDS * self._rng.uniform(0.8, 1.2)

    def _is_idle(self, feed: Feed, now: float) -> bool:
        """Not while upstream is away and the cache is all there is to read."""
        if feed.filling or now - feed.used_at < feed.settings.idle_seconds:
            return False
        return not feed.lost_at or now - feed.lost_at > feed.settings.stale_seconds
