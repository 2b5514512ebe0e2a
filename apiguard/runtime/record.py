"""The record of what operators did and tried: lines on disk, the last of them in memory.

An action that changes the guard is written by whoever makes the change, in one step with it; see
``statestore``. One that the disk did not take is in memory alone, and says so. Attempts that
changed nothing are written when the disk gets to it, at a rate so low that they cannot push real
actions out of the files: a loop that tries what it may not, or a broken script of somebody who may,
writes a tenth of a file in a week.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from apiguard.limiter.bucket import TokenBucket
from apiguard.limiter.flow import BucketSpec
from apiguard.runtime.actor import GUARD, Actor
from apiguard.runtime.linefile import LineFile
from apiguard.runtime.statestore import StateStore
from apiguard.telemetry.audit import AuditEvent, RequestEvent, Value, rfc3339, to_line

DONE: Final = "done"
KEPT_LINES: Final = 2_000
KEPT_BYTES: Final = 4 << 20
"""Of each kind in memory."""

ATTEMPTS_AT_ONCE: Final = 20
SECONDS_PER_ATTEMPT: Final = 10.0
"""Attempts that may be written one after another, and how often one more; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody did or tried; see ``telemetry.audit.AuditEvent`` for the fields."""

    actor: Actor
    name: str
    target: str = ""
    before: Value = None
    after: Value = None
    reason: str = ""


class Ring:
    """The last lines of one kind, bounded in number and bytes."""

    def __init__(self, lines: int = KEPT_LINES, total: int = KEPT_BYTES) -> None:
        self._most_lines = lines
        self._most_bytes = total
        self._lines: deque[bytes] = deque()
        self._bytes = 0

    def add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        while len(self._lines) > self._most_lines or self._bytes > self._most_bytes:
            self._bytes -= len(self._lines.popleft())

    def last(self) -> list[bytes]:
        """Newest first."""
        return list(reversed(self._lines))


class Record:
    """Reads both files back when it is made; ``written`` counts lines by kind since, ``lost``
    those no disk took, and those that only memory has.

    ``wall_clock`` tells Unix seconds, ``clock`` is monotonic.
    """

    def __init__(
        self,
        store: StateStore,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._clock = clock
        self._rings = {
            "actions": _read_back(store.actions),
            "requests": _read_back(store.requests),
        }
        attempts = BucketSpec(1 / SECONDS_PER_ATTEMPT, ATTEMPTS_AT_ONCE)
        self._attempts = TokenBucket(attempts, ATTEMPTS_AT_ONCE, clock())
        self.written = dict.fromkeys(self._rings, 0)
        self.lost = 0

    def event(self, action: Action, result: str = DONE) -> AuditEvent:
        """``action`` as of now, under an id of its own."""
        actor = action.actor
        return AuditEvent(
            id=secrets.token_hex(8),
            at=self._wall_clock(),
            actor=actor.name,
            role=actor.role,
            how=actor.how,
            source=actor.source,
            action=action.name,
            target=action.target,
            before=action.before,
            after=action.after,
            reason=action.reason,
            result=result,
        )

    def remember(self, kind: str, line: bytes) -> None:
        """``line`` is on disk, or on its way: readers see it from now on."""
        self._rings[kind].add(line)
        self.written[kind] += 1

    def note(self, action: Action, result: str) -> None:
        """An attempt that changed nothing."""
        if self._attempts.take(1.0, self._clock()):
            self.write_later("actions", line_of(self.event(action, result)))
        else:
            self.lost += 1

    def not_stored(self, action: Action, why: str) -> None:
        """A change that no disk took, and that therefore did not come about: who asks now sees
        that it was tried. What the guard itself tries again is left out: it would be all there
        is."""
        if action.actor is GUARD:
            return
        self.lost += 1
        if self._attempts.take(1.0, self._clock()):
            result = f"not stored: {why}; only memory has this line"
            self._rings["actions"].add(line_of(self.event(action, result)))

    def write_later(self, kind: str, lines: bytes) -> None:
        """Lines that may be lost: what the disk does not take is counted and forgotten."""
        for line in lines.splitlines(keepends=True):
            self.remember(kind, line)
        file = self._store.actions if kind == "actions" else self._store.requests
        if not self._store.disk.later(self._append, file, lines):
            self.lost += 1

    def _append(self, file: LineFile, lines: bytes) -> None:
        try:
            file.append(lines, durable=False)
        except OSError:
            self.lost += 1

    def last(self, kind: str, since: float, limit: int) -> list[dict[str, object]]:
        """At most ``limit`` lines of ``kind`` ("actions" or "requests") from Unix time ``since``
        on, the newest last. Raises KeyError for another kind."""
        begin = rfc3339(since)  # of fixed width, so that texts compare as times do
        recent = (one for one in self._newest_first(kind) if str(one.get("at", "")) >= begin)
        return list(islice(recent, limit))[::-1]

    def after(self, id_: str, limit: int) -> list[dict[str, object]] | None:
        """The first ``limit`` actions after the one of that id, the newest last; None when it is
        not among the last ones any more, or never was."""
        later: list[dict[str, object]] = []
        for action in self._newest_first("actions"):
            if action.get("id") == id_:
                return later[-limit:][::-1]
            later.append(action)
        return None

    def _newest_first(self, kind: str) -> Iterator[dict[str, object]]:
        for line in self._rings[kind].last():
            # A line edited by hand is left out.
            with contextlib.suppress(msgspec.MsgspecError):
                yield msgspec.json.decode(line, type=dict[str, object])


def line_of(event: AuditEvent | RequestEvent) -> bytes:
    """As it is written."""
    return to_line(event).encode("ascii")


def _read_back(file: LineFile) -> Ring:
    ring = Ring()
    for line in file.read_back(KEPT_LINES, KEPT_BYTES):
        ring.add(line)
    return ring
