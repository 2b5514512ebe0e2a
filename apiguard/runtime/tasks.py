"""Tasks of the supervisor that nobody awaits: one that fails ends the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine


class Tasks:
    """Holds running tasks, and tells ``failed`` of the first line of what broke one.

    A task that failed leaves a guard that looks alive and is not: better to end.
    """

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            self._failed(f"defect: {type(defect).__name__}: {defect}")
