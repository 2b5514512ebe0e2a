"""One version of one object, as a relay keeps it: its bytes and what selectors may ask of it."""

from __future__ import annotations

import msgspec

from apiguard.kube.objects import Peeked


def key_of(namespace: str, name: str) -> str:
    """The object's place in its resource, ordered as etcd orders: bytewise on the whole string.

    Code points sort as their UTF-8 bytes do. ``a-b/x`` precedes ``a/x``, so a tuple would not do.
    """
    return f"{namespace}/{name}" if namespace else name


class Item(msgspec.Struct, gc=False, eq=False):
    """Never changed after construction, so snapshots, log and indexes share it.

    ``body`` is the object as an item of a list. ``values`` are those of the selectable fields, by
    the slots of the cache's ``FieldTable``. With interned texts an item of a pod costs 0.6 KB
    beside its body.

    Hidden from the garbage collector: an item can be part of no cycle, and a full collection that
    walks 100,000 of them stops the loop for 0.1 s. Freezing them (``gc.freeze``) would freeze
    whatever else lives at that moment, connections that will be garbage among it.
    """

    namespace: str
    key: str
    uid: str
    revision: int
    labels: dict[str, str]
    values: tuple[str, ...]
    body: bytes

    @property
    def name(self) -> str:
        """Not kept: it is the tail of the key."""
        return self.key[len(self.namespace) + 1 :] if self.namespace else self.key

    def __repr__(self) -> str:
        return f"Item({self.key}@{self.revision})"


def item_of(peeked: Peeked, body: bytes, labels: dict[str, str] | None = None) -> Item:
    """``labels`` instead of the peeked ones, where equal ones are shared."""
    return Item(
        peeked.namespace,
        key_of(peeked.namespace, peeked.name),
        peeked.uid,
        peeked.resource_version,
        peeked.labels if labels is None else labels,
        peeked.values,
        body,
    )
