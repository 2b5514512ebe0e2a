"""Starting what is measured and what measures, and ending all of it.

Every process leads a session of its own, so that ending its group ends its workers as well,
whatever they are. The harness ends groups by the ids it was given; nothing is found by name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

_START_DEADLINE = 15.0
_STOP_GRACE = 3.0
_POLL = 0.02


class StartError(Exception):
    """A process ended, or never listened; the text holds its last words."""


def free_port() -> int:
    """A loopback port the kernel considers free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_on(cpus: frozenset[int]) -> Iterator[None]:
    """Processes started inside inherit this CPU set; the harness itself returns to its own."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Cpus:
    """Who runs where: the proxy under test alone on the last CPU, everybody else on the others."""

    def __init__(self) -> None:
        usable = sorted(os.sched_getaffinity(0))
        self.proxy = frozenset(usable[-1:])
        self.others = frozenset(usable[:-1]) or self.proxy


class Fleet:
    """Processes of one case. Leaving the context ends them all, whatever happened inside."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Fleet:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        cpus: frozenset[int],
        ports: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        deadline: float = _START_DEADLINE,
    ) -> int:
        """Start ``command`` and wait until it listens on ``ports``, at most ``deadline`` seconds.
        Returns its process id.

        Standard output and error go to ``<logs>/<name>.log``. Raises ``StartError``.
        """
        log = self._logs / f"{name}.log"
        with log.open("wb") as sink, running_on(cpus):
            process = subprocess.Popen(  # noqa: S603 - commands are the harness's own
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._running[name] = process
        for port in ports:
            _wait_for_port(name, process, port, log, deadline)
        return process.pid

    def stop_all(self) -> None:
        """SIGTERM to every group, SIGKILL to what is left after the grace."""
        for process in self._running.values():
            _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_GRACE
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # Also after an orderly end: a leader may leave workers behind.
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _wait_for_port(
    name: str, process: subprocess.Popen[bytes], port: int, log: Path, patience: float
) -> None:
    deadline = time.monotonic() + patience
    while True:
        if process.poll() is not None:
            raise StartError(f"{name} ended with {process.returncode}: {_last_words(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        if time.monotonic() > deadline:
            raise StartError(f"{name} does not listen on port {port}: {_last_words(log)}")
        time.sleep(_POLL)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-5:]) or "it said nothing"
