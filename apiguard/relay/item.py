"""One version of one object, as a relay keeps it: its bytes and what selectors may ask of it."""

from __future__ import annotations

from apiguard.kube.objects import Peeked


def key_of(namespace: str, name: str) -> str:
    """The object's place in its resource, ordered as etcd orders: bytewise on the whole string.

    Code points sort as their UTF-8 bytes do. ``a-b/x`` precedes ``a/x``, so a tuple would not do.
    """
    return f"{namespace}/{name}" if namespace else name


class Item:
    """Never changed after construction, so snapshots, log and indexes share it.

    ``body`` is the object as an item of a list. ``values`` are those of the selectable fields, by
    the slots of the cache's ``FieldTable``. With slots and interned texts an item of a pod costs
    0.6 KB beside its body.
    """

    __slots__ = ("body", "key", "labels", "namespace", "revision", "uid", "values")

    def __init__(self, peeked: Peeked, body: bytes, labels: dict[str, str] | None = None) -> None:
        self.namespace = peeked.namespace
        self.key = key_of(peeked.namespace, peeked.name)
        self.uid = peeked.uid
        self.revision = peeked.resource_version
        self.labels = peeked.labels if labels is None else labels
        self.values = peeked.values
        self.body = body

    @property
    def name(self) -> str:
        """Not kept: it is the tail of the key."""
        return self.key[len(self.namespace) + 1 :] if self.namespace else self.key

    def __repr__(self) -> str:
        return f"Item({self.key}@{self.revision})"
