"""A bounded memo for pure functions on the hot path.

Two generations: when the young one is full it becomes the old one and the oldest half is
forgotten at once. A hit costs one dict lookup and keeps no order. An LRU would cost a list move
per hit, and a flood of unrepeated keys would still flush it; here the flood costs two dict
stores a key and memory stays within ``2 * size`` entries.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """At most ``2 * size`` results. Values are never None: ``get`` answers None for a miss."""

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        young = self._young
        if len(young) >= self._size:
            self._old = young
            self._young = young = {}
        young[key] = value

    def clear(self) -> None:
        self._young = {}
        self._old = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
