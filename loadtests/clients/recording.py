"""What became of each operation of each client, as samples.

An operation is what a client wants done, all its attempts included: the renewal of a lease took as
long as until it was renewed. Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

BROKEN = 0  # no answer: refused, reset, cut
LATE = -1  # no answer within the client's deadline
UNFINISHED = -2  # still under way when the run ended
NOTED = -3  # no request: something a client saw, see ``Recorder.note``


class Sample(NamedTuple):
    """``refusals`` are the 429s met on the way; ``attempts`` counts all tries."""

    group: str
    client: str
    operation: str
    code: int
    sent: float
    seconds: float
    size: int = 0
    refusals: int = 0
    attempts: int = 1


class Operation:
    """One that is under way. ``end`` exactly once."""

    __slots__ = ("_recorder", "attempts", "name", "refusals", "sent")

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder = recorder
        self.name = name
        self.sent = time.monotonic()
        self.attempts = 0
        self.refusals = 0

    def end(self, code: int, size: int = 0) -> None:
        self._recorder.finish(self, code, size)


class Recorder:
    """Of one client of one group; ``sink`` takes the samples."""

    def __init__(self, group: str, client: str, sink: Callable[[Sample], None]) -> None:
        self.group = group
        self.client = client
        self._sink = sink
        self._open: set[Operation] = set()

    def begin(self, name: str) -> Operation:
        made = Operation(self, name)
        self._open.add(made)
        return made

    def finish(self, operation: Operation, code: int, size: int) -> None:
        self._open.discard(operation)
        took = time.monotonic() - operation.sent
        self._sink(
            Sample(
                *(self.group, self.client, operation.name, code, operation.sent, took, size),
                *(operation.refusals, max(1, operation.attempts)),
            )
        )

    def note(self, what: str, value: float = 0.0, number: int = 1) -> None:
        """``value`` in seconds, ``number`` of whatever was seen."""
        self._sink(
            Sample(self.group, self.client, what, NOTED, time.monotonic(), value, number, 0, 0)
        )

    def close(self) -> None:
        """Operations without an end are samples too, or an outage would hide what it hangs."""
        for operation in list(self._open):
            self.finish(operation, UNFINISHED, 0)
