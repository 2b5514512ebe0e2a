"""From one list to a later one, as a sequence of changes a watcher can be told.

After a relist the relay knows what it held and what there is now. Told in ascending order of
revision, each revision once, the difference lets streams go on. Creations and updates have their
revision; a deletion's is lost, but each consumed one, so a number nobody uses stands in for it:
above the last revision told, not above the list's, below that of a new object of the same name.
Many deletions at the list's own revision would be lost to a client that reconnects between two.

A client that leaves in the middle has a revision that means something else wherever it goes: the
log knows (``EventLog.bridge``) what other processes cannot, so that nobody is told what would have
to be gone on with (``Fanout.bridge``).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from apiguard.relay.eventlog import Event
from apiguard.relay.item import Item


class Comparison:
    """Of what is ``held`` at revision ``last`` with a later list, whose items are added as they
    come. Both stand in key order, each key once."""

    __slots__ = ("_changed", "_exact", "_gone", "_held", "_last", "_newest", "_next")

    def __init__(self, held: Iterable[Item], last: int) -> None:
        self._held = iter(held)
        self._next = next(self._held, None)
        self._last = last
        self._newest = 0
        self._exact = True
        self._changed: list[tuple[Item, Item | None]] = []
        # The latest revision a deletion may have, 0 for the list's, and what is deleted.
        self._gone: list[tuple[int, Item]] = []

    def add(self, items: Iterable[Item]) -> None:
        """The next items of the list."""
        held, following = self._next, self._held
        for item in items:
            key = item.key
            while held is not None and held.key < key:
                self._gone.append((0, held))
                held = next(following, None)
            previous = None
            if held is not None and held.key == key:
                previous, held = held, next(following, None)
                if previous.revision == item.revision:
                    continue
            self._note(item, previous)
        self._next = held

    def _note(self, item: Item, previous: Item | None) -> None:
        if item.revision <= self._last:
            self._exact = False
        self._newest = max(self._newest, item.revision)
        if previous is not None and previous.uid != item.uid:
            self._gone.append((item.revision - 1, previous))
            previous = None
        self._changed.append((item, previous))

    def events(self, revision: int) -> list[Event] | None:
        """What leads from what was held to the whole list, which is at ``revision``, ascending.

        None where that is not exact: an object is older than the one held or than ``last`` without
        being held, or there are not enough numbers for the deletions.
        """
        if self._next is not None:
            self._gone.append((0, self._next))
            self._next = None
        self._gone += [(0, item) for item in self._held]
        if not self._exact or self._newest > revision:
            return None
        changed, gone = self._changed, self._gone
        deadlines = [due or revision for due, _ in gone]
        numbers = _numbers(deadlines, {item.revision for item, _ in changed}, self._last)
        if numbers is None:
            return None
        events = [Event(item.revision, item, previous) for item, previous in changed]
        events += [Event(at, None, item) for at, (_, item) in zip(numbers, gone, strict=True)]
        events.sort(key=lambda event: event.revision)
        return events


def _numbers(deadlines: list[int], used: set[int], last: int) -> list[int] | None:
    """An unused number above ``last`` and not above its deadline for each; None if impossible.

    Earliest deadline first onto the lowest free number: if any assignment exists, this finds it.
    """
    waiting = [(due, place) for place, due in enumerate(deadlines)]
    heapq.heapify(waiting)
    numbers = [0] * len(deadlines)
    number = last
    while waiting:
        due, place = heapq.heappop(waiting)
        number += 1
        while number in used:
            number += 1
        if number > due:
            return None
        numbers[place] = number
    return numbers
