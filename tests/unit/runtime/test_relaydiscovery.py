"""Which fields of a custom resource are known to be selectable: all of them, or none."""

from __future__ import annotations

import json

import msgspec
import pytest

from apiguard.runtime.relaydiscovery import paths_in


def definition(*paths: str, version: str = "v1") -> bytes:
    fields = [{"jsonPath": path} for path in paths]
    other = {"name": "v0", "selectableFields": [{"jsonPath": ".spec.other"}]}
    return json.dumps(
        {"spec": {"versions": [other, {"name": version, "selectableFields": fields}]}}
    ).encode()


def test_paths_are_those_of_the_version_asked_for() -> None:
    paths = (".spec.color", ".spec.deep.er", ".status.n")
    assert paths_in(definition(*paths), "v1") == paths
    assert paths_in(definition(*paths), "v0") == (".spec.other",)
    assert paths_in(definition(*paths), "v2") == ()


@pytest.mark.parametrize(
    "path",
    [".spec['color']", ".spec.items[0]", ".spec.a-b", ".metadata.name", ".spec.class", "spec.a"],
)
def test_one_path_that_is_not_plain_leaves_all_unknown(path: str) -> None:
    """A selector of upstream's must never be refused or misread here."""
    assert paths_in(definition(".spec.color", path), "v1") == ()


def test_a_version_without_the_field_has_none() -> None:
    body = json.dumps({"spec": {"versions": [{"name": "v1"}]}}).encode()
    assert paths_in(body, "v1") == ()
    assert paths_in(body.replace(b'"v1"', b'"v1", "selectableFields": null'), "v1") == ()
    with pytest.raises(msgspec.DecodeError):
        paths_in(b'{"spec": {}}', "v1")
