"""How long a worker's loop is kept, by one callback and between two looks of a timer.

``install`` runs in the worker, before its loop does. Times are CPU of the loop's thread: on a busy
machine a thread that waits for its CPU says nothing about the program. One line per tenth of a
second goes to a file: monotonic seconds, name and ms of the longest callback, and every lag of
the timer in ms.

*Callback*: everything the loop calls that is ours, with what it writes and encrypts, and every
step of a task. *Lag*: CPU used between two runs of a timer of 1 ms, which is at least what the
timer came late by, however many callbacks the loop ran in between.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TextIO

import uvloop

_EVERY = 0.001
_LINE_EVERY = 0.1
_MS = 1e3


class Probe:
    """Longest callback and lags since the last line."""

    def __init__(self, sink: TextIO) -> None:
        self._sink = sink
        self._longest, self._name = 0.0, "-"
        self._lags: list[float] = []
        self._seen = 0.0
        self._line_due = 0.0

    def timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """``call`` with its CPU time noted. Calls within calls are noted, too; the outer is
        longer."""

        @functools.wraps(call)
        def measured(*arguments: Any, **options: Any) -> Any:
            begun = time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                self._note(time.thread_time() - begun, name)

        return measured

    def _note(self, seconds: float, name: str) -> None:
        if seconds > self._longest:
            self._longest, self._name = seconds, name

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look again and again."""
        used = time.thread_time()
        if self._seen:
            self._lags.append(used - self._seen)
        now = time.monotonic()
        if now >= self._line_due:
            self._line_due = now + _LINE_EVERY
            lags = " ".join(f"{lag * _MS:.3f}" for lag in self._lags)
            self._sink.write(f"{now:.3f} {self._name} {self._longest * _MS:.3f} {lags}\n")
            self._sink.flush()
            self._longest, self._name = 0.0, "-"
            self._lags.clear()
        self._seen = time.thread_time()
        loop.call_later(_EVERY, self.watch, loop)


class Steps(Coroutine[Any, Any, Any]):
    """A coroutine of which every step is noted."""

    def __init__(self, inner: Coroutine[Any, Any, Any], probe: Probe) -> None:
        self._inner = inner
        name: str = getattr(inner, "__qualname__", "coroutine")
        self._send, self._throw = probe.timed(inner.send, name), probe.timed(inner.throw, name)

    def send(self, value: Any) -> Any:
        return self._send(value)

    def throw(self, *error: Any) -> Any:
        return self._throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def install(path: str) -> None:
    """The loop that ``uvloop.run`` makes is watched; lines go to ``path``."""

    def watched() -> uvloop.Loop:
        loop = uvloop.new_event_loop()
        probe = Probe(open(path, "w"))  # noqa: SIM115 - open as long as the process
        loop.set_task_factory(lambda _, work, **options: _task(loop, work, probe, options))
        _patch(probe)
        loop.call_soon(probe.watch, loop)
        return loop

    uvloop.run = functools.partial(uvloop.run, loop_factory=watched)


def _task(loop: Any, work: Any, probe: Probe, options: dict[str, Any]) -> asyncio.Task[Any]:
    return asyncio.Task(Steps(work, probe), loop=loop, **options)


def _patch(probe: Probe) -> None:
    """Whatever the loop calls directly."""
    from aiohttp.client_proto import ResponseHandler

    from apiguard.runtime.downstream import Downstream
    from apiguard.runtime.relaying import Relaying
    from apiguard.runtime.traffic import TrafficServer

    entries: dict[type, tuple[str, ...]] = {
        ResponseHandler: ("data_received",),
        Downstream: ("connection_made", "data_received", "resume_writing", "connection_lost"),
        Relaying: ("_turn", "_tick", "_begin_reviews"),
        TrafficServer: ("_tick", "_next_turn"),
        sys.modules["__main__"].Serving: ("_report",),
    }
    for owner, names in entries.items():
        for name in names:
            setattr(owner, name, probe.timed(getattr(owner, name), f"{owner.__name__}.{name}"))
