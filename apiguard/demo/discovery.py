"""What clients ask first: groups, resources, version, OpenAPI, health.

Both discovery forms are served: one document per group-version, and the aggregated one kubectl
prefers (``APIGroupDiscoveryList``).
"""

from __future__ import annotations

from collections.abc import Collection

from apiguard.demo.encoding import Object
from apiguard.demo.negotiation import JSON, parse_accept
from apiguard.demo.resources import Catalogue, Resource, Subresource

VERSION: Object = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "$Format:%H$",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.26.6",
    "compiler": "gc",
    "platform": "linux/amd64",
}
_AGGREGATED = "APIGroupDiscoveryList"


def api_versions(address: str) -> Object:
    """``/api``; ``address`` is host:port of the server."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(catalogue: Catalogue) -> Object:
    """``/apis``."""
    names = dict.fromkeys(group for group, _ in catalogue.group_versions() if group)
    groups = [_group(catalogue, name) for name in names]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(catalogue: Catalogue, name: str) -> Object | None:
    """``/apis/G``; None for a group that is not served."""
    if not name or name not in {group for group, _ in catalogue.group_versions()}:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(catalogue, name)}


def _group(catalogue: Catalogue, name: str) -> Object:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for group, version in catalogue.group_versions()
        if group == name
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resource_list(catalogue: Catalogue, group_name: str, version: str) -> Object | None:
    """``/api/v1`` and ``/apis/G/V``; None for a version that is not served."""
    served = catalogue.of(group_name, version)
    if not served:
        return None
    entries: list[Object] = []
    for resource in served:
        entries.append(_entry(resource))
        entries.extend(_subentry(resource, sub) for sub in resource.subresources)
    return {
        "kind": "APIResourceList",
        **({"apiVersion": "v1"} if group_name else {}),
        "groupVersion": f"{group_name}/{version}" if group_name else version,
        "resources": entries,
    }


def _entry(resource: Resource) -> Object:
    entry: Object = {
        "name": resource.plural,
        "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return entry


def _subentry(resource: Resource, sub: Subresource) -> Object:
    entry: Object = {
        "name": f"{resource.plural}/{sub.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
    }
    if sub.version:
        entry |= {"group": sub.group, "version": sub.version}
    return entry | {"kind": sub.kind, "verbs": list(sub.verbs)}


def aggregated_type(accept: str) -> str:
    """The media type of aggregated discovery when Accept prefers it, else ""."""
    for clause in parse_accept(accept):
        if clause.media not in (JSON, "*/*"):
            continue
        parameters = clause.parameters
        if parameters.get("as") == _AGGREGATED and parameters.get("g") == "apidiscovery.k8s.io":
            if parameters.get("v") in ("v2", "v2beta1"):
                return f"{JSON};g=apidiscovery.k8s.io;v={parameters['v']};as={_AGGREGATED}"
            continue
        return ""
    return ""


def aggregated(catalogue: Catalogue, media_type: str, *, core: bool) -> Object:
    """The aggregated document: of the core group (``/api``) or of all others (``/apis``)."""
    version = "v2beta1" if "v=v2beta1" in media_type else "v2"
    names = dict.fromkeys(g for g, _ in catalogue.group_versions() if bool(g) != core)
    return {
        "kind": _AGGREGATED,
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [_aggregated_group(catalogue, name) for name in names],
    }


def _aggregated_group(catalogue: Catalogue, name: str) -> Object:
    versions = [
        {
            "version": version,
            "resources": [_aggregated_resource(r) for r in catalogue.of(group, version)],
            "freshness": "Current",
        }
        for group, version in catalogue.group_versions()
        if group == name
    ]
    return {"metadata": {"name": name} if name else {}, "versions": versions}


def _aggregated_resource(resource: Resource) -> Object:
    entry: Object = {
        "resource": resource.plural,
        "responseKind": {
            "group": resource.group,
            "version": resource.version,
            "kind": resource.kind,
        },
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular or resource.kind.lower(),
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {
                    "group": sub.group or resource.group,
                    "version": sub.version or resource.version,
                    "kind": sub.kind,
                },
                "verbs": list(sub.verbs),
            }
            for sub in resource.subresources
        ]
    return entry


# --- OpenAPI --------------------------------------------------------------------------------


def openapi_index(catalogue: Catalogue) -> Object:
    """``/openapi/v3``: one document per group-version."""
    paths = [_gv_path(group, version) for group, version in catalogue.group_versions()]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in paths}}


def _gv_path(group_name: str, version: str) -> str:
    return f"apis/{group_name}/{version}" if group_name else f"api/{version}"


def openapi_document(catalogue: Catalogue, path: str) -> Object | None:
    """The OpenAPI v3 document of one group-version.

    Enough for clients to see that the server validates fields itself (the ``fieldValidation``
    and ``dryRun`` parameters) and which kinds exist; schemas are open objects.
    """
    for group_name, version in catalogue.group_versions():
        if _gv_path(group_name, version) != path:
            continue
        served = catalogue.of(group_name, version)
        prefix = f"/{path}"
        schemas = {_schema_name(resource): _schema(resource) for resource in served}
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
            "paths": {_item_path(prefix, r): _item_operations(r) for r in served},
            "components": {"schemas": schemas},
        }
    return None


def _item_path(prefix: str, resource: Resource) -> str:
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    return f"{prefix}{scope}/{resource.plural}/{{name}}"


def _item_operations(resource: Resource) -> Object:
    gvk = {"group": resource.group, "kind": resource.kind, "version": resource.version}
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation", "force")
    ]
    return {
        "patch": {
            "parameters": parameters,
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": gvk,
            "responses": {"200": {"description": "OK"}},
        }
    }


def _schema_name(resource: Resource) -> str:
    group_name = (resource.group or "core").partition(".")[0]
    return f"io.k8s.api.{group_name}.{resource.version}.{resource.kind}"


def _schema(resource: Resource) -> Object:
    gvk = {"group": resource.group, "kind": resource.kind, "version": resource.version}
    open_object = {"type": "object", "additionalProperties": True}
    return {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": open_object,
            "spec": open_object,
            "status": open_object,
        },
        "x-kubernetes-group-version-kind": [gvk],
    }


# --- health ---------------------------------------------------------------------------------

_POST_START = (
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "rbac/bootstrap-roles",
    "bootstrap-controller",
    "start-kube-aggregator-informers",
)
_CHECKS = {
    "livez": ("ping", "log", "etcd"),
    "healthz": ("ping", "log", "etcd"),
    "readyz": ("ping", "log", "etcd", "etcd-readiness", "informer-sync"),
}


def health(
    endpoint: str, only: str, excluded: Collection[str], failing: Collection[str], *, verbose: bool
) -> tuple[int, str] | None:
    """Code and text of ``/livez``, ``/healthz`` or ``/readyz``; None for an unknown ``only``.

    A single check is asked for by ``/readyz/etcd``; a failure is 500 and always verbose.
    """
    names = [*_CHECKS[endpoint], *(f"poststarthook/{name}" for name in _POST_START)]
    if endpoint == "readyz":
        names.append("shutdown")
    if only:
        if only not in names:
            return None
        if only in failing:
            return 500, f"internal server error: {only} failed\n"
        return 200, "ok"
    lines = []
    failed = []
    for name in names:
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok")
        elif name in failing:
            failed.append(name)
            lines.append(f"[-]{name} failed: reason withheld")
        else:
            lines.append(f"[+]{name} ok")
    if failed:
        return 500, "\n".join((*lines, f"{endpoint} check failed\n"))
    if not verbose:
        return 200, "ok"
    return 200, "\n".join((*lines, f"{endpoint} check passed\n"))
