"""Minutes that pass when a test says so, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Warp:
    """A monotonic clock that can be put forward."""

    def __init__(self, real: Callable[[], float]) -> None:
        self._real = real
        self._ahead = 0.0

    def __call__(self) -> float:
        return self._real() + self._ahead

    async def spend(self, seconds: float, step: float = 0.25) -> None:
        """In steps, between which everything that is due happens."""
        while seconds > 0.0:
            self._ahead += min(step, seconds)
            seconds -= step
            for _ in range(8):
                await asyncio.sleep(0)
