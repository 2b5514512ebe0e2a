"""A denied request's 403, in upstream's words.

Source: k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go. Only the sentence about
the request is made safe for HTML there, the authorizer's reason is not.
"""

from __future__ import annotations

from apiguard.kube.requestinfo import RequestInfo
from apiguard.kube.status import Status, forbidden


def forbidden_status(user: str, info: RequestInfo, reason: str) -> Status:
    """What kube-apiserver answers ``user`` when its authorizer says no for ``reason``."""
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not info.is_resource:
        sentence = f"User {_quoted(user)} cannot {info.verb} path {_quoted(info.path)}"
    else:
        scope = f"in the namespace {_quoted(info.namespace)}" if info.namespace else ""
        sentence = (
            f"User {_quoted(user)} cannot {info.verb} resource {_quoted(resource)} in API group "
            f"{_quoted(info.api_group)} {scope or 'at the cluster scope'}"
        )
    sentence = sentence.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if reason:
        sentence += f": {reason}"
    message = f"{_subject(info)}forbidden: {sentence}"
    return forbidden(message, name=info.name, group=info.api_group, resource=info.resource)


def _subject(info: RequestInfo) -> str:
    if not info.is_resource:
        return ""
    qualified = f"{info.resource}.{info.api_group}" if info.api_group else info.resource
    return f"{qualified} {_quoted(info.name)} is " if info.name else f"{qualified} is "


def _quoted(text: str) -> str:
    """Go's ``%q`` for text without control characters, which requests here do not hold."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
