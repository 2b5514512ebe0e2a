"""Keys of a terminal: one at a time, without Enter."""

from __future__ import annotations

import contextlib
import re
import sys
import termios
import tty
from collections.abc import Iterator

_TOKEN = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|[\s\S]")
_NAMES = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[H": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1b[4~": "end",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
}


def keys(data: bytes) -> list[str]:
    """Keys in what a terminal sent at once; sequences without a name here are left out."""
    tokens = _TOKEN.findall(data.decode("utf-8", "ignore"))
    named = [_NAMES.get(token, token) for token in tokens]
    return [key for key in named if not key.startswith("\x1b")]


@contextlib.contextmanager
def one_at_a_time() -> Iterator[int]:
    """Puts stdin into cbreak mode, gives its descriptor, and leaves it as it was."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
