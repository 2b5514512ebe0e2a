"""``docs/scaling.md`` follows from measured costs, and says what it says of them."""

from __future__ import annotations

import json

import pytest

from loadtests.bench.results import Run
from loadtests.scaling import FIGURES, MEASURED, PAGE, Costs, Demand, capacity, costs_of, page

COSTS = Costs(100, 20, 1_000, 50, 25, 500, 10_000, 32, 1.2)


def test_the_page_is_current() -> None:
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))
    made = page(Costs(**kept["costs"]), kept["environment"])
    assert PAGE.read_text(encoding="utf-8") == made, "run python -m loadtests.scaling RUN.json"


def test_cores_follow_requests_and_events() -> None:
    """By hand, for 1,000 nodes: (100 + 1000 x (0.02 + 0.2 + 35/450)) requests, 3 x 1 x 1000 + 200
    events."""
    found = capacity(1_000, COSTS, Demand(), relay=False)
    assert found.requests == pytest.approx(100 + 20 + 200 + 77.8, abs=0.1)
    assert found.events == pytest.approx(3_200)
    assert found.cores == pytest.approx((397.8 * 100 + 3_200 * 50) / 1e6, rel=1e-3)
    assert found.clients == 39_000


def test_the_relay_takes_shared_watches_from_upstream() -> None:
    without, relay = (capacity(5_000, COSTS, Demand(), relay=one) for one in (False, True))
    assert without.upstream - relay.upstream == 15_000
    assert relay.cores < without.cores


def test_a_run_that_lacks_a_case_is_refused_by_name() -> None:
    run = Run({}, 1, 1.0, "2026-01-01T00:00:00Z", {"proxied-tls": {"apiguard": [{"cpu_us": 1.0}]}})
    with pytest.raises(ValueError, match="lacks handshakes, list, refused, relay-events"):
        costs_of(run)


def test_medians_are_taken_of_the_rows_named() -> None:
    run = Run({}, 3, 1.0, "2026-01-01T00:00:00Z")
    for case, row, name in MEASURED.values():
        run.samples.setdefault(case, {})[row] = [{name: value} for value in (1.0, 9.0, 2.0)]
    assert costs_of(run) == Costs(*[2.0] * len(MEASURED))
