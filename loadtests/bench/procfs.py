"""CPU and memory of a process tree, read from ``/proc`` (Linux only)."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PROC = Path("/proc")
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_NANOSECONDS = 1e9


def tree(root: int) -> list[int]:
    """``root`` and every living descendant. A process that ended meanwhile is left out."""
    found = [root]
    for pid in found:  # grows while it is walked: breadth first
        for task in _tasks(pid):
            try:
                children = (_PROC / str(pid) / "task" / task / "children").read_text()
            except OSError:
                continue
            found.extend(int(child) for child in children.split())
    return found


def cpu_seconds(root: int) -> float:
    """CPU time (user and system) that the tree has used so far, in seconds."""
    return sum(_cpu_of(pid) for pid in tree(root))


def resident_bytes(root: int) -> int:
    """Resident memory of the tree. Pages shared between its processes count once each."""
    return sum(_resident_of(pid) for pid in tree(root))


def busiest(root: int, seconds: float) -> int:
    """The process of the tree that uses most CPU within the next ``seconds``."""
    before = {pid: _cpu_of(pid) for pid in tree(root)}
    time.sleep(seconds)
    return max(before, key=lambda pid: _cpu_of(pid) - before[pid])


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(_PROC / str(pid) / "task")
    except OSError:
        return []


def _cpu_of(pid: int) -> float:
    """utime + stime, from schedstat where the kernel has it.

    ``/proc/PID/stat`` counts in ticks of 10 ms, two roundings per process: 1 % of a two-second
    window of a busy proxy and 10 % of a quiet one. ``schedstat`` is the same sum in nanoseconds,
    per thread; none of the proxies ends threads while it is measured.
    """
    try:
        total = 0
        for task in _tasks(pid):
            total += int((_PROC / str(pid) / "task" / task / "schedstat").read_text().split()[0])
        return total / _NANOSECONDS
    except OSError:
        return _ticks_of(pid)


def _ticks_of(pid: int) -> float:
    try:
        # The command name may hold blanks and brackets; fields are counted after the last one.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def _resident_of(pid: int) -> int:
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
