"""The objects of a cache that stand out: the largest (elephants), those changing most (hot keys).

Found when somebody asks, a bounded step at a time, in what the cache holds anyway: sizes in a
snapshot, changes in the log. A sketch beside the cache would be paid for at every event, remember
what the log has long told, and lose an elephant for good when it shrinks and grows again; this
costs events nothing and is exact for as far as the log reaches, which ``seconds`` says.

Measured with 100,000 objects and 20,000 events: 80 ms in all, 2 ms for the longest step
(CPython 3.11, a busy machine).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from heapq import nlargest
from itertools import chain, islice

from apiguard.relay.store import WatchCache

STEP = 2_048
"""Objects or events looked at per step."""
MOST = 10
LATELY = 60.0
"""Seconds over which changes are counted, where the log reaches back so far."""


class Standouts:
    """``step`` until it returns False, then ``largest`` and ``busiest`` are complete.

    ``largest``: (bytes, key), the largest first; ``busiest``: (changes, key), the most often
    changed first; ``seconds`` is the time in which changes were counted. Only of a ready cache;
    its going on changing meanwhile moves the count of changes by that much.
    """

    def __init__(self, cache: WatchCache, now: float) -> None:
        self.largest: list[tuple[int, str]] = []
        self._changes: Counter[str] = Counter()
        self._items = cache.snapshot().walk()
        log = self._log = cache.log
        since = now - LATELY
        held = range(log.begin, log.end)
        first = bisect_left(held, since, key=lambda at: log.event(at).at)
        self._position, self._end = log.begin + first, log.end
        full = log.bytes * 2 > log.bounds.bytes or log.bounds.seconds < LATELY
        if log.trimmed and held and not first and full:  # it forgot changes of the last minute
            self.seconds = max(now - log.event(log.begin).at, 0.001)
        else:
            self.seconds = LATELY

    def step(self) -> bool:
        """Looks at the next objects, then events; whether there are more."""
        items = list(islice(self._items, STEP))
        if items:
            # A list of pairs would set off the garbage collector, which walks over everything.
            sizes = ((len(item.body), item.key) for item in items)
            self.largest = nlargest(MOST, chain(self.largest, sizes))
            return True
        log = self._log
        begin = max(self._position, log.begin)  # the log may have been trimmed since
        self._position = min(begin + STEP, self._end)
        self._changes.update([log.event(at).subject.key for at in range(begin, self._position)])
        return self._position < self._end

    @property
    def busiest(self) -> list[tuple[int, str]]:
        return [(changes, key) for key, changes in self._changes.most_common(MOST)]
