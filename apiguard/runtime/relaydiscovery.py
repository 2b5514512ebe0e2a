"""What a resource is, asked of an API server: its scope, and what its definition says.

Of custom resources only their CRD knows what clients may select them by, and when their schema
changed: objects then look different (defaults, pruning, conversion) under revisions that stay.
Where it cannot be read (an aggregated API, or credentials without the right) nothing is known;
where it holds paths that are not plain, no paths are. Requests with such selectors go upstream.
"""

from __future__ import annotations

import keyword
from typing import Final

import msgspec

from apiguard.gateway.asking import FeedKey
from apiguard.gateway.feeds import UNDEFINED, Definition
from apiguard.kube.groups import BUILT_IN_GROUPS
from apiguard.runtime.relayclient import RelayClient, UpstreamError

LONGEST_DISCOVERY: Final = 4 << 20
_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Discovered(msgspec.Struct, frozen=True):
    """An entry of an APIResourceList."""

    name: str
    namespaced: bool = False
    verbs: frozenset[str] = frozenset()

    @property
    def relayable(self) -> bool:
        return {"list", "watch"} <= self.verbs


class _Discovery(msgspec.Struct, frozen=True):
    resources: tuple[Discovered, ...] = ()


class _Selectable(msgspec.Struct, frozen=True):
    jsonPath: str  # noqa: N815 - a JSON member's name


class _Version(msgspec.Struct, frozen=True):
    name: str
    selectableFields: tuple[_Selectable, ...] | None = None  # noqa: N815 - as above


class _Spec(msgspec.Struct, frozen=True):
    versions: tuple[_Version, ...]


class _Metadata(msgspec.Struct, frozen=True):
    uid: str = ""
    generation: int = 0


class _Definition(msgspec.Struct, frozen=True):
    spec: _Spec
    metadata: _Metadata = _Metadata()


async def discover(client: RelayClient, server: str, key: FeedKey) -> Discovered | None:
    """The resource as discovery has it, None where it is not served.

    Raises UpstreamError, and msgspec.DecodeError for what is no discovery document.
    """
    root = f"/apis/{key.group}/{key.version}" if key.group else f"/api/{key.version}"
    body = await client.document(server, root, LONGEST_DISCOVERY)
    found = msgspec.json.decode(body, type=_Discovery)
    return next((one for one in found.resources if one.name == key.resource), None)


async def definition_of(client: RelayClient, server: str, key: FeedKey) -> Definition:
    """What the CRD of a custom resource says; UNDEFINED where it is not known.

    Raises UpstreamError where there was no answer at all.
    """
    if key.group in BUILT_IN_GROUPS or key.form.metadata_only:
        return UNDEFINED
    target = f"{_DEFINITIONS}/{key.resource}.{key.group}"
    try:
        body = await client.document(server, target, LONGEST_DISCOVERY)
    except UpstreamError as error:
        if error.failure.code in (403, 404):
            return UNDEFINED
        raise
    try:
        return definition_in(body, key.version)
    except msgspec.DecodeError:
        return UNDEFINED


def definition_in(body: bytes, version: str) -> Definition:
    """What a CRD says of one of its versions. One path that is not plain names leaves all unknown:
    half a table would refuse what upstream accepts. Raises DecodeError."""
    found = msgspec.json.decode(body, type=_Definition)
    edition = f"{found.metadata.uid}/{found.metadata.generation}"
    for one in found.spec.versions:
        if one.name == version:
            paths = tuple(field.jsonPath for field in one.selectableFields or ())
            return Definition(paths if all(map(_plain, paths)) else (), edition)
    return Definition((), edition)


def _plain(path: str) -> bool:
    """Dots and names that can be members of a struct, outside of metadata."""
    root, *names = path.split(".")
    return (
        not root
        and bool(names)
        and names[0] != "metadata"
        and all(
            name.isascii()
            and name.isidentifier()
            and not name.startswith("_")
            and not keyword.iskeyword(name)
            for name in names
        )
    )
