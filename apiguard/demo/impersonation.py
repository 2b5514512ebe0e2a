"""Impersonate-* headers -> whom the request is to be taken for, if the caller may.

Source: apiserver/pkg/endpoints/filters/impersonation.go; the constrained verbs of 1.36 are not
decided here, only ``impersonate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from apiguard.demo import problems
from apiguard.demo.authentication import Headers
from apiguard.demo.rbac import Attributes
from apiguard.kube.identity import AUTHENTICATED_GROUP, Identity

_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"
_API = "authentication.k8s.io"
_UNAUTHENTICATED = "system:unauthenticated"


@dataclass(frozen=True, slots=True)
class Requested:
    """What the headers ask for, before anything is filled in."""

    user: str
    uid: str
    groups: tuple[str, ...]
    extra: dict[str, tuple[str, ...]]


def impersonated(
    headers: Headers, caller: Identity, check: Callable[[Attributes], None]
) -> Identity:
    """The caller, or whom it impersonates; ``check`` raises for what is not allowed.

    Raises ``ApiError`` 400 for groups, uid or extra without a user.
    """
    wanted = _read(headers)
    if not (wanted.user or wanted.uid or wanted.groups or wanted.extra):
        return caller
    if not wanted.user:
        raise problems.bad_request(f"requested {_go(wanted)} without impersonating a user name")
    for asked in _questions(caller, wanted):
        check(asked)
    groups = wanted.groups
    account = _account(wanted.user)
    if account and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
    anonymous = wanted.user == "system:anonymous" or _UNAUTHENTICATED in groups
    if anonymous and not groups:
        groups = (_UNAUTHENTICATED,)
    elif not anonymous and AUTHENTICATED_GROUP not in groups:
        groups = (*groups, AUTHENTICATED_GROUP)
    return Identity(wanted.user, groups, wanted.uid, wanted.extra)


def _read(headers: Headers) -> Requested:
    user = uid = ""
    groups: list[str] = []
    extra: dict[str, tuple[str, ...]] = {}
    for name, value in headers:
        lowered = name.lower()
        if lowered == "impersonate-user":
            user = user or value
        elif lowered == "impersonate-uid":
            uid = uid or value
        elif lowered == "impersonate-group":
            groups.append(value)
        elif lowered.startswith(_EXTRA):
            key = unquote(lowered[len(_EXTRA) :]).lower()
            extra[key] = (*extra.get(key, ()), value)
    return Requested(user, uid, tuple(groups), extra)


def _account(user: str) -> tuple[str, str] | None:
    """Namespace and name when the user is a service account."""
    namespace, _, name = user.removeprefix(_ACCOUNT).partition(":")
    plain = user.startswith(_ACCOUNT) and namespace and name and ":" not in name
    return (namespace, name) if plain else None


def _questions(caller: Identity, wanted: Requested) -> Iterator[Attributes]:
    account = _account(wanted.user)
    if account:
        namespace, name = account
        yield Attributes(
            caller, "impersonate", resource="serviceaccounts", namespace=namespace, name=name
        )
    else:
        yield Attributes(caller, "impersonate", resource="users", name=wanted.user)
    for group in wanted.groups:
        yield Attributes(caller, "impersonate", resource="groups", name=group)
    if wanted.uid:
        yield Attributes(caller, "impersonate", group=_API, resource="uids", name=wanted.uid)
    for key, values in wanted.extra.items():
        for value in values:
            yield Attributes(caller, "impersonate", _API, "userextras", subresource=key, name=value)


def _go(wanted: Requested) -> str:
    """As Go prints the user with ``%#v``, which the refusal quotes."""
    groups = _strings(wanted.groups) if wanted.groups else "[]string(nil)"
    if wanted.extra:
        pairs = ", ".join(f'"{key}":{_strings(v)}' for key, v in sorted(wanted.extra.items()))
        extra = f"map[string][]string{{{pairs}}}"
    else:
        extra = "map[string][]string(nil)"
    return f'&user.DefaultInfo{{Name:"", UID:"{wanted.uid}", Groups:{groups}, Extra:{extra}}}'


def _strings(values: tuple[str, ...]) -> str:
    listed = ", ".join(f'"{value}"' for value in values)
    return f"[]string{{{listed}}}"
