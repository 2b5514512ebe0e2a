"""What a worker says of its relay: gauges as they are, counts that only grow.

Counts are keyed by kind and label, so that whoever sums them up over workers and their successors
(``relaytotals``) need not know each of them. Labels come from lists in the code: readings, reasons
and endings.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

MAX_CACHES: Final = 256
"""Caches one report tells of."""

MAX_COUNTS: Final = 256
"""Kinds and labels of one cache, or of all."""

MOST_STANDOUTS: Final = 10

Name = Annotated[str, msgspec.Meta(max_length=256)]
Key = Annotated[str, msgspec.Meta(max_length=1_024)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
"""Monotonic, as all processes of a machine share it; 0 for never."""


class CacheState(enum.StrEnum):
    """What may be expected of a cache. Where workers differ the first of these speaks for all: a
    cache that one has stopped while others hold it troubles nobody."""

    FILLING = "filling"
    """Readers wait for the first list."""
    STALE = "stale"
    """Upstream is not heard: who accepts old data is answered."""
    REBUILDING = "rebuilding"
    """Upstream is listed again, because the watch could not go on; readers are answered, unless
    what is held is in doubt."""
    READY = "ready"
    STOPPED = "stopped"
    """Requests go upstream; ``why`` says for what: idle, ceiling, gone, forbidden, unknown,
    failed."""
    UNUSED = "unused"
    """Nobody has asked for it yet."""


class Kind(enum.StrEnum):
    """What is counted; in brackets what labels it."""

    LISTS = "lists"  # answered (reading)
    WATCHES = "watches"  # begun
    EVENTS = "events"  # delivered to watchers that kept up
    STALE = "stale"  # reads answered with old data while upstream was away
    BYPASSES = "bypasses"  # requests that went upstream after all (reason)
    REFUSALS = "refusals"  # requests answered with an error here (reason)
    WAITS = "waits"  # requests that had to wait (what for)
    LAGS = "lags"  # times a watcher's transport was full
    ENDINGS = "endings"  # of watches (why)
    PROOFS = "proofs"  # of freshness, asked of upstream
    DIGESTS = "digests"  # comparisons with upstream
    MISMATCHES = "mismatches"  # ... that differed
    PACKED = "packed"  # pieces of lists compressed
    UPSTREAM = "upstream"  # what the relay itself asked of upstream (list, watch)
    BREAKS = "breaks"  # times a cache had to be filled anew
    REVIEWS = "reviews"  # SubjectAccessReviews (answered, failed)
    REVOCATIONS = "revocations"  # watches whose reader lost his right (forbidden, unanswered)
    VERDICTS = "verdicts"  # how callers were judged (fresh, stretched, stale, busy, late)


Counts = Annotated[dict[tuple[Kind, Name], Count], msgspec.Meta(max_length=MAX_COUNTS)]


class CacheName(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One resource in one form: json, protobuf, or the metadata of either."""

    group: Name
    version: Name
    resource: Name
    form: Name


class CacheReport(msgspec.Struct, frozen=True, array_like=True):
    """One cache of one worker.

    ``bytes`` are those of objects, ``built`` of bodies built of them, ``logged`` of history.
    ``heard_at``: upstream said something; ``event_at``: something changed; ``proven_at``: a proof
    showed the cache to be level; ``lost_at``: upstream fell silent, 0 while it is heard.
    ``slow``: watchers behind the latest event; ``waiting``: requests waiting for this cache.
    """

    name: CacheName
    state: CacheState
    why: Name = ""
    revision: Count = 0
    objects: Count = 0
    bytes: Count = 0
    built: Count = 0
    logged: Count = 0
    heard_at: Seconds = 0.0
    event_at: Seconds = 0.0
    proven_at: Seconds = 0.0
    lost_at: Seconds = 0.0
    watchers: Count = 0
    slow: Count = 0
    waiting: Count = 0
    counts: Counts = {}


class ReviewReport(msgspec.Struct, frozen=True, array_like=True):
    """How callers are being judged: ``lately`` reviews asked within the last second of the
    ``budget`` a second, ``stretched`` seconds by which the oldest verdict in use is overdue,
    ``held`` verdicts and ``watched`` questions of open watches, ``queued`` new questions."""

    lately: Count = 0
    budget: Seconds = 0.0
    stretched: Seconds = 0.0
    held: Count = 0
    watched: Count = 0
    queued: Count = 0


class RelayReport(msgspec.Struct, frozen=True, array_like=True):
    """The relay of one worker; ``counts`` are those of no cache, or of all together."""

    caches: Annotated[tuple[CacheReport, ...], msgspec.Meta(max_length=MAX_CACHES)] = ()
    waiting: Count = 0
    counts: Counts = {}
    reviews: ReviewReport = ReviewReport()


class CacheStandouts(msgspec.Struct, frozen=True, array_like=True):
    """``largest``: (bytes, key) and ``busiest``: (changes within ``seconds``, key), first first."""

    name: CacheName
    seconds: Seconds
    largest: Annotated[tuple[tuple[Count, Key], ...], msgspec.Meta(max_length=MOST_STANDOUTS)] = ()
    busiest: Annotated[tuple[tuple[Count, Key], ...], msgspec.Meta(max_length=MOST_STANDOUTS)] = ()
