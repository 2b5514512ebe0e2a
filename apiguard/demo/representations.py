"""Accept -> how an answer is written, and the writing.

A ``Representation`` is one row of the table kube-apiserver negotiates over
(apiserver/pkg/endpoints/handlers/negotiation/negotiate.go): a media type and what the object is
turned into. Protobuf would be one more row with its own writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apiguard.demo import problems, tables
from apiguard.demo.encoding import Object, encode
from apiguard.demo.resources import Resource, list_body
from apiguard.demo.store import Change, Item

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
# What the errors of kube-apiserver list; the double writes the first of them only.
AVAILABLE = (JSON, YAML, PROTOBUF)
_META = "meta.k8s.io"
_TABLE, _PARTIAL, _PARTIAL_LIST = "Table", "PartialObjectMetadata", "PartialObjectMetadataList"


@dataclass(frozen=True, slots=True)
class Clause:
    """One media range of Accept with its parameters."""

    media: str
    quality: float
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Representation:
    """``transform`` is "", Table or PartialObjectMetadata; ``version`` that of meta.k8s.io.

    ``include``  Table only: what the rows hold of the object: Metadata, Object or None
    """

    transform: str = ""
    version: str = "v1"
    include: str = "Metadata"

    @property
    def id(self) -> str:
        return f"{self.transform}/{self.version}/{self.include}" if self.transform else ""


PLAIN = Representation()


def parse_accept(header: str) -> list[Clause]:
    """Clauses by falling quality, wildcards after the types of equal quality."""
    clauses: list[Clause] = []
    for text in header.split(","):
        media, *rest = [part.strip() for part in text.split(";")]
        if not media:
            continue
        parameters = dict(_parameter(part) for part in rest)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        clauses.append(Clause(media.lower(), quality, parameters))
    return sorted(clauses, key=lambda clause: (-clause.quality, clause.media.count("*")))


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip().strip('"')


def negotiate(accept: str, *, listing: bool, watching: bool, include: str = "") -> Representation:
    """The representation of a resource answer; raises ``ApiError`` 406.

    ``include`` is the includeObject parameter of the query.
    """
    if not accept:
        return PLAIN
    partial = _PARTIAL_LIST if listing and not watching else _PARTIAL
    for clause in parse_accept(accept):
        if clause.media == YAML and watching:
            break  # a preferred YAML clause refuses a watch even with JSON behind it
        if clause.media not in (JSON, "application/*", "*/*"):
            continue
        wanted = clause.parameters.get("as", "")
        if not wanted:
            return PLAIN
        version = clause.parameters.get("v", "v1")
        if clause.parameters.get("g") != _META or version not in ("v1", "v1beta1"):
            continue
        if wanted == _TABLE:
            return Representation(_TABLE, version, include or "Metadata")
        if wanted == partial:
            return Representation(_PARTIAL, version)
    raise problems.not_acceptable(AVAILABLE)


def partial_metadata(item: Item, version: str = "v1") -> Object:
    return {
        "kind": _PARTIAL,
        "apiVersion": f"{_META}/{version}",
        "metadata": item.value["metadata"],
    }


def write_object(item: Item, representation: Representation, now: float) -> bytes:
    """One object as the body of an answer, with its final newline."""
    if not representation.transform:
        return item.full + b"\n"
    if representation.transform == _PARTIAL:
        return encode(partial_metadata(item, representation.version)) + b"\n"
    return encode(table([item], representation, item.revision, now)) + b"\n"


def write_list(
    resource: Resource,
    items: Sequence[Item],
    revision: int,
    token: str,
    remaining: int | None,
    representation: Representation,
    now: float,
) -> bytes:
    """A list as the body of an answer."""
    if not representation.transform:
        bodies = [item.body for item in items]
        return list_body(resource, revision, bodies, token, remaining)
    metadata: Object = {"resourceVersion": str(revision)}
    if token:
        metadata["continue"] = token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
    version = representation.version
    if representation.transform == _TABLE:
        found = table(items, representation, revision, now, resource)
        found["metadata"] = metadata
        return encode(found) + b"\n"
    rows = [partial_metadata(item, version) for item in items]
    body = {
        "kind": _PARTIAL_LIST,
        "apiVersion": f"{_META}/{version}",
        "metadata": metadata,
        "items": rows,
    }
    return encode(body) + b"\n"


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
        "kind": _TABLE,
        "apiVersion": f"{_META}/{representation.version}",
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
    """A JSON watch event of a plain or partial representation; encoded once per change."""
    key = (kind, representation.id)
    frame = change.frames.get(key)
    if frame is None:
        frame = change.frames[key] = plain_event(kind, item, representation)
    return frame


def plain_event(kind: str, item: Item, representation: Representation) -> bytes:
    """A JSON watch event without columns: one line."""
    if representation.transform:
        body = encode(partial_metadata(item, representation.version))
    else:
        body = item.full
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
    if representation.transform == _TABLE:
        body: Object = {
            "kind": _TABLE,
            "apiVersion": f"{_META}/{representation.version}",
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
    return encode({"type": "BOOKMARK", "object": body}) + b"\n"


def _shell(metadata: Object, version: str = "v1") -> Object:
    return {"kind": _PARTIAL, "apiVersion": f"{_META}/{version}", "metadata": metadata}


def error_event(error: problems.ApiError) -> bytes:
    return encode({"type": "ERROR", "object": error.status()}) + b"\n"
