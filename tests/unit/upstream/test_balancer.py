"""Who is asked: the fit, the lesser loaded of two; nobody fit, the least bad."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.upstream.balancer import candidates, pick
from apiguard.upstream.endpoint import Address, Ceilings, Endpoint, Lane
from apiguard.upstream.health import Verdict
from apiguard.upstream.readyz import Condition

NOW = 100.0
CEILING = 10
CEILINGS = Ceilings(ordinary=CEILING, exempt=CEILING, long=CEILING, collection=CEILING // 2)


def endpoints(count: int) -> list[Endpoint]:
    return [Endpoint(Address(f"10.0.0.{n}", 6443, True)) for n in range(count)]


def unfit(endpoint: Endpoint, condition: Condition) -> None:
    endpoint.verdict = Verdict(False, condition)


def picked(servers: list[Endpoint], rng: random.Random, times: int = 300) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(times):
        endpoint = pick(servers, Lane.ORDINARY, CEILINGS, NOW, rng)
        found[endpoint.address.host if endpoint else ""] += 1
    return found


@pytest.mark.parametrize("count", [2, 3, 5])
def test_equally_loaded_servers_take_turns(count: int, rng: random.Random) -> None:
    found = picked(endpoints(count), rng)
    assert len(found) == count
    assert min(found.values()) > 300 / count / 3


def test_the_most_loaded_of_several_is_never_picked(rng: random.Random) -> None:
    servers = endpoints(3)
    servers[1].active[Lane.LONG] = 5
    assert "10.0.0.1" not in picked(servers, rng)


def test_the_excess_of_fit_servers_waits_and_does_not_spill_onto_unfit_ones(
    rng: random.Random,
) -> None:
    servers = endpoints(2)
    servers[0].active[Lane.ORDINARY] = CEILING
    unfit(servers[1], Condition.STORAGE)
    assert picked(servers, rng).keys() == {""}


def test_when_probes_exclude_all_the_least_bad_is_tried(rng: random.Random) -> None:
    servers = endpoints(3)
    for server, condition in zip(
        servers, (Condition.SILENT, Condition.NOT_READY, Condition.STORAGE), strict=True
    ):
        unfit(server, condition)
    assert picked(servers, rng).keys() == {"10.0.0.1"}
    servers[1].failed("refused", NOW)
    assert picked(servers, rng).keys() == {"10.0.0.2"}


def test_nobody_can_be_asked_when_all_are_drained(rng: random.Random) -> None:
    servers = endpoints(2)
    for server in servers:
        server.drained = True
    assert picked(servers, rng).keys() == {""}


CONDITIONS = st.tuples(st.sampled_from(Condition), st.booleans(), st.booleans(), st.booleans())


@given(st.lists(CONDITIONS, min_size=1, max_size=6))
def test_no_unfit_server_is_a_candidate_while_a_fit_one_is(
    states: list[tuple[Condition, bool, bool, bool]],
) -> None:
    servers = endpoints(len(states))
    for server, (condition, fit, failing, drained) in zip(servers, states, strict=True):
        server.verdict = Verdict(fit, condition)
        server.drained = drained
        if failing:
            server.failed("refused", NOW)
    found = candidates(servers, NOW)
    assert all(server.usable(NOW) for server in found)
    assert bool(found) is any(server.usable(NOW) for server in servers)
    if any(server.fit(NOW) for server in servers):
        assert all(server.fit(NOW) for server in found)
