"""Which policy is active, and compiling it off the loop.

The rules, for start and SIGHUP alike: a policy file that changed since it was last accepted wins,
over a policy pushed by admin too, because somebody edited it on purpose; an unchanged file has
nothing new to say, so what was accepted last stays. Changed means its bytes, not its time stamp.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from apiguard.errors import StartupError
from apiguard.policy.compile import compile_policy
from apiguard.policy.policy import Policy
from apiguard.runtime.statestore import Loaded, Revision

MAX_POLICY_BYTES = 1 << 20
"""A policy of 1,000 rules is a tenth of it; workers hold the text only while compiling."""


@dataclass(frozen=True, slots=True)
class KeepStored:
    """The stored policy stays active; ``why`` is for the operator."""

    revision: Revision
    why: str


@dataclass(frozen=True, slots=True)
class TakeFile:
    """The file's policy becomes a new generation."""

    why: str


def choose(loaded: Loaded, file_digest: str) -> KeepStored | TakeFile:
    """What to run, given what the store holds and the digest of the policy file."""
    stored = loaded.newest
    if stored is None:
        if loaded.damaged:
            return TakeFile("every stored policy is damaged")
        return TakeFile("first start")
    if stored.file_digest != file_digest:
        return TakeFile("policy file changed since it was last accepted")
    if loaded.damaged:
        return KeepStored(stored, "last good stored policy; newer ones are damaged")
    if stored.origin.kind == "admin":
        return KeepStored(stored, "set by admin; policy file unchanged since")
    return KeepStored(stored, "policy file unchanged since it was accepted")


def digest(text: str) -> str:
    """Names the bytes of a policy file."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_text(path: str, what: str, limit: int = MAX_POLICY_BYTES) -> str:
    """The file's text. Raises StartupError with one line naming ``what`` and ``path``."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise StartupError(f"{what} {path}: {error.strerror}") from error
    if len(data) > limit:
        raise StartupError(f"{what} {path}: larger than {limit} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise StartupError(f"{what} {path}: not UTF-8 at byte {error.start}") from error


async def compile_off_loop(text: str, name: str) -> Policy:
    """``compile_policy`` in a thread: a thousand rules take long enough to delay other callbacks.

    Raises errors.ConfigError.
    """
    return await asyncio.get_running_loop().run_in_executor(None, compile_policy, text, name)
