"""From one list to a later one, as a sequence of changes a watcher can be told.

After a relist the relay knows what it held and what there is now. Told in ascending order of
revision, each revision once, the difference lets streams go on. Creations and updates have their
revision; a deletion's is lost, but each consumed one, so a number nobody uses stands in for it:
above the last revision told, not above the list's, below that of a new object of the same name.
Many deletions at the list's own revision would be lost to a client that reconnects between two.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from apiguard.relay.eventlog import Event
from apiguard.relay.item import Item


def difference(
    held: Iterable[Item], listed: Iterable[Item], last: int, revision: int
) -> list[Event] | None:
    """Events that lead from ``held`` at ``last`` to ``listed`` at ``revision``, ascending.

    None where that is not exact: an object is older than the one held or than ``last`` without
    being held, or there are not enough numbers for the deletions. Both inputs are in key order.
    """
    before = {item.key: item for item in held}
    changed: list[tuple[Item, Item | None]] = []
    gone: list[tuple[int, Item]] = []  # latest revision its deletion may have, and what is deleted
    for item in listed:
        previous = before.pop(item.key, None)
        if previous is not None and previous.revision == item.revision:
            continue
        if item.revision <= last or item.revision > revision:
            return None
        if previous is not None and previous.uid != item.uid:
            gone.append((item.revision - 1, previous))
            previous = None
        changed.append((item, previous))
    gone.extend((revision, item) for item in before.values())
    numbers = _numbers([due for due, _ in gone], {item.revision for item, _ in changed}, last)
    if numbers is None:
        return None
    events = [Event(item.revision, item, previous) for item, previous in changed]
    events += [Event(number, None, item) for number, (_, item) in zip(numbers, gone, strict=True)]
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
