"""Everything the supervisor writes to disk while it serves: one thread, in order.

One writer, so that what must be consistent between two files is decided in one place; a thread,
so that a disk that hangs holds up changes and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

MOST_WAITING: Final = 100
"""Writes nobody waits for that may be queued: what ten seconds bring."""

P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """Runs blocking calls one after the other."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._waiting = 0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``call`` returns or raises. A cancelled caller does not cancel the call."""
        return await asyncio.wrap_future(self._thread.submit(call, *args, **kwargs))

    def later(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Has ``call`` run when its turn comes, and nobody wait; it must not raise.

        False when too much waits already: the disk hangs, and what was to be written is lost.
        """
        if self._waiting >= MOST_WAITING:
            return False
        self._waiting += 1
        loop = asyncio.get_running_loop()
        future = self._thread.submit(call, *args, **kwargs)
        future.add_done_callback(lambda _: _on_loop(loop, self._done))
        return True

    def _done(self) -> None:
        self._waiting -= 1

    def close(self) -> None:
        """Returns when everything asked for is written."""
        self._thread.shutdown()


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the guard ends
        loop.call_soon_threadsafe(call)
