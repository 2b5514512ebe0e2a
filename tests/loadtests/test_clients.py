"""Client models send what the real ones send: targets, retries, backoff."""

from __future__ import annotations

import random

import pytest

from loadtests.clients import queries
from loadtests.clients.backoff import FIRST, MOST, Backoff
from loadtests.clients.decoding import STAMP, Events, read_list
from loadtests.clients.rest import retry_after


def test_first_requests_of_a_current_informer_leave_the_version_out() -> None:
    collection = queries.Collection("/api/v1/nodes")
    assert collection.watch_list(436) == (
        "/api/v1/nodes?allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        "&sendInitialEvents=true&timeout=7m16s&timeoutSeconds=436&watch=true"
    )
    assert collection.watch("42", 436) == (
        "/api/v1/nodes?allowWatchBookmarks=true&resourceVersion=42&timeout=7m16s"
        "&timeoutSeconds=436&watch=true"
    )


def test_older_informers_list_from_the_cache() -> None:
    assert (
        queries.Collection("/api/v1/pods").list("0") == "/api/v1/pods?limit=500&resourceVersion=0"
    )


def test_a_kubelet_asks_for_its_own_and_sends_no_deadline_with_its_pods() -> None:
    pods, node, services = queries.kubelet_collections("node-0007")
    assert pods.watch("1", 300) == (
        "/api/v1/pods?allowWatchBookmarks=true&fieldSelector=spec.nodeName%3Dnode-0007"
        "&resourceVersion=1&timeoutSeconds=300&watch=true"
    )
    assert "fieldSelector=metadata.name%3Dnode-0007" in node.list("0")
    assert "fieldSelector=spec.clusterIP%21%3DNone" in services.list("0")


def test_kube_proxy_leaves_out_what_others_proxy() -> None:
    services, slices, _ = queries.kube_proxy_collections("n")
    assert "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name" in services.list("0")
    assert "labelSelector=%21service.kubernetes.io%2Fheadless" in slices.list("0")


@pytest.mark.parametrize(
    ("seconds", "text"), [(436, "7m16s"), (45, "45s"), (3600, "1h0m0s"), (300, "5m0s")]
)
def test_durations_are_spelled_as_go_does(seconds: int, text: str) -> None:
    assert queries.duration(seconds) == text


def test_backoff_doubles_up_to_a_bound_and_forgets_after_two_quiet_minutes(
    rng: random.Random,
) -> None:
    backoff = Backoff(rng)
    pauses = [backoff.next(float(turn)) for turn in range(10)]
    assert FIRST <= pauses[0] <= 2 * FIRST
    assert MOST <= pauses[-1] <= 2 * MOST
    assert backoff.next(1_000.0) <= 2 * FIRST


def test_events_tell_their_version_and_when_they_were_written() -> None:
    metadata = b'{"metadata":{"name":"a","resourceVersion":"7","annotations":{"%s":"12.345678"}}}'
    line = b'{"type":"MODIFIED","object":%s}\n' % (metadata % STAMP.encode())
    (event,) = Events("application/json").receive(line)
    assert (event.type, event.version, event.stamp) == ("MODIFIED", "7", 12.345678)


def test_an_error_tells_its_code() -> None:
    line = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'
    (event,) = Events("application/json").receive(line)
    assert (event.type, event.code) == ("ERROR", 410)


def test_a_list_tells_its_version_and_its_items() -> None:
    body = (
        b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"t"},'
        b'"items":[{"metadata":{"name":"a","resourceVersion":"3"}}]}\n'
    )
    listed = read_list(body, "application/json")
    assert (listed.version, listed.items, listed.token) == ("9", 1, "t")


@pytest.mark.parametrize(
    ("code", "header", "pause"),
    [(429, "3", 3.0), (503, "1", 1.0), (503, "", None), (404, "3", None), (429, "soon", None)],
)
def test_only_an_integer_retry_after_is_obeyed(code: int, header: str, pause: float | None) -> None:
    assert retry_after(code, {"retry-after": header}) == pause
