"""Which fields of a custom resource are known to be selectable: all of them, or none."""

from __future__ import annotations

import json

import msgspec
import pytest

from apiguard.gateway.feeds import Definition
from apiguard.runtime.relaydiscovery import definition_in


def definition(*paths: str, version: str = "v1") -> bytes:
    fields = [{"jsonPath": path} for path in paths]
    other = {"name": "v0", "selectableFields": [{"jsonPath": ".spec.other"}]}
    spec = {"versions": [other, {"name": version, "selectableFields": fields}]}
    return json.dumps({"metadata": {"uid": "u", "generation": 3}, "spec": spec}).encode()


def test_paths_are_those_of_the_version_asked_for() -> None:
    paths = (".spec.color", ".spec.deep.er", ".status.n")
    assert definition_in(definition(*paths), "v1").paths == paths
    assert definition_in(definition(*paths), "v0").paths == (".spec.other",)
    assert definition_in(definition(*paths), "v2").paths == ()


@pytest.mark.parametrize(
    "path",
    [".spec['color']", ".spec.items[0]", ".spec.a-b", ".metadata.name", ".spec.class", "spec.a"],
)
def test_one_path_that_is_not_plain_leaves_all_unknown(path: str) -> None:
    """A selector of upstream's must never be refused or misread here."""
    assert definition_in(definition(".spec.color", path), "v1").paths == ()


def test_a_version_without_the_field_has_none() -> None:
    body = json.dumps({"spec": {"versions": [{"name": "v1"}]}}).encode()
    assert definition_in(body, "v1").paths == ()
    assert definition_in(body.replace(b'"v1"', b'"v1", "selectableFields": null'), "v1").paths == ()
    with pytest.raises(msgspec.DecodeError):
        definition_in(b'{"spec": {}}', "v1")


def test_the_edition_tells_a_definition_from_its_successors() -> None:
    """``generation`` grows with each change of spec, ``uid`` is new after a deletion."""
    body = definition(".spec.color")
    assert definition_in(body, "v1") == Definition((".spec.color",), "u/3")
    for changed in (body.replace(b"3", b"4"), body.replace(b'"u"', b'"w"')):
        assert definition_in(changed, "v1") != definition_in(body, "v1")
