"""Refusals as kube-apiserver words them: HTTP code plus a Status, raised by any layer.

Source: k8s.io/apimachinery/pkg/api/errors/errors.go and apiserver/pkg/endpoints/handlers.
"""

from __future__ import annotations

from apiguard.demo.encoding import Object
from apiguard.demo.resources import Resource


class ApiError(Exception):
    """An answer other than success.

    ``retry_after``  value of the Retry-After header in seconds, 0 for none
    ``nosniff``      whether the answer carries X-Content-Type-Options
    ``continue_token``  set on an expired page: where an inconsistent list may go on
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Object | None = None,
        *,
        retry_after: int = 0,
        nosniff: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after
        self.nosniff = nosniff
        self.continue_token = ""

    def status(self) -> Object:
        """The Status object, fields in the order kube-apiserver writes them."""
        body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


class PlainError(Exception):
    """An answer without a Status: text, as Go's http.Error sends it."""

    def __init__(self, code: int, text: str, *, retry_after: int = 0) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after = retry_after


def details(resource: Resource, name: str = "") -> Object:
    found: Object = {"name": name} if name else {}
    if resource.group:
        found["group"] = resource.group
    found["kind"] = resource.plural
    return found


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def page_not_found() -> PlainError:
    return PlainError(404, "404 page not found\n")


def not_found(resource: Resource, name: str) -> ApiError:
    message = f'{resource.group_resource} "{name}" not found'
    return ApiError(404, "NotFound", message, details(resource, name))


def not_found_text(kind: str, name: str) -> ApiError:
    """An object named by another is missing."""
    return ApiError(404, "NotFound", f'{kind.lower()}s "{name}" not found', {"name": name})


def resource_not_found() -> ApiError:
    message = "the server could not find the requested resource"
    return ApiError(404, "NotFound", message, {})


def already_exists(resource: Resource, name: str) -> ApiError:
    message = f'{resource.group_resource} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details(resource, name))


_MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def conflict(resource: Resource, name: str, why: str = _MODIFIED) -> ApiError:
    message = f'Operation cannot be fulfilled on {resource.group_resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(resource, name))


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


_STREAMS = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")


def not_acceptable(available: tuple[str, ...], *, streams: bool = True) -> ApiError:
    """No clause of Accept can be served. ``streams``: also name the watch representations."""
    listed = ", ".join((*available, *(_STREAMS if streams else ())))
    message = f"406: Not Acceptable\n\nAvailable representations: {listed}"
    return ApiError(406, "NotAcceptable", message, {})


def only_media_types(available: tuple[str, ...]) -> ApiError:
    """As ``not_acceptable``, from the handler instead of the router."""
    message = f"only the following media types are accepted: {', '.join(available)}"
    return ApiError(406, "NotAcceptable", message)


def wrong_list_kind(wanted: str, go_type: str) -> ApiError:
    """Metadata of a list was asked for and the result is one object, or the reverse."""
    what = "is not a list" if wanted.endswith("List") else "is a list"
    message = f"you requested {wanted}, but the requested object {what} ({go_type})"
    return ApiError(406, "NotAcceptable", message)


def unsupported_body(available: tuple[str, ...]) -> ApiError:
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(available)
    )
    return ApiError(415, "UnsupportedMediaType", message)


def unsupported_patch() -> ApiError:
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def invalid(kind: str, group: str, name: str, causes: list[tuple[str, str, str]]) -> ApiError:
    """422 with ``causes`` of (reason, message, field)."""
    listed = [f"{where}: {message}" for _, message, where in causes]
    joined = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    qualified = f"{kind}.{group}" if group else kind
    found: Object = {"name": name} if name else {}
    if group:
        found["group"] = group
    if kind:
        found["kind"] = kind
    found["causes"] = [
        {"reason": reason, "message": message, "field": where} for reason, message, where in causes
    ]
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {joined}', found)


def too_large_revision(wanted: int, current: int) -> ApiError:
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    found = {"causes": [cause], "retryAfterSeconds": 1}
    return ApiError(504, "Timeout", message, found, retry_after=1)


def expired(message: str = "The resourceVersion for the provided list is too old.") -> ApiError:
    return ApiError(410, "Expired", message)


def too_old_revision(wanted: int, oldest: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {wanted} ({oldest})")


def unparsable_revision(text: str, why: str) -> str:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: {why}"


def too_many_requests() -> PlainError:
    return PlainError(429, "Too many requests, please try again later.\n", retry_after=1)


def too_large_body(limit: int) -> ApiError:
    message = f"Request entity too large: limit is {limit}"
    return ApiError(413, "RequestEntityTooLarge", message, {})
