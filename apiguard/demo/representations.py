"""Objects, lists and watch events in every representation an answer can have.

What costs is done once and kept: an item keeps its encoded forms, a change its frames.
"""

from __future__ import annotations

from collections.abc import Sequence

from apiguard.demo import negotiation, problems, protobuf, tables
from apiguard.demo.encoding import Object, encode
from apiguard.demo.negotiation import META, PARTIAL, PARTIAL_LIST, TABLE, Representation
from apiguard.demo.resources import Resource, list_body
from apiguard.demo.store import Change, Item


def partial_metadata(item: Item, version: str = "v1") -> Object:
    return {
        "kind": PARTIAL,
        "apiVersion": f"{META}/{version}",
        "metadata": item.metadata,
    }


def encode_ahead(item: Item, representation: Representation) -> None:
    """Has the binary form of an item made, which is then kept."""
    _ = item.partial_message if representation.transform else item.message


def object_bytes(item: Item, representation: Representation) -> bytes:
    """One object, plain or as its metadata: what GET and a watch event hold."""
    if representation.binary:
        if representation.transform:
            version = f"{META}/{representation.version}"
            return protobuf.wrap(version, PARTIAL, item.partial_message)
        return protobuf.wrap(item.resource.api_version, item.resource.kind, item.message)
    if not representation.transform:
        return item.full
    if representation.version == "v1":
        return item.partial
    return encode(partial_metadata(item, representation.version))


def write_object(item: Item, representation: Representation, now: float) -> bytes:
    """One object as the body of an answer; JSON ends with a newline. Raises ``ApiError`` 406."""
    negotiation.check_list_kind(item.resource, representation, listing=False)
    if representation.transform == TABLE:
        return encode(table([item], representation, item.revision, now)) + b"\n"
    body = object_bytes(item, representation)
    return body if representation.binary else body + b"\n"


def write_value(value: Object, representation: Representation) -> bytes:
    """An answer that is no stored object: a Status, a review, a scale."""
    if representation.binary:
        return protobuf.encode_body(value)
    return encode(value) + b"\n"


def write_list(
    resource: Resource,
    items: Sequence[Item],
    revision: int,
    token: str,
    remaining: int | None,
    representation: Representation,
    now: float,
) -> bytes:
    """A list as the body of an answer; raises ``ApiError`` 406."""
    negotiation.check_list_kind(resource, representation, listing=True)
    if not representation.transform and not representation.binary:
        bodies = [item.body for item in items]
        return list_body(resource, revision, bodies, token, remaining)
    metadata: Object = {"resourceVersion": str(revision)}
    if token:
        metadata["continue"] = token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
    if representation.binary:
        return _binary_list(resource, items, metadata, representation)
    if representation.transform == TABLE:
        found = table(items, representation, revision, now, resource)
        found["metadata"] = metadata
        return encode(found) + b"\n"
    head = encode(
        {
            "kind": PARTIAL_LIST,
            "apiVersion": f"{META}/{representation.version}",
            "metadata": metadata,
        }
    )
    if not items:  # a slice nobody appended to
        return head[:-1] + b',"items":null}\n'
    rows = [object_bytes(item, representation) for item in items]
    return b"".join((head[:-1], b',"items":[', b",".join(rows), b"]}\n"))


def _binary_list(
    resource: Resource, items: Sequence[Item], metadata: Object, representation: Representation
) -> bytes:
    if not representation.transform:
        raw = protobuf.encode_list(metadata, [item.message for item in items])
        return protobuf.wrap(resource.api_version, f"{resource.kind}List", raw)
    raw = protobuf.encode_list(
        metadata,
        [item.partial_message for item in items],
        items_first=representation.version == "v1beta1",
    )
    return protobuf.wrap(f"{META}/{representation.version}", PARTIAL_LIST, raw)


def table(
    items: Sequence[Item],
    representation: Representation,
    revision: int,
    now: float,
    resource: Resource | None = None,
    *,
    columns: bool = True,
) -> Object:
    """A Table object; without ``columns`` its columnDefinitions are null, as in later events."""
    kind = resource if resource is not None else items[0].resource
    layout = tables.layout(kind)
    return {
        "kind": TABLE,
        "apiVersion": f"{META}/{representation.version}",
        "metadata": {"resourceVersion": str(revision)},
        "columnDefinitions": layout.definitions if columns else None,
        "rows": [_row(item, layout, representation, now) for item in items],
    }


def _row(item: Item, layout: tables.Layout, representation: Representation, now: float) -> Object:
    row: Object = {"cells": layout.cells(item.value, now)}
    if representation.include == "Object":
        row["object"] = item.value
    elif representation.include != "None":
        row["object"] = partial_metadata(item, representation.version)
    else:
        row["object"] = None
    return row


def event_frame(kind: str, item: Item, change: Change, representation: Representation) -> bytes:
    """A watch event of a plain or partial representation; encoded once per change."""
    key = (kind, representation.id)
    frame = change.frames.get(key)
    if frame is None:
        frame = change.frames[key] = plain_event(kind, item, representation)
    return frame


def plain_event(kind: str, item: Item, representation: Representation) -> bytes:
    """A watch event without columns: one line, or one frame of protobuf."""
    return _framed(kind, object_bytes(item, representation), representation)


def _framed(kind: str, body: bytes, representation: Representation) -> bytes:
    if representation.binary:
        return protobuf.watch_frame(kind, body)
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)


def table_event(
    kind: str, item: Item, representation: Representation, now: float, *, columns: bool
) -> bytes:
    """A watch event holding a one-row Table; only a stream's first has ``columns``."""
    body = table([item], representation, item.revision, now, columns=columns)
    return encode({"type": kind, "object": body}) + b"\n"


_BOOKMARK_SHELLS: dict[str, Object] = {
    "Pod": {"spec": {"containers": None}, "status": {}},
    "Node": {
        "spec": {},
        "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": dict.fromkeys(
                (
                    "machineID",
                    "systemUUID",
                    "bootID",
                    "kernelVersion",
                    "osImage",
                    "containerRuntimeVersion",
                    "kubeletVersion",
                    "kubeProxyVersion",
                    "operatingSystem",
                    "architecture",
                ),
                "",
            ),
        },
    },
    "Namespace": {"spec": {}, "status": {}},
    "Service": {"spec": {}, "status": {"loadBalancer": {}}},
    "EndpointSlice": {"addressType": "", "endpoints": None, "ports": None},
    "Lease": {"spec": {}},
}


def bookmark(
    resource: Resource, revision: int, representation: Representation, *, initial_end: bool
) -> bytes:
    """A BOOKMARK event: kind, apiVersion, revision and zero values."""
    metadata: Object = {"resourceVersion": str(revision)}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    if representation.transform == TABLE:
        body: Object = {
            "kind": TABLE,
            "apiVersion": f"{META}/{representation.version}",
            "metadata": {"resourceVersion": str(revision)},
            "columnDefinitions": None,
            "rows": [{"cells": tables.layout(resource).blank(), "object": _shell(metadata)}],
        }
    elif representation.transform:
        body = _shell(metadata, representation.version)
    else:
        shell = {} if resource.custom else _BOOKMARK_SHELLS.get(resource.kind, {})
        body = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": metadata,
            **shell,
        }
    return _framed("BOOKMARK", _encoded(body, representation), representation)


def _shell(metadata: Object, version: str = "v1") -> Object:
    return {"kind": PARTIAL, "apiVersion": f"{META}/{version}", "metadata": metadata}


def error_event(error: problems.ApiError, representation: Representation) -> bytes:
    return _framed("ERROR", _encoded(error.status(), representation), representation)


def _encoded(body: Object, representation: Representation) -> bytes:
    return protobuf.encode_body(body) if representation.binary else encode(body)
