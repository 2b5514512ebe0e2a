"""What tests do to a server behind its clients' backs: watches dropped, stalled or expired, history
compacted, an old backup restored.

Slow, failing and hanging answers are ``faults``; crashes are ``EmbeddedApiServer.kill`` and
``listen``. A server that starts afresh on the same port is another ``EmbeddedApiServer`` with that
port in its options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from apiguard.demo import problems
from apiguard.demo.resources import Resource
from apiguard.demo.store import Backup, Store
from apiguard.demo.watching import Hub


class Control:
    """Acts at once and on everything there is now; ``only`` narrows to one resource."""

    def __init__(self, store: Store, hubs: Mapping[Resource, Hub]) -> None:
        self._store = store
        self._hubs = hubs

    def end_watches(self, only: Resource | None = None) -> int:
        """Ends open watches as a deadline does: cleanly and without a word. Returns how many."""
        return sum(hub.end_all() for hub in self._chosen(only))

    def expire_watches(self, only: Resource | None = None) -> int:
        """Ends open watches with an ERROR event, 410; returns how many."""
        revision = self._store.revision
        error = problems.too_old_revision(max(revision - 1, 1), revision)
        return sum(hub.end_all(error) for hub in self._chosen(only))

    def stall_watches(self, only: Resource | None = None) -> None:
        """Open watches stay open and say nothing; new ones get their head and nothing more."""
        for hub in self._chosen(only):
            hub.stall()

    def resume_watches(self, only: Resource | None = None) -> None:
        """Stalled watches go on where they were, from the log."""
        for hub in self._chosen(only):
            hub.resume()

    def compact(self) -> None:
        """Forgets history: a resume or an exact list below the present revision gets 410."""
        self._store.compact(self._store.revision)

    def backup(self) -> Backup:
        return self._store.backup()

    def restore(self, backup: Backup) -> None:
        """Goes back to ``backup``: old objects, old revisions, and no history but the present.

        Open watches end, since no server survives this. Definitions of custom resources must be
        what they were.
        """
        self.end_watches()
        self._store.restore(backup)

    @property
    def actions(self) -> Mapping[str, Callable[[], object]]:
        """What ``POST /demo/faults`` can ask for by name."""
        return {
            "endWatches": self.end_watches,
            "expireWatches": self.expire_watches,
            "stallWatches": self.stall_watches,
            "resumeWatches": self.resume_watches,
            "compact": self.compact,
        }

    def _chosen(self, only: Resource | None) -> list[Hub]:
        return list(self._hubs.values()) if only is None else [self._hubs[only]]
