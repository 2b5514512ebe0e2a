"""One worker process as its supervisor sees it: started, spoken to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import apiguard
from apiguard.runtime.channel import Channel, attach
from apiguard.runtime.control import MAX_REPORT, Answer, Command, Event, read_event

WORKER_COMMAND: Final = (sys.executable, "-P", "-m", "apiguard.runtime.worker")
"""``-P``: the directory the operator happens to stand in is no place to import from."""


class WorkerProcess:
    """A running worker. ``on_event`` gets every message that is no answer to a request."""

    def __init__(
        self, process: asyncio.subprocess.Process, on_event: Callable[[Event], None]
    ) -> None:
        self._process = process
        self._on_event = on_event
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer | None]] = {}
        self._channel = Channel[Event](read_event, MAX_REPORT, self._receive, self._closed)
        self.closed_because = ""

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        listening: socket.socket,
        on_event: Callable[[Event], None],
    ) -> WorkerProcess:
        """Starts ``command`` with the two descriptors it inherits. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                f"--control={theirs.fileno()}",
                f"--listen={listening.fileno()}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), listening.fileno()),
                env=_environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = cls(process, on_event)
        await attach(worker._channel, ours)
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: Command) -> bool:
        """Queues a command that has no answer; False when the channel is gone."""
        return self._channel.send(command)

    async def ask(self, make: Callable[[int], Command], seconds: float) -> Answer | None:
        """Sends ``make(id)`` and waits for its answer; None when none came in time or the worker
        is gone."""
        number = next(self._ids)
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            if not self._channel.send(make(number)):
                return None
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            del self._waiting[number]

    def kill(self) -> None:
        """Ends the process at once; a process that is gone already is no error."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        """The exit code, negative when a signal ended it."""
        code = await self._process.wait()
        self._channel.close()
        return code

    def _receive(self, event: Event) -> None:
        if not isinstance(event, Answer):
            self._on_event(event)
            return
        future = self._waiting.get(event.id)
        if future is not None and not future.done():
            future.set_result(event)

    def _closed(self, reason: str) -> None:
        """Without its channel a worker can be neither led nor watched."""
        self.closed_because = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)
        self.kill()


def _environment() -> dict[str, str]:
    """Ours, and the place this package was imported from: ``-P`` hides the working directory."""
    home = str(Path(apiguard.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    path = home if not inherited else f"{home}{os.pathsep}{inherited}"
    return {**os.environ, "PYTHONPATH": path}


def resident_bytes() -> int:
    """Resident memory of this process; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
