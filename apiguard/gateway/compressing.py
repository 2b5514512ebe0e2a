"""Compressing: readers of one body wait for each of its pieces to be compressed once, elsewhere."""

from __future__ import annotations

from apiguard.gateway.driver import Driver
from apiguard.gateway.lobby import Lobby
from apiguard.gateway.serving import Serving
from apiguard.relay.packing import Block, Pack


class Compressing:
    """Bounded by the readers: each waits for one piece."""

    def __init__(self, lobby: Lobby, driver: Driver) -> None:
        self.packed = 0
        self._lobby = lobby
        self._driver = driver
        self._waiting: dict[Pack, dict[Serving, None]] = {}

    def want(self, serving: Serving, wish: Pack) -> None:
        waiters = self._waiting.get(wish)
        if waiters is not None:
            waiters[serving] = None
            return
        self._waiting[wish] = {serving: None}
        self._driver.pack(wish)

    def done(self, wish: Pack, block: Block | None) -> None:
        """None: it could not be compressed. What was sent so far cannot be taken back."""
        waiters = [one for one in self._waiting.pop(wish, ()) if one in self._lobby.places]
        if block is None:
            wish.packed.fail(wish.at)
            for serving in waiters:
                serving.cut()
            return
        self.packed += 1
        wish.keep(block)
        for serving in waiters:
            self._lobby.soon(serving)
