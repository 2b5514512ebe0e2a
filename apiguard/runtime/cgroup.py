"""The memory limit this process runs under, as the kernel's control groups tell it.

Version 2 (cgroup-v2.rst): ``memory.max`` and ``memory.high`` of the own group and of all above it;
version 1 (cgroup-v1/memory.rst): ``memory.limit_in_bytes``, where no limit is a number beyond any
memory. A container usually sees its own group as the root, so groups that are not there are left
out, and the root is always looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

GROUPS: Final = "/proc/self/cgroup"
MOUNT: Final = "/sys/fs/cgroup"

UNLIMITED: Final = 1 << 60

KEPT_BY_KERNEL: Final = 0.2
"""Part of the limit left to what counts against it and is no process' resident memory: socket
buffers above all, up to a few MiB of each client that does not read."""

SUPERVISOR_BYTES: Final = 96 << 20

LEAST_WORKER_BYTES: Final = 64 << 20
"""A worker that only just started has 45 MiB: with less it would refuse from the beginning."""

Read = Callable[[str], str | None]
"""The text of a file by its path; None where there is none."""


def read_file(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, ValueError):
        return None


def memory_limit(read: Read = read_file) -> int | None:
    """Bytes for all processes of the group together; None without a limit."""
    found = [
        int(text)
        for path in _limit_files(read(GROUPS) or "")
        if (text := (read(path) or "").strip()).isdigit()
    ]
    least = min(found, default=UNLIMITED)
    return least if least < UNLIMITED else None


def worker_limit(limit: int, workers: int) -> int:
    """A worker's part of ``limit``; 0 where that is too little to serve with."""
    part = (int(limit * (1 - KEPT_BY_KERNEL)) - SUPERVISOR_BYTES) // workers
    return part if part >= LEAST_WORKER_BYTES else 0


def _limit_files(groups: str) -> Iterator[str]:
    """``groups`` has lines of ``hierarchy:controllers:path``; version 2 is the one without
    controllers."""
    for line in groups.splitlines():
        _, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if controllers == "":
            for group in _upwards(path):
                yield f"{MOUNT}{group}/memory.max"
                yield f"{MOUNT}{group}/memory.high"
        elif "memory" in controllers.split(","):
            for group in _upwards(path):
                yield f"{MOUNT}/memory{group}/memory.limit_in_bytes"


def _upwards(path: str) -> Iterator[str]:
    """``/a/b`` -> "/a/b", "/a", "": the root last. A path out of a namespace begins with ``..``."""
    if path.startswith("/") and ".." not in path:
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            if str(group) != "/":
                yield str(group)
    yield ""
