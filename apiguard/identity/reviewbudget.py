"""How many reviews may be asked per second, counted over every window and not on average."""

from __future__ import annotations

import math
from collections import deque

TOGETHER = 0.1
"""Seconds of spaced reviews that may be taken at once: they are looked for that often."""


class ReviewBudget:
    """At most ``rate`` reviews within any second; below one, one within any ``1 / rate`` seconds.

    A token bucket would let a second's savings and a second's income meet in one window, twice
    the rate. Remembering when the last ``rate`` reviews were asked costs as many floats. A
    fraction above one is given up: parts of one budget then never sum to more than the whole.

    Reviews nobody waits for are ``spaced``, or they would be asked as one volley a second, after
    which a new question finds nothing left for most of that second. Spaced ones leave a gap every
    ``1 / rate`` seconds. Time is monotonic; a clock that goes backwards grants nothing.
    """

    __slots__ = ("_most", "_spaced_from", "_taken", "_window", "rate")

    def __init__(self, rate: float) -> None:
        self._taken: deque[float] = deque()
        self._spaced_from = -math.inf  # when the spaced ones taken so far are used up
        self.rate = rate
        self.respec(rate)

    def respec(self, rate: float) -> None:
        """Another rate from now on; what was taken stays taken. Raises ValueError below zero."""
        if rate <= 0.0:
            raise ValueError("a budget of reviews is above zero")
        self.rate = rate
        self._most = max(1, int(rate))
        self._window = max(1.0, 1.0 / rate)

    def left(self, now: float) -> int:
        """How many could be taken now."""
        taken = self._taken
        while taken and taken[0] + self._window <= now:
            taken.popleft()
        return max(0, self._most - len(taken))

    def spent(self, now: float) -> int:
        """How many were taken within the window that ends now."""
        self.left(now)
        return len(self._taken)

    def take(self, now: float, *, spaced: bool = False) -> bool:
        """Spend one; False, with nothing spent, when there is none."""
        if self.pause(now, spaced=spaced) > 0.0:
            return False
        self._taken.append(now)
        if spaced:
            self._spaced_from = max(self._spaced_from, now) + 1.0 / self.rate
        return True

    def pause(self, now: float, *, spaced: bool = False) -> float:
        """Seconds until one can be taken."""
        pause = 0.0
        if not self.left(now):
            pause = self._taken[len(self._taken) - self._most] + self._window - now
        return max(pause, self._spaced_from - TOGETHER - now) if spaced else pause
