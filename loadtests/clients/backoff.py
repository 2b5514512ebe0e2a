"""Backoff of client-go's reflectors: client-go/tools/cache/reflector.go."""

from __future__ import annotations

import random

FIRST, FACTOR, MOST, JITTER, RESET = 0.8, 2.0, 30.0, 1.0, 120.0


class Backoff:
    """Pauses grow from 0.8 s by 2 to 30 s, each up to doubled by chance; two quiet minutes reset.

    ``now`` is monotonic seconds.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pause = FIRST
        self._last = float("-inf")

    def next(self, now: float) -> float:
        if now - self._last > RESET:
            self._pause = FIRST
        self._last = now
        pause, self._pause = self._pause, min(self._pause * FACTOR, MOST)
        return pause * (1.0 + JITTER * self._rng.random())
