"""Accept -> how an answer is written, as kube-apiserver negotiates it.

Two sieves stand one behind the other. The router of built-in resources refuses requests that name
none of its media types (go-restful, which knows ``*/*`` but not ``application/*``); custom
resources have no such router. The handler then takes the first clause it can serve: by falling
quality, wildcards last. Source: apiserver/pkg/endpoints/handlers/negotiation/negotiate.go.

This server writes no YAML: a clause for it is passed over, except on watches, which upstream
refuses too when YAML is preferred.
"""

from __future__ import annotations

from dataclasses import dataclass

from apiguard.demo import problems
from apiguard.demo.protobuf import message_of
from apiguard.demo.resources import Resource

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
# What the errors of kube-apiserver list.
AVAILABLE = (JSON, YAML, PROTOBUF)
META = "meta.k8s.io"
TABLE, PARTIAL, PARTIAL_LIST = "Table", "PartialObjectMetadata", "PartialObjectMetadataList"
_CONVERSION = frozenset({"as", "g", "v"})


@dataclass(frozen=True, slots=True)
class Clause:
    """One media range of Accept with its parameters."""

    media: str
    quality: float
    parameters: dict[str, str]

    def covers(self, media: str) -> bool:
        return self.media in (media, "application/*", "*/*")

    @property
    def converts(self) -> bool:
        """Whether it asks for another kind than the object's own."""
        return not _CONVERSION.isdisjoint(self.parameters)


@dataclass(frozen=True, slots=True)
class Representation:
    """``transform`` is "", Table or a PartialObjectMetadata kind; ``version`` its meta.k8s.io one.

    ``include``  Table only: what the rows hold of the object: Metadata, Object or None
    """

    transform: str = ""
    version: str = "v1"
    include: str = "Metadata"
    media: str = JSON

    @property
    def id(self) -> str:
        return f"{self.media}/{self.transform}/{self.version}/{self.include}"

    @property
    def label(self) -> str:
        """Its name in counts: json, protobuf, json-metadata, protobuf-metadata or table."""
        if self.transform == TABLE:
            return "table"
        return ("protobuf" if self.binary else "json") + ("-metadata" if self.transform else "")

    @property
    def binary(self) -> bool:
        return self.media == PROTOBUF

    @property
    def stream_type(self) -> str:
        """Content-Type of a watch."""
        return f"{PROTOBUF};stream=watch" if self.binary else JSON


PLAIN = Representation()
BINARY = Representation(media=PROTOBUF)


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


def negotiate(
    accept: str,
    resource: Resource,
    *,
    streams: bool = False,
    watching: bool = False,
    include: str = "",
) -> Representation:
    """The representation of an answer about ``resource``; raises ``ApiError`` 406.

    ``streams``: the route also watches, which its refusal names; ``include`` is the includeObject
    parameter of the query.
    """
    if not accept:
        return PLAIN
    if not resource.custom and not _routed(accept):
        raise problems.not_acceptable(AVAILABLE, streams=streams)
    for clause in parse_accept(accept):
        if watching and clause.media == YAML and not clause.converts:
            raise problems.only_media_types(STREAMS)
        for media in (JSON, PROTOBUF):
            if clause.covers(media) and _can_serve(clause, media, resource):
                return Representation(
                    clause.parameters.get("as", ""),
                    clause.parameters.get("v", "v1"),
                    include or "Metadata",
                    media,
                )
    raise problems.only_media_types(AVAILABLE)


STREAMS = (f"{JSON};stream=watch", f"{PROTOBUF};stream=watch")


def _routed(accept: str) -> bool:
    bare = (text.partition(";")[0].strip().lower() for text in accept.split(","))
    return any(media == "*/*" or media in AVAILABLE for media in bare)


def _can_serve(clause: Clause, media: str, resource: Resource) -> bool:
    if clause.parameters.get("stream", "watch") != "watch":
        return False
    if not clause.converts:
        return media == JSON or message_of(resource) is not None
    if clause.parameters.get("g") != META or clause.parameters.get("v") not in ("v1", "v1beta1"):
        return False
    kind = clause.parameters.get("as")
    return kind in (PARTIAL, PARTIAL_LIST) or (kind == TABLE and media == JSON)


def negotiate_error(accept: str) -> Representation | None:
    """How a Status is written: conversions are passed over; None when nothing is left."""
    if not accept:
        return PLAIN
    for clause in parse_accept(accept):
        if clause.converts or clause.parameters.get("stream", "watch") != "watch":
            continue
        if clause.covers(JSON):
            return PLAIN
        if clause.covers(PROTOBUF):
            return BINARY
    return None


def check_list_kind(resource: Resource, representation: Representation, *, listing: bool) -> None:
    """Refuses metadata of a list for one object, and the reverse: ``ApiError`` 406.

    Upstream finds out when it converts the result, so after everything else that can fail.
    """
    if representation.transform == (PARTIAL if listing else PARTIAL_LIST):
        raise problems.wrong_list_kind(representation.transform, _go_type(resource, listing))


def _go_type(resource: Resource, listing: bool) -> str:
    suffix = "List" if listing else ""
    if resource.custom:
        return f"*unstructured.Unstructured{suffix}"
    return f"*{resource.group.partition('.')[0] or 'core'}.{resource.kind}{suffix}"
