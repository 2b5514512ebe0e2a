"""LIST from a cache is what kube-apiserver answers, row by row and byte for byte."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json

import pytest

from apiguard.kube.framing import EventType
from apiguard.kube.objects import custom_fields, selectable_fields
from apiguard.kube.status import Representation, resource_version_too_large
from apiguard.relay.bodies import PIECE, BodyCache, continue_token
from apiguard.relay.eventlog import LogBounds
from apiguard.relay.listing import (
    TABLE,
    ListDecision,
    ListQuery,
    PassUpstream,
    ReadConsistently,
    Refuse,
    ServeList,
    WaitFor,
    answer,
    decide_list,
    parse_list,
)
from apiguard.relay.store import CacheSpec, WatchCache
from tests.unit.kube.recorded_bodies import body

from .building import (
    JSON,
    PROTOBUF,
    bookmark,
    event,
    filled,
    listed,
    pod,
    selection,
    spec,
    whole,
    with_pods,
)


def decide(
    cache: WatchCache,
    query: dict[str, str],
    namespace: str = "",
    *,
    relaxed: bool = True,
) -> ListDecision | Refuse:
    chosen = selection(namespace, query.pop("labelSelector", ""), query.pop("fieldSelector", ""))
    parsed = parse_list(query, chosen)
    if not isinstance(parsed, ListQuery):
        return parsed
    return decide_list(parsed, cache, relaxed=relaxed)


def served(cache: WatchCache, query: dict[str, str], namespace: str = "") -> bytes:
    decision = decide(cache, query, namespace)
    assert isinstance(decision, ServeList), decision
    return whole(answer(decision, cache, BodyCache()))


def of(group: str, resource: str, representation: Representation, **more: bool) -> CacheSpec:
    table = selectable_fields(group, resource).for_representation(representation)
    return CacheSpec(group, "v1", resource, representation, table=table, **more)  # type: ignore[arg-type]  # only flags are passed


# A cache filled with the first answer gives the second for this query.
PAIRS: list[tuple[str, str, CacheSpec, str, dict[str, str]]] = [
    ("list-json", "list-json", spec(), "golden25", {}),
    ("list-json", "list-json-rv0", spec(), "golden25", {"resourceVersion": "0"}),
    ("list-json", "list-limit-rv0", spec(), "golden25", {"resourceVersion": "0", "limit": "2"}),
    ("list-json", "list-page-1", spec(), "golden25", {"limit": "2"}),
    (
        "list-json",
        "list-page-2",
        spec(),
        "golden25",
        {
            "limit": "2",
            "continue": "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTEzMDYsInN0YXJ0IjoiL2JcdTAwMDAifQ",
        },
    ),
    ("list-json", "list-label-selector", spec(), "golden25", {"labelSelector": "app=x"}),
    (
        "list-json",
        "list-label-selector-set",
        spec(),
        "golden25",
        {"labelSelector": "app in (x,y),!zone"},
    ),
    (
        "list-json",
        "list-field-selector",
        spec(),
        "golden25",
        {"fieldSelector": "spec.nodeName=node-a"},
    ),
    (
        "list-json",
        "list-field-selector-namespace",
        spec(),
        "",
        {"fieldSelector": "metadata.namespace=golden25"},
    ),
    ("list-protobuf", "list-protobuf", spec(PROTOBUF), "golden25", {}),
    (
        "list-partial-metadata",
        "list-partial-metadata",
        spec(metadata_only=True),
        "golden25",
        {},
    ),
    (
        "list-partial-metadata-protobuf",
        "list-partial-metadata-protobuf",
        spec(PROTOBUF, metadata_only=True),
        "golden25",
        {},
    ),
    (
        "list-rv-notolderthan",
        "list-limit-rv0-notolderthan",
        spec(),
        "matrix434",
        {"resourceVersion": "0", "resourceVersionMatch": "NotOlderThan", "limit": "2"},
    ),
    (
        "list-rv-notolderthan",
        "list-rv-exact-recent",
        spec(),
        "matrix434",
        {"resourceVersion": "44532", "resourceVersionMatch": "Exact"},
    ),
    (
        "list-rv-notolderthan",
        "list-rv-notolderthan",
        spec(),
        "matrix434",
        {"resourceVersion": "44532", "resourceVersionMatch": "NotOlderThan"},
    ),
    (
        "list-rv-notolderthan",
        "list-limit-rvN-legacy-exact",
        spec(),
        "matrix434",
        {"resourceVersion": "44532", "limit": "2"},
    ),
    (
        "list-rv-notolderthan",
        "list-page-selector",
        spec(),
        "matrix434",
        {"limit": "1", "labelSelector": "app=x"},
    ),
    (
        "list-rv-notolderthan",
        "list-name-selector",
        spec(),
        "matrix434",
        {"fieldSelector": "metadata.name=a"},
    ),
    (
        "list-rv-notolderthan",
        "list-name-selector-empty",
        spec(),
        "matrix434",
        {"fieldSelector": "metadata.name=none"},
    ),
    (
        "list-rv-notolderthan",
        "list-both-selectors",
        spec(),
        "matrix434",
        {
            "fieldSelector": "spec.nodeName=node-a,status.phase!=Succeeded",
            "labelSelector": "app",
        },
    ),
    ("list-rv-notolderthan", "list-gzip-large", spec(), "", {"limit": "60"}),
    ("list-nodes-json", "list-nodes-json", of("", "nodes", JSON, namespaced=False), "", {}),
    (
        "list-nodes-protobuf",
        "list-nodes-protobuf",
        of("", "nodes", PROTOBUF, namespaced=False),
        "",
        {},
    ),
    ("list-services-protobuf", "list-services-protobuf", of("", "services", PROTOBUF), "", {}),
    ("list-secrets-protobuf", "list-secrets-protobuf", of("", "secrets", PROTOBUF), "", {}),
    ("list-empty", "list-empty", of("", "configmaps", JSON), "none-such", {}),
    (
        "cr-list-json",
        "cr-list-json",
        of("golden.example.com", "widgets", JSON),
        "matrix434",
        {},
    ),
    (
        "cr-list-json",
        "cr-list-page-1",
        of("golden.example.com", "widgets", JSON),
        "matrix434",
        {"limit": "1"},
    ),
    (
        "cr-list-json",
        "cr-list-selectable-field",
        CacheSpec(
            "golden.example.com", "v1", "widgets", JSON, table=custom_fields((".spec.color",))
        ),
        "matrix434",
        {"fieldSelector": "spec.color=red"},
    ),
]


@pytest.mark.parametrize(
    ("source", "wanted", "cached", "namespace", "query"), PAIRS, ids=[pair[1] for pair in PAIRS]
)
def test_recorded_answers_come_out_of_a_cache(
    source: str, wanted: str, cached: CacheSpec, namespace: str, query: dict[str, str]
) -> None:
    cache = filled(body(source), cached)
    recorded = body(wanted)
    version = json.loads(recorded)["metadata"]["resourceVersion"] if recorded[:1] == b"{" else ""
    if int(version or 0) > cache.revision:
        cache.apply(bookmark(int(version)), 1.0)
    assert served(cache, dict(query), namespace) == recorded


REFUSALS: list[tuple[str, dict[str, str]]] = [
    ("list-rv-invalid", {"resourceVersion": "abc"}),
    ("list-rvmatch-without-rv", {"resourceVersionMatch": "Exact"}),
    ("list-rv0-exact-422", {"resourceVersion": "0", "resourceVersionMatch": "Exact"}),
]


@pytest.mark.parametrize(("name", "query"), REFUSALS, ids=[name for name, _ in REFUSALS])
def test_recorded_refusals_are_ours_word_for_word(name: str, query: dict[str, str]) -> None:
    decision = decide(with_pods([], 5), query)
    assert isinstance(decision, Refuse)
    assert decision.status.to_json() == body(name)


def test_a_wait_in_vain_ends_as_recorded() -> None:
    cache = filled(body("list-json"))
    cache.apply(bookmark(11307), 0.0)
    decision = decide(cache, {"resourceVersion": "99999999"})
    assert isinstance(decision, WaitFor)
    refusal = resource_version_too_large(decision.revision, cache.revision)
    assert refusal.to_json() == body("list-rv-too-large")


CURRENT = 20
STATES = {"": "", "0": "0", "past": "12", "now": "20", "future": "30", "gone": "2"}
EXPECTED: dict[tuple[str, str, bool], type] = {
    ("", "", False): ReadConsistently,
    ("", "", True): ReadConsistently,
    ("", "0", False): ServeList,
    ("", "0", True): ServeList,
    ("", "past", False): ServeList,
    ("", "past", True): ServeList,
    ("", "now", False): ServeList,
    ("", "now", True): ServeList,
    ("", "future", False): WaitFor,
    ("", "future", True): WaitFor,
    ("", "gone", False): ServeList,
    ("", "gone", True): PassUpstream,
    ("NotOlderThan", "", False): Refuse,
    ("NotOlderThan", "0", False): ServeList,
    ("NotOlderThan", "past", True): ServeList,
    ("NotOlderThan", "future", True): WaitFor,
    ("NotOlderThan", "gone", True): ServeList,
    ("Exact", "", True): Refuse,
    ("Exact", "0", True): Refuse,
    ("Exact", "past", False): ServeList,
    ("Exact", "past", True): ServeList,
    ("Exact", "future", False): WaitFor,
    ("Exact", "gone", False): PassUpstream,
    ("Other", "now", False): PassUpstream,
}


def history() -> WatchCache:
    """Pod a/x changed at every revision from 10 to 20; 10 is the oldest known."""
    cache = with_pods([pod("a/x", 10), pod("a/y", 9)], 10)
    for revision in range(11, CURRENT + 1):
        cache.apply(event(EventType.MODIFIED, pod("a/x", revision)), 0.0)
    return cache


@pytest.mark.parametrize(("row", "expected"), EXPECTED.items(), ids=str)
def test_every_row_of_the_table_is_decided(row: tuple[str, str, bool], expected: type) -> None:
    match, state, limited = row
    query = {"resourceVersion": STATES[state], "resourceVersionMatch": match}
    if limited:
        query["limit"] = "1"
    decision = decide(history(), query, relaxed=False)
    assert type(decision) is expected
    if not isinstance(decision, ServeList):
        return
    exact = match == "Exact" or (not match and limited and state not in ("", "0"))
    wanted = int(STATES[state]) if exact else CURRENT
    assert decision.snapshot.revision == wanted
    assert decision.query.limit == (1 if limited and state != "0" else 0)


def test_the_table_names_every_allowed_combination() -> None:
    allowed = set(itertools.product(("", "NotOlderThan", "Exact"), ("", "0", "N"), (False, True)))
    refused = {
        (match, version, limited)
        for match, version, limited in allowed
        if (match and not version) or (match == "Exact" and version == "0")
    }
    assert set(TABLE) == allowed - refused


def test_reads_without_revision_are_relaxed_only_where_allowed() -> None:
    cache = history()
    assert isinstance(decide(cache, {}, relaxed=False), ReadConsistently)
    assert isinstance(decide(cache, {}, relaxed=True), ServeList)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"fieldSelector": "spec.image=x"}, "selector"),
        ({"limit": "many"}, "limit"),
        ({"continue": "garbage"}, "token"),
        ({"continue": "!!"}, "token"),
        ({"continue": continue_token(12, "x"), "resourceVersion": "12"}, "token"),
        ({"limit": ""}, "limit"),
        ({"timeoutSeconds": "soon"}, "limit"),
        ({"timeoutSeconds": ""}, "limit"),
        ({"resourceVersion": str(1 << 64)}, "parameters"),
        ({"resourceVersion": "9" * 20 + "x"}, "parameters"),
        ({"resourceVersion": "x", "fieldSelector": "no.field=x"}, "parameters"),
        ({"resourceVersionMatch": "Exact", "continue": "x"}, "parameters"),
        ({"resourceVersionMatch": "Exact", "sendInitialEvents": "1"}, "parameters"),
        ({"resourceVersionMatch": "Nonsense"}, "parameters"),
        ({"limit": "1", "fieldSelector": "metadata.namespace=a"}, "scope"),
        ({"continue": continue_token(12, "x"), "fieldSelector": "metadata.namespace=a"}, "scope"),
        ({"continue": continue_token(12, "x"), "fieldSelector": "metadata.name=x"}, "token"),
        ({"resourceVersion": "3", "resourceVersionMatch": "Exact"}, "history"),
    ],
)
def test_what_is_unclear_goes_upstream(query: dict[str, str], reason: str) -> None:
    assert decide(history(), query) == PassUpstream(reason)


def test_an_unready_cache_answers_nothing() -> None:
    assert decide(WatchCache(spec()), {"resourceVersion": "0"}) == PassUpstream("unready")


@pytest.mark.parametrize(
    "document",
    [
        {"v": "meta.k8s.io/v2", "rv": 5, "start": "/x\0"},
        {"v": "meta.k8s.io/v1", "rv": 0, "start": "/x\0"},
        {"v": "meta.k8s.io/v1", "rv": 5, "start": ""},
        {"v": "meta.k8s.io/v1", "rv": 5, "start": "/../secrets/x\0"},
        {"v": "meta.k8s.io/v1", "rv": 5},
        [],
    ],
)
def test_a_token_out_of_scope_is_never_followed(document: object) -> None:
    token = base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
    assert decide(history(), {"continue": token}, "a") == PassUpstream("token")


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("representation", [JSON])
@pytest.mark.parametrize(
    ("namespace", "query"),
    [("", {}), ("a", {}), ("b", {}), ("a", {"labelSelector": "app=x"})],
)
def test_pages_add_up_to_the_list_as_it_was_at_the_first(
    limit: int, representation: Representation, namespace: str, query: dict[str, str]
) -> None:
    """While objects change, come and go between pages."""
    pods = [
        pod(f"{ns}/p{at}", 1, labels={"app": "x" if at % 3 else "y"})
        for ns in ("a", "a-b", "b")
        for at in range(7)
    ]
    cache = with_pods(pods, 10, representation=representation)
    expected = json.loads(served(cache, {**query}, namespace))["items"]
    found: list[object] = []
    token, revision, counts = "", 10, []
    while True:
        page = json.loads(
            served(cache, {**query, "limit": str(limit), "continue": token}, namespace)
        )
        found += page["items"]
        counts.append(page["metadata"].get("remainingItemCount"))
        assert page["metadata"]["resourceVersion"] == "10"
        token = page["metadata"].get("continue", "")
        if not token:
            break
        revision += 1
        cache.apply(event(EventType.ADDED, pod(f"a/new{revision}", revision)), 0.0)
    assert found == expected
    if "labelSelector" in query:
        assert set(counts) == {None}
    else:
        expected_counts = [len(expected) - limit * n for n in range(1, len(counts))]
        assert counts == [*expected_counts, None]


def test_an_empty_list_of_metadata_has_no_items_at_all() -> None:
    """In JSON: upstream builds it by appending to nothing."""
    empty = (
        b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1",'
        b'"metadata":{"resourceVersion":"7"},"items":null}\n'
    )
    assert served(filled(empty, spec(metadata_only=True)), {"resourceVersion": "0"}) == empty


def test_one_object_has_no_further_page() -> None:
    """Though others follow it, of which a plain page says so."""
    cache = with_pods([pod("a/x", 1), pod("a/y", 1)], 1)
    query = {"limit": "1", "resourceVersion": "1", "fieldSelector": "metadata.name=x"}
    page = json.loads(served(cache, query, "a"))
    assert page["metadata"] == {"resourceVersion": "1"}
    assert [item["metadata"]["name"] for item in page["items"]] == ["x"]


def test_tokens_of_what_no_watch_cache_holds_begin_without_a_slash() -> None:
    events = dataclasses.replace(spec(), cached_upstream=False)
    cache = filled(listed([pod("a/x", 1), pod("a/y", 1)], 1), events)
    page = json.loads(served(cache, {"limit": "1"}, "a"))
    assert page["metadata"]["continue"] == continue_token(1, "x", "")
    following = served(cache, {"limit": "1", "continue": page["metadata"]["continue"]}, "a")
    assert [item["metadata"]["name"] for item in json.loads(following)["items"]] == ["y"]


def test_what_the_history_no_longer_holds_is_for_upstream_to_call_expired() -> None:
    cache = with_pods([pod("a/x", 1)], 1, log=LogBounds(seconds=1.0, fewest=1))
    for revision in range(2, 9):
        cache.apply(event(EventType.MODIFIED, pod("a/x", revision)), 10.0 * revision)
    assert decide(cache, {"continue": continue_token(2, "x")}, "a") == PassUpstream("history")
    exact = {"resourceVersion": "2", "resourceVersionMatch": "Exact"}
    assert decide(cache, exact) == PassUpstream("history")


def test_a_limit_at_revision_zero_pages_where_upstream_has_no_watch_cache() -> None:
    """Events: the relay does not guess, it passes."""
    events = CacheSpec("", "v1", "events", JSON, cached_upstream=False)
    cache = filled(body("list-events-json"), events)
    query = {"resourceVersion": "0", "limit": "1"}
    assert decide(cache, query) == PassUpstream("limit")


@pytest.mark.parametrize("representation", [JSON])
def test_large_bodies_come_in_bounded_pieces_and_are_built_once(
    representation: Representation,
) -> None:
    """One object is longer than a piece; two readers share what was built."""
    pods = [pod(f"a/p{at:03}", 1, pad=40_000) for at in range(20)]
    pods.append(pod("a/p999", 1, pad=3 * PIECE))
    cache = with_pods(pods, 5, representation=representation)
    bodies = BodyCache()
    decision = decide(cache, {"resourceVersion": "0"})
    assert isinstance(decision, ServeList)
    first, second = (answer(decision, cache, bodies) for _ in range(2))
    parts: list[bytes] = []
    while (part := first.read()) is not None:
        parts.append(part)
    assert max(map(len, parts)) <= PIECE
    assert json.loads(b"".join(parts))["items"] == pods
    assert whole(second) == b"".join(parts)
    assert (bodies.misses, bodies.hits) == (1, 1)
    cache.apply(bookmark(9), 0.0)
    again = decide(cache, {"resourceVersion": "0"})
    assert isinstance(again, ServeList)
    assert json.loads(whole(answer(again, cache, bodies)))["metadata"]["resourceVersion"] == "9"
    assert bodies.hits == 2
    cache.apply(event(EventType.MODIFIED, pod("a/p000", 10)), 0.0)
    changed = decide(cache, {"resourceVersion": "0"})
    assert isinstance(changed, ServeList)
    reader = answer(changed, cache, bodies)
    reader.read()
    bodies.forget(cache)
    assert (len(bodies), bodies.bytes, bodies.misses) == (0, 0, 2)
    assert json.loads(whole(reader).partition(b'"items":')[2][:-2])[0] == pod("a/p000", 10)


def test_built_bodies_stay_below_their_ceiling() -> None:
    pods = [pod(f"n{at}/p", 1, pad=1_000) for at in range(50)]
    cache = with_pods(pods, 5)
    bodies = BodyCache(ceiling=10_000)
    for at in range(50):
        decision = decide(cache, {"resourceVersion": "0"}, f"n{at}")
        assert isinstance(decision, ServeList)
        assert len(json.loads(whole(answer(decision, cache, bodies)))["items"]) == 1
        assert sum(bodies.by_owner().values()) == bodies.bytes <= 10_000
    decision = decide(cache, {"resourceVersion": "0"})
    assert isinstance(decision, ServeList)
    reader = answer(decision, cache, bodies)
    assert json.loads(whole(reader))["items"] == sorted(
        pods, key=lambda p: p["metadata"]["namespace"]
    )
    bodies.settle()
    assert bodies.bytes <= 10_000
