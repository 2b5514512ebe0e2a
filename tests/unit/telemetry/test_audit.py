"""Lines of the record: one line, JSON, bounded, without secrets."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.telemetry.audit import (
    LONGEST_LINE,
    LONGEST_TEXT,
    AuditEvent,
    RequestEvent,
    Value,
    clean,
    rfc3339,
    to_line,
)
from apiguard.telemetry.sample import Sample

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
BASIC = "YWxpY2U6aHVudGVyMmh1bnRlcjI="


def action(**changes: object) -> AuditEvent:
    texts = {
        name: name
        for name in ("id", "actor", "role", "how", "source", "action", "target", "reason", "result")
    }
    values: dict[str, object] = {**texts, "at": 1_795_395_000.25, "before": None, "after": None}
    return AuditEvent(**(values | changes))  # type: ignore[arg-type]  # names are checked by the call


def request(**changes: object) -> RequestEvent:
    sample = Sample(
        5.0, 2.5, "refused", 429, "telemetry", "telemetry/user", "list", True, False, "", "pods",
        "", "prod", "", "", 3, "verified", "alice", ("devs",), "agent/1 (linux)", "192.0.2.1", "",
        None, 10, 0.001, 0.25, "1b2c",
    )  # fmt: skip
    return RequestEvent(1_795_395_000.25, msgspec.structs.replace(sample, **changes))


def test_an_action_says_who_did_what_from_where_and_why() -> None:
    line = to_line(action(before={"generation": 3}, after={"generation": 4}, reason="INC-7"))
    assert line.endswith("}\n")
    record = json.loads(line)
    assert record["kind"] == "action"
    assert record["at"] == "2026-11-23T00:50:00.250000Z"
    assert record["before"] == {"generation": 3}
    assert record["after"] == {"generation": 4}
    assert record["reason"] == "INC-7"


def test_a_request_says_who_asked_for_what_and_keeps_upstreams_audit_id() -> None:
    record = json.loads(to_line(request()))
    assert record["kind"] == "request"
    assert record["userAgent"] == "agent/1 (linux)"
    assert record["auditID"] == "1b2c"
    assert (record["decision"], record["code"], record["rule"]) == ("refused", 429, "telemetry")
    assert (record["weight"], record["upstreamSeconds"]) == (2.5, 0.25)


TEXT_FIELDS = [
    name
    for name, value in msgspec.structs.asdict(request().sample).items()
    if isinstance(value, str) or name == "impersonated"
]


@pytest.mark.parametrize("field", TEXT_FIELDS)
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("agent/1 Bearer hunter2", "hunter2"),
        (f"agent {JWT}", JWT[:20]),
        (f"Authorization: Bearer {JWT}", JWT[:20]),
        ("bearer%20hunter2", "hunter2"),
        (f"Basic {BASIC}", BASIC),
        (f"x Authorization: {BASIC}", BASIC),
        ("GET /?access_token=hunter2&x=1", "hunter2"),
        ("Cookie: hunter2; a", "hunter2"),
        ("password=hunter2", "hunter2"),
        ('{"token": "hunter2"}', "hunter2"),
        ("base64url.bearer.authorization.k8s.io.aHVudGVyMg", "aHVudGVyMg"),
        ("sha256~hunter2", "hunter2"),
        ("a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", "e5F6"),
    ],
)
def test_no_field_carries_a_credential(field: str, text: str, secret: str) -> None:
    line = to_line(request(**{field: text}))
    assert secret not in line
    line = to_line(action(reason=text, target=text, before={"text": [text]}, after={text: text}))
    assert secret not in line


def test_fields_that_are_secrets_by_name_are_masked_whatever_they_hold() -> None:
    record = json.loads(to_line(action(after={"Authorization": "x", "a": [{"token": "short"}]})))
    assert record["after"] == {"Authorization": "***", "a": [{"token": "***"}]}


@pytest.mark.parametrize(
    "name",
    [
        "kubectl/v1.36.0 (linux/amd64) kubernetes/abc1234",
        "system:serviceaccount:kube-system:horizontal-pod-autoscaler",
        "a-deployment-with-quite-a-long-name-indeed-7c5ddbdf54-x2x4z-and-more-of-it",
        "/apis/metrics.k8s.io/v1beta1",
        "4ac9f1d2-6f1c-4b8e-9a55-0d7b3f2f9b1e",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "the basic limits were too high, see token bucket",
    ],
)
def test_what_operators_need_is_shown(name: str) -> None:
    assert clean(name) == name


ANY = st.text(alphabet=st.characters(exclude_categories=[]), max_size=700)
ODD = "\x00\x1b[31m\r\n\u0085\u2028\u2029\x7f\ud800\u202e"


@pytest.mark.parametrize("event", [action(reason=ODD, after={ODD: ODD}), request(user_agent=ODD)])
def test_control_characters_are_escaped(event: AuditEvent | RequestEvent) -> None:
    line = to_line(event)
    assert line.isascii()
    assert line[:-1].isprintable()
    assert "\\ud800" in line
    msgspec.json.decode(line)  # a strict reader, which refuses lone surrogates


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY, inner, max_size=4),
    max_leaves=12,
)


@given(ANY, ANY, JSON)
def test_whatever_it_holds_an_event_is_one_bounded_line(
    text: str, agent: str, value: Value
) -> None:
    for event in (
        action(reason=text, actor=agent, target=text, before=value, after=value),
        request(user_agent=agent, user=text, name=text, path=agent),
    ):
        line = to_line(event)
        assert line.count("\n") == 1
        assert line[:-1].isprintable()
        assert line.isascii()
        assert len(line) <= LONGEST_LINE
        json.loads(line)


def test_what_is_too_large_is_cut_or_told_by_its_size() -> None:
    deep: Value = "end"
    for _ in range(2_000):
        deep = [deep]
    huge: Value = {str(i): "x" * 400 for i in range(200)}
    record = json.loads(to_line(action(reason="x" * 9_999, before=huge, after=deep)))
    assert len(record["reason"]) == LONGEST_TEXT
    assert record["before"]["omittedBytes"] > 80_000
    assert "end" not in str(record["after"])


def test_times_are_utc_with_microseconds() -> None:
    assert rfc3339(0.5) == "1970-01-01T00:00:00.500000Z"
