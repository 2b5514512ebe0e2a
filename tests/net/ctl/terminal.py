"""A terminal with a program in it: what it wrote, and keys to press."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

PATIENCE = 20.0
PROGRAM = Path(sys.executable).parent / "apiguard"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """``apiguard`` in a pseudo-terminal of 160 columns."""

    def __init__(self, *arguments: str, lines: int = 30, term: str = "xterm-256color") -> None:
        self._master, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 160, 0, 0))
        self._process = subprocess.Popen(
            [str(PROGRAM), *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            env={**os.environ, "TERM": term, "NO_COLOR": "", "COLUMNS": "", "LINES": ""},
            start_new_session=True,
        )
        self.before = termios.tcgetattr(child)
        self._child = child
        self.written = ""

    @property
    def attributes(self) -> list[object]:
        """Of the terminal now, as ``before`` was at the beginning."""
        return list(termios.tcgetattr(self._child))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def interrupt(self) -> None:
        """What the terminal does for Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait_for(self, text: str) -> str:
        """What was written since the last call up to where ``text`` shows, sequences removed."""
        deadline = time.monotonic() + PATIENCE
        while True:
            plain = _SEQUENCE.sub("", self.written)
            if text in plain:
                self.written = ""
                return plain
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {plain!r}"
            self._read(min(left, 1.0))

    def end(self) -> int:
        """Waits for the program's end, reading what it writes; the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"still runs: {self.written!r}"
            self._read(0.05)
        self._read(0.0)
        return self._process.returncode

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)
        os.close(self._child)

    def _read(self, seconds: float) -> None:
        if select.select([self._master], [], [], seconds)[0]:
            self.written += os.read(self._master, 65_536).decode("utf-8", "replace")
