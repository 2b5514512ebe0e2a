"""Every incident in a short form: who survives behind the guard.

A fraction of the schedule, a fifth of the bystanders, all the offenders; bounds in seconds are five
times as long, since other work may run beside. Without the guard only S1 is played: that storms
hurt is what ``make incidents`` shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.clients.recording import NOTED
from loadtests.incidents.__main__ import Wanted, run
from loadtests.incidents.catalogue import INCIDENTS
from loadtests.incidents.incident import Claim, Pair, Played
from loadtests.incidents.report import Result, document, html

pytestmark = pytest.mark.e2e

SHORT = Wanted(time=0.15, bystanders=0.2, headroom=5.0, together=True)
LONGER = {
    "S3": replace(SHORT, time=0.45),  # what kubelets ask for takes upstream so long at best
    "S4": replace(SHORT, time=0.35),  # between two restarts there is time to come back
    "S5": replace(SHORT, time=0.35),  # 100 MB of secrets are sent
    "S9": replace(SHORT, time=0.5),  # 120 agents connect
}
LANES = 3  # at a time: they wait more than they compute

Runs = dict[str, Future[Played]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All of them, some at a time, by name; S1 once more without the guard."""
    folder = tmp_path_factory.mktemp("incidents")

    def play(name: str, *, guarded: bool) -> Played:
        wanted = LONGER.get(name, SHORT)
        return run(INCIDENTS[name], wanted, folder / f"{name}-{guarded}", guarded=guarded)

    with ThreadPoolExecutor(LANES) as lanes:
        longest_first = sorted(INCIDENTS, key=lambda name: name not in LONGER)
        started = {name: lanes.submit(play, name, guarded=True) for name in longest_first}
        started["unguarded"] = lanes.submit(play, "S1", guarded=False)
        yield started


def _missed(claims: list[Claim]) -> list[str]:
    return [f"{claim.text}: {claim.found}" for claim in claims if not claim.holds]


@pytest.mark.parametrize("name", INCIDENTS)
def test_the_guard_contains_what_it_claims_to(runs: Runs, name: str) -> None:
    played = runs[name].result()
    assert played.run.samples
    answers = Counter((s.operation, s.code) for s in played.run.samples if s.code != NOTED)
    assert not _missed(list(INCIDENTS[name].relieves(played))), answers


def test_the_same_storm_without_the_guard_takes_leases_along(runs: Runs, tmp_path: Path) -> None:
    """And both runs make a report."""
    incident = INCIDENTS["S1"]
    without, guarded = runs["unguarded"].result(), runs["S1"].result()
    # The server collapses: nobody is served for three seconds, and what was under way is lost.
    assert without.figures.collapses > guarded.figures.collapses == 0
    assert without.figures.lease_trouble > 1.0
    claims = [*incident.harms(without), *incident.relieves(guarded)]
    result = Result(incident, Pair(without, guarded), claims, "embedded")
    assert document(result)["with"]["collapses"] == 0
    page = html([result])
    assert page.count("<svg") == page.count("</svg>") >= 3
    assert "apiguard ban --user-agent" in page
