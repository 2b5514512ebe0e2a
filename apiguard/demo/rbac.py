"""Roles and bindings as stored -> what they allow, at once when they change.

Source: plugin/pkg/auth/authorizer/rbac/rbac.go and pkg/apis/rbac/v1/evaluation_helpers.go. Rules
are read as written: nothing aggregates ClusterRoles, nobody keeps a writer of roles from granting
more than they have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from apiguard.demo.encoding import Object
from apiguard.demo.resources import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    ROLEBINDINGS,
    ROLES,
)
from apiguard.demo.store import Item, Store
from apiguard.kube.identity import Identity

_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Attributes:
    """One question; ``path`` is set for non-resource requests only.

    ``fields``: equalities the field selector demands.
    """

    identity: Identity
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is that of kube-apiserver, "" where it gives none."""

    allowed: bool
    reason: str = ""


class Roles:
    """Decides by the roles and bindings of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def decide(self, asked: Attributes) -> Verdict:
        """Whether a rule allows it, and why; a denial names roles that bindings miss."""
        missing: list[str] = []
        for binding in self._bindings(asked):
            subject = _subject(
                binding.value.get("subjects") or (), asked.identity, binding.namespace
            )
            if subject is None:
                continue
            reference: Object = binding.value.get("roleRef") or {}
            role = self._role(reference, binding.namespace)
            if role is None:
                kind = str(reference.get("kind")).lower()
                missing.append(f'{kind}.{_GROUP} "{reference.get("name")}" not found')
            elif any(_allows(rule, asked) for rule in role.value.get("rules") or ()):
                return Verdict(True, _reason(binding, reference, subject))
        if not missing:
            return Verdict(False)
        listed = missing[0] if len(missing) == 1 else f"[{', '.join(missing)}]"
        return Verdict(False, f"RBAC: {listed}")

    def _bindings(self, asked: Attributes) -> Iterator[Item]:
        yield from self._store.collections[CLUSTERROLEBINDINGS].items()
        if asked.namespace and not asked.path:
            for binding in self._store.collections[ROLEBINDINGS].items():
                if binding.namespace == asked.namespace:
                    yield binding

    def _role(self, reference: Object, namespace: str) -> Item | None:
        resource = ROLES if reference.get("kind") == "Role" and namespace else CLUSTERROLES
        key = resource.key(namespace, str(reference.get("name")))
        return self._store.collections[resource].get(key)


def _reason(binding: Item, reference: Object, subject: str) -> str:
    name = f"{binding.name}/{binding.namespace}" if binding.namespace else binding.name
    role = f'{reference.get("kind")} "{reference.get("name")}"'
    return f'RBAC: allowed by {binding.resource.kind} "{name}" of {role} to {subject}'


def _subject(subjects: Sequence[Object], identity: Identity, namespace: str) -> str | None:
    """The first subject the identity is, as reasons name it."""
    for subject in subjects:
        kind, name = subject.get("kind"), str(subject.get("name"))
        if kind == "User" and identity.user == name:
            return f'User "{name}"'
        if kind == "Group" and name in identity.groups:
            return f'Group "{name}"'
        if kind == "ServiceAccount":
            home = subject.get("namespace") or namespace
            if home and identity.user == f"system:serviceaccount:{home}:{name}":
                return f'ServiceAccount "{name}/{home}"'
    return None


def _allows(rule: Object, asked: Attributes) -> bool:
    if not _has(rule.get("verbs"), asked.verb):
        return False
    if asked.path:
        return any(_covers(str(url), asked.path) for url in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames")
    if names and asked.name not in names:
        return False
    return _has(rule.get("apiGroups"), asked.group) and any(
        wanted in (rule.get("resources") or ()) for wanted in _spellings(asked)
    )


def _spellings(asked: Attributes) -> Iterator[str]:
    yield "*"
    yield asked.full_resource
    if asked.subresource:
        yield f"*/{asked.subresource}"


def _has(values: Any, wanted: str) -> bool:
    return "*" in (values or ()) or wanted in (values or ())


def _covers(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))


def defaulted(value: Object) -> None:
    """Fills in what the API does: the group of users, groups and of the role referred to."""
    value.setdefault("roleRef", {}).setdefault("apiGroup", _GROUP)
    for subject in value.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", _GROUP)
