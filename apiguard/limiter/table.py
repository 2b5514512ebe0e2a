"""All living buckets, bounded: eviction grants nothing, and invented names are no fresh burst.

A table that forgets buckets under pressure refills them, so an attacker who makes enough names
resets anybody's limit, his own first. Three rules prevent that:

*Only what is full again may go.* A full bucket cannot be told from a new one, so dropping it
changes no answer. Records stand in a ring; whoever needs room looks at the next few and passes
those still in use to the back. That is O(1) per new key, with no scan and no clock of its own.
When those few are all in use the request is charged to the limit's one shared overflow bucket.
(Rejected: least recently used, which evicts exactly the spent bucket of a client that pauses; a
heap by refill time, which every admission would have to re-sort.)

*Freely chosen values are rationed.* Under a limit per user-agent each owner (verified user, else
source address) gets ``RATION`` values; more share one bucket of that owner. A value is given back
once the owner left it alone for as long as an empty bucket takes to fill, the time after which
nothing the owner did to its buckets can be seen any more.

*A new bucket owns no more than it would have had.* After a restart of the whole guard it starts
with what has been refilling since, and where shares were moved to this worker it starts with the
worker's ordinary part (see ``shares``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .bucket import TokenBucket
from .flow import BucketSpec, LimitSpec
from .keys import CHOSEN_BY_CLIENT, Key, key_from, key_of, owner_of, values_of
from .shares import Shares

if TYPE_CHECKING:
    from apiguard.kube.identity import Caller
    from apiguard.kube.requestinfo import RequestInfo

RATION = 10
LOOKS = 4  # records looked at per new key in a full table: 1.1 µs when all are in use

# Suffixes of a limit's id for buckets that belong to no single key. Rule names are DNS labels, so
# no policy can name these.
OF_OWNER = "!owner"
OF_TABLE = "!table"


class BucketView(NamedTuple):
    """One bucket as it travels between processes: plain values only.

    ``id``      LimitSpec.id; with suffix ``!owner`` for what an owner's surplus values share
                (``values`` is the owner) and ``!table`` for the overflow of a full table
    ``values``  of the limit's ``per`` fields, in the limit's order
    ``level``   tokens at ``at`` (monotonic seconds)
    ``last_seen``  when a request last asked for a token
    ``owner``   who opened it, where values are rationed; else ""

    The three counts are totals since the bucket was opened: one that was evicted starts at zero.
    """

    id: str
    values: tuple[str, ...]
    level: float
    at: float
    admitted: int
    refused: int
    would_refuse: int
    last_seen: float
    owner: str = ""


class Bucket(TokenBucket):
    """A token bucket with its address and its record."""

    __slots__ = (
        "admitted",
        "home",
        "id",
        "key",
        "last_seen",
        "owner",
        "pending",
        "refused",
        "would_refuse",
    )

    def __init__(
        self, id_: str, key: Key, spec: BucketSpec, level: float, now: float, owner: str = ""
    ) -> None:
        super().__init__(spec, level, now)
        self.id = id_
        self.key = key
        self.owner = owner
        self.home: dict[Key, Bucket] | None = None
        self.admitted = self.refused = self.would_refuse = 0
        self.last_seen = now
        self.pending = False  # stands in the list of buckets to report

    def settled(self, now: float) -> bool:
        """Whether forgetting this bucket changes no answer."""
        return self.full(now)

    def leave(self) -> None:
        """Take this bucket out of the mapping it is found in."""
        if self.home is not None and self.home.get(self.key) is self:
            del self.home[self.key]

    def view(self) -> BucketView:
        """This bucket as values, at the time of its last change."""
        return BucketView(
            self.id,
            values_of(self.key) if self.key != () else (),
            self.level,
            self.last,
            self.admitted,
            self.refused,
            self.would_refuse,
            self.last_seen,
            self.owner,
        )


class Record(Protocol):
    """What stands in the ring: a bucket or an owner."""

    def settled(self, now: float) -> bool: ...

    def leave(self) -> None: ...


class Table:
    """The room all limits share, what a new bucket starts with, and what changed since reported."""

    __slots__ = ("capacity", "changed", "evicted", "level_of_new", "overflowed", "ring", "shares")

    def __init__(
        self, capacity: int, level_of_new: Callable[[BucketSpec, float], float], shares: Shares
    ) -> None:
        self.capacity = capacity
        self.level_of_new = level_of_new
        self.shares = shares
        self.ring: deque[Record] = deque()
        self.changed: deque[Bucket] = deque()
        self.evicted = 0  # records dropped to make room
        self.overflowed = 0  # keys that found no room

    def has_room(self, now: float) -> bool:
        """Whether ``enter`` would succeed, changing nothing."""
        ring = self.ring
        if len(ring) < self.capacity:
            return True
        return any(ring[i].settled(now) for i in range(min(LOOKS, len(ring))))

    def enter(self, record: Record, now: float) -> bool:
        """Take a record in, in place of one that is full again if need be; False without room."""
        ring = self.ring
        if len(ring) >= self.capacity and not self._evict(now):
            self.overflowed += 1
            return False
        ring.append(record)
        return True

    def _evict(self, now: float) -> bool:
        ring = self.ring
        for _ in range(min(LOOKS, len(ring))):
            record = ring.popleft()
            if record.settled(now):
                record.leave()
                self.evicted += 1
                return True
            ring.append(record)
        return False

    def new(self, id_: str, key: Key, spec: BucketSpec, now: float, owner: str = "") -> Bucket:
        """A bucket nobody has used: this worker's part of ``spec``, in no mapping yet."""
        share = self.shares.of(id_, values_of(key))
        level = self.level_of_new(spec, now) * min(share, self.shares.default)
        return Bucket(id_, key, spec.part(share), level, now, owner)


class Owner:
    """Who chooses values freely under one limit: the values granted, each with its last use."""

    __slots__ = ("chosen", "last", "name", "overflow", "state")

    def __init__(self, name: str, state: RationedLimit, now: float) -> None:
        self.name = name
        self.state = state
        self.chosen: dict[Key, float] = {}
        self.last = now
        self.overflow: Bucket | None = None

    def settled(self, now: float) -> bool:
        """Whether all this owner did has refilled."""
        overflow = self.overflow
        full = overflow is None or overflow.full(now)  # a share that grew makes it wait longer
        return full and self.state.refilled_since(self.last, now)

    def leave(self) -> None:
        if self.state.owners.get(self.name) is self:
            del self.state.owners[self.name]

    def may_choose(self, value: Key, now: float) -> bool:
        """Whether ``value`` has a bucket of its own, changing nothing."""
        chosen = self.chosen
        if value in chosen or len(chosen) < RATION:
            return True
        return self.state.refilled_since(chosen[next(iter(chosen))], now)

    def choose(self, value: Key, now: float) -> bool:
        """Grant ``value`` a bucket of its own if the ration allows; same answer as ``may_choose``.

        One granted value is examined per call, each in turn: a flood of invented values pays the
        same small price every time.
        """
        chosen = self.chosen
        if len(chosen) >= RATION:
            oldest = next(iter(chosen))
            used = chosen.pop(oldest)
            if not self.state.refilled_since(used, now):
                chosen[oldest] = used
                return False
        chosen[value] = now
        return True


class Limit:
    """One limit across policy versions: its spec now, and its one bucket when ``per`` is empty."""

    __slots__ = ("changed_at", "fill_seconds", "retired_at", "spec", "table", "whole")

    def __init__(self, spec: LimitSpec, table: Table, now: float) -> None:
        self.table = table
        self.spec = spec
        self.changed_at = now  # when the spec last changed
        self.retired_at: float | None = None  # since when no policy names this limit
        self.fill_seconds = spec.bucket.fill_seconds
        self.whole: Bucket | None = None  # without ``per`` the bucket, else the overflow

    def find(self, info: RequestInfo, caller: Caller, now: float) -> Bucket:
        """The bucket this request is charged to, opened if need be."""
        return self.whole or self._open_whole(now)

    def look(self, info: RequestInfo, caller: Caller, now: float) -> Bucket:
        """The bucket ``find`` would return, changing nothing: possibly one that is not kept."""
        return self.whole or self.table.new(self.spec.id, (), self.spec.bucket, now)

    def _open_whole(self, now: float) -> Bucket:
        self.whole = self.table.new(self.spec.id, (), self.spec.bucket, now)
        return self.whole

    def refilled_since(self, used: float, now: float) -> bool:
        """Whether a bucket last charged at ``used`` is full by ``now``, whatever its level was."""
        return now >= max(used, self.changed_at) + self.fill_seconds

    def buckets(self) -> list[Bucket]:
        """Every living bucket."""
        return [] if self.whole is None else [self.whole]

    def respec(self, spec: LimitSpec, now: float) -> None:
        """Go on under ``spec``: levels are kept, clipped, never raised. Only a limit that admitted
        nothing at all has them as if ``spec`` had held all the while: nobody used a token of it."""
        self.retired_at = None
        if spec.bucket == self.spec.bucket:
            return
        closed = now - self.changed_at if self.spec.bucket.rate <= 0.0 else 0.0
        self.spec = spec
        self.fill_seconds = spec.bucket.fill_seconds
        self.changed_at = now
        for bucket in self.buckets():
            self._reshare(bucket, now)
            if closed > 0.0:
                bucket.level = min(bucket.burst, bucket.rate * closed)

    def reshare(self, id_: str, values: tuple[str, ...], now: float) -> None:
        """Let one bucket follow its share, if it lives."""
        bucket = self.bucket(id_, values)
        if bucket is not None:
            self._reshare(bucket, now)

    def _reshare(self, bucket: Bucket, now: float) -> None:
        share = self.table.shares.of(bucket.id, values_of(bucket.key))
        bucket.respec(self.spec.bucket.part(share), now)

    def bucket(self, id_: str, values: tuple[str, ...]) -> Bucket | None:
        """The living bucket with this address."""
        return self.whole

    def restore(self, view: BucketView, now: float) -> None:
        """Go on from what a predecessor knew of one bucket."""
        self._resume(self.whole or self._open_whole(now), view)

    def _resume(self, bucket: Bucket, view: BucketView) -> None:
        """The predecessor's level, or the lower one if this bucket has been used meanwhile."""
        then = min(view.level, bucket.burst)
        if bucket.admitted + bucket.refused + bucket.would_refuse == 0:
            bucket.level, bucket.last = then, view.at
        else:
            bucket.level = min(bucket.level, then)
        bucket.admitted += view.admitted
        bucket.refused += view.refused
        bucket.would_refuse += view.would_refuse
        bucket.last_seen = max(view.last_seen, bucket.last_seen)


class KeyedLimit(Limit):
    """A limit ``per`` fields nobody can invent at will: one bucket per key."""

    __slots__ = ("key_of", "keyed")

    def __init__(self, spec: LimitSpec, table: Table, now: float) -> None:
        super().__init__(spec, table, now)
        self.key_of = key_of(spec.per)
        self.keyed: dict[Key, Bucket] = {}

    def find(self, info: RequestInfo, caller: Caller, now: float) -> Bucket:
        key = self.key_of(info, caller)
        return self.keyed.get(key) or self._open(key, now)

    def look(self, info: RequestInfo, caller: Caller, now: float) -> Bucket:
        return self._look(self.key_of(info, caller), now)

    def _look(self, key: Key, now: float) -> Bucket:
        bucket = self.keyed.get(key)
        if bucket is None and self.table.has_room(now):
            bucket = self.table.new(self.spec.id, key, self.spec.bucket, now)
        return bucket or self._look_overflow(now)

    def _open(self, key: Key, now: float, owner: str = "") -> Bucket:
        bucket = self.table.new(self.spec.id, key, self.spec.bucket, now, owner)
        if not self.table.enter(bucket, now):
            return self._overflow(now)
        bucket.home = self.keyed
        self.keyed[key] = bucket
        return bucket

    def _overflow(self, now: float) -> Bucket:
        if self.whole is None:
            self.whole = self.table.new(self.spec.id + OF_TABLE, (), self.spec.bucket, now)
        return self.whole

    def _look_overflow(self, now: float) -> Bucket:
        return self.whole or self.table.new(self.spec.id + OF_TABLE, (), self.spec.bucket, now)

    def buckets(self) -> list[Bucket]:
        return [*super().buckets(), *self.keyed.values()]

    def bucket(self, id_: str, values: tuple[str, ...]) -> Bucket | None:
        if id_.endswith(OF_TABLE):
            return self.whole
        return self.keyed.get(key_from(values))

    def restore(self, view: BucketView, now: float) -> None:
        if view.id.endswith(OF_TABLE):
            self._resume(self._overflow(now), view)
        else:
            key = key_from(view.values)
            self._resume(self.keyed.get(key) or self._open(key, now, view.owner), view)


class RationedLimit(KeyedLimit):
    """A limit whose key holds values the client chooses freely: ten per owner, the rest shared."""

    __slots__ = ("chosen_at", "chosen_of", "owners")

    def __init__(self, spec: LimitSpec, table: Table, now: float) -> None:
        super().__init__(spec, table, now)
        chosen = tuple(field for field in spec.per if field in CHOSEN_BY_CLIENT)
        self.chosen_of = key_of(chosen)
        self.chosen_at = tuple(i for i, field in enumerate(spec.per) if field in CHOSEN_BY_CLIENT)
        self.owners: dict[str, Owner] = {}

    def find(self, info: RequestInfo, caller: Caller, now: float) -> Bucket:
        name = owner_of(caller)
        owner = self.owners.get(name) or self._own(name, now)
        if owner is None:
            return self._overflow(now)
        if now > owner.last:
            owner.last = now
        value = self.chosen_of(info, caller)
        if value in owner.chosen:
            owner.chosen[value] = owner.last
        elif not owner.choose(value, owner.last):
            return owner.overflow or self._open_surplus(owner, now)
        key = self.key_of(info, caller)
        return self.keyed.get(key) or self._open(key, now, name)

    def look(self, info: RequestInfo, caller: Caller, now: float) -> Bucket:
        name = owner_of(caller)
        owner = self.owners.get(name)
        if owner is None:
            if not self.table.has_room(now):
                return self._look_overflow(now)
        elif not owner.may_choose(self.chosen_of(info, caller), max(now, owner.last)):
            return owner.overflow or self._surplus(name, now)
        return self._look(self.key_of(info, caller), now)

    def _own(self, name: str, now: float) -> Owner | None:
        owner = Owner(name, self, now)
        if not self.table.enter(owner, now):
            return None
        self.owners[name] = owner
        return owner

    def _surplus(self, name: str, now: float) -> Bucket:
        return self.table.new(self.spec.id + OF_OWNER, name, self.spec.bucket, now, name)

    def _open_surplus(self, owner: Owner, now: float) -> Bucket:
        owner.overflow = self._surplus(owner.name, now)
        return owner.overflow

    def buckets(self) -> list[Bucket]:
        surplus = [owner.overflow for owner in self.owners.values() if owner.overflow is not None]
        return [*super().buckets(), *surplus]

    def bucket(self, id_: str, values: tuple[str, ...]) -> Bucket | None:
        if id_.endswith(OF_OWNER):
            owner = self.owners.get(values[0])
            return None if owner is None else owner.overflow
        return super().bucket(id_, values)

    def restore(self, view: BucketView, now: float) -> None:
        owner = self.owners.get(view.owner) or self._own(view.owner, now) if view.owner else None
        if owner is not None:
            owner.last = max(owner.last, view.at)
        if not view.id.endswith(OF_OWNER):
            if owner is not None and len(owner.chosen) < RATION:
                owner.chosen[key_from(tuple(view.values[i] for i in self.chosen_at))] = view.at
            super().restore(view, now)
        elif owner is not None:
            self._resume(owner.overflow or self._open_surplus(owner, now), view)


def limit_for(spec: LimitSpec, table: Table, now: float) -> Limit:
    """The kind of limit that ``spec.per`` asks for."""
    if not spec.per:
        return Limit(spec, table, now)
    if CHOSEN_BY_CLIENT.isdisjoint(spec.per):
        return KeyedLimit(spec, table, now)
    return RationedLimit(spec, table, now)
