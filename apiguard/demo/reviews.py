"""TokenReview, SubjectAccessReview and their self forms: asked by POST, stored nowhere."""

from __future__ import annotations

from typing import Any

from apiguard.demo.admission import timestamp
from apiguard.demo.authentication import Authenticator
from apiguard.demo.authorization import Attributes, Authorizer
from apiguard.demo.encoding import Object
from apiguard.demo.protobuf import in_go_order, message_of
from apiguard.demo.resources import (
    SELFSUBJECTACCESSREVIEWS,
    SELFSUBJECTREVIEWS,
    SUBJECTACCESSREVIEWS,
    TOKENREVIEWS,
    Resource,
)
from apiguard.kube.identity import Identity


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
        answer["status"] = _token_status(spec, authenticator)
    elif resource is SUBJECTACCESSREVIEWS:
        subject = Identity(
            str(spec.get("user", "")),
            tuple(spec.get("groups") or ()),
            str(spec.get("uid", "")),
        )
        answer["status"] = _access_status(spec, subject, authorizer)
    elif resource is SELFSUBJECTACCESSREVIEWS:
        answer["status"] = _access_status(spec, caller, authorizer)
    return answer


def _token_status(spec: Object, authenticator: Authenticator) -> Object:
    found = authenticator.tokens.get(str(spec.get("token", "")))
    if found is None:
        return {"user": {}, "error": "invalid bearer token"}
    groups = (*found.groups, "system:authenticated")
    user = Identity(found.user, groups, found.uid, found.extra)
    status: Object = {"authenticated": True, "user": user_info(user)}
    if spec.get("audiences"):
        status["audiences"] = spec["audiences"]
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
    requirements = selector.get("requirements") if isinstance(selector, dict) else None
    return tuple(
        (str(r.get("key")), str(r["values"][0]))
        for r in requirements or ()
        if r.get("operator") == "In" and len(r.get("values") or ()) == 1
    )
