"""Who may do what: ``system:masters`` everything, everybody else by roles and a table of rules.

Roles and bindings are those stored (``rbac``); rules are for servers without any and read alike.
The node authorizer is reduced to what access reviews of a kubelet show: its own node, and pods by
``spec.nodeName``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from apiguard.demo import problems
from apiguard.demo.encoding import Object
from apiguard.demo.rbac import Attributes, Roles, Verdict

MASTERS = "system:masters"
_NODE_PREFIX = "system:node:"
# Anonymous callers may see these, as the bootstrap role system:public-info-viewer says.
_PUBLIC_PATHS = ("/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*", "/version")
# Granted to everybody authenticated: system:discovery and system:basic-user.
_DISCOVERY_PATHS = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")
# Granted to service accounts: system:service-account-issuer-discovery.
_ISSUER_PATHS = ("/openid/v1/jwks", "/.well-known/openid-configuration")
_SELF_REVIEWS = ("selfsubjectreviews", "selfsubjectaccessreviews")


@dataclass(frozen=True, slots=True)
class Rule:
    """Grants; ``*`` is any. ``subjects`` are user or group names, ``namespaces`` empty for all.

    ``resources`` are spelled ``pods`` or ``pods/log``; ``paths`` are globs of non-resource paths.
    """

    subjects: tuple[str, ...]
    verbs: tuple[str, ...] = ("*",)
    groups: tuple[str, ...] = ("*",)
    resources: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def grants(self, asked: Attributes) -> bool:
        identity = asked.identity
        if identity.user not in self.subjects and not set(identity.groups) & set(self.subjects):
            return False
        if not _has(self.verbs, asked.verb):
            return False
        if asked.path:
            return any(fnmatchcase(asked.path, path) for path in self.paths)
        if self.namespaces and asked.namespace not in self.namespaces:
            return False
        return _has(self.groups, asked.group) and _has(self.resources, asked.full_resource)


def _has(values: Sequence[str], wanted: str) -> bool:
    return "*" in values or wanted in values


def viewer_rule(*subjects: str) -> Rule:
    """Reads everything but secrets, and logs."""
    return Rule(
        subjects,
        verbs=("get", "list", "watch"),
        resources=(
            *("pods", "pods/log", "pods/status", "nodes", "nodes/status", "namespaces"),
            *("services", "endpoints", "configmaps", "events", "serviceaccounts"),
            *("deployments", "replicasets", "daemonsets", "statefulsets", "leases"),
            *("endpointslices", "customresourcedefinitions"),
        ),
    )


def reviewer_rule(*subjects: str) -> Rule:
    """Asks who somebody is and what they may do."""
    return Rule(subjects, ("create",), resources=("subjectaccessreviews", "tokenreviews"))


@dataclass(slots=True)
class Authorizer:
    """Decides by ``roles`` and by ``rules``, which tests replace at will.

    ``everybody`` allows all of them everything.
    """

    rules: list[Rule] = field(default_factory=list)
    everybody: bool = False
    roles: Roles | None = None

    def decide(self, asked: Attributes) -> Verdict:
        identity = asked.identity
        if self.everybody or MASTERS in identity.groups:
            return Verdict(True)
        if asked.path and _public(asked):
            return Verdict(True)
        authenticated = "system:authenticated" in identity.groups
        if authenticated and asked.resource in _SELF_REVIEWS and asked.verb == "create":
            return Verdict(True)
        if any(rule.grants(asked) for rule in self.rules):
            return Verdict(True)
        verdict = _decide_node(asked)
        if verdict.allowed or self.roles is None:
            return verdict
        found = self.roles.decide(asked)
        return found if found.allowed or not verdict.reason else verdict

    def check(self, asked: Attributes) -> None:
        """Raises ``ApiError`` 403 in kube-apiserver's words."""
        verdict = self.decide(asked)
        if not verdict.allowed:
            raise forbidden(asked, verdict.reason)


def _public(asked: Attributes) -> bool:
    if asked.verb not in ("get", "head"):
        return False
    paths: Iterable[str] = _PUBLIC_PATHS
    if "system:serviceaccounts" in asked.identity.groups and asked.path in _ISSUER_PATHS:
        return True
    if "system:authenticated" in asked.identity.groups:
        paths = (*_PUBLIC_PATHS, *_DISCOVERY_PATHS)
    return any(fnmatchcase(asked.path, path) for path in paths)


def _decide_node(asked: Attributes) -> Verdict:
    identity = asked.identity
    if not identity.user.startswith(_NODE_PREFIX) or "system:nodes" not in identity.groups:
        return Verdict(False)
    node = identity.user[len(_NODE_PREFIX) :]
    if asked.resource == "nodes":
        own = asked.name == node or ("metadata.name", node) in asked.fields
        return Verdict(own and asked.verb != "delete")
    if asked.resource == "pods" and asked.verb in ("list", "watch"):
        if ("spec.nodeName", node) in asked.fields:
            return Verdict(True)
        return Verdict(False, "can only list/watch pods with spec.nodeName field selector")
    if asked.resource == "leases":
        return Verdict(asked.namespace == "kube-node-lease" and asked.name in (node, ""))
    reads = asked.verb in ("get", "list", "watch")
    return Verdict(reads and asked.resource in ("services", "pods", "endpointslices"))


def forbidden(asked: Attributes, reason: str = "") -> problems.ApiError:
    """403 as apiserver/pkg/endpoints/handlers/responsewriters/errors.go words it."""
    user = asked.identity.user
    suffix = f": {reason}" if reason else ""
    if asked.path:
        message = f'forbidden: User "{user}" cannot {asked.verb} path "{asked.path}"{suffix}'
        return problems.ApiError(403, "Forbidden", message, {}, nosniff=True)
    place = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    qualified = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    named = f' "{asked.name}"' if asked.name else ""
    message = (
        f'{qualified}{named} is forbidden: User "{user}" cannot {asked.verb} resource '
        f'"{asked.full_resource}" in API group "{asked.group}" {place}{suffix}'
    )
    found: Object = {"name": asked.name} if asked.name else {}
    if asked.group:
        found["group"] = asked.group
    found["kind"] = asked.resource
    return problems.ApiError(403, "Forbidden", message, found, nosniff=True)
