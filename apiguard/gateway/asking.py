"""Whether a request may be the relay's, and what it asks for: read once per request line.

Only what the relay could answer exactly gets this far; for everything else there is a word, for a
metric, and the request goes upstream as it came. So no refusal is worded here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from apiguard.kube.neturl import MAX_PARAMETERS, first_values
from apiguard.kube.requestinfo import RequestInfo
from apiguard.kube.selectors import SelectorError
from apiguard.kube.status import Representation
from apiguard.relay.selection import Selection, parse_selection
from apiguard.wire.messages import HeaderBlock, RequestLine

_PARAMETERS = frozenset(
    {
        "allowWatchBookmarks",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "resourceVersionMatch",
        "sendInitialEvents",
        "timeout",
        "timeoutSeconds",
        "watch",
    }
)
_DURATION = re.compile(r"([0-9]{1,6}(ms|s|m|h)){1,4}")
"""Of Go's durations those that clients send: ``7m16s`` beside every watch of an informer."""

_PRETTY_AGENTS = (b"curl", b"Wget", b"Mozilla/5.0")
"""For these kube-apiserver indents JSON."""


class Form(NamedTuple):
    """How objects are wanted."""

    representation: Representation
    metadata_only: bool

    @property
    def word(self) -> str:
        """For metrics: json, protobuf, json-metadata or protobuf-metadata."""
        name = "json" if self.representation is Representation.JSON else "protobuf"
        return f"{name}-metadata" if self.metadata_only else name


class FeedKey(NamedTuple):
    """What one cache holds."""

    group: str
    version: str
    resource: str
    form: Form


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A LIST or WATCH the line describes; ``query``: parameter -> first value, as Go reads it."""

    group: str
    version: str
    resource: str
    watch: bool
    query: Mapping[str, str]
    selection: Selection

    @property
    def path(self) -> str:
        """Of the same collection, for a read of the guard's own."""
        return collection_path(self.group, self.version, self.resource, self.selection.namespace)


def collection_path(group: str, version: str, resource: str, namespace: str = "") -> str:
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{resource}"


class _Everything:
    def __contains__(self, _: object) -> bool:
        return True


_EVERYTHING = _Everything()


def read_line(line: RequestLine, info: RequestInfo) -> Wanted | str:
    """What a GET of a collection asks for, or why it is none of the relay's."""
    if line.method != "GET" or info.verb not in ("list", "watch") or info.subresource:
        return "verb"
    path, _, text = line.target.partition("?")
    if path != collection_path(info.api_group, info.api_version, info.resource, info.namespace):
        return "path"  # the /watch/ prefix, escapes, a slash at the end
    if text.count("&") >= MAX_PARAMETERS:
        return "parameters"
    query = first_values(text, _EVERYTHING) if text else {}
    if not query.get(""):  # two ampersands in a row, or one at the end: Go sees nothing there
        query.pop("", None)
    if not _PARAMETERS.issuperset(query):
        return "parameters"
    if not _DURATION.fullmatch(query.get("timeout", "0s")):
        return "parameters"
    try:
        selection = parse_selection(
            info.namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
    except SelectorError:
        return "selector"
    watch = info.verb == "watch"
    return Wanted(info.api_group, info.api_version, info.resource, watch, query, selection)


def unservable(block: HeaderBlock) -> str:
    """Why a header block keeps its requests from the relay, "" if it does not."""
    if block.length or block.declared or block.upgrade:
        return "body"
    if block.user_agent.startswith(_PRETTY_AGENTS):
        return "pretty"
    if block.get(b"range") or block.get(b"if-none-match"):
        return "conditions"
    return ""


@functools.lru_cache(maxsize=1024)
def read_accept(accept: str, *, watch: bool, custom: bool) -> Form | str:
    """The form kube-apiserver would answer in, if the relay has it; otherwise why not.

    The first clause by quality, wildcards last, that kube-apiserver can serve wins. What it can
    is not fully known of custom resources, so the first clause in doubt ends the search.
    Source: k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go.
    """
    if not accept:
        return Form(Representation.JSON, False)
    clauses = _clauses(accept)
    if clauses is None:
        return "accept"
    for media, parameters in clauses:
        if media == "application/json" or (media == "*/*" and not parameters):
            representation = Representation.JSON
        elif media == Representation.PROTOBUF.value:
            representation = Representation.PROTOBUF
        else:
            return "accept"
        if not parameters:
            if representation is Representation.PROTOBUF and custom:
                return "accept"
            return Form(representation, False)
        if watch and parameters == {"stream": "watch"} and not custom:
            return Form(representation, False)
        kind = "PartialObjectMetadata" if watch else "PartialObjectMetadataList"
        if parameters != {"as": kind, "g": "meta.k8s.io", "v": "v1"}:
            return "table" if parameters.get("as") == "Table" else "accept"
        return Form(representation, True)
    return "accept"


def reads_errors(accept: str) -> bool:
    """Whether a Status can be written as this client accepts it. Where every clause asks for a
    conversion kube-apiserver indents its errors, as it does nowhere else."""
    return not accept or any("as=" not in clause for clause in accept.split(","))


_QUALITY = re.compile(r"0(\.[0-9]{1,3})?|1(\.0{1,3})?")
_MOST_CLAUSES = 12
"""Up to so many Go's sort keeps equal clauses in their order."""


def _clauses(accept: str) -> list[tuple[str, dict[str, str]]] | None:
    """Media types with their parameters, the most wanted first; None where the order is unclear.

    Upstream puts wildcards behind everything else, but orders by quality too, and a comparison
    that does both is no order: what comes first depends on the sort. Names are case-sensitive.
    """
    found: list[tuple[float, int, str, dict[str, str]]] = []
    qualities, wildcards = False, False
    for clause in accept.split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        parameters = dict(_parameter(part) for part in rest)
        repeated = len(parameters) < len(rest)
        quality = parameters.pop("q", "1")
        if not media or repeated or not _QUALITY.fullmatch(quality):
            return None
        qualities |= quality != "1"
        wildcards |= "*" in media
        found.append((-float(quality), media.count("*"), media, parameters))
    if len(found) > _MOST_CLAUSES or (qualities and wildcards):
        return None
    found.sort(key=lambda one: one[:2])
    return [(media, parameters) for _, _, media, parameters in found]


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()
