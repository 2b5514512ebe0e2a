"""Who hears of a change: watchers, grouped so that a change is judged and encoded once.

Watchers of the same scope, selectors and representation form a group; a group that selects one
value of an indexed field (a node's pods, a single name) is found by that value instead of being
asked. A watcher whose transport is full is skipped: its cursor stays, and it reads forward from
the log when the transport drains, so memory follows the log and not watchers times queue.
"""

from __future__ import annotations

from collections.abc import Callable

from apiguard.demo import problems
from apiguard.demo.negotiation import TABLE, Representation
from apiguard.demo.options import Selectors
from apiguard.demo.representations import event_frame, table_event
from apiguard.demo.store import Change, Collection, Item

Event = tuple[str, Item]

# Fields that kubelets and per-object informers select one value of (cacher's indexed triggers).
_INDEXED = ("spec.nodeName", "metadata.name")


def transition(change: Change, namespace: str, selectors: Selectors) -> Event | None:
    """What a watcher hears of a change (apiserver/pkg/storage/cacher/cache_watcher.go)."""
    if namespace and change.subject.namespace != namespace:
        return None
    before = change.previous is not None and _selected(change.previous, selectors)
    after = change.item is not None and _selected(change.item, selectors)
    if after:
        assert change.item is not None
        return ("MODIFIED" if before else "ADDED"), change.item
    return ("DELETED", change.tombstone) if before else None


def _selected(item: Item, selectors: Selectors) -> bool:
    if not selectors.labels.empty and not selectors.labels.matches(item.labels):
        return False
    return selectors.fields.empty or selectors.fields.matches(item.fields)


def chunk(frame: bytes) -> bytes:
    """A frame as one chunk of a chunked body: built once, written to every watcher."""
    return b"%x\r\n%b\r\n" % (len(frame), frame)


class Watcher:
    """One stream. ``write`` takes a finished chunk and says whether the transport has room.

    ``cursor`` is the revision up to which everything was written. After a write without room the
    watcher is ``lagging`` and ``wake`` is called; its owner drains, then calls ``catch_up``.
    """

    __slots__ = (
        "collection",
        "columns_sent",
        "cursor",
        "ended",
        "error",
        "lagging",
        "namespace",
        "representation",
        "selectors",
        "wake",
        "write",
    )

    def __init__(
        self,
        collection: Collection,
        namespace: str,
        selectors: Selectors,
        representation: Representation,
        cursor: int,
        write: Callable[[bytes], bool],
        wake: Callable[[], None],
    ) -> None:
        self.collection = collection
        self.namespace = namespace
        self.selectors = selectors
        self.representation = representation
        self.cursor = cursor
        self.write = write
        self.wake = wake
        self.lagging = False
        self.ended = False
        self.error: problems.ApiError | None = None
        self.columns_sent = False

    def offer(self, revision: int, data: bytes) -> None:
        """Writes a live event, unless the watcher lags or asked for later ones only."""
        if self.lagging or revision <= self.cursor:
            return
        self.cursor = revision
        if not self.write(data):
            self.lagging = True
            self.wake()

    def end(self, error: problems.ApiError | None = None) -> None:
        """Ends the stream, behind an ERROR event if there is an ``error``."""
        self.ended, self.error = True, error
        self.wake()

    def catch_up(self, now: float) -> bool:
        """Writes logged events until the transport is full; true when nothing is missing.

        Raises ``CompactedError`` when the log no longer reaches back to the cursor.
        """
        self.lagging = False
        for change in self.collection.changes_since(self.cursor):
            event = transition(change, self.namespace, self.selectors)
            self.cursor = change.revision
            if event is not None and not self.write(chunk(self.frame(event, change, now))):
                self.lagging = True
                return False
        return True

    def frame(self, event: Event, change: Change, now: float) -> bytes:
        kind, item = event
        if self.representation.transform != TABLE:
            return event_frame(kind, item, change, self.representation)
        columns, self.columns_sent = not self.columns_sent, True
        return table_event(kind, item, self.representation, now, columns=columns)


class _Group:
    __slots__ = ("representation", "selectors", "watchers")

    def __init__(self, selectors: Selectors, representation: Representation) -> None:
        self.selectors = selectors
        self.representation = representation
        self.watchers: dict[Watcher, None] = {}


_GroupKey = tuple[str, tuple[str, str], str]


class Hub:
    """The watchers of one collection. ``clock`` gives wall-clock seconds, for ages in tables.

    ``delivered`` counts events written, which is what watches cost the server.
    """

    def __init__(self, collection: Collection, clock: Callable[[], float]) -> None:
        self.delivered = 0
        self.stalled = False
        self.waiting: list[Callable[[], None]] = []  # called when a stall is over
        self._collection = collection
        self._clock = clock
        self._plain: dict[_GroupKey, _Group] = {}
        self._indexed: dict[str, dict[str, dict[_GroupKey, _Group]]] = {}
        collection.listeners.append(self._spread)

    def join(self, watcher: Watcher) -> None:
        key = self._key(watcher)
        groups = self._home(watcher.selectors)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group(watcher.selectors, watcher.representation)
        group.watchers[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        key = self._key(watcher)
        groups = self._home(watcher.selectors)
        group = groups.get(key)
        if group is None:
            return
        group.watchers.pop(watcher, None)
        if not group.watchers:
            del groups[key]
            self._forget_index(watcher.selectors)

    @property
    def watchers(self) -> int:
        return sum(len(group.watchers) for group in self._groups())

    def end_all(self, error: problems.ApiError | None = None) -> int:
        """Ends every watch; returns how many there were."""
        ended = self._all()
        for watcher in ended:
            watcher.end(error)
        return len(ended)

    def stall(self) -> None:
        """Says nothing to anybody until ``resume``."""
        self.stalled = True
        log = self._collection.log
        for watcher in self._all():
            if log and not watcher.lagging:  # it was told everything up to here
                watcher.cursor = max(watcher.cursor, log[-1].revision)

    def resume(self) -> None:
        """Lets every watcher read on from the log."""
        self.stalled = False
        for watcher in self._all():
            watcher.lagging = True
            watcher.wake()
        for wake in tuple(self.waiting):
            wake()

    def _all(self) -> list[Watcher]:
        return [watcher for group in self._groups() for watcher in group.watchers]

    def _groups(self) -> list[_Group]:
        values = [by for field in self._indexed.values() for by in field.values()]
        return [group for groups in (self._plain, *values) for group in groups.values()]

    @staticmethod
    def _key(watcher: Watcher) -> _GroupKey:
        return watcher.namespace, watcher.selectors.text, watcher.representation.id

    def _home(self, selectors: Selectors) -> dict[_GroupKey, _Group]:
        for field in _INDEXED:
            value = selectors.fields.exact(field)
            if value is not None:
                return self._indexed.setdefault(field, {}).setdefault(value, {})
        return self._plain

    def _forget_index(self, selectors: Selectors) -> None:
        for field in _INDEXED:
            value = selectors.fields.exact(field)
            if value is not None:
                if not self._indexed[field][value]:
                    del self._indexed[field][value]
                return

    def _spread(self, change: Change) -> None:
        if self.stalled:
            return
        self._tell(self._plain, change)
        for field, by_value in self._indexed.items():
            versions = (change.item, change.previous)
            for value in {v.fields.get(field, "") for v in versions if v is not None}:
                groups = by_value.get(value)
                if groups:
                    self._tell(groups, change)

    def _tell(self, groups: dict[_GroupKey, _Group], change: Change) -> None:
        for (namespace, _, _), group in groups.items():
            event = transition(change, namespace, group.selectors)
            if event is None:
                continue
            self.delivered += len(group.watchers)
            if group.representation.transform == TABLE:
                for watcher in group.watchers:
                    if not watcher.lagging:
                        frame = watcher.frame(event, change, self._clock())
                        watcher.offer(change.revision, chunk(frame))
                continue
            data = chunk(event_frame(*event, change, group.representation))
            for watcher in group.watchers:
                watcher.offer(change.revision, data)
