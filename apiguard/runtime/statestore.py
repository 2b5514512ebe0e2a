"""What the guard remembers across restarts: accepted policies and the enforcement override.

Every accepted change is a new ``Revision``, whole, in a file of its own under
``<stateDir>/revisions``: written beside, synced, renamed, directory synced. Nothing is ever
overwritten, so a crash or a full disk at any moment leaves the previous revision as it was, and a
damaged newest one falls back to the one before. A checksum tells damage from content.

Rejected: one state file replaced in place (its damage loses everything at once), and SQLite (its
journal protects against crashes, not against a damaged page).

Blocking calls: the supervisor runs them off its loop once it serves.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from apiguard.errors import StartupError

KEPT_GENERATIONS: Final = 20
MAX_REVISION_BYTES: Final = 16 << 20
_NAME = re.compile(r"(\d{10})\.json")


class Origin(msgspec.Struct, frozen=True, rename="camel"):
    """Where a policy came from: ``kind`` is "file" or "admin"; ``at`` is Unix time."""

    kind: str
    at: float
    actor: str


class Revision(msgspec.Struct, frozen=True, rename="camel"):
    """State of the guard after one accepted change.

    ``number`` orders revisions; ``generation`` counts policies, so it grows with some revisions
    only. ``file_digest`` is that of the policy file when it was last accepted: a file that still
    has it has nothing new to say. ``enforcement`` is "" while the configuration's holds.
    """

    number: int
    generation: int
    policy: str
    policy_name: str
    policy_digest: str
    origin: Origin
    file_digest: str
    enforcement: str = ""


_SEALED = re.compile(rb'\{"sha256":"([0-9a-f]{64})","revision":(\{.*\})\}', re.DOTALL)
"""A revision as stored; the checksum is over the exact bytes of the inner object."""


class Loaded(msgspec.Struct, frozen=True):
    """What was found: the newest sound revision, the damaged newer ones, the last number used.

    ``damaged`` holds file names and what is wrong with each.
    """

    newest: Revision | None
    damaged: tuple[tuple[str, str], ...]
    last_number: int
    last_generation: int


class StateStore:
    """Revisions in ``directory``. Holds its lock from construction until ``close``.

    Raises StartupError when the directory cannot be used or another guard is using it.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._revisions = self._directory / "revisions"
        try:
            self._revisions.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(
                self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise StartupError(f"stateDir {directory}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StartupError(f"stateDir {directory}: in use by another apiguard") from error

    def close(self) -> None:
        """Releases the lock."""
        os.close(self._lock)

    def load(self) -> Loaded:
        """The newest revision that is sound. Raises StartupError when files cannot be read."""
        numbers = sorted(self._numbers(), reverse=True)
        damaged: list[tuple[str, str]] = []
        newest: Revision | None = None
        for number in numbers:
            try:
                newest = self._read(number)
            except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
                damaged.append((self._path(number).name, str(error)))
            else:
                break
        last = numbers[0] if numbers else 0
        # A damaged revision may have been a new generation: skipping one for each keeps
        # generations from ever naming two policies.
        generation = (newest.generation if newest else 0) + len(damaged)
        return Loaded(newest, tuple(damaged), last, generation)

    def save(self, revision: Revision) -> None:
        """Makes ``revision`` durable or raises OSError having changed nothing."""
        body = msgspec.json.encode(revision)
        checksum = hashlib.sha256(body).hexdigest().encode("ascii")
        path = self._path(revision.number)
        beside = path.with_suffix(".tmp")
        try:
            with open(beside, "wb", opener=_private) as file:
                file.write(b'{"sha256":"%b","revision":%b}' % (checksum, body))
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        self._sync_directory()
        self._prune(revision)

    def _path(self, number: int) -> Path:
        return self._revisions / f"{number:010d}.json"

    def _numbers(self) -> Iterator[int]:
        try:
            for entry in os.scandir(self._revisions):
                if match := _NAME.fullmatch(entry.name):
                    yield int(match[1])
        except OSError as error:
            raise StartupError(f"stateDir {self._directory}: {error.strerror}") from error

    def _read(self, number: int) -> Revision:
        """Raises OSError, or ValueError for what no guard has written."""
        with open(self._path(number), "rb") as file:
            data = file.read(MAX_REVISION_BYTES)
        sealed = _SEALED.fullmatch(data)
        if sealed is None:
            raise ValueError("it is no sealed revision")
        checksum, body = sealed.groups()
        if hashlib.sha256(body).hexdigest().encode("ascii") != checksum:
            raise ValueError("its checksum is another")
        return msgspec.json.decode(body, type=Revision)

    def _of(self, number: int) -> int:
        """The generation revision ``number`` belongs to; one of its own when it is damaged."""
        try:
            return self._read(number).generation
        except (OSError, ValueError):
            return -number

    def _sync_directory(self) -> None:
        descriptor = os.open(self._revisions, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _prune(self, latest: Revision) -> None:
        """Keeps the newest revision of each of the last generations; failure to prune is none."""
        with contextlib.suppress(OSError, StartupError):
            seen: set[int] = set()
            for number in sorted(self._numbers(), reverse=True):
                generation = latest.generation if number == latest.number else self._of(number)
                if generation in seen or len(seen) >= KEPT_GENERATIONS:
                    # The one right before the latest stays: it is what damage falls back to.
                    if number != latest.number - 1:
                        self._path(number).unlink(missing_ok=True)
                else:
                    seen.add(generation)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
