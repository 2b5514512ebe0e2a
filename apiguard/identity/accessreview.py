"""SubjectAccessReview: its answer, and the verdicts that follow from it.

Sources: k8s.io/api/authorization/v1/types.go; pkg/registry/authorization/subjectaccessreview.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

LONGEST_REASON = 1_024
"""Characters of a reason that are kept; upstream words longer refusals itself."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """A yes; ``asked`` is when upstream was asked (monotonic seconds)."""

    asked: float


@dataclass(frozen=True, slots=True)
class Denied:
    """A plain no. ``reason`` ends the sentence of the 403, "" for none."""

    reason: str
    asked: float


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody said yes or no: the request goes upstream. ``why`` is one of a few words."""

    why: str


Verdict = Allowed | Denied | Unknown


def read_answer(body: bytes, asked: float) -> Allowed | Denied:
    """The decision in the answer to a SubjectAccessReview.

    A yes with an evaluation error is a yes, as upstream has it. A no with one is no answer: to
    the request itself upstream would say 500. Raises ValueError for whatever is not plainly one
    of the two.
    """
    try:
        review = json.loads(body)
    except RecursionError:
        raise ValueError("no SubjectAccessReview") from None
    if not isinstance(review, dict) or (
        review.get("kind") != "SubjectAccessReview"
        or review.get("apiVersion") != "authorization.k8s.io/v1"
    ):
        raise ValueError("no SubjectAccessReview")
    status = review.get("status")
    if not isinstance(status, dict):
        raise ValueError("a SubjectAccessReview without its answer")
    allowed, denied = status.get("allowed"), status.get("denied", False)
    reason, error = status.get("reason", ""), status.get("evaluationError", "")
    if not (isinstance(allowed, bool) and isinstance(denied, bool)) or (allowed and denied):
        raise ValueError("neither yes nor no")
    if not (isinstance(reason, str) and isinstance(error, str)):
        raise ValueError("an explanation that is no text")
    if allowed:
        return Allowed(asked)
    if error:
        raise ValueError("the question could not be evaluated")
    if len(reason) > LONGEST_REASON:
        raise ValueError("a reason too long to keep")
    return Denied(reason, asked)
