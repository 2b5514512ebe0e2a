"""Who changed something: what the audit, the history and the log say of an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody the admin port let in.

    ``name`` is the token's name, the certificate's common name, or ``uid 0 (root)`` on the Unix
    socket; ``source`` an IP address or ``unix``; ``how`` what proved the name.
    """

    name: str
    role: str
    source: str
    how: Literal["token", "certificate", "unix", "itself"]


GUARD = Actor("apiguard", "admin", "guard", "itself")
"""Whatever no operator did through the admin port: expiry, and a policy file that changed."""
