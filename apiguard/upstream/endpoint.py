"""One API server as the pool sees it: what it carries, and whether it can be asked.

Health is passive here: an attempt to connect that fails marks the endpoint for ``backoff``
seconds; afterwards one request at a time tries it again, so that a server which returns is used
within two seconds and one that stays away costs each of them one attempt.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

BACKOFF_SECONDS = 0.5
"""How long after a failed attempt an endpoint is left alone: well below the promised 2 s."""


class Lane(enum.IntEnum):
    """Traffic that shares a ceiling. Exempt traffic has its own, so that nobody can fill it."""

    ORDINARY = 0
    EXEMPT = 1
    LONG = 2  # watches and other long-running requests: they hold a connection, not a slot


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect. ``tls`` decides the scheme."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


class Endpoint:
    """Load and health of one address.

    ``active[lane]`` counts requests under way, ``opening[lane]`` connections being opened for
    jobs of that lane; together they never exceed the lane's ceiling.
    """

    __slots__ = ("active", "address", "failures", "last_error", "opening", "retry_at")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.active = [0, 0, 0]
        self.opening = [0, 0, 0]
        self.failures = 0
        self.retry_at = 0.0
        self.last_error = ""

    @property
    def load(self) -> int:
        return sum(self.active) + sum(self.opening)

    @property
    def connecting(self) -> bool:
        return any(self.opening)

    def usable(self, now: float) -> bool:
        """Healthy, or due for one attempt that nobody is making yet."""
        return self.failures == 0 or (now >= self.retry_at and not self.connecting)

    def failed(self, reason: str, now: float) -> None:
        """An attempt to connect failed."""
        self.failures += 1
        self.retry_at = now + BACKOFF_SECONDS
        self.last_error = reason

    def succeeded(self) -> None:
        self.failures = 0
        self.last_error = ""
