"""One child process: started with pipes, read line by line by a thread, ended by its id."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds for anything to start on a busy machine
END_SECONDS = 5.0  # between asking a process to end and making it

T = TypeVar("T")


class StageError(Exception):
    """Something did not start or go on; one line, with the last words of what failed."""


def until(what: str, condition: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """The first truthy result; raises ``StageError`` naming ``what``."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise StageError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)  # between looks; what is waited for is the condition


class Child:
    """``handle`` is called by a thread with every line of stdout; stderr goes to ``log``."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        handle: Callable[[str], None],
        *,
        niceness: int = 0,
        from_stderr: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        polite = ("nice", f"-n{niceness}") if niceness else ()
        sink = log.open("wb")
        self.process = subprocess.Popen(  # noqa: S603 - commands are the harness's own
            [*polite, sys.executable, "-m", *command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=sink if from_stderr else subprocess.PIPE,
            stderr=subprocess.PIPE if from_stderr else sink,
            text=True,
        )
        sink.close()
        stream = self.process.stderr if from_stderr else self.process.stdout
        assert stream is not None
        self._reader = threading.Thread(target=self._read, args=(stream, handle), daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def until(self, what: str, condition: Callable[[], T | None]) -> T:
        """As ``until``, and fails at once when the process has ended."""

        def look() -> T | None:
            if not self.running:
                raise StageError(f"{self.name} ended: {self.last_words()}")
            return condition()

        return until(what, look)

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    def hang_up(self) -> None:
        """Ends its standard input."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """For its end, which it was asked for, and for its last line; kills it if it is late."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(END_SECONDS)

    def close(self) -> None:
        if self.running:
            self.process.terminate()
        self.wait(END_SECONDS)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-5:]) or "it said nothing"

    @staticmethod
    def _read(stream: IO[str], handle: Callable[[str], None]) -> None:
        for line in stream:
            handle(line)
