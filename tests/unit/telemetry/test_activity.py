"""What a worker counts per client: right, bounded, and fit to travel."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.kube.identity import ANONYMOUS, Caller, Standing
from apiguard.kube.requestinfo import parse_request
from apiguard.telemetry.activity import (
    CELLS,
    FOLDED_ROWS,
    LONGEST_RESOURCE,
    LONGEST_USER,
    ROWS,
    Activity,
    ActivityRow,
)
from tests.unit.telemetry.clients import ALL_PODS, PODS, caller, get

ROW_DECODER = msgspec.msgpack.Decoder(tuple[ActivityRow, ...])


def received(rows: tuple[ActivityRow, ...]) -> tuple[ActivityRow, ...]:
    """As the supervisor gets them: only if every bound is kept."""
    return ROW_DECODER.decode(msgspec.msgpack.encode(rows))


def test_connections_of_one_client_are_one_row() -> None:
    activity = Activity()
    for _ in range(3):
        activity.count(caller(), PODS, 100, 0.5)
    assert activity.take() == (
        ActivityRow("kubectl", "alice", "192.0.2.1", "list", "pods", 3, 0, 300, 1.5),
    )


def test_what_has_been_taken_is_not_taken_again() -> None:
    activity = Activity()
    activity.count(caller(), PODS, 1, 0.0)
    assert activity.take()
    assert activity.take() == ()


def test_lists_say_what_they_lack() -> None:
    activity, who = Activity(), caller()
    activity.count(who, PODS, 0, 0.0)
    activity.count(who, ALL_PODS, 0, 0.0)
    activity.refuse(who, get("/api/v1/pods?limit=1"))
    (row,) = activity.take()
    assert (row.requests, row.refused, row.unpaged, row.rv_less) == (3, 1, 1, 2)


def test_bytes_of_a_stream_count_no_request() -> None:
    activity, who = Activity(), caller()
    activity.credit(who, PODS, 4_096, 0.5)
    (row,) = activity.take()
    assert (row.requests, row.bytes_out, row.upstream_seconds) == (0, 4_096, 0.5)


@pytest.mark.parametrize(
    ("who", "user"),
    [
        (caller("bob"), "bob"),
        (caller(None), ""),
        (Caller(Standing.ANONYMOUS, ANONYMOUS, "", "", "192.0.2.1", ""), "system:anonymous"),
    ],
)
def test_a_user_is_named_only_when_proven(who: Caller, user: str) -> None:
    activity = Activity()
    activity.count(who, PODS, 0, 0.0)
    assert activity.take()[0].user == user


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/healthz", "/healthz"),
        ("/openapi/v3/apis/apps/v1", "/openapi/v3"),
        ("/apis/apps/v1/deployments", "deployments.apps"),
        ("/api/v1/namespaces/a/pods/b/log", "pods/log"),
    ],
)
def test_paths_that_name_no_resource_are_grouped_by_their_beginning(
    path: str, resource: str
) -> None:
    activity = Activity()
    activity.count(caller(), get(path), 0, 0.0)
    assert activity.take()[0].resource == resource


def test_more_clients_than_an_interval_holds_are_folded_and_nothing_is_lost() -> None:
    activity = Activity()
    infos = [get(f"/api/v1/r{i}") for i in range(3 * FOLDED_ROWS)]
    n = 2 * CELLS
    for i in range(n):
        activity.count(caller(f"user-{i}"), infos[i % len(infos)], 10, 0.25)
    rows = received(activity.take())
    assert len(rows) <= ROWS + FOLDED_ROWS
    assert sum(row.requests for row in rows) == n
    assert sum(row.bytes_out for row in rows) == 10 * n
    assert sum(row.upstream_seconds for row in rows) == pytest.approx(n / 4)
    assert activity.folds >= n - CELLS
    assert all((row.user == "") == row.folded for row in rows)


@pytest.mark.parametrize("field", ["requests", "bytes_out", "seconds"])
def test_a_client_that_matters_by_any_measure_is_not_folded(field: str) -> None:
    activity = Activity()
    for i in range(CELLS - 1):
        activity.count(caller(f"user-{i}"), PODS, 10, 0.01)
    for _ in range(50 if field == "requests" else 1):
        activity.count(
            caller("heavy") if field != "requests" else HEAVY,
            PODS,
            10**6 if field == "bytes_out" else 0,
            30.0 if field == "seconds" else 0.0,
        )
    assert "heavy" in {row.user for row in activity.take()}


HEAVY = caller("heavy")


def test_giant_texts_are_cut_and_share_one_key() -> None:
    activity = Activity()
    for i in range(10):
        path = f"/api/v1/{'r' * 30_000}{i}"
        activity.count(caller("u" * 9_999), parse_request("GET", path), 1, 0.0)
    (row,) = received(activity.take())
    assert (len(row.user), len(row.resource)) == (LONGEST_USER, LONGEST_RESOURCE)
    assert row.requests == 10


@given(
    st.lists(st.tuples(st.text(max_size=300), st.text(max_size=80), st.integers(0, 10**9))),
)
def test_whatever_names_clients_have_their_rows_travel_and_add_up(
    calls: list[tuple[str, str, int]],
) -> None:
    activity = Activity()
    for user, agent, size in calls:
        activity.count(caller(user, agent), PODS, size, 0.0)
    rows = received(activity.take())
    assert sum(row.requests for row in rows) == len(calls)
    assert sum(row.bytes_out for row in rows) == sum(size for *_, size in calls)


def test_a_name_that_is_no_unicode_travels_all_the_same() -> None:
    activity = Activity()
    activity.count(caller("a\ud800b"), PODS, 0, 0.0)
    assert received(activity.take())[0].user == "a?b"


@pytest.mark.parametrize(
    "change", [{"requests": -1}, {"upstream_seconds": float("inf")}, {"user": "u" * 257}]
)
def test_rows_out_of_bounds_are_no_rows(change: dict[str, object]) -> None:
    row = ActivityRow("a", "b", "c", "get", "pods")
    bad = msgspec.structs.replace(row, **change)
    with pytest.raises(msgspec.ValidationError):
        received((bad,))
