"""What the guard remembers across restarts: accepted policies, overrides, enforcement, drains.

Every accepted change is a new ``Revision``, whole, in a file of its own under
``<stateDir>/revisions``. Nothing is ever overwritten, so a crash or a full disk at any moment
leaves the previous revision as it was, and a damaged newest one falls back to the one before. A
checksum tells damage from content.

A change and its line in ``audit.jsonl`` come about together::

    staged     the revision is written beside its place, and synced
    recorded   the line is appended, and synced: from here the change will hold
    in place   the revision is renamed, its directory synced

A disk that refuses any of these makes the steps before it undone. A crash between the last two is
made good when the store is opened: a staged revision whose action is on record is put in place,
one whose action is not is thrown away. So what holds is on record, and what is on record holds.

Rejected: one state file replaced in place (its damage loses everything at once), and SQLite (its
journal protects against crashes, not against a damaged page).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from apiguard.errors import StartupError
from apiguard.runtime.disk import Disk
from apiguard.runtime.linefile import LineFile, write_whole

KEPT_GENERATIONS: Final = 20
MAX_REVISION_BYTES: Final = 64 << 20
"""Above what the largest policy and as many overrides as may be take, all of it escaped."""
_NAME = re.compile(r"(\d{10})\.json")
_STAGED = re.compile(r"(\d{10})\.tmp")
ACTIONS: Final = "audit.jsonl"
REQUESTS: Final = "requests.jsonl"
MEMORY: Final = "memory.jsonl"
LOOKED_BACK: Final = 100
LOOKED_BACK_BYTES: Final = 4 << 20
"""How far back the record is searched for the action of a staged revision: it was its last, but
for attempts refused since."""


class Origin(msgspec.Struct, frozen=True, rename="camel"):
    """Where a policy came from: ``kind`` is "file", "admin" or "rollback"; ``at`` is Unix time.

    ``reason`` is the actor's, ``generation`` the one a rollback took up again.
    """

    kind: str
    at: float
    actor: str
    reason: str = ""
    generation: int = 0

    def __str__(self) -> str:
        return f"rollback of {self.generation}" if self.kind == "rollback" else self.kind


class StoredOverride(msgspec.Struct, frozen=True, rename="camel"):
    """An override as it was granted.

    ``document`` is the JSON text of what it does, as ``policy.overrides`` reads it. ``created``
    and ``expires`` are Unix seconds; ``seconds`` is what it was last granted, which bounds its
    life whatever became of the clock while the guard was down. ``end_watches_seconds`` is None
    when streams were left alone.
    """

    id: str
    document: str
    reason: str
    actor: str
    created: float
    expires: float
    seconds: float
    end_watches_seconds: float | None = None


class Revision(msgspec.Struct, frozen=True, rename="camel"):
    """State of the guard after one accepted change.

    ``number`` orders revisions; ``generation`` counts policies, so it grows with some revisions
    only. ``file_digest`` is that of the policy file when it was last accepted: a file that still
    has it has nothing new to say. ``enforcement`` is "" while the configuration's holds.
    ``overrides`` are in the order they were added, ``drained`` holds URLs of API servers.
    ``action`` is the id under which the change is on record, "" for one that is not.
    """

    number: int
    generation: int
    policy: str
    policy_name: str
    policy_digest: str
    origin: Origin
    file_digest: str
    enforcement: str = ""
    overrides: tuple[StoredOverride, ...] = ()
    action: str = ""
    drained: tuple[str, ...] = ()


_SEALED = re.compile(rb'\{"sha256":"([0-9a-f]{64})","revision":(\{.*\})\}', re.DOTALL)
"""A revision as stored; the checksum is over the exact bytes of the inner object."""


class Loaded(msgspec.Struct, frozen=True):
    """What was found: the newest sound revision, the damaged newer ones, the last number used.

    ``damaged`` holds file names and what is wrong with each; ``history`` one revision of each
    generation there is, newest first.
    """

    newest: Revision | None
    damaged: tuple[tuple[str, str], ...]
    last_number: int
    last_generation: int
    history: tuple[Revision, ...] = ()


class StateStore:
    """Revisions in ``directory``, and the other files there. Holds its lock from construction
    until ``close``. Once the guard serves, whatever blocks here goes through ``disk``.

    ``actions`` and ``requests`` are the record, ``memory`` the path of what is noticed.

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
        self.disk = Disk()
        self.requests = LineFile(self._directory / REQUESTS)
        self.memory = self._directory / MEMORY
        self._generation_of: dict[int, int] = {}
        self.actions = LineFile(self._directory / ACTIONS)

    def close(self) -> None:
        """Writes what waits and releases the lock."""
        self.disk.close()
        self.actions.close()
        self.requests.close()
        os.close(self._lock)

    def load(self) -> Loaded:
        """The newest revision that is sound, after making good what a crash left undone.

        Raises StartupError when files cannot be read.
        """
        self._finish_staged()
        numbers = sorted(self._numbers(), reverse=True)
        damaged: list[tuple[str, str]] = []
        newest: Revision | None = None
        for number in numbers:
            try:
                newest = _read(self._path(number))
            except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
                damaged.append((self._path(number).name, str(error)))
            else:
                break
        last = numbers[0] if numbers else 0
        # A damaged revision may have been a new generation: skipping one for each keeps
        # generations from ever naming two policies.
        generation = (newest.generation if newest else 0) + len(damaged)
        return Loaded(newest, tuple(damaged), last, generation, tuple(self._generations(numbers)))

    def save(self, revision: Revision, record: bytes = b"") -> None:
        """Makes ``revision`` durable, and ``record`` its line on record, or raises OSError having
        changed nothing."""
        staged = self._path(revision.number).with_suffix(".tmp")
        try:
            write_whole(staged, _sealed(revision))
            self._record_and_place(staged, record)
        except OSError:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise
        self._prune(revision)

    def _record_and_place(self, staged: Path, record: bytes) -> None:
        if record:
            self.actions.append(record, durable=True)
        try:
            self._put_in_place(staged)
        except OSError:
            if record:
                self.actions.undo()
            raise

    def _put_in_place(self, staged: Path) -> None:
        place = staged.with_suffix(".json")
        staged.rename(place)
        try:
            self._sync_directory()
        except OSError:
            place.rename(staged)
            raise

    def _finish_staged(self) -> None:
        staged = list(self._numbers(_STAGED))
        if not staged:
            return
        recorded = self._recorded()
        for number in sorted(staged):
            path = self._path(number).with_suffix(".tmp")
            try:
                if _read(path).action in recorded:
                    self._put_in_place(path)
                else:
                    path.unlink()
            except ValueError:  # half of one
                with contextlib.suppress(OSError):
                    path.unlink()
            except OSError as error:
                raise StartupError(f"stateDir {self._directory}: {error.strerror}") from error

    def _recorded(self) -> Collection[str]:
        """Ids of the last actions on record."""
        found = set()
        for line in self.actions.read_back(LOOKED_BACK, LOOKED_BACK_BYTES):
            with contextlib.suppress(msgspec.MsgspecError):
                found.add(msgspec.json.decode(line, type=_Recorded).id)
        return found - {""}

    def _path(self, number: int) -> Path:
        return self._revisions / f"{number:010d}.json"

    def read(self, number: int) -> Revision | None:
        """The revision ``number``, None when it is not there any more or damaged."""
        try:
            return _read(self._path(number))
        except (OSError, ValueError):
            return None

    def _generations(self, numbers: Collection[int]) -> Iterator[Revision]:
        """Of each generation its newest sound revision, newest generation first."""
        seen: set[int] = set()
        for number in numbers:
            revision = self.read(number)
            if revision is not None and revision.generation not in seen:
                seen.add(revision.generation)
                yield revision

    def _numbers(self, name: re.Pattern[str] = _NAME) -> Iterator[int]:
        try:
            for entry in os.scandir(self._revisions):
                if match := name.fullmatch(entry.name):
                    yield int(match[1])
        except OSError as error:
            raise StartupError(f"stateDir {self._directory}: {error.strerror}") from error

    def _of(self, number: int) -> int:
        """The generation revision ``number`` belongs to; one of its own when it is damaged."""
        known = self._generation_of.get(number)
        if known is None:
            revision = self.read(number)
            known = -number if revision is None else revision.generation
            self._generation_of[number] = known
        return known

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
                        self._generation_of.pop(number, None)
                else:
                    seen.add(generation)


class _Recorded(msgspec.Struct):
    """Of a line on record what names its action."""

    id: str = ""


def _sealed(revision: Revision) -> bytes:
    body = msgspec.json.encode(revision)
    checksum = hashlib.sha256(body).hexdigest().encode("ascii")
    return b'{"sha256":"%b","revision":%b}' % (checksum, body)


def _read(path: Path) -> Revision:
    """Raises OSError, or ValueError for what no guard has written."""
    with open(path, "rb") as file:
        data = file.read(MAX_REVISION_BYTES)
    sealed = _SEALED.fullmatch(data)
    if sealed is None:
        raise ValueError("it is no sealed revision")
    checksum, body = sealed.groups()
    if hashlib.sha256(body).hexdigest().encode("ascii") != checksum:
        raise ValueError("its checksum is another")
    return msgspec.json.decode(body, type=Revision)
