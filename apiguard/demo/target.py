"""Method and target of a request -> what it asks for.

Written from the rules of apiserver/pkg/endpoints/request/requestinfo.go and kept apart from
``apiguard.kube.requestinfo``: two readings that must agree are a test, one reading is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
# Below a namespace these are subresources of the namespace, not resources in it.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_LONG_RUNNING = frozenset({"attach", "exec", "proxy", "log", "portforward"})
# path.IsValidPathSegmentName: names that cannot be path segments never come from a selector.
_NO_NAMES = frozenset({"", ".", ".."})


class Query:
    """Parameters as Go reads them: split on ``&`` only, the first of duplicates counts."""

    __slots__ = ("_values", "raw")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self._values: dict[str, list[str]] = {}
        if not raw:
            return
        for pair in raw.split("&"):
            if ";" in pair or not pair:
                continue
            name, _, value = pair.partition("=")
            if _bad_escape(pair):
                continue
            self._values.setdefault(unquote_plus(name), []).append(unquote_plus(value))

    def get(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def flag(self, name: str) -> bool:
        """Booleans: absent, ``0`` and ``false`` are false, anything else is true."""
        values = self._values.get(name)
        return values is not None and values[0].lower() not in ("0", "false")

    def __contains__(self, name: str) -> bool:
        return name in self._values


@dataclass(slots=True)
class Target:
    """What a request asks for; the fields of RequestInfo that the server needs.

    ``watch_prefix``  the deprecated ``/watch/`` form
    """

    method: str
    path: str
    query: Query
    verb: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    watch_prefix: bool = False

    @property
    def long_running(self) -> bool:
        return self.verb in ("watch", "proxy") or self.subresource in _LONG_RUNNING


def parse_target(method: str, raw: str) -> Target:
    """Reads a request target as received (origin form)."""
    raw_path, _, raw_query = raw.partition("?")
    path = unquote(raw_path) if "%" in raw_path else raw_path
    query = Query(raw_query)
    target = Target(method, path, query, method.lower())
    parts = path.strip("/").split("/")
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return target
    if parts[0] == "apis":
        if len(parts) < 4:
            return target
        target.group, target.version, rest = parts[1], parts[2], parts[3:]
    else:
        target.version, rest = parts[1], parts[2:]
    target.is_resource = True
    target.verb = _VERBS.get(method, "")
    if rest[0] in ("watch", "proxy"):
        if len(rest) < 2:
            target.is_resource = False
            target.verb = method.lower()
            return target
        target.verb = rest[0]
        target.watch_prefix = rest[0] == "watch"
        rest = rest[1:]
    _read_parts(target, rest)
    _read_verb(target)
    return target


def _read_parts(target: Target, parts: list[str]) -> None:
    if parts[0] == "namespaces" and len(parts) > 1:
        target.namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    target.resource = parts[0]
    if len(parts) > 1:
        target.name = parts[1]
    if len(parts) > 2 and target.verb != "proxy":
        target.subresource = parts[2]


def _read_verb(target: Target) -> None:
    if target.name:
        return
    if target.verb == "get":
        target.verb = "watch" if target.query.flag("watch") else "list"
    if target.verb in ("list", "watch"):
        target.name = _selected_name(target.query.get("fieldSelector"))
    elif target.verb == "delete":
        target.verb = "deletecollection"


def _selected_name(selector: str) -> str:
    for term in selector.split(","):
        for operator in ("==", "="):
            prefix = f"metadata.name{operator}"
            if term.startswith(prefix):
                name = term[len(prefix) :]
                plain = name not in _NO_NAMES and not set(name) & set("/%\\=")
                return name if plain else ""
    return ""


def _bad_escape(text: str) -> bool:
    at = text.find("%")
    while at >= 0:
        digits = text[at + 1 : at + 3]
        if len(digits) < 2 or not all(c in "0123456789abcdefABCDEF" for c in digits):
            return True
        at = text.find("%", at + 3)
    return False
