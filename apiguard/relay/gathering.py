"""Gathering: a list as it arrives, a few items at a time, put in the shape a cache takes over.

Whatever filling a cache needs of each item is found out while the item is at hand: its place, its
node, its size, how it differs from what is held. Done in one go after the last byte, for 10,000
pods, that kept the loop for 6 ms on a quiet machine and 18 on a busy one; what is left takes 0.1.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter

from apiguard.relay.diff import Comparison
from apiguard.relay.item import Item
from apiguard.relay.snapshot import CHUNK, SortedItems

_HALF = CHUNK // 2  # room for as many again before a chunk splits


class Gathering:
    """``add`` items, ``take`` them over. API servers list in the order of keys, and then what came
    is appended; where they do not, each item is put in its place (6 us instead of 2).

    ``comparison`` is with what is held; None where that does not matter, or cannot be told because
    items came out of order. ``oldest`` and ``newest`` are revisions, 0 without items; ``twice``
    tells that a key was there twice.
    """

    __slots__ = (
        "_chunk",
        "_chunks",
        "_last",
        "_node_slot",
        "_placed",
        "comparison",
        "count",
        "newest",
        "nodes",
        "oldest",
        "size",
        "twice",
    )

    def __init__(self, node_slot: int | None, comparison: Comparison | None = None) -> None:
        self.comparison = comparison
        self.nodes: dict[str, tuple[Item, ...]] = {}
        self.count = 0
        self.size = 0
        self.oldest = 0
        self.newest = 0
        self.twice = False
        self._node_slot = node_slot
        self._chunks: list[tuple[Item, ...]] = []
        self._chunk: list[Item] = []
        self._last = ""
        self._placed: SortedItems | None = None  # instead of the chunks, once order was broken

    def add(self, items: list[Item]) -> None:
        """The next items of the list."""
        if not items:
            return
        if self._placed is None and not self._follow(items):
            self._placed = self.take()
            self.comparison = None
        if self._placed is not None:
            self._place(items, self._placed)
        else:
            self._append(items)
        revisions = [item.revision for item in items]
        self.oldest = min(revisions) if not self.count else min(self.oldest, *revisions)
        self.newest = max(self.newest, *revisions)
        self.count += len(items)
        self.size += sum([len(item.body) for item in items])
        if self.comparison is not None:
            self.comparison.add(items)

    @property
    def first(self) -> Item | None:
        """Any item, to see what they look like."""
        return next(self.take().freeze(0, 0).walk(), None)

    def take(self) -> SortedItems:
        """What a cache is to hold."""
        if self._placed is not None:
            return self._placed
        found = SortedItems()
        chunks = [*self._chunks, tuple(self._chunk)] if self._chunk else self._chunks
        found.adopt(chunks, self.count, self.size)
        return found

    def let_go(self) -> bool:
        """Forgets some items, for freeing all takes long; whether there are more."""
        self.comparison = self._placed = None
        self.nodes = {}
        if self._chunks:
            self._chunks.pop()
        return bool(self._chunks)

    def _follow(self, items: list[Item]) -> bool:
        """Whether each key is greater than the one before it."""
        last = self._last
        for item in items:
            key = item.key
            if key <= last:
                return False
            last = key
        self._last = last
        return True

    def _append(self, items: list[Item]) -> None:
        chunk = self._chunk
        chunk += items
        while len(chunk) >= _HALF:
            self._chunks.append(tuple(chunk[:_HALF]))
            del chunk[:_HALF]
        slot, nodes = self._node_slot, self.nodes
        if slot is not None:
            for item in items:
                if node := item.values[slot]:
                    nodes[node] = (*nodes.get(node, ()), item)

    def _place(self, items: list[Item], placed: SortedItems) -> None:
        slot, nodes = self._node_slot, self.nodes
        for item in items:
            self.twice |= placed.put(item) is not None
            if slot is not None and (node := item.values[slot]):
                held = nodes.get(node, ())
                at = bisect_left(held, item.key, key=_key)
                nodes[node] = (*held[:at], item, *held[at:])


_key = attrgetter("key")
