"""Patches, by the examples of their specifications."""

from __future__ import annotations

from typing import Any

import pytest

from apiguard.demo.patching import PatchError, json_patch, merge_patch, strategic_patch


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        # RFC 7386, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(document: Any, patch: Any, result: Any) -> None:
    assert merge_patch(document, patch) == result


@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        # RFC 6902, appendix A.
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/b"}], {"a": 1}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/0", "value": 3}], {"a": [3, 2]}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
        ({"a/b~c": 1}, [{"op": "replace", "path": "/a~1b~0c", "value": 2}], {"a/b~c": 2}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
    ],
)
def test_json_patch(document: Any, operations: Any, result: Any) -> None:
    before = repr(document)
    assert json_patch(document, operations) == result
    assert repr(document) == before


@pytest.mark.parametrize(
    ("operations", "malformed"),
    [
        ({}, True),
        ([{"op": "add"}], True),
        ([{"op": "add", "path": "/x"}], True),
        ([{"op": "jump", "path": "/a"}], True),
        ([{"op": "remove", "path": "/missing"}], False),
        ([{"op": "test", "path": "/a", "value": 2}], False),
        ([{"op": "replace", "path": "/list/7", "value": 1}], False),
    ],
)
def test_json_patch_says_whether_patch_or_document_is_wrong(
    operations: Any, malformed: bool
) -> None:
    with pytest.raises(PatchError) as error:
        json_patch({"a": 1, "list": []}, operations)
    assert error.value.malformed is malformed


CONTAINERS = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        (
            CONTAINERS,
            {"containers": [{"name": "b", "image": "2"}, {"name": "c"}]},
            {
                "containers": [
                    {"name": "a", "image": "1"},
                    {"name": "b", "image": "2"},
                    {"name": "c"},
                ]
            },
        ),
        (
            CONTAINERS,
            {"containers": [{"$patch": "delete", "name": "a"}]},
            {"containers": [{"name": "b", "image": "1"}]},
        ),
        (
            CONTAINERS,
            {"containers": [{"$patch": "replace"}, {"name": "z"}]},
            {"containers": [{"name": "z"}]},
        ),
        (
            CONTAINERS,
            {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a", "image": "2"}],
            },
            {"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "2"}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, None),
        ({"finalizers": ["a"]}, {"finalizers": ["b", "a"]}, {"finalizers": ["a", "b"]}),
        ({"finalizers": ["a", "b"]}, {"$deleteFromPrimitiveList/finalizers": ["a"]}, None),
        ({"s": {"a": 1, "b": 2}}, {"s": {"$patch": "replace", "c": 3}}, {"s": {"c": 3}}),
        ({"s": {"a": 1, "b": 2}}, {"s": {"$retainKeys": ["b"], "b": 3}}, {"s": {"b": 3}}),
        ({"s": {"a": 1}}, {"s": {"a": None}}, {"s": {}}),
    ],
)
def test_strategic_patch_merges_lists_by_their_key(document: Any, patch: Any, result: Any) -> None:
    expected = {
        "tolerations": {"tolerations": [{"key": "b"}]},
        "$deleteFromPrimitiveList/finalizers": {"finalizers": ["b"]},
    }
    wanted = result if result is not None else expected[next(iter(patch))]
    assert strategic_patch(document, patch) == wanted
