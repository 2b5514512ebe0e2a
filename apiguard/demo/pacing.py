"""The virtual CPU on a real clock: requests wait here for as long as the model says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from apiguard.demo.capacity import CapacitySpec, Job, Load, VirtualCpu

# Seconds between charges for delivered watch events: they cost CPU, yet nobody waits for them.
_CHARGE_EVERY = 0.1


class Pacer:
    """Runs a ``VirtualCpu``. ``on_collapse`` is called once per collapse.

    ``delivered`` returns how many watch events were delivered so far.
    """

    def __init__(
        self, spec: CapacitySpec, on_collapse: Callable[[], object], delivered: Callable[[], int]
    ) -> None:
        self.cpu = VirtualCpu(spec)
        self._spec = spec
        self._on_collapse = on_collapse
        self._delivered = delivered
        self._charged = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Job, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._charge_timer = self._loop.call_later(_CHARGE_EVERY, self._charge)

    def close(self) -> None:
        self._charge_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for future in self._waiting.values():
            future.cancel()

    @property
    def down(self) -> bool:
        return self.cpu.down(self._loop.time())

    def load(self) -> Load:
        now = self._loop.time()
        self._finish(now)
        return self.cpu.load(now)

    async def work(self, seconds: float, size: int = 0) -> None:
        """Takes as long as ``seconds`` of CPU do now; raises ConnectionResetError on collapse."""
        job = self._submit(seconds, size)
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting[job] = future
        self._arm()
        try:
            await future
        finally:
            if self._waiting.pop(job, None) is not None:
                self.cpu.cancel(self._loop.time(), job)

    def _submit(self, seconds: float, size: int) -> Job:
        now = self._loop.time()
        self._finish(now)
        job = self.cpu.submit(now, seconds, size)
        if job is None:
            self._fail_all()
            self._on_collapse()
            raise ConnectionResetError("the modelled server collapsed")
        return job

    def _fail_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the modelled server collapsed"))

    def _finish(self, now: float) -> None:
        for job in self.cpu.advance(now):
            future = self._waiting.pop(job, None)
            if future is not None and not future.done():
                future.set_result(None)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self.cpu.next_end()
        if when is not None:
            self._timer = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._finish(self._loop.time())
        self._arm()

    def _charge(self) -> None:
        self._charge_timer = self._loop.call_later(_CHARGE_EVERY, self._charge)
        delivered = self._delivered()
        fresh, self._charged = delivered - self._charged, delivered
        if fresh > 0 and not self.down:
            now = self._loop.time()
            self._finish(now)
            self.cpu.submit(now, fresh * self._spec.per_watch_event)
            self._arm()
