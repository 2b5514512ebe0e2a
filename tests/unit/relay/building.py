"""Objects, lists and events as an API server would send them, and caches filled with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from apiguard.kube.framing import EventType, RawEvent
from apiguard.kube.lists import ListEnvelope, list_splitter
from apiguard.kube.objects import peeker, selectable_fields
from apiguard.kube.status import Representation
from apiguard.relay.bodies import ListAnswer
from apiguard.relay.eventlog import LogBounds
from apiguard.relay.gathering import Gathering
from apiguard.relay.item import Item, item_of
from apiguard.relay.selection import Selection, parse_selection
from apiguard.relay.snapshot import Snapshot
from apiguard.relay.store import CacheSpec, WatchCache

JSON, PROTOBUF = Representation.JSON, Representation.PROTOBUF
POD_TABLE = selectable_fields("", "pods")


def spec(
    representation: Representation = JSON,
    *,
    metadata_only: bool = False,
    log: LogBounds | None = None,
    ceiling: int = 512 << 20,
) -> CacheSpec:
    """Pods."""
    table = selectable_fields("", "none" if metadata_only else "pods")
    return CacheSpec(
        "",
        "v1",
        "pods",
        representation,
        metadata_only=metadata_only,
        table=table.for_representation(representation),
        log=log or LogBounds(),
        ceiling=ceiling,
    )


def pod(
    key: str,
    revision: int,
    *,
    labels: Mapping[str, str] | None = None,
    node: str = "",
    uid: str = "",
    pad: int = 0,
) -> dict[str, Any]:
    """A pod as an item of a list."""
    namespace, _, name = key.partition("/")
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-{key}",
        "resourceVersion": str(revision),
    }
    if labels:
        metadata["labels"] = dict(labels)
    spec: dict[str, Any] = {"nodeName": node} if node else {}
    if pad:
        spec["containers"] = [{"name": "c", "image": "x" * pad}]
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}


def encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def listed(pods: Iterable[Mapping[str, Any]], revision: int) -> bytes:
    """A PodList body."""
    items = sorted(pods, key=key)
    head = b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":['
    return head % revision + b",".join(map(encoded, items)) + b"]}\n"


def key(value: Mapping[str, Any]) -> str:
    return f"{value['metadata']['namespace']}/{value['metadata']['name']}"


def event(kind: EventType, value: Mapping[str, Any], revision: int = 0) -> RawEvent:
    """A watch event; ``revision`` exchanges the object's own (deletions)."""
    if revision:
        metadata = {**value["metadata"], "resourceVersion": str(revision)}
        value = {**value, "metadata": metadata}
    return RawEvent(kind, encoded({"kind": "Pod", "apiVersion": "v1", **value}))


def bookmark(revision: int) -> RawEvent:
    return RawEvent(
        EventType.BOOKMARK,
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"%d"},'
        b'"spec":{"containers":null},"status":{}}' % revision,
    )


def gathered(cache: WatchCache, items: Iterable[Item]) -> Gathering:
    """As if they had arrived."""
    found = cache.gather()
    found.add(list(items))
    return found


def read_list(data: bytes, cache: WatchCache) -> tuple[ListEnvelope, Gathering]:
    """A body as the reflector's driver hands it over."""
    splitter = list_splitter(cache.spec.representation, cache.peek)
    found = splitter.receive_data(data)
    last, envelope = splitter.receive_eof()
    return replace(envelope, token=""), gathered(cache, [cache.item(one) for one in found + last])


def filled(data: bytes, of: CacheSpec | None = None, now: float = 0.0) -> WatchCache:
    """A ready cache."""
    cache = WatchCache(of or spec())
    cache.fill(*read_list(data, cache), now)
    return cache


def with_pods(pods: Iterable[Mapping[str, Any]], revision: int, **options: Any) -> WatchCache:
    return filled(listed(pods, revision), spec(**options))


def whole(answer: ListAnswer) -> bytes:
    """All of a body."""
    parts: list[bytes] = []
    while (part := answer.read()) is not None:
        parts.append(part)
    return b"".join(parts)


def keys(snapshot: Snapshot) -> list[str]:
    return [item.key for item in snapshot.walk()]


def selection(namespace: str = "", labels: str = "", fields: str = "") -> Selection:
    return parse_selection(namespace, labels, fields)


def peek_item(value: Mapping[str, Any]) -> Item:
    return item_of(_peek(encoded(value)), encoded(value))


_peek = peeker(JSON, POD_TABLE)
