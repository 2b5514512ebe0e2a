"""FeedBook: the feeds of one worker by what they hold, and names found to be nothing.

Where every resource of a group is relayed, a caller whom a wildcard allows can ask for names
without end. A name that discovery does not know becomes no feed; it is remembered for a while, so
that asking again costs upstream nothing but the request itself.
"""

from __future__ import annotations

from typing import NamedTuple

from apiguard.gateway.asking import FeedKey
from apiguard.gateway.feeds import Feed
from apiguard.memo import Memo
from apiguard.policy.relayconfig import RelayConfig, RelayedResource

MOST_FEEDS = 256
"""Four forms of more resources than are read in a cluster; beyond it those at rest make room."""

ABSENT_REMEMBERED = 1_024


class _Absent(NamedTuple):
    reason: str
    until: float


class FeedBook:
    """``feeds`` are for reading; they come by ``open`` and go by ``strike`` or for want of room."""

    def __init__(self, config: RelayConfig) -> None:
        self.feeds: dict[FeedKey, Feed] = {}
        self._config = config
        self._absent: Memo[FeedKey, _Absent] = Memo(ABSENT_REMEMBERED)

    def open(self, key: FeedKey, settings: RelayedResource, now: float) -> Feed | str:
        """The feed of ``key``, known or new; otherwise why there is none, in a word."""
        feed = self.feeds.get(key)
        if feed is not None:
            return feed
        absent = self._absent.get(key)
        if absent is not None and now < absent.until:
            return absent.reason
        if len(self.feeds) >= MOST_FEEDS and not self._make_room():
            return "feeds"
        feed = self.feeds[key] = Feed(key, settings, self._config, now=now)
        return feed

    def strike(self, feed: Feed) -> None:
        """It stands for nothing that can be held, until its rest is over."""
        self.feeds.pop(feed.key, None)
        self._absent.put(feed.key, _Absent(feed.rests, feed.rests_until))

    def _make_room(self) -> bool:
        """Forgets the feed at rest that nobody has asked for longest."""
        resting = [feed for feed in self.feeds.values() if feed.forgettable]
        if not resting:
            return False
        del self.feeds[min(resting, key=lambda feed: feed.used_at).key]
        return True
