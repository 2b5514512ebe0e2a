"""Which answers to a SubjectAccessReview say yes, which no, and that all others say nothing."""

from __future__ import annotations

import json

import pytest

from apiguard.identity.accessreview import LONGEST_REASON, Allowed, Denied, read_answer
from tests.unit.identity.asking import NO, YES, answer
from tests.unit.identity.recorded import DATA


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("subjectaccessreview", Denied("", 7.0)),
        ("sar-node-get-own-node", Allowed(7.0)),
        ("sar-node-watch-pods-own-node-selector", Allowed(7.0)),
        (
            "sar-node-watch-pods-other-node",
            Denied("can only list/watch pods with spec.nodeName field selector", 7.0),
        ),
    ],
)
def test_recorded_answers_are_read(name: str, verdict: Allowed | Denied) -> None:
    response = (DATA / "exchanges" / f"{name}.response").read_bytes()
    assert read_answer(response.partition(b"\r\n\r\n")[2], 7.0) == verdict


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (YES, Allowed(7.0)),
        (answer(allowed=True, evaluationError="a webhook failed"), Allowed(7.0)),
        (answer(allowed=True, reason="x" * 5_000), Allowed(7.0)),
        (NO, Denied("", 7.0)),
        (answer(allowed=False, denied=True, reason="never"), Denied("never", 7.0)),
    ],
)
def test_plain_answers_are_taken(body: bytes, verdict: Allowed | Denied) -> None:
    assert read_answer(body, 7.0) == verdict


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b"\xff",
        b'{"status":{"allowed":true}}',
        json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Success"}).encode(),
        YES.replace(b"/v1", b"/v1beta1"),
        YES.replace(b"SubjectAccess", b"SelfSubjectAccess"),
        YES[:-1],
        answer(),
        answer(denied=True),
        answer(allowed="true"),
        answer(allowed=1),
        answer(allowed=None),
        answer(allowed=True, denied=True),
        answer(allowed=True, denied="false"),
        answer(allowed=True, reason=1),
        answer(allowed=True, evaluationError={}),
        answer(allowed=False, evaluationError="a webhook failed"),
        answer(allowed=False, reason="x" * (LONGEST_REASON + 1)),
    ],
)
def test_anything_unclear_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_answer(body, 7.0)
