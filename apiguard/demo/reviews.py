"""TokenReview, SubjectAccessReview and their self forms: asked by POST, stored nowhere."""

from __future__ import annotations

from typing import Any

from apiguard.demo import problems
from apiguard.demo.admission import timestamp
from apiguard.demo.authentication import Authenticator
from apiguard.demo.authorization import Authorizer
from apiguard.demo.encoding import Object, encode
from apiguard.demo.protobuf import in_go_order, message_of
from apiguard.demo.rbac import Attributes
from apiguard.demo.resources import (
    LOCALSUBJECTACCESSREVIEWS,
    SELFSUBJECTACCESSREVIEWS,
    SELFSUBJECTREVIEWS,
    TOKENREVIEWS,
    Resource,
)
from apiguard.kube.identity import Identity
from apiguard.kube.selectors import Operator, SelectorError, parse_field_selector


def user_info(identity: Identity) -> Object:
    """authentication.k8s.io UserInfo; empty fields are left out."""
    found: Object = {"username": identity.user}
    if identity.uid:
        found["uid"] = identity.uid
    if identity.groups:
        found["groups"] = list(identity.groups)
    if identity.extra:
        found["extra"] = {name: list(values) for name, values in identity.extra.items()}
    return found


def review(
    resource: Resource,
    body: Object,
    caller: Identity,
    authenticator: Authenticator,
    authorizer: Authorizer,
    now: float,
) -> Object:
    """The review with its status filled in."""
    spec: Object = body.get("spec") or {}
    metadata: Object = {}
    answer: Object = {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": metadata,
    }
    if resource is SELFSUBJECTREVIEWS:
        metadata["creationTimestamp"] = timestamp(now)
        answer["status"] = {"userInfo": user_info(caller)}
        return answer
    message = message_of(resource)
    answer["spec"] = in_go_order(message, {"spec": spec})["spec"] if message is not None else spec
    if resource is TOKENREVIEWS:
        answer["status"] = _token_status(spec, authenticator, now)
        return answer
    local = resource is LOCALSUBJECTACCESSREVIEWS
    namespace = str((body.get("metadata") or {}).get("namespace", "")) if local else None
    if namespace:
        metadata["namespace"] = namespace
    own = resource is SELFSUBJECTACCESSREVIEWS
    _check(spec, namespace, own=own)
    answer["status"] = _access_status(spec, caller if own else _subject(spec), authorizer)
    return answer


def _subject(spec: Object) -> Identity:
    return Identity(
        str(spec.get("user", "")),
        tuple(spec.get("groups") or ()),
        str(spec.get("uid", "")),
        {name: tuple(values) for name, values in (spec.get("extra") or {}).items()},
    )


def demanded(selector: str) -> tuple[tuple[str, str], ...]:
    """The equalities a field selector demands; none of one that cannot be parsed."""
    try:
        found = parse_field_selector(selector)
    except SelectorError:
        return ()
    return tuple(
        (r.field, r.value) for r in found.requirements if r.operator is not Operator.NOT_EQUALS
    )


_Cause = tuple[str, str, str]
_PLACE = "spec.resourceAttributes"


def _check(spec: Object, namespace: str | None, *, own: bool) -> None:
    """Refuses a question that is none, ``ApiError`` 422; ``namespace`` is that of a local review.

    Source: pkg/apis/authorization/validation/validation.go.
    """
    asked, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    causes: list[_Cause] = []
    if asked is None and other is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.append(_invalid(_PLACE, "null", why))
    elif asked is not None and other is not None:
        values = {"Path": other.get("path", ""), "Verb": other.get("verb", "")}
        shown = encode(values).decode()
        why = "cannot be specified in combination with resourceAttributes"
        causes.append(_invalid("spec.nonResourceAttributes", shown, why))
    for name in ("fieldSelector", "labelSelector"):
        selector = (asked or {}).get(name)
        if selector is not None:
            causes += _selector_problems(f"{_PLACE}.{name}", selector)
    if not own and not spec.get("user") and not spec.get("groups"):
        causes.append(
            _invalid("spec.user", '""', "at least one of user or group must be specified")
        )
    if namespace is not None and (asked or {}).get("namespace", "") != namespace:
        shown = f'"{(asked or {}).get("namespace", "")}"'
        causes.append(_invalid(f"{_PLACE}.namespace", shown, "must match metadata.namespace"))
    if causes:
        raise problems.invalid("", "authorization.k8s.io", "", causes)


def _invalid(place: str, shown: str, why: str) -> _Cause:
    return "FieldValueInvalid", f"Invalid value: {shown}: {why}", place


def _selector_problems(place: str, selector: Object) -> list[_Cause]:
    raw, requirements = selector.get("rawSelector"), selector.get("requirements")
    if raw and requirements:
        why = "may not specified at the same time as requirements"
        return [_invalid(f"{place}.rawSelector", f'"{raw}"', why)]
    if not raw and not requirements:
        why = f"when {place} is specified, requirements or rawSelector is required"
        return [("FieldValueRequired", f"Required value: {why}", f"{place}.requirements")]
    return []


def _token_status(spec: Object, authenticator: Authenticator, now: float) -> Object:
    audiences = [str(name) for name in spec.get("audiences") or ()]
    user = authenticator.of_token(str(spec.get("token", "")), audiences, now)
    if user is None:
        return {"user": {}, "error": "invalid bearer token"}
    status: Object = {"authenticated": True, "user": user_info(user)}
    if audiences:
        status["audiences"] = audiences
    return status


def _access_status(spec: Object, subject: Identity, authorizer: Authorizer) -> Object:
    asked = spec.get("resourceAttributes")
    if isinstance(asked, dict):
        question = Attributes(
            subject,
            str(asked.get("verb", "")),
            str(asked.get("group", "")),
            str(asked.get("resource", "")),
            str(asked.get("subresource", "")),
            str(asked.get("namespace", "")),
            str(asked.get("name", "")),
            fields=_required_fields(asked.get("fieldSelector")),
        )
    else:
        other: Object = spec.get("nonResourceAttributes") or {}
        path, verb = str(other.get("path", "")), str(other.get("verb", ""))
        question = Attributes(subject, verb, path=path or "/")
    verdict = authorizer.decide(question)
    status: Object = {"allowed": verdict.allowed}
    if verdict.reason:
        status["reason"] = verdict.reason
    return status


def _required_fields(selector: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(selector, dict):
        return ()
    raw, requirements = selector.get("rawSelector"), selector.get("requirements")
    if raw:
        return demanded(str(raw))
    return tuple(
        (str(r.get("key")), str(r["values"][0]))
        for r in requirements or ()
        if r.get("operator") == "In" and len(r.get("values") or ()) == 1
    )
