"""How much unproven work strangers may cause per second."""

from __future__ import annotations


class Budget:
    """``rate`` units a second, at most one second's worth saved up and never less than one unit.

    Time is monotonic seconds; a clock that goes backwards grants nothing.
    """

    __slots__ = ("_at", "_left", "_most", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._most = max(1.0, rate)
        self._left = self._most
        self._at = now

    def take(self, now: float) -> bool:
        """Spend one unit; False, with nothing spent, when there is none."""
        if now > self._at:
            self._left = min(self._most, self._left + (now - self._at) * self.rate)
            self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
