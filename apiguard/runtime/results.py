"""What operations answer: values, because a refused change is nothing unusual.

Every result there is can be imported from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from apiguard.policy.policy import Policy
from apiguard.policy.preview import PreviewReport
from apiguard.runtime.fleet import Acknowledgement
from apiguard.runtime.keeper import Invalid, NoSuchGeneration, Stale
from apiguard.runtime.overriding import NoSuchOverride, TooMany
from apiguard.runtime.servers import Drained, LastServer
from apiguard.runtime.state import Changed, NotStored

__all__ = [
    "Acks",
    "Changed",
    "Drained",
    "GenerationView",
    "Invalid",
    "LastServer",
    "NoSuchGeneration",
    "NoSuchOverride",
    "NotStored",
    "OverrideAdded",
    "OverrideDeleted",
    "OverrideExtended",
    "OverrideView",
    "Stale",
    "TooMany",
    "WouldAdd",
    "WouldChange",
]

Acks = tuple[Acknowledgement, ...]


@dataclass(frozen=True, slots=True)
class OverrideView:
    """An override as operators see it.

    ``document`` is what it does; ``created`` and ``expires`` are Unix seconds, ``expires`` by
    what the clock says now. ``workers`` says which serving workers have it in force.
    """

    id: str
    document: dict[str, object]
    reason: str
    actor: str
    created: float
    expires: float
    remaining_seconds: float
    end_watches: bool
    end_watches_seconds: float
    workers: Acks


@dataclass(frozen=True, slots=True)
class OverrideAdded:
    """It is in force."""

    override: OverrideView
    workers: Acks


@dataclass(frozen=True, slots=True)
class WouldAdd:
    """A dry run: what the last minutes would have looked like under it."""

    document: dict[str, object]
    preview: PreviewReport


@dataclass(frozen=True, slots=True)
class OverrideExtended:
    """It has another end."""

    override: OverrideView


@dataclass(frozen=True, slots=True)
class OverrideDeleted:
    """It is out of force; ``override`` is what it was."""

    override: OverrideView
    workers: Acks


@dataclass(frozen=True, slots=True)
class WouldChange:
    """A dry run of a policy: nothing wrong with it, and what it would have changed."""

    policy: Policy
    preview: PreviewReport


@dataclass(frozen=True, slots=True)
class GenerationView:
    """An accepted policy: ``origin`` is "file", "admin" or "rollback of N", ``at`` Unix seconds."""

    generation: int
    digest: str
    name: str
    actor: str
    at: float
    reason: str
    origin: str
    active: bool
