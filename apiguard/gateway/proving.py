"""Proving: readers who must see the latest state wait for one proof together.

A proof shows what upstream had after they came. The cache answers them once it is level with it:
it has come as far, or holds the same objects in the same versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apiguard.gateway.driver import Driver
from apiguard.gateway.feeds import CATCH_PAUSE, CATCH_SECONDS, Catch, Feed
from apiguard.gateway.lobby import Lobby, Place
from apiguard.gateway.serving import Serving
from apiguard.kube.objects import Peeked
from apiguard.relay.freshness import Proof, ProveNarrow
from apiguard.relay.selection import Selection


class Proving:
    """``wait_seconds``: how long a reader waits for a proof, and once more for the cache."""

    def __init__(
        self, lobby: Lobby, driver: Driver, clock: Callable[[], float], wait_seconds: float
    ) -> None:
        self._lobby = lobby
        self._driver = driver
        self._clock = clock
        self._wait_seconds = wait_seconds

    def ask(self, serving: Serving, place: Place, feed: Feed, now: float) -> None:
        selection = serving.serve.wanted.selection
        proofs = None if self._lobby.full else feed.freshness.ask(selection, serving, now)
        if proofs is None:
            self._lobby.turn_away(serving)
            return
        place.proving = selection
        wait = self._wait_seconds
        self._lobby.wait(serving, place, min(now, serving.received_at + wait) + wait, "proof")
        self._fetch(feed, proofs)

    def tick(self, feed: Feed, now: float) -> None:
        """Proofs that had to wait for others to be paid for."""
        if len(feed.freshness):
            self._fetch(feed, feed.freshness.due(now))

    def _fetch(self, feed: Feed, proofs: Sequence[Proof]) -> None:
        for proof in proofs:
            feed.counts.proofs += 1
            self._driver.prove(feed, proof)

    def proven(self, feed: Feed, proof: Proof, revision: int, listed: Sequence[Peeked]) -> None:
        """The metadata-only list a proof asked for, consistent at ``revision``."""
        waiters = self._done(feed, proof)
        if not waiters:
            return
        selection = proof.selection if isinstance(proof, ProveNarrow) else Selection()
        catch = Catch(revision, selection, listed, waiters, self._clock() + CATCH_SECONDS)
        if not self._caught(feed, catch):
            feed.catching.append(catch)

    def unproven(self, feed: Feed, proof: Proof) -> None:
        """There was no answer."""
        self._lobby.disperse(self._done(feed, proof), "unproven", feed)

    def _done(self, feed: Feed, proof: Proof) -> list[Serving]:
        waiters, proofs = feed.freshness.done(proof, self._clock())
        places = self._lobby.places
        for serving in waiters:
            place = places.get(serving)
            if place is not None:
                place.proving = None
        self._fetch(feed, proofs)
        return [serving for serving in waiters if serving in places]

    def _caught(self, feed: Feed, catch: Catch) -> bool:
        level = feed.level(catch.revision, catch.selection, catch.listed)
        if level is None:
            return False
        feed.proven_at = self._clock()
        for serving in catch.waiters:
            place = self._lobby.places.get(serving)
            if place is not None:
                place.level = level
                self._lobby.resume(serving)
        return True

    def advanced(self, feed: Feed, now: float) -> None:
        """The cache may hold more than before, or time has passed."""
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
        self._lobby.disperse(catch.waiters, "behind", feed)
        return True
