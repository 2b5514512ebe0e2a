"""What the kernel says of a process: CPU seconds, resident bytes, open descriptors.

Read from /proc when somebody asks, so that workers spend nothing on it and a stopped one is
measured all the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_AFTER_NAME = {"utime": 11, "stime": 12, "rss": 21}
"""Fields of /proc/PID/stat behind the name in parentheses, which may hold spaces (proc(5))."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, since it began."""

    cpu_seconds: float
    resident_bytes: int
    descriptors: int


def usage(pid: int) -> Usage | None:
    """None for a process that is gone, or where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        ticks = int(fields[_AFTER_NAME["utime"]]) + int(fields[_AFTER_NAME["stime"]])
        resident = int(fields[_AFTER_NAME["rss"]]) * _PAGE
        return Usage(ticks / _TICKS, resident, _descriptors(pid))
    except (OSError, IndexError, ValueError):
        return None


def _descriptors(pid: int) -> int:
    """Since Linux 6.2 the size of the directory is their number; counting 20,000 takes 10 ms."""
    path = f"/proc/{pid}/fd"
    return os.stat(path).st_size or len(os.listdir(path))
