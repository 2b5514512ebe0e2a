"""Which requests may be the relay's, and the form they are answered in."""

from __future__ import annotations

import pytest

from apiguard.gateway.asking import Form, Wanted, read_accept, read_line, reads_errors
from apiguard.kube.requestinfo import parse_request
from apiguard.kube.selectors import (
    field_selector_text,
    label_selector_text,
    parse_field_selector,
    parse_label_selector,
)
from apiguard.kube.status import Representation
from apiguard.wire.messages import RequestLine

JSON, PROTOBUF = Representation.JSON, Representation.PROTOBUF
KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
METADATA = (
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,"
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)


def read(target: str, method: str = "GET") -> Wanted | str:
    line = RequestLine(method, target, f"{method} {target} HTTP/1.1\r\n".encode())
    return read_line(line, parse_request(method, target))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/api/v1/namespaces/a/pods/b", "verb"),
        ("/api/v1/watch/pods", "path"),
        ("/api/v1/pods/", "path"),
        ("/api/v1/p%6fds", "path"),
        ("/api/v1/pods?pretty=true", "parameters"),
        ("/api/v1/pods?timeout=1h-30m", "parameters"),
        ("/api/v1/pods?labelSelector=a%3D%3D%3Db", "selector"),
    ],
)
def test_what_is_in_doubt_is_upstreams(target: str, why: str) -> None:
    assert read(target) == why


def test_other_methods_are_upstreams() -> None:
    assert read("/api/v1/pods", "HEAD") == "verb"
    assert read("/api/v1/pods", "POST") == "verb"


def test_the_deadline_an_informer_sends_twice_is_no_doubt() -> None:
    """client-go's reflectors add ``timeout=`` in Go's spelling to ``timeoutSeconds=``."""
    wanted = read("/api/v1/pods?resourceVersion=7&timeout=7m16s&timeoutSeconds=436&watch=true")
    assert isinstance(wanted, Wanted)


def test_a_collection_is_read_as_upstream_reads_it() -> None:
    wanted = read("/apis/apps/v1/namespaces/a/deployments?watch=1&resourceVersion=7&&limit=")
    assert isinstance(wanted, Wanted)
    assert wanted.watch
    assert wanted.selection.namespace == "a"
    assert wanted.query == {"watch": "1", "resourceVersion": "7", "limit": ""}
    assert wanted.path == "/apis/apps/v1/namespaces/a/deployments"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Form(JSON, False)),
        ("*/*", Form(JSON, False)),
        ("application/json", Form(JSON, False)),
        ("application/vnd.kubernetes.protobuf,application/json", Form(PROTOBUF, False)),
        ("application/json;q=0.5,application/vnd.kubernetes.protobuf", Form(PROTOBUF, False)),
        ("*/*,application/vnd.kubernetes.protobuf", Form(PROTOBUF, False)),
        (METADATA, Form(PROTOBUF, True)),
        (KUBECTL, "table"),
        ("application/yaml,application/json", "accept"),
        ("application/*", "accept"),
        ("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "accept"),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1beta1", "accept"),
    ],
)
def test_the_form_is_the_first_upstream_could_serve(accept: str, expected: Form | str) -> None:
    assert read_accept(accept, watch=False, custom=False) == expected


def test_custom_resources_have_no_protobuf_of_their_own() -> None:
    accept = "application/vnd.kubernetes.protobuf,application/json"
    assert read_accept(accept, watch=False, custom=True) == "accept"
    assert read_accept(METADATA, watch=False, custom=True) == Form(PROTOBUF, True)


def test_errors_are_written_only_where_some_clause_can_hold_one() -> None:
    assert reads_errors("")
    assert reads_errors(METADATA)
    assert not reads_errors(METADATA.rpartition(",")[0])


@pytest.mark.parametrize(
    "text", ["", "a", "!a", "a=b", "a!=b", "a in (b,c)", "a notin (b)", "a>5,b<7", "x.y/z==1"]
)
def test_a_label_selector_survives_being_written(text: str) -> None:
    selector = parse_label_selector(text)
    again = parse_label_selector(label_selector_text(selector))
    labels = [{}, {"a": "b"}, {"a": "6", "b": "1"}, {"a": "c"}, {"x.y/z": "1"}]
    assert [again.matches(one) for one in labels] == [selector.matches(one) for one in labels]


@pytest.mark.parametrize("text", ["", "a=b", "a!=b,c==d", r"a=x\,y\=z\\w"])
def test_a_field_selector_survives_being_written(text: str) -> None:
    selector = parse_field_selector(text)
    again = parse_field_selector(field_selector_text(selector))
    assert [(r.field, r.value) for r in again.requirements] == [
        (r.field, r.value) for r in selector.requirements
    ]


@pytest.mark.parametrize(
    "accept",
    [
        "APPLICATION/JSON",
        "*/*;q=0.9,application/vnd.kubernetes.protobuf;q=0.1",
        "application/json;q=nan,application/vnd.kubernetes.protobuf;q=0.01",
        "application/json;q=1_0",
        "application/json;q=0.5;q=0.9,application/vnd.kubernetes.protobuf;q=0.7",
        "application/json;As=PartialObjectMetadataList;G=meta.k8s.io;V=v1",
        'application/json;as="PartialObjectMetadataList";g="meta.k8s.io";v="v1"',
        ",".join(["application/json"] * 13),
    ],
)
def test_an_order_of_preference_that_is_unclear_is_upstreams(accept: str) -> None:
    assert read_accept(accept, watch=False, custom=False) == "accept"
