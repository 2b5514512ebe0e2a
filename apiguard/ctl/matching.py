"""Whom an override is about: flags, or a row of ``top`` -> the ``match`` of the HTTP API."""

from __future__ import annotations

import re

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.parsing import Command, Given

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LONGEST_FAMILY = 64
LONGEST_USER = 256
"""Characters at which the guard cuts what it counts by; longer ones begin like it."""

FIELDS: dict[str, tuple[str, str, str]] = {
    "user_agents": ("userAgents", "PATTERN", "User-Agent, as in 'telemetry/*'."),
    "users": ("users", "PATTERN", "Verified user."),
    "groups": ("groups", "PATTERN", "Group of a verified user."),
    "service_accounts": ("serviceAccounts", "NS/NAME", "Verified service account."),
    "sources": ("sourceCIDRs", "CIDR", "Address or network of the client."),
    "verbs": ("verbs", "VERB", "Kubernetes verb, as in list."),
    "resources": ("resources", "RESOURCE", "As in pods, leases.coordination.k8s.io, pods/log."),
    "api_groups": ("apiGroups", "PATTERN", "API group; '' is the core group."),
    "namespaces": ("namespaces", "PATTERN", "Namespace; '' is a cluster-wide request."),
    "names": ("names", "PATTERN", "Object's name; '' is a whole collection."),
    "paths": ("nonResourcePaths", "PATTERN", "Path of a non-resource request, as in '/metrics'."),
}
"""Flags by parameter: field of ``match``, what a value is called, help."""

FLAGS: dict[str, str] = {
    "user_agents": "--user-agent",
    "users": "--user",
    "groups": "--group",
    "service_accounts": "--service-account",
    "sources": "--source",
    "verbs": "--verb",
    "resources": "--resource",
    "api_groups": "--api-group",
    "namespaces": "--namespace",
    "names": "--name",
    "paths": "--path",
}
SHAPES: dict[str, tuple[str, str, str]] = {
    "unpaged": ("--unpaged", "unpaged", "LISTs without limit, and watch-lists."),
    "rv_less": ("--rv-less", "withoutResourceVersion", "LISTs without resourceVersion."),
    "unselected": ("--no-selector", "withoutSelector", "LISTs without any selector."),
}


def match_flags(command: Command) -> None:
    """Adds the flags; all given must match, repeated ones are alternatives."""
    group = command.add_argument_group("whom, by all of what is given; repeat a flag for either")
    for parameter, (_, metavar, said) in FIELDS.items():
        group.add_argument(
            FLAGS[parameter], dest=parameter, action="append", metavar=metavar, help=said
        )
    for parameter, (flag, _, said) in SHAPES.items():
        group.add_argument(flag, dest=parameter, action="store_true", help=said)


def given_match(given: Given) -> dict[str, Any]:
    """The match that the flags write; {} when none was given."""
    flags = vars(given)
    match: dict[str, Any] = {
        field: flags[parameter] for parameter, (field, _, _) in FIELDS.items() if flags[parameter]
    }
    shape = {field: True for parameter, (_, field, _) in SHAPES.items() if flags[parameter]}
    return match | {"listShape": shape} if shape else match


def match_of_key(key: Mapping[str, str]) -> dict[str, Any]:
    """The match for exactly the clients a row of ``top`` counts.

    ``key`` is the row's: ``userAgent`` (a family), ``user``, ``source``, ``verb`` and ``resource``.
    Values were chosen by clients: one that would mean more as a pattern than it says (``*``,
    ``re:``) is quoted, so that a client cannot make the operator ban everybody. Raises ValueError
    for rows that stand for no client in particular.
    """
    match: dict[str, Any] = {}
    if "userAgent" in key:
        match["userAgents"] = family_patterns(key["userAgent"])
    if "user" in key:
        if not key["user"]:
            raise ValueError("these requests have no verified user: select by user-agent or source")
        match["users"] = [_exactly(key["user"])]
    if "source" in key:
        match["sourceCIDRs"] = [key["source"]]
    if "verb" in key:
        match |= _match_of_request(key["verb"], key.get("resource", ""))
    if not match:
        raise ValueError("this row names no client")
    return match


def _match_of_request(verb: str, resource: str) -> dict[str, Any]:
    """``resource`` is one of the API, or the beginning of a path that names none."""
    match: dict[str, Any] = {"verbs": [verb]}
    if resource.startswith("/"):
        whole = resource.rstrip("/")
        match["nonResourcePaths"] = [_exactly(resource), *_below(whole)]
    elif resource:
        match["resources"] = [resource]
    return match


def _below(path: str) -> list[str]:
    return [f"{path}/*" if _is_plain(path) else f"re:{re.escape(path)}/.*"]


def family_patterns(family: str) -> list[str]:
    """Patterns for every user-agent of a family: what precedes the first ``/`` or blank."""
    if _is_plain(family) and len(family) < LONGEST_FAMILY:
        return [family, f"{family}/*", f"{family} *"]
    rest = ".*" if len(family) >= LONGEST_FAMILY else "(?:[/ ].*)?"
    return [f"re:(?s:{re.escape(family)}{rest})"]


def _exactly(value: str) -> str:
    if len(value) >= LONGEST_USER:
        return f"re:(?s:{re.escape(value)}.*)"
    return value if _is_plain(value) else f"re:{re.escape(value)}"


def _is_plain(value: str) -> bool:
    return "*" not in value and not value.startswith("re:")
