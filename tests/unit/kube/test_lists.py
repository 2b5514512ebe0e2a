"""A LIST body falls into its items' exact bytes, wherever the network cuts it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.kube.lists import MAX_ITEM, JsonListSplitter, ListedItem, ListEnvelope, list_splitter
from apiguard.kube.objects import NO_FIELDS, ObjectError, peeker
from apiguard.kube.protobuf import bytes_field, envelope, string_field
from apiguard.kube.status import Representation

from .recorded_bodies import body

JSON, PROTOBUF = Representation.JSON, Representation.PROTOBUF


def split(
    data: bytes, representation: Representation, size: int = 1 << 20
) -> tuple[list[ListedItem], ListEnvelope]:
    splitter = list_splitter(representation, peeker(representation, NO_FIELDS))
    found: list[ListedItem] = []
    for at in range(0, len(data), size):
        found += splitter.receive_data(data[at : at + size])
    last, list_envelope = splitter.receive_eof()
    return found + last, list_envelope


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("name", "count"),
    [("list-json", 3), ("cr-list-json", 2), ("list-partial-metadata", 3), ("list-empty", 0)],
)
def test_recorded_items_are_found_whatever_the_pieces(name: str, count: int, size: int) -> None:
    data = body(name)
    found, read = split(data, JSON, size)
    assert len(found) == count
    assert b",".join(item.body for item in found) in data
    meant = json.loads(data)
    assert [json.loads(item.body) for item in found] == meant["items"]
    assert (read.kind, read.api_version) == (meant["kind"], meant["apiVersion"])
    assert str(read.resource_version) == meant["metadata"]["resourceVersion"]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_protobuf_list_is_found_whatever_the_pieces(size: int) -> None:
    data = body("list-leases-protobuf")
    found, read = split(data, PROTOBUF, size)
    assert [item.peeked.name for item in found] == ["node1-0", "node1-1"]
    assert (read.kind, read.api_version) == ("LeaseList", "coordination.k8s.io/v1")
    assert read.remaining == 9
    assert read.token
    assert all(bytes_field(2, item.body) in data for item in found)


values = st.recursive(
    st.none() | st.integers() | st.text('a"{}[],:\\é\n', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["metadata", "items", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(values, max_size=5), st.integers(1, 40), st.booleans())
def test_items_survive_whatever_they_hold(contents: list[object], size: int, spread: bool) -> None:
    """Also the text that separates items, inside of one: ``spec`` repeats whole items."""
    objects: list[dict[str, object]] = [
        {"metadata": {"name": f"n{at}"}, "spec": content} for at, content in enumerate(contents)
    ]
    if spread and objects:
        objects[0]["nested"] = [dict(each) for each in objects]
    items = [json.dumps(each, separators=(",", ":")).encode() for each in objects]
    head = b'{"kind":"XList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":['
    found, read = split(head + b",".join(items) + b"]}\n", JSON, size)
    assert [item.body for item in found] == items
    assert read.resource_version == 9


def test_null_items_are_none() -> None:
    text = b'{"kind":"XList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":null}'
    assert split(text, JSON)[0] == []


@pytest.mark.parametrize("name", ["list-json", "cr-list-json", "list-empty"])
def test_no_json_list_that_ends_early_is_taken_for_whole(name: str) -> None:
    data = body(name).rstrip()
    for end in range(len(data)):
        with pytest.raises(ObjectError):
            split(data[:end], JSON)


def test_no_protobuf_list_that_ends_early_is_taken_for_whole() -> None:
    """Up to the end of the list; what follows is an empty encoding and an empty type."""
    data = body("list-protobuf")
    for end in range(len(data) - 4):
        with pytest.raises(ObjectError):
            split(data[:end], PROTOBUF)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'{"kind":"Status","apiVersion":"v1","metadata":{}}',
        b'{"kind":"XList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[1,2]}',
        b'{"kind":"XList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[{"a":1}]}',
        b'{"kind":"XList","apiVersion":"v1","metadata":{"resourceVersion":"x"},"items":[]}',
    ],
)
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(ObjectError):
        split(data, JSON)


def test_an_endless_item_is_given_up() -> None:
    splitter = JsonListSplitter(peeker(JSON, NO_FIELDS))
    splitter.receive_data(b'{"items":[{"metadata":{"name":"')
    with pytest.raises(ObjectError):
        splitter.receive_data(b"a" * (MAX_ITEM + 1))
    endless = list_splitter(PROTOBUF, peeker(PROTOBUF, NO_FIELDS))
    with pytest.raises(ObjectError):
        endless.receive_data(
            b"k8s\0\x12\xff\xff\xff\xff\x0f\x12\xff\xff\xff\xff\x0f",
        )


def test_a_list_whose_item_overruns_it_is_refused() -> None:
    item = bytes_field(2, bytes_field(1, string_field(1, "a")))
    data = envelope("v1", "XList", item)
    broken = data.replace(b"\x12" + bytes([len(item)]), b"\x12" + bytes([len(item) - 1]))
    assert broken != data
    with pytest.raises(ObjectError):
        split(broken, PROTOBUF)
