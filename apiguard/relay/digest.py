"""Whether a cache holds what upstream holds, judged by keys and revisions alone.

A metadata-only list is a tenth of a full one. At an exact revision it checks a cache against
upstream; consistent and equal, it proves that what the cache holds is as recent as the read.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from apiguard.kube.objects import Peeked
from apiguard.relay.item import Item, key_of
from apiguard.relay.snapshot import Snapshot


def same(snapshot: Snapshot, listed: Iterable[Peeked]) -> bool:
    """Whether ``listed``, in upstream's order, has the keys, uids and revisions of ``snapshot``."""
    return same_items(snapshot.walk(), listed)


def same_items(items: Iterable[Item], listed: Iterable[Peeked]) -> bool:
    """The same for some of a cache's items, in order."""
    for item, peeked in zip_longest(items, listed):
        if item is None or peeked is None:
            return False
        if (item.revision, item.uid) != (peeked.resource_version, peeked.uid):
            return False
        if item.key != key_of(peeked.namespace, peeked.name):
            return False
    return True
