"""Claims of a verified token -> the identity kube-apiserver makes of them.

Sources: pkg/serviceaccount/{claims,legacy,util}.go for service accounts, bound and legacy;
k8s.io/apiserver/plugin/pkg/authenticator/token/oidc/oidc.go for OpenID Connect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from apiguard.kube.identity import (
    ANONYMOUS_USER,
    CREDENTIAL_ID,
    NODE_NAME,
    NODE_UID,
    POD_NAME,
    POD_UID,
    SERVICE_ACCOUNTS_GROUP,
    ClaimedIdentity,
    Identity,
    with_authenticated,
)
from apiguard.wire.frontproxy import name_problem

LEGACY_ISSUER = "kubernetes/serviceaccount"
_LEGACY = "kubernetes.io/serviceaccount/"
_USER_PREFIX = "system:serviceaccount:"

LONGEST_CLAIM = 256
"""Characters of a claimed name that are kept; what follows would only fill logs."""

Claims = Mapping[str, object]


class BadClaimsError(Exception):
    """These claims make no identity; the message says why and quotes nothing."""


@dataclass(frozen=True, slots=True)
class ClaimMappings:
    """Which claims of an OpenID Connect token make the user, as in AuthenticationConfiguration.

    ``groups_claim`` and ``uid_claim`` are "" when not mapped.
    """

    username_claim: str = "sub"
    username_prefix: str = ""
    groups_claim: str = ""
    groups_prefix: str = ""
    uid_claim: str = ""


def service_account_identity(claims: Claims) -> Identity:
    """Of a bound token. Raises BadClaimsError."""
    private = _object(claims, "kubernetes.io")
    account = _object(private, "serviceaccount")
    namespace, name = _text(private, "namespace"), _text(account, "name")
    extra: dict[str, tuple[str, ...]] = {}
    pod, node = _optional_object(private, "pod"), _optional_object(private, "node")
    if pod.get("name") and pod.get("uid"):
        extra[POD_NAME] = (_text(pod, "name"),)
        extra[POD_UID] = (_text(pod, "uid"),)
    if claims.get("jti"):
        extra[CREDENTIAL_ID] = ("JTI=" + _text(claims, "jti"),)
    if node.get("name"):
        extra[NODE_NAME] = (_text(node, "name"),)
        if node.get("uid"):
            extra[NODE_UID] = (_text(node, "uid"),)
    identity = _service_account(namespace, name, _text(account, "uid"), extra)
    if claims.get("sub") != identity.user:
        raise BadClaimsError("the subject is another than the service account")
    return identity


def legacy_service_account_identity(claims: Claims) -> Identity:
    """Of a token kept in a Secret. Raises BadClaimsError."""
    namespace = _text(claims, _LEGACY + "namespace")
    name = _text(claims, _LEGACY + "service-account.name")
    uid = _text(claims, _LEGACY + "service-account.uid")
    _text(claims, _LEGACY + "secret.name")
    identity = _service_account(namespace, name, uid, {})
    if claims.get("sub") != identity.user:
        raise BadClaimsError("the subject is another than the service account")
    return identity


def _service_account(
    namespace: str, name: str, uid: str, extra: Mapping[str, tuple[str, ...]]
) -> Identity:
    for part in (namespace, name):
        if name_problem(part) or ":" in part or "/" in part:
            raise BadClaimsError("the service account has no valid name")
    user = f"{_USER_PREFIX}{namespace}:{name}"
    groups = (SERVICE_ACCOUNTS_GROUP, f"{SERVICE_ACCOUNTS_GROUP}:{namespace}")
    return Identity(user, with_authenticated(user, groups), uid, extra)


def oidc_identity(claims: Claims, mappings: ClaimMappings) -> Identity:
    """Raises BadClaimsError."""
    claim = mappings.username_claim
    name = _text(claims, claim)
    # A present false refuses; an absent claim does not, as upstream has it.
    if claim == "email" and claims.get("email_verified", True) is not True:
        raise BadClaimsError("the e-mail address is not verified")
    user = mappings.username_prefix + name
    groups = tuple(mappings.groups_prefix + group for group in _groups(claims, mappings))
    uid = _text(claims, mappings.uid_claim) if mappings.uid_claim else ""
    return checked_identity(user, groups, uid)


def checked_identity(
    user: str,
    groups: tuple[str, ...],
    uid: str = "",
    extra: Mapping[str, tuple[str, ...]] | None = None,
) -> Identity:
    """The identity an issuer or a review names, for deciding here. Raises BadClaimsError.

    Control characters would let a name pass for one of the limiter's own keys.
    """
    problem = name_problem(user)
    if problem:
        raise BadClaimsError(f"the user name {problem}")
    if user == ANONYMOUS_USER:
        raise BadClaimsError("a credential proves somebody, not the anonymous user")
    if any(name_problem(group) == "holds control characters" for group in groups):
        raise BadClaimsError("a group holds control characters")
    return Identity(user, with_authenticated(user, groups), uid, extra or {})


def claimed_identity(claims: Claims) -> ClaimedIdentity | None:
    """Whom an unverified token claims to be; for logs and explain only."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        return None
    return ClaimedIdentity(subject[:LONGEST_CLAIM])


def _groups(claims: Claims, mappings: ClaimMappings) -> list[str]:
    """A list of texts, or one text; absent or null is no groups."""
    value = claims.get(mappings.groups_claim) if mappings.groups_claim else None
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    groups = [group for group in values if isinstance(group, str)]
    if len(groups) != len(values):
        raise BadClaimsError("the groups claim holds something else than texts")
    return groups


def _object(claims: Claims, name: str) -> Claims:
    value = claims.get(name)
    if not isinstance(value, dict):
        raise BadClaimsError(f"the claim {name} is missing or no object")
    return value


def _optional_object(claims: Claims, name: str) -> Claims:
    return _object(claims, name) if claims.get(name) is not None else {}


def _text(claims: Claims, name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise BadClaimsError(f"the claim {name} is missing or no text")
    return value
