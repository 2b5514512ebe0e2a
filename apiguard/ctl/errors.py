"""What a command says instead of an answer: one line, and what to do about it."""

from __future__ import annotations

from apiguard.errors import ApiguardError


class UsageError(ApiguardError):
    """The command line is wrong; the message is one line for whoever typed it, not yet escaped."""


class CtlError(ApiguardError):
    """The command failed; the message is one line for the operator, not yet escaped."""


class UnreachableError(CtlError):
    """No answer came from the address: not listening, not in time, not HTTP, not trusted."""


class RefusedError(CtlError):
    """The guard answered, with an error. ``code`` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
