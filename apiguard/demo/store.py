"""Objects, one revision counter, a bounded history per resource: what etcd and its cache give.

A ``Collection`` holds the current items in key order and a log of changes, each with the item
before it. Any state the log still reaches is rebuilt by undoing changes from the current one;
older revisions are gone (``CompactedError``). The current state is what almost everybody reads, so
snapshots cost nothing until a client pages or asks for an exact revision under churn.

Keys are ``namespace/name`` (or ``name``), ordered bytewise on the whole string as etcd does:
``a-b/x`` precedes ``a/x``.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from cachetools import LRUCache

from apiguard.demo import protobuf
from apiguard.demo.encoding import Object, encode
from apiguard.demo.resources import Resource

Listener = Callable[["Change"], None]

DEFAULT_HISTORY = 10_000
# Snapshots under a paging client: a page costs a lookup instead of a replay of the log.
SNAPSHOTS = 4


class CompactedError(Exception):
    """The revision asked for is older than the history; ``oldest`` is the oldest still known."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"compacted below {oldest}")
        self.oldest = oldest


class ConflictError(Exception):
    """The object changed since the revision the writer names."""


class MissingError(Exception):
    """No object of that key."""


class ExistsError(Exception):
    """An object of that key exists already."""


class Item:
    """One version of one object, encoded once. Never changed after construction.

    ``body`` is the object as an item of its list: without kind and apiVersion for built-ins.
    The other forms are encoded on first demand and kept as long as the item.
    """

    __slots__ = (
        "_fields",
        "_message",
        "_partial",
        "_partial_message",
        "body",
        "key",
        "name",
        "namespace",
        "resource",
        "revision",
        "value",
    )

    def __init__(self, resource: Resource, value: Object, revision: int) -> None:
        metadata = value["metadata"]
        self.resource = resource
        self.value = value
        self.revision = revision
        self.name: str = metadata["name"]
        self.namespace: str = metadata.get("namespace", "")
        self.key = resource.key(self.namespace, self.name)
        full = encode(value)
        self.body = full if resource.custom else b"{" + full[len(resource.prefix) :]
        self._fields: dict[str, str] | None = None
        self._message: bytes | None = None
        self._partial: bytes | None = None
        self._partial_message: bytes | None = None

    @property
    def message(self) -> bytes:
        """The object's bare protobuf message."""
        if self._message is None:
            self._message = protobuf.encode_object(self.resource, self.value)
        return self._message

    @property
    def partial(self) -> bytes:
        """JSON of its PartialObjectMetadata (meta.k8s.io/v1)."""
        if self._partial is None:
            self._partial = (
                b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%s}'
                % encode(self.metadata)
            )
        return self._partial

    @property
    def partial_message(self) -> bytes:
        """The bare protobuf message of its PartialObjectMetadata, the same in every version."""
        if self._partial_message is None:
            self._partial_message = protobuf.encode_message(
                "meta.PartialObjectMetadata", self.value
            )
        return self._partial_message

    @property
    def full(self) -> bytes:
        """The object with kind and apiVersion, as GET and watches send it."""
        return self.body if self.resource.custom else self.resource.prefix + self.body[1:]

    @property
    def metadata(self) -> Object:
        """ObjectMeta in the order of Go's struct; custom resources are stored sorted by key."""
        metadata: Object = self.value["metadata"]
        return (
            protobuf.in_go_order("meta.ObjectMeta", metadata) if self.resource.custom else metadata
        )

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.value["metadata"].get("labels") or {}
        return labels

    @property
    def fields(self) -> dict[str, str]:
        """What field selectors see."""
        if self._fields is None:
            self._fields = self.resource.selectable(self.value)
        return self._fields

    def of(self, resource: Resource) -> Item:
        """The same object under another description of its resource."""
        return Item(resource, self.value, self.revision)

    def at(self, revision: int) -> Item:
        """The same object stamped with another revision: what a DELETED event carries."""
        metadata = {**self.value["metadata"], "resourceVersion": str(revision)}
        return Item(self.resource, {**self.value, "metadata": metadata}, revision)


class Change:
    """One write: ``item`` is None after a deletion, ``previous`` None before a creation.

    ``frames`` caches what watchers are sent, so that a change is encoded once for everybody.
    """

    __slots__ = ("_tombstone", "frames", "item", "previous", "revision")

    def __init__(self, revision: int, item: Item | None, previous: Item | None) -> None:
        self.revision = revision
        self.item = item
        self.previous = previous
        self.frames: dict[tuple[str, str], bytes] = {}
        self._tombstone: Item | None = None

    @property
    def subject(self) -> Item:
        item = self.item if self.item is not None else self.previous
        assert item is not None
        return item

    @property
    def tombstone(self) -> Item:
        """The previous object with this change's revision."""
        if self._tombstone is None:
            assert self.previous is not None
            self._tombstone = self.previous.at(self.revision)
        return self._tombstone


@dataclass(frozen=True, slots=True)
class Backup:
    """Every object at one revision, as ``Store.restore`` takes it."""

    revision: int
    items: Mapping[Resource, tuple[Item, ...]]


class Collection:
    """All objects of one resource."""

    def __init__(self, resource: Resource, revision: int, history: int = DEFAULT_HISTORY) -> None:
        self.resource = resource
        self.log: deque[Change] = deque()
        self.oldest = revision  # events strictly above this revision are known
        self.listeners: list[Listener] = []
        self.bytes = 0
        self._history = history
        self._items: dict[str, Item] = {}
        self._keys: list[str] = []
        self._current: tuple[Item, ...] | None = ()
        self._snapshots: LRUCache[int, tuple[Item, ...]] = LRUCache(SNAPSHOTS)

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> Item | None:
        return self._items.get(key)

    def items(self) -> tuple[Item, ...]:
        """The current items in key order."""
        if self._current is None:
            items = self._items
            self._current = tuple([items[key] for key in self._keys])
        return self._current

    def items_at(self, revision: int) -> tuple[Item, ...]:
        """The items as they were at ``revision``; raises ``CompactedError``."""
        if revision < self.oldest:
            raise CompactedError(self.oldest)
        if not self.log or self.log[-1].revision <= revision:
            return self.items()
        found = self._snapshots.get(revision)
        if found is None:
            found = self._rebuild(revision)
            self._snapshots[revision] = found
        return found

    def changes_since(self, revision: int) -> Sequence[Change]:
        """Changes strictly above ``revision``, oldest first; raises ``CompactedError``."""
        if revision < self.oldest:
            raise CompactedError(self.oldest)
        newer: list[Change] = []
        for change in reversed(self.log):
            if change.revision <= revision:
                break
            newer.append(change)
        newer.reverse()
        return newer

    def apply(self, change: Change) -> None:
        """Makes the change current, remembers it and tells the listeners."""
        self._apply_to_items(change)
        self._current = None
        self.log.append(change)
        if len(self.log) > self._history:
            self.oldest = self.log.popleft().revision
        for listener in self.listeners:
            listener(change)

    def compact(self, revision: int) -> None:
        """Forgets history up to and including ``revision``, as etcd's compaction does."""
        while self.log and self.log[0].revision <= revision:
            self.log.popleft()
        self.oldest = max(self.oldest, revision)

    def restore(self, items: Iterable[Item]) -> None:
        """Starts over with ``items``, without history and without a word to anybody."""
        self.log.clear()
        self._items.clear()
        self._keys.clear()
        self._snapshots.clear()
        self.bytes = 0
        for item in items:
            self._apply_to_items(Change(item.revision, item, self._items.get(item.key)))
        self._current = None

    def _apply_to_items(self, change: Change) -> None:
        key = change.subject.key
        if change.previous is not None:
            self.bytes -= len(change.previous.body)
        if change.item is None:
            del self._items[key]
            del self._keys[bisect_left(self._keys, key)]
            return
        self.bytes += len(change.item.body)
        if change.previous is None:
            insort(self._keys, key)
        self._items[key] = change.item

    def _rebuild(self, revision: int) -> tuple[Item, ...]:
        items = dict(self._items)
        for change in reversed(self.log):
            if change.revision <= revision:
                break
            if change.previous is None:
                items.pop(change.subject.key, None)
            else:
                items[change.previous.key] = change.previous
        return tuple([items[key] for key in sorted(items)])


class Store:
    """Every collection behind one revision counter."""

    def __init__(self, resources: Iterable[Resource], *, history: int = DEFAULT_HISTORY) -> None:
        self._revisions = count(2)
        self._history = history
        self.revision = 1
        self.collections: dict[Resource, Collection] = {}
        self.listeners: list[Callable[[int], None]] = []  # told the revision after each write
        for resource in resources:
            self.add(resource)

    def add(self, resource: Resource) -> Collection:
        """Starts serving a resource; one already served is left as it is."""
        found = self.collections.get(resource)
        if found is None:
            found = self.collections[resource] = Collection(resource, self.revision, self._history)
        return found

    def remove(self, resource: Resource) -> None:
        self.collections.pop(resource, None)

    def create(self, resource: Resource, value: Object) -> Item:
        """Stores a complete object (name, namespace, uid set); raises ``ExistsError``."""
        collection = self.collections[resource]
        metadata = value["metadata"]
        if collection.get(resource.key(metadata.get("namespace", ""), metadata["name"])):
            raise ExistsError
        return self._write(collection, value, None)

    def update(self, resource: Resource, value: Object, expected: str = "") -> Item:
        """Replaces an object. ``expected`` is the resourceVersion it must still have ("" = any).

        A value equal to the stored one is no write and keeps its revision, as in kube-apiserver.
        Raises ``MissingError`` or ``ConflictError``.
        """
        collection = self.collections[resource]
        metadata = value["metadata"]
        current = collection.get(resource.key(metadata.get("namespace", ""), metadata["name"]))
        if current is None:
            raise MissingError
        if expected and expected != str(current.revision):
            raise ConflictError
        stamped = {**metadata, "resourceVersion": str(current.revision)}
        if {**value, "metadata": stamped} == current.value:
            return current
        return self._write(collection, value, current)

    def delete(self, resource: Resource, key: str) -> Item:
        """Removes an object; returns its last state with the deletion's revision."""
        collection = self.collections[resource]
        current = collection.get(key)
        if current is None:
            raise MissingError
        change = Change(self._next(), None, current)
        self._apply(collection, change)
        return change.tombstone

    def compact(self, revision: int) -> None:
        for collection in self.collections.values():
            collection.compact(revision)

    def backup(self) -> Backup:
        items = {resource: found.items() for resource, found in self.collections.items()}
        return Backup(self.revision, items)

    def restore(self, backup: Backup) -> None:
        """Objects and revision as they were; revisions given since are given again."""
        self.revision = backup.revision
        self._revisions = count(backup.revision + 1)
        for resource, collection in self.collections.items():
            collection.restore(backup.items.get(resource, ()))
            collection.oldest = backup.revision

    def _write(self, collection: Collection, value: Object, previous: Item | None) -> Item:
        revision = self._next()
        value["metadata"]["resourceVersion"] = str(revision)
        item = Item(collection.resource, value, revision)
        self._apply(collection, Change(revision, item, previous))
        return item

    def _apply(self, collection: Collection, change: Change) -> None:
        collection.apply(change)
        for listener in tuple(self.listeners):
            listener(change.revision)

    def _next(self) -> int:
        self.revision = next(self._revisions)
        return self.revision
