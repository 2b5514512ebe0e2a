"""Streams end spread over the time given, and a watch that cannot end cleanly is cut in the end."""

from __future__ import annotations

import time
from typing import cast

from apiguard.gateway.exchange import Exchange
from apiguard.runtime.ending import end_spread


class Stream:
    """As much of an Exchange as is asked; notes when it ended."""

    def __init__(self, *, watch: bool = True, ends: bool = True) -> None:
        self.is_watch = watch
        self.finished = False
        self.ended_at = self.cut_at = 0.0
        self._ends = ends

    def end_stream(self) -> bool:
        if self._ends:
            self.finished, self.ended_at = True, time.monotonic()
        return self._ends

    def cut(self) -> None:
        self.finished, self.cut_at = True, time.monotonic()


async def _end(streams: list[Stream], seconds: float, cut_after: float = 60.0) -> float:
    """When it began."""
    begun = time.monotonic()
    await end_spread(
        cast(list[Exchange], streams),
        seconds,
        clock=time.monotonic,
        flush=lambda: None,
        cut_after=cut_after,
    )
    return begun


async def test_ends_are_spread_evenly() -> None:
    streams = [Stream() for _ in range(100)]
    begun = await _end(streams, 1.0)
    ends = sorted(stream.ended_at - begun for stream in streams)
    assert all(abs(end - (i + 0.5) / 100) < 0.25 for i, end in enumerate(ends))
    order = [stream.ended_at for stream in streams]
    assert order != sorted(order), "not in the order they came"


async def test_what_is_no_watch_is_cut_and_what_is_over_left_alone() -> None:
    log, over = Stream(watch=False), Stream()
    over.finished = True
    await _end([log, over], 0.0)
    assert log.cut_at
    assert not log.ended_at
    assert not over.ended_at
    assert not over.cut_at


async def test_a_watch_within_an_event_is_asked_again_and_cut_at_last() -> None:
    stuck = Stream(ends=False)
    begun = await _end([stuck], 0.0, cut_after=0.1)
    assert stuck.cut_at - begun >= 0.1
