"""How often each route of the admin port was answered with which code."""

from __future__ import annotations

from typing import Final

MOST: Final = 150
"""Series: about 40 are in use after a year; what a stranger asks for is one route, ``other``."""


class Answers:
    """``counts`` by (route, code); routes are those of the table, never what was asked for."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def count(self, route: str, code: int) -> None:
        key = (route, str(code))
        if key not in self.counts and len(self.counts) >= MOST:
            key = ("other", "other")
        self.counts[key] = self.counts.get(key, 0) + 1
