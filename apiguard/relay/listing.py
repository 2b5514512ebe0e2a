"""LIST: what its parameters ask for, and what may be answered from a cache.

The table of resourceVersion, resourceVersionMatch, limit and continue is data here; the rest
matches it with a cache's state. What cannot be answered exactly goes upstream as it came, so most
refusals are upstream's own; the few below are those clients meet daily, in the words recorded.

Sources: k8s.io/apiserver/pkg/storage/cacher/delegator/interface.go, k8s.io/apimachinery/pkg/apis/
meta/internalversion/validation/validation.go, k8s.io/apiserver/pkg/storage/{continue,errors}.go.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from apiguard.kube.selectors import parse_int64
from apiguard.kube.status import Status, StatusCause, bad_request, invalid
from apiguard.relay.bodies import BodyCache, ListAnswer, Source, items_content, source_of
from apiguard.relay.item import Item, key_of
from apiguard.relay.selection import Selection
from apiguard.relay.snapshot import Snapshot, namespace_range
from apiguard.relay.store import WatchCache

FRESHNESS_WAIT = 3.0
"""Seconds a read waits for the revision it names before it is told 504."""


# --- what is asked ------------------------------------------------------------------------------


class Reading(enum.Enum):
    """Which state a list must show."""

    RECENT = "most recent"
    ANY = "any"
    NOT_OLDER = "not older than the revision named"
    EXACT = "exactly the revision named"


class Row(NamedTuple):
    """One row of the table; ``paged`` says whether a limit is honoured."""

    reading: Reading
    paged: bool


# (match, kind of resourceVersion, with a limit) -> what it means. What is missing is refused.
_UNSET, _ZERO, _SOME = "", "0", "N"
TABLE: dict[tuple[str, str, bool], Row] = {
    ("", _UNSET, False): Row(Reading.RECENT, paged=False),
    ("", _UNSET, True): Row(Reading.RECENT, paged=True),
    ("", _ZERO, False): Row(Reading.ANY, paged=False),
    ("", _ZERO, True): Row(Reading.ANY, paged=False),  # a watch cache ignores the limit
    ("", _SOME, False): Row(Reading.NOT_OLDER, paged=False),
    ("", _SOME, True): Row(Reading.EXACT, paged=True),  # older than resourceVersionMatch itself
    ("NotOlderThan", _ZERO, False): Row(Reading.ANY, paged=False),
    ("NotOlderThan", _ZERO, True): Row(Reading.ANY, paged=False),
    ("NotOlderThan", _SOME, False): Row(Reading.NOT_OLDER, paged=False),
    ("NotOlderThan", _SOME, True): Row(Reading.NOT_OLDER, paged=True),
    ("Exact", _SOME, False): Row(Reading.EXACT, paged=False),
    ("Exact", _SOME, True): Row(Reading.EXACT, paged=True),
}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A LIST as understood. ``revision`` 0 where none is named; ``limit`` 0 is none; ``start`` is
    the key a continued list begins at, relative to the scope."""

    selection: Selection
    reading: Reading
    revision: int = 0
    limit: int = 0
    start: str = ""
    unpaged_at_zero: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """A body kube-apiserver would answer with too; ``status`` knows its code."""

    status: Status


@dataclass(frozen=True, slots=True)
class PassUpstream:
    """Not ours to answer; ``reason`` is one word for a metric."""

    reason: str


def parse_list(query: Mapping[str, str], selection: Selection) -> ListQuery | Refuse | PassUpstream:
    """``query``: parameter -> first value, as Go reads it."""
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    token = query.get("continue", "")
    limit = parse_int64(query.get("limit", "0"))
    if limit is None or parse_int64(query.get("timeoutSeconds", "0")) is None:
        return PassUpstream("limit")
    if (refusal := _forbidden(version, match, token, query)) is not None:
        return refusal
    if (token or limit > 0) and _narrowed(selection):
        return PassUpstream("scope")
    if token:
        if selection.name is not None:
            return PassUpstream("token")  # upstream reads one key, wherever the token points
        return _continued(token, selection, max(limit, 0))
    kind = version if version in (_UNSET, _ZERO) else _SOME
    if kind is _SOME and not is_revision(version):
        return no_revision(version, selection, bad_request, "invalid resource version: ")
    row = TABLE.get((match, kind, limit > 0))
    if row is None:
        return PassUpstream("parameters")
    return ListQuery(
        selection,
        row.reading,
        int(version or 0),
        max(limit, 0) if row.paged else 0,
        unpaged_at_zero=row.reading is Reading.ANY and limit > 0,
    )


def _narrowed(selection: Selection) -> bool:
    """Whether upstream lists less than the path says, namely the one namespace that a field
    selector names; its tokens are relative to that."""
    elsewhere = selection.fields.exact("metadata.namespace")
    return elsewhere is not None and elsewhere != selection.namespace


def _forbidden(
    version: str, match: str, token: str, query: Mapping[str, str]
) -> Refuse | PassUpstream | None:
    """One mistake is answered here; several are for upstream, which words them together."""
    name = "resourceVersionMatch"
    found: list[Refuse | PassUpstream] = []
    if match and not version:
        found.append(option(name, f"{name} is forbidden unless resourceVersion is provided"))
    if match and token:
        found.append(option(name, f"{name} is forbidden when continue is provided"))
    if match not in ("", "Exact", "NotOlderThan"):
        found.append(PassUpstream("parameters"))
    if match == "Exact" and version == "0":
        found.append(option(name, f'{name} "exact" is forbidden for resourceVersion "0"'))
    if "sendInitialEvents" in query:
        found.append(option("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if token and version not in ("", "0"):
        found.append(PassUpstream("token"))  # whether the token can be read is judged before
    if len(found) > 1:
        return PassUpstream("parameters")
    return found[0] if found else None


def option(name: str, why: str) -> Refuse:
    """422 for one parameter that may not stand where it does."""
    cause = StatusCause("FieldValueForbidden", f"Forbidden: {why}", name)
    return Refuse(invalid("ListOptions", "", (cause,), group="meta.k8s.io"))


def is_revision(text: str) -> bool:
    """Whether Go parses it as an unsigned integer of 64 bits."""
    return text.isascii() and text.isdigit() and int(text) < 1 << 64


_LONGEST_WORD = 19
"""Characters up to which a number is never out of range, whatever follows its digits."""


def no_revision(
    text: str, selection: Selection, worded: Callable[[str], Status], before: str = ""
) -> Refuse | PassUpstream:
    """What is answered to a resourceVersion that is none. Upstream looks at fields first, and at
    the length of a number before it looks at its end; what it would quote otherwise passes."""
    plain = text.isascii() and text.isprintable() and len(text) <= _LONGEST_WORD
    if not plain or not selection.fields.empty:
        return PassUpstream("parameters")
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    why = f"strconv.ParseUint: parsing {quoted}: invalid syntax"
    return Refuse(worded(f"{before}resourceVersion: Invalid value: {quoted}: {why}"))


class _Token(msgspec.Struct, frozen=True):
    v: str
    rv: int
    start: str


_decode_token = msgspec.json.Decoder(_Token).decode


def _continued(token: str, selection: Selection, limit: int) -> ListQuery | PassUpstream:
    """A token that is not plainly ours or kube-apiserver's is for upstream to judge."""
    try:
        padded = token + "=" * (-len(token) % 4)
        found = _decode_token(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return PassUpstream("token")
    start = found.start.removeprefix("/")
    parts = start.split("/")
    if found.v != "meta.k8s.io/v1" or not start or found.rv == 0 or ".." in parts:
        return PassUpstream("token")
    if found.rv < 0:
        return ListQuery(selection, Reading.RECENT, 0, limit, start)
    return ListQuery(selection, Reading.EXACT, found.rv, limit, start)


# --- what is answered ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServeList:
    """Answer from ``snapshot``; see ``answer``."""

    query: ListQuery
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class ReadConsistently:
    """Only after proof that the cache is as fresh as a read that begins now."""

    query: ListQuery


@dataclass(frozen=True, slots=True)
class WaitFor:
    """The cache is behind ``revision``: ask again when it is there, at most ``FRESHNESS_WAIT``
    seconds, then answer ``status.resource_version_too_large``."""

    query: ListQuery
    revision: int


ListDecision = ServeList | ReadConsistently | WaitFor | PassUpstream


def decide_list(query: ListQuery, cache: WatchCache, *, relaxed: bool = False) -> ListDecision:
    """``relaxed``: reads without a revision may be served as they are held.

    What lies behind the cache's history goes upstream, also while upstream is away: it may still
    have it when it returns, and a 410 from here would make all those who page begin anew.
    """
    if not cache.ready:
        return PassUpstream("unready")
    if not query.selection.known_to(cache.fields):
        return PassUpstream("selector")
    if query.unpaged_at_zero and not cache.spec.cached_upstream:
        return PassUpstream("limit")
    reading, current = query.reading, cache.revision
    if reading is Reading.RECENT and not relaxed:
        return ReadConsistently(query)
    if query.revision > current:
        return WaitFor(query, query.revision)
    if reading is not Reading.EXACT:
        return ServeList(query, cache.snapshot())
    snapshot = cache.snapshot_at(query.revision)
    if snapshot is not None:
        return ServeList(query, snapshot)
    return PassUpstream("history")


def answer(serve: ServeList, cache: WatchCache, bodies: BodyCache) -> ListAnswer:
    """One reader's way through the body."""
    query, snapshot = serve.query, serve.snapshot
    selection = query.selection
    paged = bool(query.limit or query.start) and not _single(selection, cache)
    few = None if paged else indexed(selection, snapshot, cache)
    if few is not None:
        content = items_content(cache.form, few)
    else:
        key = (cache, "list", selection, query.start, query.limit)
        stamp = cache.epoch, snapshot.change
        content = bodies.get(key, stamp, lambda: items_content(cache.form, _ranged(serve, cache)))
    prefix = f"{selection.namespace}/" if selection.namespace else ""
    lead = "/" if cache.spec.cached_upstream else ""
    return ListAnswer(content, cache.form, snapshot.revision, prefix, lead)


def _single(selection: Selection, cache: WatchCache) -> bool:
    """Whether at most one object is asked for: upstream reads its key and does not page."""
    return selection.name is not None and bool(selection.namespace or not cache.spec.namespaced)


def indexed(selection: Selection, snapshot: Snapshot, cache: WatchCache) -> Source | None:
    """The few items a name or a node selects, without a walk; None where no index helps.

    Pods without a node are many and stand in no index.
    """
    name = selection.name
    if name is not None and _single(selection, cache):
        found = snapshot.get(key_of(selection.namespace, name))
        items: tuple[Item, ...] = () if found is None else (found,)
    elif selection.node and snapshot.change == cache.snapshot().change:
        items = cache.on_node(selection.node)
    else:
        return None
    return Source(iter(items), selection.compile(cache.fields))


def _ranged(serve: ServeList, cache: WatchCache) -> Source:
    query, selection = serve.query, serve.query.selection
    low, high = namespace_range(selection.namespace)
    test = None if selection.unselective else selection.compile(cache.fields)
    return source_of(serve.snapshot, (low + query.start, high), test, query.limit)
