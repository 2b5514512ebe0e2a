"""``Status``: the body of every error a Kubernetes client reads.

Key order, omissions and escapes are those of kube-apiserver, so that a client cannot tell our
answer from its own. Source: k8s.io/apimachinery/pkg/apis/meta/v1/types.go and
pkg/api/errors/errors.go for the sentences.

A ``Status`` is a value to be built once and encoded once per representation; the code that sends
it adds ``Retry-After`` where ``details.retry_after_seconds`` is set.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any

from apiguard.errors import WireError
from apiguard.kube.protobuf import (
    bytes_field,
    envelope,
    integer_field,
    string_field,
)


class Representation(enum.Enum):
    """How a Status is written; the value is its media type."""

    JSON = "application/json"
    PROTOBUF = "application/vnd.kubernetes.protobuf"


@dataclass(frozen=True, slots=True)
class StatusCause:
    """One reason among several; ``field`` is a path such as ``spec.rules[0].name``."""

    reason: str
    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What a Status is about. ``kind`` holds the resource ("pods"), as in kube-apiserver's."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[StatusCause, ...] = ()
    retry_after_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """A refusal: HTTP ``code``, machine-readable ``reason`` ("" for none), sentence, details.

    Control characters other than line feed and tab are made visible (``\\x1b``) in ``message``:
    it may quote a client's input and end on an operator's terminal.
    """

    code: int
    reason: str
    message: str
    details: StatusDetails | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _visible(self.message))

    @property
    def retry_after_seconds(self) -> int:
        """Whole seconds for a ``Retry-After`` header, 0 for none."""
        return self.details.retry_after_seconds if self.details else 0

    def encoded(self, representation: Representation) -> bytes:
        """The body in ``representation``."""
        if representation is Representation.PROTOBUF:
            return self.to_protobuf()
        return self.to_json()

    def to_json(self) -> bytes:
        """Compact JSON and a line feed, as Go's encoder writes it."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
        }
        if self.message:
            body["message"] = self.message
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = _details_object(self.details)
        body["code"] = self.code
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return (text.translate(_GO_ESCAPES) + "\n").encode("utf-8", "replace")

    def to_protobuf(self) -> bytes:
        """Magic, ``runtime.Unknown`` and ``Status``, byte for byte kube-apiserver's."""
        raw = (
            bytes_field(1, _EMPTY_LIST_META)
            + string_field(2, "Failure")
            + string_field(3, self.message)
            + string_field(4, self.reason)
        )
        if self.details is not None:
            raw += bytes_field(5, _details_message(self.details))
        return envelope("v1", "Status", raw + integer_field(6, self.code))


# --- encoding -------------------------------------------------------------------------------

_EMPTY_LIST_META = string_field(1, "") + string_field(2, "") + string_field(3, "")

# What Go's JSON encoder escapes and Python's does not; DEL and C1 controls are ours. All of them
# stand in strings only, so the finished text can be translated at once.
_GO_ESCAPES = {
    code: f"\\u{code:04x}" for code in (*b"<>&", 0x2028, 0x2029, 0x7F, *range(0x80, 0xA0))
}

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))}
del _CONTROLS[0x09], _CONTROLS[0x0A]


def _visible(text: str) -> str:
    return text if text.isprintable() else text.translate(_CONTROLS)


def _details_object(details: StatusDetails) -> dict[str, Any]:
    """Empty members are left out."""
    members: dict[str, Any] = {
        "name": details.name,
        "group": details.group,
        "kind": details.kind,
        "uid": details.uid,
        "causes": [_cause_object(cause) for cause in details.causes],
        "retryAfterSeconds": details.retry_after_seconds,
    }
    return {name: value for name, value in members.items() if value}


def _cause_object(cause: StatusCause) -> dict[str, str]:
    members = {"reason": cause.reason, "message": cause.message, "field": cause.field}
    return {name: value for name, value in members.items() if value}


def _details_message(details: StatusDetails) -> bytes:
    """Empty members are written, as gogo-protobuf does for fields that are no pointers."""
    return b"".join(
        (
            string_field(1, details.name),
            string_field(2, details.group),
            string_field(3, details.kind),
            *(bytes_field(4, _cause_message(cause)) for cause in details.causes),
            integer_field(5, details.retry_after_seconds),
            string_field(6, details.uid),
        )
    )


def _cause_message(cause: StatusCause) -> bytes:
    return (
        string_field(1, cause.reason)
        + string_field(2, cause.message)
        + string_field(3, cause.field)
    )


# --- negotiation ----------------------------------------------------------------------------

_JSON_RANGES = frozenset({"application/json", "application/*", "*/*"})


def negotiate(accept: str) -> Representation:
    """The representation for an ``Accept`` value ("" when absent); JSON when nothing fits.

    The clause of highest quality wins, at equal quality the more specific, then the earlier.
    Clauses that ask for another kind (``as=Table``) cannot hold a Status and are skipped, those
    for YAML or CBOR as well: every client that sends them also reads JSON. Source:
    k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go.
    """
    if Representation.PROTOBUF.value not in accept.lower():
        return Representation.JSON
    best, best_rank = Representation.JSON, (0.0, -3)  # below every clause
    for clause in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in clause.split(";"))
        if media_type == Representation.PROTOBUF.value:
            representation = Representation.PROTOBUF
        elif media_type in _JSON_RANGES:
            representation = Representation.JSON
        else:
            continue
        quality = _quality(parameters)
        rank = (quality, -media_type.count("*"))
        if quality > 0 and rank > best_rank:
            best, best_rank = representation, rank
    return best


def _quality(parameters: list[str]) -> float:
    """``q`` of a clause, 1 by default; 0 for one that no Status can satisfy."""
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "as" and value:
            return 0.0
        if name == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 1.0
    return quality


# --- the refusals of this guard ---------------------------------------------------------------


def from_wire_error(error: WireError) -> Status:
    """The Status for bytes that were refused."""
    return Status(error.code, error.reason, error.message)


def bad_request(message: str) -> Status:
    return Status(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> Status:
    return Status(401, "Unauthorized", message)


def forbidden(message: str, *, name: str = "", group: str = "", resource: str = "") -> Status:
    """``message`` is the whole sentence, as the authorizer words it."""
    return Status(403, "Forbidden", message, StatusDetails(name, group, resource))


def not_found(resource: str, name: str, *, group: str = "") -> Status:
    sentence = f"{_qualified(resource, group)} {_go_quoted(name)} not found"
    return Status(404, "NotFound", sentence, StatusDetails(name, group, resource))


def method_not_allowed() -> Status:
    sentence = "the server does not allow this method on the requested resource"
    return Status(405, "MethodNotAllowed", sentence, StatusDetails())


def request_timeout(message: str) -> Status:
    """408: the client did not complete its request in time. The table names no reason."""
    return Status(408, "", message)


def already_exists(resource: str, name: str, *, group: str = "") -> Status:
    sentence = f"{_qualified(resource, group)} {_go_quoted(name)} already exists"
    return Status(409, "AlreadyExists", sentence, StatusDetails(name, group, resource))


def conflict(resource: str, name: str, why: str, *, group: str = "") -> Status:
    """``why`` follows "Operation cannot be fulfilled on pods "a": "."""
    subject = f"{_qualified(resource, group)} {_go_quoted(name)}"
    sentence = f"Operation cannot be fulfilled on {subject}: {why}"
    return Status(409, "Conflict", sentence, StatusDetails(name, group, resource))


def expired(message: str) -> Status:
    """410: a watch or continue token from before the oldest version held."""
    return Status(410, "Expired", message)


def entity_too_large(limit: int) -> Status:
    """413; ``limit`` in bytes."""
    sentence = f"Request entity too large: limit is {limit}"
    return Status(413, "RequestEntityTooLarge", sentence)


def invalid(kind: str, name: str, causes: tuple[StatusCause, ...], *, group: str = "") -> Status:
    """422; each cause holds field, reason (``FieldValueInvalid``) and what is wrong."""
    errors = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    listed = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
    sentence = f"{_qualified(kind, group)} {_go_quoted(name)} is invalid: {listed}"
    return Status(422, "Invalid", sentence, StatusDetails(name, group, kind, causes=causes))


def too_many_requests(message: str, retry_after_seconds: int) -> Status:
    details = StatusDetails(retry_after_seconds=retry_after_seconds)
    return Status(429, "TooManyRequests", message, details)


def internal_error(incident: str) -> Status:
    """500; the defect itself is only in our log, under the id ``incident``."""
    sentence = f"Internal error occurred: incident {incident}"
    details = StatusDetails(causes=(StatusCause("", f"incident {incident}"),))
    return Status(500, "InternalError", sentence, details)


def service_unavailable(message: str, retry_after_seconds: int = 0) -> Status:
    """503; seconds above 0 only when nothing reached upstream: clients repeat what carries them."""
    details = StatusDetails(retry_after_seconds=retry_after_seconds)
    return Status(503, "ServiceUnavailable", message, details if retry_after_seconds else None)


def gateway_timeout(message: str) -> Status:
    """504: upstream stayed silent until the deadline."""
    return Status(504, "Timeout", message)


def outcome_unknown() -> Status:
    """504 for a write that may have happened: never with seconds, or clients would repeat it."""
    sentence = (
        "outcome unknown: the connection to the API server was lost after the request was sent"
    )
    return gateway_timeout(sentence)


def resource_version_too_large(requested: int, current: int) -> Status:
    """504 for a read from the future."""
    sentence = f"Timeout: Too large resource version: {requested}, current: {current}"
    cause = StatusCause("ResourceVersionTooLarge", "Too large resource version")
    return Status(504, "Timeout", sentence, StatusDetails(causes=(cause,), retry_after_seconds=1))


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _go_quoted(text: str) -> str:
    """``text`` as Go's ``%q``: in double quotes, quote and backslash escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
