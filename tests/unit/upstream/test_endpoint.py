"""An endpoint listens to traffic, to probes and to the operator, in rising order."""

from __future__ import annotations

import pytest

from apiguard.upstream.endpoint import (
    BACKOFF_SECONDS,
    LOSSES,
    Address,
    Ceilings,
    Endpoint,
    Lane,
    State,
)
from apiguard.upstream.health import Verdict
from apiguard.upstream.readyz import Condition

UNFIT = Verdict(False, Condition.STORAGE, "failing checks: etcd")


def endpoint() -> Endpoint:
    return Endpoint(Address("10.0.0.1", 6443, True))


def test_addresses_are_written_as_urls() -> None:
    assert str(Address("10.0.0.1", 6443, True)) == "https://10.0.0.1:6443"
    assert str(Address("::1", 80, False)) == "http://[::1]:80"


def test_a_failed_connection_rests_the_endpoint_for_the_backoff() -> None:
    e = endpoint()
    e.failed("refused", 100.0)
    assert e.state(100.0) is State.FAILING
    assert not e.usable(100.0 + BACKOFF_SECONDS / 2)
    assert e.usable(100.0 + BACKOFF_SECONDS)


def test_after_the_backoff_one_attempt_at_a_time_is_made() -> None:
    e = endpoint()
    e.failed("refused", 100.0)
    e.opening[Lane.LONG] += 1
    assert not e.usable(200.0)
    e.opening[Lane.LONG] -= 1
    e.trying(200.0)
    assert not e.usable(200.0)


def lose(e: Endpoint, times: int) -> None:
    for _ in range(times):
        e.connected()
        e.lost(1.0)


def test_requests_lost_in_a_row_make_it_unfit_and_an_answer_between_forgives() -> None:
    e = endpoint()
    lose(e, LOSSES - 1)
    e.answered()
    lose(e, LOSSES - 1)
    assert e.fit(1.0)
    e.lost(1.0)
    assert (e.fit(1.0), e.state(1.0)) == (False, State.FAILING)
    assert "got no answer" in e.detail()


def test_where_nobody_else_is_a_server_that_loses_requests_is_still_asked() -> None:
    e = endpoint()
    lose(e, LOSSES)
    assert e.usable(1.0)


def test_a_server_that_accepts_connections_and_answers_nothing_is_not_forgiven() -> None:
    e = endpoint()
    lose(e, LOSSES)
    e.connected()
    assert not e.fit(1.0)
    assert e.fit(1.0 + BACKOFF_SECONDS), "due for an attempt"
    e.trying(1.0 + BACKOFF_SECONDS)
    assert not e.fit(1.0 + BACKOFF_SECONDS)
    e.answered()
    assert e.fit(1.0)


@pytest.mark.parametrize(
    ("ordinary", "collections", "room", "room_for_collections"),
    [(0, 0, True, True), (6, 3, True, True), (6, 4, False, False), (0, 4, True, False)],
)
def test_collection_reads_have_a_part_of_the_places_of_all(
    ordinary: int, collections: int, room: bool, room_for_collections: bool
) -> None:
    e = endpoint()
    ceilings = Ceilings(ordinary=10, exempt=1, long=1, collection=4)
    e.active[Lane.ORDINARY], e.opening[Lane.ORDINARY] = ordinary // 2, ordinary - ordinary // 2
    e.active[Lane.COLLECTION], e.opening[Lane.COLLECTION] = 0, collections
    assert e.has_room(Lane.ORDINARY, ceilings) is room
    assert e.has_room(Lane.COLLECTION, ceilings) is room_for_collections
    assert e.has_room(Lane.EXEMPT, ceilings)
    assert e.has_room(Lane.LONG, ceilings)


def test_probes_make_it_unfit_yet_leave_it_usable_as_a_last_resort() -> None:
    e = endpoint()
    e.verdict = UNFIT
    assert (e.fit(1.0), e.usable(1.0), e.state(1.0)) == (False, True, State.UNFIT)
    assert e.detail() == UNFIT.detail


def test_a_drained_endpoint_is_no_resort_at_all() -> None:
    e = endpoint()
    e.drained = True
    assert (e.fit(1.0), e.usable(1.0), e.state(1.0)) == (False, False, State.DRAINED)
