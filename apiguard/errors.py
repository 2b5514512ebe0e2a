"""The one tree of errors.

An error knows its wire meaning: a ``WireError`` carries the HTTP status, the Kubernetes
reason and whether the connection can go on, so that the edge translates it without a table.
Refusing over a limit is not an error but a value (``limiter.limiter.Shed``).
"""

from __future__ import annotations


class ApiguardError(Exception):
    """Base of everything apiguard raises on purpose."""


class WireError(ApiguardError):
    """A peer's bytes cannot be accepted.

    ``code`` is the HTTP status to answer with, ``reason`` the Kubernetes status reason ("" for
    none), ``close`` whether later bytes on the connection must never be read as a request.
    ``message`` never quotes input unescaped.
    """

    __slots__ = ("close", "code", "message", "reason")

    def __init__(self, code: int, reason: str, message: str, *, close: bool = True) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.close = close


class UpstreamProtocolError(ApiguardError):
    """Upstream sent bytes that are no valid response; its connection cannot be used again."""


class ConfigError(ApiguardError):
    """A configuration or policy file is wrong; holds every finding, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(str(p) for p in problems))
        self.problems = problems


class Problem:
    """One finding in a file: where, which field, why. ``line`` is 1-based, 0 when unknown."""

    __slots__ = ("field", "file", "line", "reason")

    def __init__(self, file: str, line: int, field: str, reason: str) -> None:
        self.file = file
        self.line = line
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"

    def __repr__(self) -> str:
        return f"Problem({self!s})"


class StartupError(ApiguardError):
    """The guard cannot start (port taken, file missing, state unusable): one line that says why."""
