"""Error bodies are those of kube-apiserver, byte for byte."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.errors import WireError
from apiguard.kube import protobuf, status
from apiguard.kube.status import Representation, Status, StatusCause, StatusDetails, negotiate

DATA = pathlib.Path(__file__).parents[2] / "data" / "status"
MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)
FORBIDDEN_VERSION_MATCH = StatusCause(
    "FieldValueForbidden",
    "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
    "resourceVersionMatch",
)


@pytest.mark.parametrize(
    ("recorded", "built"),
    [
        ("bad-token-401", status.unauthorized()),
        ("get-404", status.not_found("pods", "zzz")),
        ("delete-405", status.method_not_allowed()),
        ("post-exists-409", status.already_exists("pods", "a")),
        ("put-conflict-409", status.conflict("pods", "a", MODIFIED)),
        (
            "list-rv-exact-old",
            status.expired("The resourceVersion for the provided list is too old."),
        ),
        (
            "list-rvmatch-without-rv",
            status.invalid("ListOptions", "", (FORBIDDEN_VERSION_MATCH,), group="meta.k8s.io"),
        ),
        ("list-rv-too-large", status.resource_version_too_large(99999999, 11307)),
        (
            "list-label-selector-invalid",
            status.bad_request(
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
            ),
        ),
        (
            "anonymous-403",
            status.forbidden(
                'pods is forbidden: User "system:anonymous" cannot list resource "pods" '
                'in API group "" at the cluster scope',
                resource="pods",
            ),
        ),
    ],
)
def test_json_equals_the_recorded_body(recorded: str, built: Status) -> None:
    assert built.to_json() == (DATA / f"{recorded}.json").read_bytes()


@pytest.mark.parametrize(
    ("recorded", "built"),
    [
        (
            "forbidden-403",
            status.forbidden(
                'secrets is forbidden: User "alice" cannot list resource "secrets" '
                'in API group "" in the namespace "matrix508"',
                resource="secrets",
            ),
        ),
        (
            "not-acceptable-406",
            Status(
                406,
                "NotAcceptable",
                "only the following media types are accepted: "
                "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
        ),
    ],
)
def test_protobuf_equals_the_recorded_body(recorded: str, built: Status) -> None:
    assert built.to_protobuf() == (DATA / f"{recorded}.pb").read_bytes()


@pytest.mark.parametrize(
    ("built", "code", "reason", "seconds"),
    [
        (status.bad_request("x"), 400, "BadRequest", 0),
        (status.unauthorized("x"), 401, "Unauthorized", 0),
        (status.forbidden("x"), 403, "Forbidden", 0),
        (status.method_not_allowed(), 405, "MethodNotAllowed", 0),
        (status.request_timeout("x"), 408, "", 0),
        (status.conflict("policies", "p", "x"), 409, "Conflict", 0),
        (status.expired("x"), 410, "Expired", 0),
        (status.entity_too_large(1), 413, "RequestEntityTooLarge", 0),
        (status.invalid("ThrottlePolicy", "p", ()), 422, "Invalid", 0),
        (status.too_many_requests("x", 7), 429, "TooManyRequests", 7),
        (status.internal_error("id"), 500, "InternalError", 0),
        (status.service_unavailable("x", 1), 503, "ServiceUnavailable", 1),
        (status.service_unavailable("x"), 503, "ServiceUnavailable", 0),
        (status.gateway_timeout("x"), 504, "Timeout", 0),
        (status.outcome_unknown(), 504, "Timeout", 0),
        (status.resource_version_too_large(2, 1), 504, "Timeout", 1),
        (status.from_wire_error(WireError(417, "", "x")), 417, "", 0),
    ],
)
def test_each_refusal_has_its_code_reason_and_retry(
    built: Status, code: int, reason: str, seconds: int
) -> None:
    body = json.loads(built.to_json())
    assert (body["code"], body.get("reason", "")) == (code, reason)
    assert (body["kind"], body["apiVersion"]) == ("Status", "v1")
    assert (body["metadata"], body["status"]) == ({}, "Failure")
    assert body.get("details", {}).get("retryAfterSeconds", 0) == seconds
    assert built.retry_after_seconds == seconds


def test_a_write_of_unknown_outcome_says_so_and_never_asks_for_a_repetition() -> None:
    built = status.outcome_unknown()
    assert "outcome unknown" in built.message
    assert built.retry_after_seconds == 0


def test_json_escapes_what_go_escapes_and_shows_no_control_character() -> None:
    built = Status(400, "", '<a href="x">&\u2028\x1b[2J\x00\x7f\x9b\n')
    text = built.to_json()
    assert rb"\u003ca href=\"x\"\u003e\u0026\u2028\\x1b[2J\\x00\\x7f\\x9b\n" in text
    assert text.endswith(b"}\n")
    assert text.count(b"\n") == 1


def test_protobuf_messages_hold_no_control_character_either() -> None:
    assert b"\x1b" not in Status(400, "", "\x1b[2J").to_protobuf()


@given(st.text(), st.text(max_size=5), st.text(max_size=5))
def test_any_text_encodes_to_one_line_of_json(message: str, name: str, field: str) -> None:
    details = StatusDetails(name=name, causes=(StatusCause("r", message, field),))
    encoded = Status(400, "BadRequest", message, details).to_json()
    assert encoded.count(b"\n") == 1
    assert all(byte >= 0x20 for byte in encoded[:-1])
    assert not set(b"<>&\x7f") & set(encoded)
    assert json.loads(encoded)["code"] == 400


@pytest.mark.parametrize(
    ("accept", "representation"),
    [
        ("", Representation.JSON),
        ("application/json", Representation.JSON),
        ("*/*", Representation.JSON),
        ("text/html", Representation.JSON),
        ("application/vnd.kubernetes.protobuf", Representation.PROTOBUF),
        ("application/vnd.kubernetes.protobuf,application/json", Representation.PROTOBUF),
        ("application/vnd.kubernetes.protobuf, */*", Representation.PROTOBUF),
        ("*/*, application/vnd.kubernetes.protobuf", Representation.PROTOBUF),
        ("application/json,application/vnd.kubernetes.protobuf", Representation.JSON),
        ("application/json;q=0.5,application/vnd.kubernetes.protobuf", Representation.PROTOBUF),
        ("application/vnd.kubernetes.protobuf;q=0.1,application/json", Representation.JSON),
        ("application/vnd.kubernetes.protobuf;q=0", Representation.JSON),
        ("application/vnd.kubernetes.protobuf;stream=watch", Representation.PROTOBUF),
        (
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,"
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
            Representation.JSON,
        ),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/vnd.kubernetes.protobuf",
            Representation.PROTOBUF,
        ),
        ("Application/Vnd.Kubernetes.Protobuf", Representation.PROTOBUF),
        ("application/vnd.kubernetes.protobuf;q=nan", Representation.JSON),
        ("application/vnd.kubernetes.protobuf;q=x", Representation.PROTOBUF),
        ("application/cbor, application/yaml", Representation.JSON),
    ],
)
def test_negotiates_as_the_server_does_for_errors(
    accept: str, representation: Representation
) -> None:
    assert negotiate(accept) is representation
    built = status.unauthorized()
    expected = built.to_json() if representation is Representation.JSON else built.to_protobuf()
    assert built.encoded(representation) == expected


def test_varints_hold_seven_bits_a_byte_low_group_first() -> None:
    assert protobuf.varint(0) == b"\x00"
    assert protobuf.varint(127) == b"\x7f"
    assert protobuf.varint(300) == b"\xac\x02"
    with pytest.raises(ValueError, match="negative"):
        protobuf.varint(-1)
