"""What is read from an object's bytes is what kube-apiserver would select by."""

from __future__ import annotations

import pytest

from apiguard.kube.lists import ListedItem, list_splitter
from apiguard.kube.objects import (
    NO_FIELDS,
    FieldTable,
    ObjectError,
    custom_fields,
    parse_resource_version,
    peeker,
    restamped,
    selectable_fields,
    unwrap,
)
from apiguard.kube.protobuf import bytes_field, integer_field, string_field
from apiguard.kube.status import Representation

from .recorded_bodies import body

JSON, PROTOBUF = Representation.JSON, Representation.PROTOBUF
PODS = selectable_fields("", "pods")


def items(name: str, representation: Representation, table: FieldTable) -> list[ListedItem]:
    splitter = list_splitter(representation, peeker(representation, table))
    found = splitter.receive_data(body(name))
    return found + splitter.receive_eof()[0]


def fields_of(text: bytes, table: FieldTable) -> dict[str, str]:
    values = peeker(JSON, table)(text).values
    return {label: values[slot] for label, slot in table.slots.items()}


@pytest.mark.parametrize(
    ("group", "resource", "json", "protobuf"),
    [
        ("", "pods", "list-json", "list-protobuf"),
        ("", "nodes", "list-nodes-json", "list-nodes-protobuf"),
        ("", "services", "list-services-json", "list-services-protobuf"),
        ("", "namespaces", "list-namespaces-json", "list-namespaces-protobuf"),
        ("coordination.k8s.io", "leases", "list-leases-json", "list-leases-protobuf"),
    ],
)
def test_both_representations_say_the_same(
    group: str, resource: str, json: str, protobuf: str
) -> None:
    """Recorded from one server at one time."""
    table = selectable_fields(group, resource)
    in_json = [item.peeked for item in items(json, JSON, table)]
    in_protobuf = [item.peeked for item in items(protobuf, PROTOBUF, table)]
    assert in_json == in_protobuf
    assert in_json
    assert all(peeked.resource_version and peeked.uid for peeked in in_json)


def test_a_pod_names_its_node_and_its_defaults() -> None:
    pods = items("list-protobuf", PROTOBUF, PODS)
    assert [pod.peeked.values[PODS.slots["spec.nodeName"]] for pod in pods] == [
        "node-a",
        "node-b",
        "node-a",
    ]
    assert pods[0].peeked.values[PODS.slots["spec.hostNetwork"]] == "false"
    assert PODS.slots["spec.host"] == PODS.slots["spec.nodeName"]


@pytest.mark.parametrize(
    ("text", "label", "value"),
    [
        (b'"status":{"podIP":"1.1.1.1"}', "status.podIP", "1.1.1.1"),
        (b'"status":{"podIP":"1.1.1.1","podIPs":[{"ip":"2"}]}', "status.podIP", "2"),
        (b'"status":{"podIPs":[]}', "status.podIP", ""),
        (b'"spec":{"hostNetwork":true}', "spec.hostNetwork", "true"),
        (b'"spec":null', "spec.nodeName", ""),
        (b'"spec":{"nodeName":null}', "spec.nodeName", ""),
    ],
)
def test_pod_fields_follow_the_conversions_of_kube_apiserver(
    text: bytes, label: str, value: str
) -> None:
    assert fields_of(b'{"metadata":{"name":"a"},%s}' % text, PODS)[label] == value


def test_the_source_of_an_event_falls_back_to_its_reporter() -> None:
    table = selectable_fields("", "events")
    plain = b'{"metadata":{"name":"a"},"source":{},"reportingComponent":"kubelet"}'
    assert fields_of(plain, table)["source"] == "kubelet"
    named = b'{"metadata":{"name":"a"},"source":{"component":"s"},"reportingComponent":"k"}'
    assert fields_of(named, table)["source"] == "s"
    message = bytes_field(1, string_field(1, "a")) + string_field(14, "kubelet")
    values = peeker(PROTOBUF, table)(message).values
    assert values[table.slots["source"]] == values[table.slots["reportingComponent"]] == "kubelet"


def test_booleans_and_numbers_of_protobuf_read_as_in_json() -> None:
    pod = bytes_field(1, string_field(1, "a")) + bytes_field(2, integer_field(11, 1))
    assert peeker(PROTOBUF, PODS)(pod).values[PODS.slots["spec.hostNetwork"]] == "true"
    jobs = selectable_fields("batch", "jobs")
    job = bytes_field(1, string_field(1, "a")) + bytes_field(3, integer_field(5, 3))
    assert peeker(PROTOBUF, jobs)(job).values == ("3",)
    assert peeker(PROTOBUF, jobs)(job[:5]).values == ("0",)
    assert fields_of(b'{"metadata":{"name":"a"},"status":{"succeeded":3}}', jobs) == {
        "status.successful": "3"
    }


def test_custom_resources_are_selected_by_what_their_definition_names() -> None:
    table = custom_fields((".spec.color", ".spec.n"))
    widget = b'{"metadata":{"name":"w"},"spec":{"color":"red","n":3}}'
    assert fields_of(widget, table) == {"spec.color": "red", "spec.n": "3"}
    with pytest.raises(ObjectError):
        fields_of(b'{"metadata":{"name":"w"},"spec":{"color":{}}}', table)


def test_fields_without_a_known_number_are_not_offered_in_protobuf() -> None:
    table = selectable_fields("certificates.k8s.io", "certificatesigningrequests")
    assert table.slots
    assert not table.for_representation(PROTOBUF).slots


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b'{"metadata":{}}', b'{"metadata":{"name":"a"}', b'{"metadata":3}'],
)
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ObjectError):
        peeker(JSON, PODS)(text)


@pytest.mark.parametrize("text", ["0", "01", "-1", "1.0", "x", "1_0", "٣", "9" * 40])
def test_only_decimal_revisions_are_understood(text: str) -> None:
    with pytest.raises(ObjectError):
        parse_resource_version(text)


def test_every_cut_of_a_protobuf_object_is_refused_or_lacks_its_end() -> None:
    """No cut makes the reader fail in another way."""
    pod = items("list-protobuf", PROTOBUF, PODS)[0].body
    peek = peeker(PROTOBUF, PODS)
    for end in range(len(pod)):
        try:
            assert peek(pod[:end]).name == "a"
        except ObjectError:
            continue


@pytest.mark.parametrize(
    ("name", "representation"), [("list-json", JSON), ("list-protobuf", PROTOBUF)]
)
@pytest.mark.parametrize("revision", [7, 11305, 2**80])
def test_a_restamped_object_differs_in_its_revision_alone(
    name: str, representation: Representation, revision: int
) -> None:
    peek = peeker(representation, PODS)
    pod = items(name, representation, PODS)[0]
    stamped = restamped(pod.body, 11304, revision, representation)
    assert peek(stamped) == pod.peeked._replace(resource_version=revision)
    assert restamped(stamped, revision, 11304, representation) == pod.body


def test_a_label_spelled_like_the_revision_is_left_alone() -> None:
    text = b'{"metadata":{"labels":{"resourceVersion":"5"},"name":"a","resourceVersion":"5"}}'
    assert restamped(text, 5, 6, JSON) == (
        b'{"metadata":{"labels":{"resourceVersion":"5"},"name":"a","resourceVersion":"6"}}'
    )
    with pytest.raises(ObjectError):
        restamped(text, 4, 6, JSON)


def test_an_envelope_opens_to_its_kind_and_object() -> None:
    found = unwrap(body("list-protobuf"))
    assert (found.api_version, found.kind) == ("v1", "PodList")
    with pytest.raises(ObjectError):
        unwrap(b"k9s\0")


def test_null_labels_are_none() -> None:
    peeked = peeker(JSON, NO_FIELDS)(b'{"metadata":{"name":"a","labels":null}}')
    assert peeked.labels == {}
