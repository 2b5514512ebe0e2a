"""The record: admin actions and chosen requests, as lines of JSON.

Texts come from operators and from hostile clients. What is written holds no control character
(JSON escapes them, and U+2028 and lone surrogates too), nothing longer than stated here, and
nothing that looks like a credential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apiguard.telemetry.sample import Sample

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
"""A JSON value."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One admin action, whether it was carried out or not.

    ``id``      unique in the record
    ``at``      Unix seconds
    ``actor``   name from the token, certificate or socket; ``role`` and ``how`` as it got in
    ``source``  where it asked from: an address, or ``unix``
    ``action``  what was asked: ``override.add``, ``policy.put``, ``enforcement.set`` …
    ``target``  what it was about: an override's id, a server
    ``before``, ``after``  of what changed, None where there is none
    ``reason``  as the actor gave it
    ``result``  ``done``, or why it was not
    """

    id: str
    at: float
    actor: str
    role: str
    how: str
    source: str
    action: str
    target: str
    before: Value
    after: Value
    reason: str
    result: str


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """One request of a sample; ``at`` is Unix seconds."""

    at: float
    sample: Sample
