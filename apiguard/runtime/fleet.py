"""Fleet: the workers, from process to process.

One slot per worker::

    starting --Ready--> serving --Drain--> draining --exit--> (gone)
        \\________________|____ exit, stall ____/
                         v
                  successor, from the slot's mirrored levels

A successor starts at once; only one that dies young again and again waits a little. What a worker
is told is asked of all serving ones at once, and an answer that does not come within a second is
reported as missing: nothing here ever waits longer for a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from apiguard.runtime.control import (
    Answer,
    Command,
    Done,
    Drain,
    Event,
    Explained,
    Failed,
    Line,
    Ready,
    Report,
    Standouts,
    Start,
)
from apiguard.runtime.files import Files
from apiguard.runtime.log import StreamLog
from apiguard.runtime.mirror import Mirror
from apiguard.runtime.process import WorkerProcess

ACKNOWLEDGE_SECONDS: Final = 1.0
"""By when a worker must have applied a change; later it is reported as not applied."""

START_SECONDS: Final = 30.0
"""By when a worker must be ready; a cold start on a starved machine takes a few."""

WATCH_SECONDS: Final = 0.25
"""How often slots are looked at for a stall."""

EXCUSE_SECONDS: Final = 1.0
"""A watch this much too long means that the supervisor was stopped (a paused machine, SIGSTOP):
reports wait unread, and killing healthy workers for it would make a pause an outage."""

YOUNG_SECONDS: Final = 5.0
BACKOFF_SECONDS: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Waits before successors of workers that died younger than YOUNG_SECONDS, one after the other.
The longest is still short: while it lasts nobody is served."""

NO_ANSWER: Final = 0
"""Id of a command whose answer nobody waits for."""

MakeCommand = Callable[[int], Command]


class State(enum.Enum):
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Whether one worker carried a change out; ``problem`` is "" when it did."""

    worker: int
    problem: str


class Slot:
    """One place for a worker; processes come and go in it.

    ``revision`` is the version of the state it was last told, ``overrides`` the ids of those it
    has confirmed.
    """

    def __init__(self, index: int, listening: socket.socket, mirror: Mirror) -> None:
        self.index = index
        self.listening = listening
        self.mirror = mirror
        self.state = State.GONE
        self.worker: WorkerProcess | None = None
        self.started_at = 0.0
        self.revision = 0
        self.files: Files = {}
        self.digest = ""
        self.overrides: frozenset[str] = frozenset()
        self.young_deaths = 0
        self.failure = ""
        self.stalled = False


Apply = Callable[[Slot], Awaitable[Acknowledgement]]


class Leader(Protocol):
    """Who tells workers what to serve, and hears what they say."""

    def start_message(self, slot: Slot) -> Start:
        """The first message to a new worker of ``slot``."""

    def on_ready(self, slot: Slot) -> None:
        """A worker serves; what changed while it started is told it now."""

    def on_report(self, slot: Slot, report: Report) -> None:
        """Raises ValueError for a report no worker of ours would send."""

    def on_failed_start(self, reason: str) -> None:
        """The very first worker cannot serve, and none will do better."""


class Fleet:
    """Keeps a worker running in each slot until ``stopping`` is set.

    ``restarts`` counts replaced workers by cause.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        leader: Leader,
        log: StreamLog,
        stopping: asyncio.Event,
        *,
        command: Sequence[str],
        stall_seconds: float,
    ) -> None:
        self.slots = tuple(slots)
        self.restarts = {"died": 0, "stalled": 0}
        self._leader = leader
        self._log = log
        self._stopping = stopping
        self._command = tuple(command)
        self._stall_seconds = stall_seconds

    @property
    def serving(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.state is State.SERVING]

    # Lives of workers.

    async def keep(self, slot: Slot) -> None:
        """Runs worker after worker in ``slot`` until the guard drains."""
        while True:
            code = await self._run_worker(slot)
            if self._stopping.is_set():
                return
            self._note_death(slot, code)
            pause = BACKOFF_SECONDS[min(slot.young_deaths, len(BACKOFF_SECONDS)) - 1]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return

    async def _run_worker(self, slot: Slot) -> int | None:
        """One worker from start to exit; its exit code, None when it could not be started."""
        slot.state = State.STARTING
        slot.started_at = time.monotonic()
        slot.stalled = False
        slot.failure = ""
        try:
            worker = await WorkerProcess.start(
                self._command, slot.listening, lambda event: self._on_event(slot, event)
            )
        except OSError as error:
            slot.failure = f"cannot start: {error.strerror}"
            return None
        slot.worker = worker
        try:
            if self._stopping.is_set():  # it was too late to tell this one
                worker.kill()
            worker.send(self._leader.start_message(slot))
            return await worker.wait()
        finally:
            worker.kill()
            slot.worker = None
            slot.state = State.GONE
            slot.digest = ""
            slot.overrides = frozenset()
            slot.mirror.forget_worker()
            slot.failure = slot.failure or worker.closed_because

    def _note_death(self, slot: Slot, code: int | None) -> None:
        young = time.monotonic() - slot.started_at < YOUNG_SECONDS
        slot.young_deaths = slot.young_deaths + 1 if young else 1
        cause = "stalled" if slot.stalled else "died"
        self.restarts[cause] += 1
        self._log.error(
            "worker is replaced",
            worker=slot.index,
            cause=cause,
            exit=code,
            reason=slot.failure,
        )

    async def watch(self) -> None:
        """Kills workers that gave no sign of life for too long; ``keep`` replaces them."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            for slot in self.slots:
                if now - looked > EXCUSE_SECONDS:
                    slot.mirror.excuse(now)
                if slot.worker is not None and self._silent(slot, now):
                    slot.stalled = True
                    slot.worker.kill()
            looked = now

    def _silent(self, slot: Slot, now: float) -> bool:
        if slot.state is State.STARTING:
            return now - slot.started_at > START_SECONDS
        if slot.state is State.SERVING:
            age = slot.mirror.age(now)
            return age is not None and age > self._stall_seconds
        return False  # a draining worker has its own deadline

    def drain(self, seconds: float, watch_seconds: float) -> None:
        """Serving workers finish within ``seconds``; those that never served end now."""
        for slot in self.slots:
            if slot.worker is not None and slot.state is State.SERVING:
                slot.state = State.DRAINING
                slot.worker.send(Drain(seconds, watch_seconds))
            elif slot.worker is not None:
                slot.worker.kill()
            slot.listening.close()

    def kill(self) -> None:
        for slot in self.slots:
            if slot.worker is not None:
                slot.worker.kill()

    def close(self) -> None:
        for slot in self.slots:
            slot.listening.close()

    # What workers say.

    def _on_event(self, slot: Slot, event: Event) -> None:
        match event:
            case Report():
                self._on_report(slot, event)
            case Ready():
                self._on_ready(slot, event)
            case Failed():
                slot.failure = event.reason
                self._on_failed(event.reason)
            case Line():
                self._log.write(event.level, event.message, {**event.fields, "worker": slot.index})
            case Done() | Explained() | Standouts():
                pass  # answers never arrive here: WorkerProcess takes them

    def _on_report(self, slot: Slot, report: Report) -> None:
        try:
            self._leader.on_report(slot, report)
        except ValueError as error:
            slot.failure = str(error)
            if slot.worker is not None:
                slot.worker.kill()
            return
        slot.mirror.receive(report, time.monotonic())

    def _on_ready(self, slot: Slot, ready: Ready) -> None:
        slot.state = State.SERVING
        slot.digest = ready.digest
        slot.mirror.reported_at = time.monotonic()
        pid = slot.worker.pid if slot.worker else 0
        self._log.info("worker serves", worker=slot.index, pid=pid, policy=ready.digest)
        self._leader.on_ready(slot)

    def _on_failed(self, reason: str) -> None:
        """A worker that never served and says why will not do better the next time."""
        served = any(slot.mirror.reported_at is not None for slot in self.slots)
        if not served and not any(self.restarts.values()):
            self._leader.on_failed_start(reason)

    # What workers are told.

    async def all(self, apply: Apply) -> tuple[Acknowledgement, ...]:
        """``apply`` on every serving worker at once."""
        return tuple(await asyncio.gather(*(apply(slot) for slot in self.serving)))

    async def ask(self, slot: Slot, make: MakeCommand) -> Acknowledgement:
        """Has the worker of ``slot`` carry a command out."""
        if slot.worker is None:
            return Acknowledgement(slot.index, "worker is being replaced")
        answer: Answer | None = await slot.worker.ask(make, ACKNOWLEDGE_SECONDS)
        if answer is None:
            problem = f"no answer within {ACKNOWLEDGE_SECONDS:g} s"
        else:
            problem = answer.problem
        if problem:
            self._log.error("worker did not apply a change", worker=slot.index, reason=problem)
        return Acknowledgement(slot.index, problem)

    def tell(self, message: Command) -> None:
        """Sends ``message`` to every serving worker; nobody waits."""
        for slot in self.serving:
            if slot.worker is not None:
                slot.worker.send(message)
