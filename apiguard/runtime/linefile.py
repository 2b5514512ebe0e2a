"""An append-only file of lines with rotation: ``name``, then ``name.1`` … from new to old.

An append is whole or not at all. What a full disk took of a line is cut off again at once, what a
crash left of one when the file is next opened: a reader never meets half a line in the middle.

Blocking calls; callers run them off the loop.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 16 << 20
FILES: Final = 4
"""One that grows and three before it: 64 MiB, whatever happens."""

_TAIL: Final = 1 << 16


class LineFile:
    """``open`` comes first."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES, files: int = FILES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._files = files
        self._descriptor = -1
        self._size = 0
        self._before = 0

    def open(self) -> None:
        """Opens or creates the file and cuts off an unfinished line. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            whole = _end_of_last_line(descriptor, size)
            if whole < size:
                os.ftruncate(descriptor, whole)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._size = self._before = whole

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def append(self, lines: bytes, *, durable: bool) -> None:
        """Adds ``lines``, each with its newline, or raises OSError having added nothing.

        ``durable`` waits until they are on the disk and not only with the kernel.
        """
        if self._descriptor < 0:
            self.open()
        self._forget_strays()
        if self._size and self._size + len(lines) > self._most_bytes:
            self._rotate()
        self._before = self._size
        try:
            _write_all(self._descriptor, lines)
            if durable:
                os.fsync(self._descriptor)
        except OSError:
            self.undo()
            raise
        self._size += len(lines)

    def undo(self) -> None:
        """Takes the last append back: it belonged to something that did not come about.

        Where even that fails, the next append does it first.
        """
        self._size = self._before
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._size)

    @property
    def size(self) -> int:
        """Bytes of the file that grows; 0 before it was first opened."""
        return self._size

    def rewrite(self, lines: bytes) -> None:
        """``lines`` in place of everything in the growing file, or raises OSError with the file
        as it was."""
        beside = self._path.with_suffix(".tmp")
        try:
            write_whole(beside, lines)
            beside.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        self.close()
        self.open()

    def read_back(self, most: int, most_bytes: int) -> list[bytes]:
        """The last lines, at most ``most`` with ``most_bytes`` together, oldest first.

        Files that are not there or cannot be read are passed over.
        """
        lines: list[bytes] = []
        for path in self._paths():
            if len(lines) >= most or most_bytes <= 0:
                break
            found = _last_lines(path, most_bytes)[-(most - len(lines)) :]
            most_bytes -= sum(map(len, found))
            lines = found + lines
        return lines

    def _forget_strays(self) -> None:
        """Cuts off what an ``undo`` could not; a file made shorter by others is taken as it is."""
        actual = os.fstat(self._descriptor).st_size
        if actual > self._size:
            os.ftruncate(self._descriptor, self._size)
        else:
            self._size = actual

    def _rotate(self) -> None:
        paths = self._paths()
        for older, newer in zip(reversed(paths[1:]), reversed(paths[:-1]), strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self.close()
        self.open()

    def _paths(self) -> list[Path]:
        """From the newest to the oldest."""
        base = self._path
        return [base, *(base.with_name(f"{base.name}.{n}") for n in range(1, self._files))]


def write_whole(path: Path, data: bytes) -> None:
    """A file for its owner only with ``data``, on the disk; raises OSError, perhaps half way."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _end_of_last_line(descriptor: int, size: int) -> int:
    """The offset behind the last newline, 0 when there is none."""
    end = size
    while end > 0:
        begin = max(0, end - _TAIL)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _last_lines(path: Path, most_bytes: int) -> list[bytes]:
    """The whole lines within the last ``most_bytes`` of the file."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = max(0, size - most_bytes)
            file.seek(begin)
            lines = file.read(size - begin).splitlines(keepends=True)
    except OSError:
        return []
    if begin and lines:
        lines = lines[1:]  # where reading began is hardly ever where a line does
    return [line for line in lines if line.endswith(b"\n")]
