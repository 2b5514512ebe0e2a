"""What a request means is what kube-apiserver takes it to mean, or it is refused."""

from __future__ import annotations

import json
import pathlib
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apiguard.errors import WireError
from apiguard.kube.requestinfo import ListShape, RequestInfo, parse_request
from tests.unit.kube.go_requestinfo import UnclassifiableError, go_request_info

VECTORS = pathlib.Path(__file__).parents[2] / "data" / "requestinfo.jsonl"

REFUSED = {
    "/%2e%2e/api/v1/pods": "resolving .. makes a resource of it",
    "//api/v1/pods": "other readers take the first segment for empty or for an authority",
    "/api%2fv1%2fpods": "one segment to a reader that splits before decoding",
    "/api//v1/pods": "merging slashes moves the resource",
    "/api/v1/../v1/pods": "resolving .. moves the resource",
    "/api/v1/./pods": "resolving . moves the resource",
    "/api/v1//pods": "merging slashes moves the resource",
    "/api/v1/namespaces//pods": "merging slashes moves the namespace",
    "/api/v1/namespaces/a/../b/pods": "resolving .. changes the namespace",
    "/api/v1/namespaces/default//pods/p1": "merging slashes moves the resource",
    "/api/v1/namespaces/default/pods/%2E%2E/secrets": "resolving .. changes the resource",
    "/api/v1/namespaces/default/pods/%2e%2e": "resolving .. drops the resource",
    "/api/v1/namespaces/default/pods/..": "resolving .. drops the resource",
    "/api/v1/namespaces/default/pods//": "an empty name, or none",
    "/api/v1/namespaces/default/pods/a%2fb": "a name with a slash, or name and subresource",
    "/api/v1/pods%3fwatch=1": "decoded first, the query starts here",
    "/apis//apps/v1/deployments": "merging slashes moves the group",
    "/apis/apps//v1/deployments": "merging slashes moves the version",
}


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in VECTORS.read_text().splitlines()]


@pytest.mark.parametrize(
    "vector", recorded(), ids=lambda vector: f"{vector['method']} {vector['target']}"
)
def test_classifies_as_the_recorded_server_or_refuses_for_a_listed_reason(
    vector: dict[str, Any],
) -> None:
    if vector["target"] in REFUSED:
        with pytest.raises(WireError) as refusal:
            parse_request(vector["method"], vector["target"])
        assert (refusal.value.code, refusal.value.close) == (400, False)
        return
    info = parse_request(vector["method"], vector["target"])
    assert info.verb == vector["verb"]
    if "path" in vector:
        assert not info.is_resource
        assert info.path == vector["path"]
        return
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    assert info.is_resource
    assert resource == vector["resource"]
    assert info.api_group == vector["apiGroup"]
    assert info.namespace == vector["namespace"]
    assert info.name == vector["name"]


def test_every_listed_reason_still_belongs_to_a_recorded_line() -> None:
    assert set(REFUSED) <= {vector["target"] for vector in recorded()}


# --- against a second implementation ---------------------------------------------------------

SEGMENTS = st.sampled_from(
    [
        *("api", "apis", "v1", "apps", "namespaces", "watch", "proxy", "status", "finalize"),
        *("default", "pods", "p1", "log", "exec", "portforward", "healthz", "debug", "pprof"),
        *(
            "",
            ".",
            "..",
            "%2e%2e",
            "%2f",
            "a%2Fb",
            "p%6fds",
            "%zz",
            "%",
            "a%25b",
            "x;y",
            "#",
            "%23",
        ),
        *("%3f", "%00", "%0a", "%7f", "%e9", "%c3%a9", "\xe9", "+", "a+b", "~", "*", "%5c"),
    ]
)
QUERY_PAIRS = st.sampled_from(
    [
        *("watch", "watch=", "watch=1", "watch=0", "watch=false", "watch=FALSE", "watch=%zz"),
        *("watch=fal%C5%BFe", "w%61tch=1", "watch=+0", "watch=1;x=2", ";watch=1", "%zz=1"),
        *("limit=5", "limit=0", "limit=", "limit=abc", "limit=+7", "limit=1_0", "limit=-1"),
        *("limit=9223372036854775808", "timeoutSeconds=x", "timeoutSeconds=0010"),
        *("continue=abc", "continue=", "resourceVersion=0", "resourceVersion="),
        *("fieldSelector=metadata.name%3Da", "fieldSelector=metadata.name=a", "fieldSelector="),
        *("fieldSelector=metadata.name%3D%3Db,metadata.name%3Da", "fieldSelector=a"),
        *("fieldSelector=metadata.name%3D..", "fieldSelector=metadata.name%3Da%2Fb"),
        *("fieldSelector=metadata.name!%3Da", "fieldSelector=metadata.name%3Da%5C,b"),
        *("fieldSelector=metadata.name%3Da%5Cb", "fieldSelector=metadata.name%3Da%3Db"),
        *("fieldSelector=spec.nodeName%3Dn,metadata.name%3Dn", "fieldSelector=%20metadata.name=a"),
        *("labelSelector=a%3Db", "labelSelector=a%20b", "labelSelector=", "labelSelector=-"),
        *("pretty=true", "", "=", "=x", "a=b=c", "&", "?"),
    ]
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
PATHS = st.lists(SEGMENTS, max_size=9).map(lambda parts: "/" + "/".join(parts))
LIKELY_PATHS = st.tuples(
    st.sampled_from(
        ["/api/v1/", "/apis/apps/v1/", "/api/v1/watch/", "/api/v1/namespaces/default/"]
    ),
    st.lists(SEGMENTS, max_size=4).map("/".join),
).map("".join)
TARGETS = st.one_of(
    PATHS,
    st.tuples(st.one_of(PATHS, LIKELY_PATHS), st.lists(QUERY_PAIRS, max_size=5).map("&".join)).map(
        "?".join
    ),
)
COMPARED = (
    *("is_resource", "path", "verb", "api_prefix", "api_group", "api_version", "namespace"),
    *("resource", "subresource", "name", "parts", "field_selector", "label_selector"),
)


def outcome(method: str, target: str) -> RequestInfo | WireError:
    try:
        return parse_request(method, target)
    except WireError as refusal:
        return refusal


@settings(max_examples=1500, deadline=None)
@given(METHODS, TARGETS)
@example("GET", "/api/v1/pods?watch=fal%C5%BFe")
@example("GET", "/api/v1/pods?watch=fal%C5%BFe&limit=x")
@example("GET", "/api/v1/pods?fieldSelector=metadata.name%3D%3Db,metadata.name%3Da")
def test_agrees_with_a_second_implementation_or_refuses_only_what_is_odd(
    method: str, target: str
) -> None:
    try:
        expected = go_request_info(method, target)
    except UnclassifiableError:
        with pytest.raises(WireError) as refusal:
            parse_request(method, target)
        assert refusal.value.code == 400
        return
    info = outcome(method, target)
    if isinstance(info, WireError):
        assert (info.code, info.close) == (400, False)
        path = target.partition("?")[0]
        assert any(odd in path for odd in ("%", "//", "/.", "#", "\xe9")), "refused without need"
        return
    assert {name: getattr(info, name) for name in COMPARED} == expected


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=40))
def test_no_bytes_raise_anything_but_a_refusal(target: str) -> None:
    for candidate in (target, "/" + target, "/api/v1/pods/" + target):
        result = outcome("GET", candidate)
        assert isinstance(result, RequestInfo) or result.code == 400


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        *("", "*", "api/v1/pods", "https://h/api/v1/pods", "?watch=1", "#"),
        *("/api/v1/pods x", "/api/v1/pods\t", "/\x00", "/a\x7f", "/pods?a=\n", "/\u0100"),
    ],
)
def test_what_is_no_origin_form_ends_the_connection(target: str) -> None:
    with pytest.raises(WireError) as refusal:
        parse_request("GET", target)
    assert (refusal.value.code, refusal.value.reason) == (400, "BadRequest")
    assert refusal.value.close


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/namespaces/default/pods/a%2Fb",
        "/api/v1/namespaces/default/pods/a#b",
        "/api/v1/namespaces/default/pods/a%23b",
        "/api/v1/namespaces/default/pods/a%00b",
        "/api/v1/namespaces/default/pods/a%0d%0ab",
        "/api/v1/namespaces/default/pods/a%7f",
        "/api/v1/namespaces/default/pods/%ff",
        "/api/v1/namespaces/default/pods/%",
        "/api/v1/namespaces/default/pods/%4",
        "/api/v1/namespaces/default/pods/%zz",
        "/api/v1/nodes/n1%2fproxy/x",
        "/api/v1/nodes/n1/proxy%2fx",
        "/api/v1/nodes/../nodes/n1/proxy/x",
        "/api/v1/nodes/n1/proxy/%zz",
        "/healthz/../api/v1/pods",
        "/healthz/..%2fapi/v1/pods",
        "/x%2fy/../api/v1/pods",
        "/healthz%0a",
        "/api/v1/watch",
        "/apis/apps/v1/proxy",
        "/api/v1/pods?" + "&" * 10_000,
    ],
)
def test_what_has_two_readings_is_refused_and_the_connection_may_stay(target: str) -> None:
    with pytest.raises(WireError) as refusal:
        parse_request("GET", target)
    assert (refusal.value.code, refusal.value.reason) == (400, "BadRequest")
    assert not refusal.value.close


@pytest.mark.parametrize(
    ("target", "qualified", "name"),
    [
        ("/api/v1/nodes/n1/proxy/..%2f..%2fsecrets", "nodes/proxy", "n1"),
        ("/api/v1/nodes/n1/proxy//a/../b/%00%ff#x", "nodes/proxy", "n1"),
        ("/api/v1/namespaces/d/pods/p/proxy/%3f/", "pods/proxy", "p"),
        ("/api/v1/proxy/nodes/n1//../x", "nodes", "n1"),
        (
            "/apis/cluster.example.com/v1/clusters/c/proxy/api/v1//x",
            "clusters.cluster.example.com/proxy",
            "c",
        ),
        ("/api/v1/namespaces/d/pods/p%31", "pods", "p1"),
        ("/api/v1/namespaces/d/pods/caf%C3%A9", "pods", "caf\u00e9"),
        ("/api/v1/namespaces/d/pods/caf\xc3\xa9", "pods", "caf\u00e9"),
        ("/api/v1/namespaces/d/pods/a%252fb", "pods", "a%2fb"),
        ("/api/v1/namespaces/d/pods/a+b%20c", "pods", "a+b c"),
        ("/api/v1/namespaces/d/pods/.hidden", "pods", ".hidden"),
        ("/api/v1/namespaces/d/pods/", "pods", ""),
    ],
)
def test_what_has_one_reading_passes(target: str, qualified: str, name: str) -> None:
    info = parse_request("GET", target)
    assert info.is_resource
    assert (info.qualified, info.name) == (qualified, name)


@pytest.mark.parametrize(
    "target", ["/.", "/..", "//healthz", "/healthz//", "/a%2fb", "/a?b#c", "/%ff"]
)
def test_an_odd_path_that_no_reading_makes_a_resource_passes(target: str) -> None:
    assert not parse_request("GET", target).is_resource


# --- what is derived beyond kube-apiserver's fields --------------------------------------------

UNPAGED, NO_VERSION, NO_SELECTOR = (
    ListShape.UNPAGED,
    ListShape.NO_RESOURCE_VERSION,
    ListShape.NO_SELECTOR,
)


@pytest.mark.parametrize(
    ("query", "shape"),
    [
        ("", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?limit=500", NO_VERSION | NO_SELECTOR),
        ("?limit=0", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?limit=-5", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?limit=abc", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?limit=0&limit=500", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?continue=x", NO_VERSION | NO_SELECTOR),
        ("?continue=", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?resourceVersion=0", UNPAGED | NO_SELECTOR),
        ("?resourceVersion=", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?labelSelector=a", UNPAGED | NO_VERSION),
        ("?fieldSelector=a%3Db&limit=1&resourceVersion=7", ListShape.NONE),
        ("?watch=1", ListShape.NONE),
        ("?watch=1&resourceVersion=0", ListShape.NONE),
        ("?watch=1&sendInitialEvents=false", ListShape.NONE),
        ("?watch=1&sendInitialEvents=true", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?watch=1&sendInitialEvents=", UNPAGED | NO_VERSION | NO_SELECTOR),
        ("?watch=1&sendInitialEvents=1&limit=500&resourceVersion=7", UNPAGED | NO_SELECTOR),
        ("?sendInitialEvents=true", UNPAGED | NO_VERSION | NO_SELECTOR),
    ],
)
def test_a_list_and_a_watch_list_tell_what_they_lack(query: str, shape: ListShape) -> None:
    assert parse_request("GET", "/api/v1/pods" + query).shape == shape


@pytest.mark.parametrize(
    ("method", "target", "collection"),
    [
        ("GET", "/api/v1/pods", True),
        ("GET", "/api/v1/pods?limit=500", True),
        ("GET", "/api/v1/pods?watch=1", False),
        ("GET", "/api/v1/pods?watch=1&sendInitialEvents=true", True),
        ("GET", "/api/v1/watch/pods", False),
        ("GET", "/api/v1/watch/pods?sendInitialEvents=true", True),
        ("GET", "/api/v1/watch/namespaces/d/pods/p?sendInitialEvents=true", False),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dp", False),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn", True),
        ("GET", "/api/v1/namespaces/d/pods/p", False),
        ("DELETE", "/api/v1/namespaces/d/pods", False),
        ("POST", "/api/v1/namespaces/d/pods", False),
        ("GET", "/openapi/v2", False),
    ],
)
def test_lists_and_watch_lists_read_collections_unless_one_object_is_named(
    method: str, target: str, collection: bool
) -> None:
    assert parse_request(method, target).collection is collection


def test_only_a_list_has_a_shape() -> None:
    for method, target in (
        ("GET", "/api/v1/namespaces/d/pods/p"),
        ("DELETE", "/api/v1/namespaces/d/pods"),
        ("GET", "/healthz"),
        ("GET", "/api/v1/watch/pods"),
        ("GET", "/api/v1/watch/pods?sendInitialEvents=false"),
    ):
        assert parse_request(method, target).shape is ListShape.NONE


@pytest.mark.parametrize(
    ("method", "target", "long_running"),
    [
        ("GET", "/api/v1/pods?watch=1", True),
        ("GET", "/api/v1/watch/pods", True),
        ("GET", "/api/v1/namespaces/d/pods/p/log", True),
        ("POST", "/api/v1/namespaces/d/pods/p/exec", True),
        ("GET", "/api/v1/namespaces/d/pods/p/attach", True),
        ("POST", "/api/v1/namespaces/d/pods/p/portforward", True),
        ("PUT", "/api/v1/namespaces/d/services/s/proxy/x", True),
        ("GET", "/api/v1/proxy/nodes/n", True),
        ("GET", "/debug/pprof/profile", True),
        ("GET", "/debug/pprof", False),
        ("GET", "/api/v1/pods", False),
        ("GET", "/api/v1/namespaces/d/pods/p?watch=1", False),
        ("GET", "/api/v1/namespaces/d/pods/log", False),
        ("PATCH", "/api/v1/namespaces/d/pods/p/status", False),
    ],
)
def test_long_running_as_the_server_sees_it(method: str, target: str, long_running: bool) -> None:
    assert parse_request(method, target).long_running is long_running


def test_all_but_get_list_and_watch_is_mutating() -> None:
    assert not parse_request("GET", "/api/v1/pods").mutating
    assert not parse_request("HEAD", "/api/v1/pods?watch=1").mutating
    assert not parse_request("GET", "/healthz").mutating
    assert parse_request("HEAD", "/healthz").mutating
    assert parse_request("DELETE", "/api/v1/pods").mutating
    assert parse_request("OPTIONS", "/api/v1/pods").mutating
    assert parse_request("GET", "/api/v1/proxy/nodes/n").mutating


def test_the_qualified_name_is_what_policies_write() -> None:
    def qualified(target: str) -> str:
        return parse_request("GET", target).qualified

    assert qualified("/api/v1/pods") == "pods"
    assert qualified("/api/v1/namespaces/d/pods/p/log") == "pods/log"
    assert qualified("/apis/coordination.k8s.io/v1/leases") == "leases.coordination.k8s.io"
    assert qualified("/apis/apps/v1/namespaces/d/deployments/x/scale") == "deployments.apps/scale"
    assert qualified("/healthz") == ""


def test_a_request_is_frozen_and_compared_by_identity() -> None:
    first, second = parse_request("GET", "/api/v1/pods"), parse_request("GET", "/api/v1/pods")
    assert type(first) is RequestInfo
    assert first != second
    assert len({first, second}) == 2
    with pytest.raises(FrozenInstanceError):
        first.verb = "get"  # type: ignore[misc]  # the point of the test
