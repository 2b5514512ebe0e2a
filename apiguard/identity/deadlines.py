"""What is due when, by key: the earliest deadline first.

Asking about decisions again in this order needs no plan for a budget that is too small. One that
covers them all asks each on time. One that does not leaves all of them late by the same amount:
what was asked moves to the end, what was passed over only becomes more overdue, and nothing
starves. With W questions due every w seconds, R due every r, and b answers a second, the lateness
L solves ``W / (w + L) + R / (r + L) = b``. That is how intervals stretch, and nobody computes it.
"""

from __future__ import annotations

import heapq

_SLACK = 64  # outdated heap items that are not worth a rebuild


class Deadlines:
    """Keys by due time. Memory follows the number of keys, however often they are moved."""

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[bytes, float] = {}
        self._heap: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: bytes) -> bool:
        return key in self._due

    def set(self, key: bytes, due: float) -> None:
        """``key`` is due at ``due``, whatever it was before."""
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(at, one) for one, at in self._due.items()]
            heapq.heapify(self._heap)

    def hasten(self, key: bytes, due: float) -> None:
        """``key`` is due at ``due``, unless it already is sooner."""
        if self._due.get(key, due + 1.0) > due:
            self.set(key, due)

    def discard(self, key: bytes) -> None:
        self._due.pop(key, None)

    def first(self) -> tuple[float, bytes] | None:
        """The most overdue: when it is due, and its key."""
        heap, due = self._heap, self._due
        while heap and due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def lateness(self, now: float) -> float:
        """Seconds by which the most overdue is late."""
        first = self.first()
        return max(0.0, now - first[0]) if first else 0.0
