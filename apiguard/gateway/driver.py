"""Driver: what the relay's desk wishes for, carried out by whoever has sockets."""

from __future__ import annotations

from typing import Protocol

from apiguard.gateway.feeds import Feed
from apiguard.relay.freshness import Proof
from apiguard.relay.packing import Pack


class Driver(Protocol):
    """What came of a wish is told to the desk, in turns of the loop of its own."""

    def start(self, feed: Feed) -> None:
        """Find out what the resource is (``discovered``), then fulfil the reflector's wishes."""

    def stop(self, feed: Feed) -> None:
        """Leave the feed alone: what is under way for it is dropped."""

    def prove(self, feed: Feed, proof: Proof) -> None:
        """Fetch it, then ``proven`` or ``unproven``."""

    def check(self, feed: Feed, revision: int) -> None:
        """Fetch a metadata-only list exactly at ``revision``, then ``checked`` if it came."""

    def pack(self, wish: Pack) -> None:
        """Call ``compress`` on another thread, then ``packed`` with what it returned."""

    def reachable(self) -> bool:
        """Whether any API server can be asked."""

    def wake(self) -> None:
        """There is ``work`` for the next turn."""
