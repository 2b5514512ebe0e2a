"""WATCH: what its parameters ask for, and where in a cache's past the stream begins.

Sources: k8s.io/apiserver/pkg/storage/cacher/cacher.go, k8s.io/apimachinery/pkg/apis/meta/
internalversion/validation/validation.go. As with lists, what cannot be served exactly is passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from apiguard.kube.selectors import parse_int64
from apiguard.kube.status import Status, expired
from apiguard.relay.eventlog import Unresumable
from apiguard.relay.listing import PassUpstream, Refuse, is_revision, no_revision, option
from apiguard.relay.selection import Selection
from apiguard.relay.snapshot import Snapshot
from apiguard.relay.store import WatchCache

_LONGEST = 1 << 31
"""Seconds of timeoutSeconds from which on Go's durations may run over."""


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """A WATCH as understood.

    ``revision`` None: unset, which asks for the most recent state; 0: any. ``initial``: synthetic
    ADDED events come first. ``timeout`` in seconds, 0 where none is named.
    """

    selection: Selection
    revision: int | None
    initial: bool
    bookmarks: bool
    timeout: int = 0


def parse_watch(
    query: Mapping[str, str], selection: Selection
) -> WatchQuery | Refuse | PassUpstream:
    """``query``: parameter -> first value, as Go reads it. Not for the ``/watch/`` prefix."""
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    timeout = parse_int64(query.get("timeoutSeconds", "0"))
    if timeout is None or not 0 <= timeout < _LONGEST or "continue" in query or "limit" in query:
        return PassUpstream("parameters")
    explicit = "sendInitialEvents" in query
    if explicit and match != "NotOlderThan":
        if match:
            return PassUpstream("parameters")
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        return option("resourceVersionMatch", why)
    if match and not explicit:
        return PassUpstream("parameters")
    if version and not is_revision(version):
        return no_revision(version, selection, _unparsable)
    revision = int(version) if version else None
    initial = _flag(query, "sendInitialEvents") if explicit else not revision
    bookmarks = _flag(query, "allowWatchBookmarks")
    return WatchQuery(selection, revision, initial, bookmarks, timeout)


def _flag(query: Mapping[str, str], name: str) -> bool:
    """Absent, ``0`` and ``false`` are false; everything else, also empty, is true."""
    return query.get(name, "0").lower() not in ("0", "false")


def _unparsable(sentence: str) -> Status:
    """A 500 without a reason: so says kube-apiserver of watches, though not of lists."""
    return Status(500, "", sentence)


# --- what is answered ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Open a stream: ``initial`` events first (None: none), then the log from ``position`` on.
    Nothing at or below ``above`` is told."""

    query: WatchQuery
    initial: Snapshot | None
    position: int
    above: int


@dataclass(frozen=True, slots=True)
class BeginFresh:
    """Only after proof that the cache is as fresh as a read that begins now."""

    query: WatchQuery


@dataclass(frozen=True, slots=True)
class BeginAt:
    """The cache is behind ``revision``: ask again when it is there, at most
    ``listing.FRESHNESS_WAIT`` seconds, then end the stream with 504 as its only event."""

    query: WatchQuery
    revision: int


@dataclass(frozen=True, slots=True)
class BeginExpired:
    """Answer 200 and one ERROR event with ``status``."""

    status: Status


WatchDecision = Begin | BeginFresh | BeginAt | BeginExpired | PassUpstream


def decide_watch(query: WatchQuery, cache: WatchCache, *, fresh: bool = False) -> WatchDecision:
    """``fresh``: the cache was proven to be recent, or this client may be served as it is."""
    if not cache.ready:
        return PassUpstream("unready")
    if not query.selection.known_to(cache.fields):
        return PassUpstream("selector")
    if query.revision is None and not fresh:
        return BeginFresh(query)
    revision = query.revision or 0
    if query.initial:
        if revision > cache.revision:
            return BeginAt(query, revision)
        return Begin(query, cache.snapshot(), cache.log.end, cache.revision)
    if not revision:
        return Begin(query, None, cache.log.end, cache.revision)
    position = cache.log.resume(revision)
    if position is Unresumable.BELOW:
        return PassUpstream("history")
    if position is Unresumable.GAP:
        return BeginExpired(too_old(revision, cache))
    assert isinstance(position, int)
    return Begin(query, None, position, revision)


def too_old(revision: int, cache: WatchCache) -> Status:
    """410 as the watch cache of kube-apiserver words it."""
    return expired(f"too old resource version: {revision} ({cache.log.floor})")
