"""What operations refuse, as Status."""

from __future__ import annotations

from typing import Final

from apiguard.errors import Problem
from apiguard.kube.status import Status, StatusCause, StatusDetails, conflict, invalid
from apiguard.runtime.results import Invalid, NoSuchOverride, NotStored, Stale, TooMany

GROUP: Final = "apiguard.io"
POLICY: Final = "ThrottlePolicy"
OVERRIDE: Final = "Override"


def status_of(
    refused: Invalid | NotStored | Stale | TooMany | NoSuchOverride, kind: str, name: str
) -> Status:
    """``kind`` and ``name`` are of what was to be changed."""
    match refused:
        case Invalid(problems):
            return invalid(kind, name, tuple(_cause(one) for one in problems), group=GROUP)
        case NotStored(reason):
            message = f"the change was not accepted: stateDir does not take it: {reason}"
            return Status(507, "InsufficientStorage", message, StatusDetails(retry_after_seconds=5))
        case Stale(active=active, named=named):
            why = f"generation {named} is not active any more, {active} is"
            return conflict("throttlepolicies", name, why, group=GROUP)
        case TooMany(most):
            why = f"{most} are in force, as many as overrides.most allows; delete one first"
            return conflict("overrides", name, why, group=GROUP)
        case NoSuchOverride(id_):
            return Status(404, "NotFound", f"there is no override {id_[:64]!r}, or it is over")


def _cause(problem: Problem) -> StatusCause:
    # Programs send one line of JSON, in which the line says nothing.
    reason = f"line {problem.line}: {problem.reason}" if problem.line > 1 else problem.reason
    return StatusCause("FieldValueInvalid", reason, problem.field)
