"""The three patch formats: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

Pure functions: documents are never changed in place. Strategic merge follows
apimachinery/pkg/util/strategicpatch/patch.go; its per-field strategies come from struct tags of
the API types, here from ``_MERGE_KEYS``.
"""

from __future__ import annotations

import copy
from typing import Any

from apiguard.demo.encoding import Object

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCHES = ("application/apply-patch+yaml", "application/apply-patch+cbor")

# List field -> key its elements are merged by, in every built-in type that merges this field.
# "ports" is containerPort in containers and port in services: the first present one counts.
_MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "addresses": ("type",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "podIPs": ("ip",),
    "ports": ("containerPort", "port"),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "secrets": ("name",),
    "taints": ("key",),
    "topologySpreadConstraints": ("topologyKey",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_MERGED_PRIMITIVES = frozenset({"finalizers"})
_DIRECTIVE = "$patch"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
_SET_ORDER = "$setElementOrder/"
_RETAIN = "$retainKeys"


class PatchError(ValueError):
    """The patch cannot be applied. ``malformed``: it is no patch at all (400 instead of 422)."""

    def __init__(self, message: str, *, malformed: bool = False) -> None:
        super().__init__(message)
        self.malformed = malformed


def merge_patch(document: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


# --- JSON patch -----------------------------------------------------------------------------


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902; raises ``PatchError``."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is an array of operations", malformed=True)
    result = copy.deepcopy(document)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise PatchError("an operation needs op and path", malformed=True)
        result = _operate(result, operation)
    return result


def _operate(document: Any, operation: Object) -> Any:
    name, path = operation.get("op"), _pointer(operation["path"])
    if name in ("add", "replace", "test"):
        if "value" not in operation:
            raise PatchError(f"{name} operation needs a value", malformed=True)
        value = copy.deepcopy(operation["value"])
        if name == "add":
            return _add(document, path, value)
        if name == "replace":
            return _add(_remove(document, path), path, value) if path else value
        if _get(document, path) != value:
            raise PatchError(f"testing value {operation['path']} failed")
        return document
    if name == "remove":
        return _remove(document, path)
    if name in ("move", "copy"):
        source = _pointer(str(operation.get("from", "")))
        value = copy.deepcopy(_get(document, source))
        return _add(_remove(document, source) if name == "move" else document, path, value)
    raise PatchError(f"Unexpected kind: {name}", malformed=True)


def _pointer(text: str) -> list[str]:
    if not text:
        return []
    if not text.startswith("/"):
        raise PatchError(f"bad JSON pointer: {text}", malformed=True)
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _index(container: list[Any], part: str, *, inserting: bool = False) -> int:
    if inserting and part == "-":
        return len(container)
    if not part.isdigit() or int(part) > len(container) - (0 if inserting else 1):
        raise PatchError(f"Unable to access invalid index: {part}")
    return int(part)


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, list):
            document = document[_index(document, part)]
        elif isinstance(document, dict) and part in document:
            document = document[part]
        else:
            raise PatchError(f"path {'/'.join(path)} does not exist")
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        parent.insert(_index(parent, path[-1], inserting=True), value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise PatchError(f"path {'/'.join(path)} does not exist")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    _get(document, path)
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        del parent[_index(parent, path[-1])]
    else:
        del parent[path[-1]]
    return document


# --- strategic merge patch ------------------------------------------------------------------


def strategic_patch(document: Object, patch: Any) -> Object:
    """Strategic merge; raises ``PatchError``."""
    if not isinstance(patch, dict):
        raise PatchError("a strategic merge patch is an object", malformed=True)
    return _merge_map(document, patch)


def _merge_map(document: Object, patch: Object) -> Object:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != _DIRECTIVE}
    if directive == "delete":
        return {}
    result = dict(document)
    for name in (patch.get(_RETAIN) and set(result) - set(patch[_RETAIN])) or ():
        del result[name]
    for name, value in patch.items():
        if name.startswith(_DELETE_PRIMITIVES):
            field = name[len(_DELETE_PRIMITIVES) :]
            result[field] = [entry for entry in result.get(field) or () if entry not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            result.pop(name, None)
        else:
            order = patch.get(_SET_ORDER + name)
            result[name] = _merge_value(name, result.get(name), value, order)
    return result


def _merge_value(name: str, current: Any, value: Any, order: list[Any] | None) -> Any:
    if isinstance(value, dict):
        return _merge_map(current if isinstance(current, dict) else {}, value)
    if not isinstance(value, list):
        return value
    existing = current if isinstance(current, list) else []
    if name in _MERGED_PRIMITIVES:
        return existing + [entry for entry in value if entry not in existing]
    key = _merge_key(name, value)
    return value if key is None else _merge_list(existing, value, key, order)


def _merge_key(name: str, entries: list[Any]) -> str | None:
    candidates = _MERGE_KEYS.get(name, ())
    for key in candidates:
        if any(isinstance(entry, dict) and key in entry for entry in entries):
            return key
    only_directives = entries and all(
        isinstance(entry, dict) and _DIRECTIVE in entry for entry in entries
    )
    return candidates[0] if candidates and only_directives else None


def _merge_list(
    existing: list[Any], patch: list[Any], key: str, order: list[Any] | None
) -> list[Any]:
    if any(entry.get(_DIRECTIVE) == "replace" for entry in patch if isinstance(entry, dict)):
        return [entry for entry in patch if _DIRECTIVE not in entry]
    result = {entry.get(key): entry for entry in existing}
    for entry in patch:
        if not isinstance(entry, dict) or key not in entry:
            raise PatchError(f"map: {entry} does not contain declared merge key: {key}")
        if entry.get(_DIRECTIVE) == "delete":
            result.pop(entry[key], None)
        else:
            result[entry[key]] = _merge_map(result.get(entry[key], {}), entry)
    if order:
        ranks = {entry.get(key): rank for rank, entry in enumerate(order)}
        ordered = sorted(result.items(), key=lambda pair: ranks.get(pair[0], len(ranks)))
        return [entry for _, entry in ordered]
    return list(result.values())
