"""What the guard noticed and must not forget: who has been around, what shadow rules would refuse,
what overrides did.

One journal, ``memory.jsonl``, with a JSON object a line; of two lines about the same thing the
later one holds, so that a line written twice says nothing new::

    {"began": 1767225600.0}
    {"seen": ["userAgent", "kubelet", 1767225600.0]}
    {"shadow": ["telemetry", 1200, 1767225600.0, 1767229200.0]}
    {"hits": ["6f1c22d0", 3, 1200, 1767229200.0]}

Lines are appended half a second late at most, and the journal is rewritten when it has grown to
several times what it says. Nothing here is worth refusing a change for: what the disk does not
take is kept and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from apiguard.runtime.linefile import LineFile
from apiguard.runtime.statestore import StateStore
from apiguard.telemetry.firstseen import Entry, FirstSeen
from apiguard.telemetry.toptalkers import USER, USER_AGENT

WRITE_SECONDS: Final = 0.5
LEAST_REWRITE: Final = 4 << 20
"""Bytes below which the journal is never rewritten; full, it says 3 MiB."""

MOST_RULES: Final = 4_000
MOST_OVERRIDES: Final = 1_000
MOST_PENDING: Final = 40_000
"""Lines the disk did not take yet; more than everything there is to say."""

KINDS: Final = frozenset({USER_AGENT, USER})
_NEVER: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class ShadowCount:
    """Requests ``rule`` would have refused, and when for the first and last time (Unix)."""

    rule: str
    count: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class HitCount:
    """Requests ``override`` let through and refused, and when for the last time (Unix)."""

    override: str
    admitted: int
    refused: int
    last: float


Count = ShadowCount | HitCount


class _Line(msgspec.Struct, omit_defaults=True):
    began: float = 0.0
    seen: tuple[str, str, float] | None = None
    shadow: tuple[str, int, float, float] | None = None
    hits: tuple[str, int, int, float] | None = None


class Memory:
    """Reads the journal when it is made. ``wall_clock`` tells Unix seconds."""

    def __init__(self, store: StateStore, wall_clock: Callable[[], float]) -> None:
        self._disk = store.disk
        self._file = LineFile(store.memory, most_bytes=_NEVER, files=1)
        self._wall_clock = wall_clock
        self._shadow: dict[str, ShadowCount] = {}
        self._changed: set[str] = set()
        self._hits: dict[str, HitCount] = {}
        self._hit: set[str] = set()
        self._pending: list[Entry] = []
        self._bound = LEAST_REWRITE
        self._begun, entries = self._read()
        self.first_seen = FirstSeen(self._begun or wall_clock())
        self.first_seen.restore(entries)

    def _read(self) -> tuple[float, list[Entry]]:
        """When the journal was begun, 0 for never, and whom it names."""
        begun, entries = 0.0, []
        for line in self._file.read_back(_NEVER, _NEVER):
            try:
                said = msgspec.json.decode(line, type=_Line)
            except msgspec.MsgspecError:
                continue  # edited by hand
            begun = said.began or begun
            if said.seen is not None and said.seen[0] in KINDS:
                entries.append(Entry(*said.seen))
            if said.shadow is not None:
                self._shadow[said.shadow[0]] = ShadowCount(*said.shadow)
            if said.hits is not None:
                self._hits.pop(said.hits[0], None)
                self._hits[said.hits[0]] = HitCount(*said.hits)
        return begun, entries

    # -- shadow counts

    def would_refuse(self, rule: str, number: int) -> None:
        """``rule`` would have refused so many more."""
        now = self._wall_clock()
        known = self._shadow.pop(rule, None) or ShadowCount(rule, 0, now, now)
        self._shadow[rule] = ShadowCount(rule, known.count + number, known.first, now)
        self._changed.add(rule)
        if len(self._shadow) > MOST_RULES:  # the rule not counted for longest
            dropped = next(iter(self._shadow))
            del self._shadow[dropped]
            self._changed.discard(dropped)

    def shadow(self) -> list[ShadowCount]:
        return list(self._shadow.values())

    # -- what overrides did

    def hit(self, override: str, *, admitted: int = 0, refused: int = 0) -> None:
        """``override`` met so many more requests."""
        known = self._hits.pop(override, None) or HitCount(override, 0, 0, 0.0)
        self._hits[override] = HitCount(
            override, known.admitted + admitted, known.refused + refused, self._wall_clock()
        )
        self._hit.add(override)
        if len(self._hits) > MOST_OVERRIDES:  # the one not met for longest
            dropped = next(iter(self._hits))
            del self._hits[dropped]
            self._hit.discard(dropped)

    def hits(self, override: str) -> HitCount | None:
        """None while it has met nobody."""
        return self._hits.get(override)

    # -- the journal

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Writes what is new; what the disk does not take stays new."""
        self._pending = (self._pending + self.first_seen.take_new())[-MOST_PENDING:]
        entries, changed, hit = self._pending, self._changed, self._hit
        if not entries and not changed and not hit and self._begun:
            return
        self._pending, self._changed, self._hit = [], set(), set()
        counts: list[Count] = [
            *(self._shadow[rule] for rule in changed),
            *(self._hits[id_] for id_ in hit),
        ]
        lines = b"".join(_lines(self.first_seen.began, entries, counts))
        try:
            if self._file.size + len(lines) > self._bound:
                await self._rewrite()
            else:
                await self._disk.run(self._file.append, lines, durable=False)
        except OSError:
            self._pending = entries + self._pending
            self._changed |= changed & self._shadow.keys()
            self._hit |= hit & self._hits.keys()
            return
        self._begun = self.first_seen.began

    async def _rewrite(self) -> None:
        """The journal anew, with what it says and nothing said before. Raises OSError."""
        entries = self.first_seen.entries()
        counts: list[Count] = [*self.shadow(), *self._hits.values()]
        await self._disk.run(self._rewrite_with, entries, counts)
        self._bound = max(LEAST_REWRITE, 2 * self._file.size)

    def _rewrite_with(self, entries: list[Entry], counts: list[Count]) -> None:
        self._file.rewrite(b"".join(_lines(self.first_seen.began, entries, counts)))


def _lines(began: float, entries: Iterable[Entry], counts: Iterable[Count]) -> Iterator[bytes]:
    yield _encoded(_Line(began=began))
    for entry in entries:
        yield _encoded(_Line(seen=(entry.kind, entry.name, entry.first)))
    for one in counts:
        if isinstance(one, ShadowCount):
            yield _encoded(_Line(shadow=(one.rule, one.count, one.first, one.last)))
        else:
            yield _encoded(_Line(hits=(one.override, one.admitted, one.refused, one.last)))


def _encoded(line: _Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
