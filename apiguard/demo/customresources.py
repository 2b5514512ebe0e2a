"""CustomResourceDefinitions -> served resources, for as long as the definition exists.

Of each definition the storage version is served: others would need a conversion. Objects are kept
as sent, without defaults or pruning by the schema. A definition that changes what is served ends
the watches of its resource, as upstream does when it builds the storage anew; its objects stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from apiguard.demo.encoding import Object
from apiguard.demo.resources import Getter, Resource, Subresource, at
from apiguard.demo.store import Change, Store

_STATUS_VERBS = ("get", "patch", "update")


def resource_of(definition: Object) -> Resource | None:
    """The resource of a definition; None without a version that is both served and stored."""
    spec = definition["spec"]
    names = spec.get("names") or {}
    version = _served_version(spec)
    if version is None or not names.get("plural") or not names.get("kind"):
        return None
    kind = str(names["kind"])
    return Resource(
        str(spec["group"]),
        str(version["name"]),
        str(names["plural"]),
        kind,
        namespaced=spec.get("scope") != "Cluster",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=_subresources(kind, version),
        fields=_fields(version),
        custom=True,
        singular=str(names.get("singular") or kind.lower()),
        list_kind=str(names.get("listKind") or f"{kind}List"),
    )


def _served_version(spec: Object) -> Object | None:
    for version in spec.get("versions") or ():
        if isinstance(version, dict) and version.get("served") and version.get("storage"):
            return version
    return None


def _subresources(kind: str, version: Object) -> tuple[Subresource, ...]:
    if "status" not in (version.get("subresources") or {}):
        return ()
    return (Subresource("status", kind, _STATUS_VERBS),)


def _fields(version: Object) -> dict[str, Getter]:
    paths = [str(entry["jsonPath"]) for entry in version.get("selectableFields") or ()]
    return {path.removeprefix("."): at(path.removeprefix(".")) for path in paths}


def _shape(resource: Resource) -> tuple[Any, ...]:
    """Everything of a resource that its clients can notice."""
    return (
        *(resource.group, resource.version, resource.plural, resource.kind, resource.namespaced),
        *(resource.short_names, resource.categories, resource.subresources),
        *(resource.singular, resource.list_kind, tuple(resource.fields)),
    )


class Definitions:
    """Follows the definitions of a store. ``serve`` and ``withdraw`` do the rest of the server."""

    def __init__(
        self,
        store: Store,
        definitions: Resource,
        serve: Callable[[Resource], None],
        withdraw: Callable[[Resource], None],
    ) -> None:
        self._store = store
        self._serve = serve
        self._withdraw = withdraw
        self._served: dict[str, Resource] = {}
        store.collections[definitions].listeners.append(self._follow)

    def _follow(self, change: Change) -> None:
        name = change.subject.name
        current = self._served.get(name)
        if change.item is None:
            if current is not None:
                self._remove_objects(current)
                self._end(name, current)
            return
        wanted = resource_of(change.item.value)
        if wanted is not None and current is not None and _shape(wanted) == _shape(current):
            return
        kept = self._store.collections[current].items() if current is not None else ()
        if current is not None:
            self._end(name, current)
        if wanted is not None:
            self._store.add(wanted).restore([item.of(wanted) for item in kept])
            self._served[name] = wanted
            self._serve(wanted)

    def _remove_objects(self, resource: Resource) -> None:
        for item in self._store.collections[resource].items():
            self._store.delete(resource, item.key)

    def _end(self, name: str, resource: Resource) -> None:
        del self._served[name]
        self._withdraw(resource)
        self._store.remove(resource)
