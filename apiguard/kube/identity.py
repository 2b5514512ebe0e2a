"""Who makes a request: proven, anonymous or merely claimed.

``Identity`` is only ever constructed from proof. ``ClaimedIdentity`` is what an unverified
credential says about itself; it appears in logs and explain, never in a decision. They are
unrelated types, so that mypy refuses a claim where proof is needed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

ANONYMOUS_USER = "system:anonymous"
UNAUTHENTICATED_GROUP = "system:unauthenticated"
AUTHENTICATED_GROUP = "system:authenticated"
SERVICE_ACCOUNTS_GROUP = "system:serviceaccounts"

CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
NODE_NAME = "authentication.kubernetes.io/node-name"
NODE_UID = "authentication.kubernetes.io/node-uid"
"""Keys of ``Identity.extra`` (k8s.io/apiserver/pkg/authentication/{user,serviceaccount})."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user as kube-apiserver sees it: ``user.Info`` of k8s.io/apiserver/pkg/authentication."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ClaimedIdentity:
    """What an unverified credential claims; for logs and explain only."""

    user: str
    groups: tuple[str, ...] = ()


class Standing(enum.Enum):
    """How well the caller is known."""

    VERIFIED = "verified"  # identity proven
    ANONYMOUS = "anonymous"  # no credential presented: the explicit user system:anonymous
    UNVERIFIED = "unverified"  # a credential we could not prove; judged by upstream alone


ANONYMOUS = Identity(ANONYMOUS_USER, (UNAUTHENTICATED_GROUP,))


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who and what sends requests; built once per connection and header block.

    Compared by identity of the object, so that it can key a memo.

    ``identity``     the proven user, ``ANONYMOUS`` without a credential, None when unverified
    ``user_agent``   the header's value as received, "" without one
    ``family``       product token of the user-agent, without version and platform
    ``source``       textual IP address of the client, as in X-Forwarded-For
    ``source_key``   what a per-source bucket is keyed by: IPv4 address or IPv6 /64
    ``claimed``      what an unverified credential says, or None
    ``impersonated`` the user it asks to act as, None when it asks for nothing of the kind; upstream
                     judges that, here it can only select a stricter limit
    """

    standing: Standing
    identity: Identity | None
    user_agent: str
    family: str
    source: str
    source_key: str
    claimed: ClaimedIdentity | None = None
    impersonated: str | None = None

    @property
    def verified(self) -> Identity | None:
        """The proven, non-anonymous identity: the only thing an exemption may rest on."""
        return self.identity if self.standing is Standing.VERIFIED else None


def with_authenticated(user: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """``groups`` as kube-apiserver completes them once a credential has proven ``user``.

    Source: k8s.io/apiserver/pkg/authentication/group/authenticated_group_adder.go. Repeated
    groups stay repeated, as upstream keeps them.
    """
    if user == ANONYMOUS_USER or AUTHENTICATED_GROUP in groups or UNAUTHENTICATED_GROUP in groups:
        return groups
    return (*groups, AUTHENTICATED_GROUP)


def user_agent_text(raw: bytes) -> str:
    """A User-Agent as people read it: UTF-8 where it is that, else byte by byte."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def user_agent_family(user_agent: str) -> str:
    """The product token before version and platform: ``kubectl/v1.36 (linux)`` -> ``kubectl``.

    A user-agent without ``/`` is cut at the first blank. Never longer than 64 characters.
    """
    end = len(user_agent)
    for stop in ("/", " "):
        at = user_agent.find(stop, 0, end)
        if at >= 0:
            end = at
    return user_agent[: min(end, 64)]
