"""Rise 2, fall 3; a returning server is noticed within two seconds."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from apiguard.upstream.health import FALL, RISE, Health
from apiguard.upstream.readyz import Condition, Finding

PASS = Finding(Condition.READY)
FAIL = Finding(Condition.SILENT, "no answer")
ETCD = Finding(Condition.STORAGE, "failing checks: etcd")


def after(*findings: Finding) -> Health:
    health = Health()
    for finding in findings:
        health.probed(finding)
    return health


def test_before_the_first_probe_a_server_is_tried() -> None:
    assert Health().verdict.fit


def test_the_first_probe_decides_alone() -> None:
    assert after(PASS).verdict.fit
    assert not after(FAIL).verdict.fit


def test_three_failures_in_a_row_exclude_and_fewer_do_not() -> None:
    assert after(PASS, FAIL, ETCD).verdict.fit
    assert after(PASS, FAIL, FAIL, PASS, FAIL, FAIL).verdict.fit
    assert not after(PASS, FAIL, FAIL, ETCD).verdict.fit


def test_two_passes_in_a_row_bring_back_and_one_does_not() -> None:
    assert not after(FAIL, PASS).verdict.fit
    assert not after(FAIL, PASS, FAIL, PASS).verdict.fit
    assert after(FAIL, PASS, PASS).verdict.fit


def test_a_server_that_says_it_shuts_down_is_excluded_at_once() -> None:
    assert not after(PASS, Finding(Condition.LEAVING)).verdict.fit


def test_a_change_is_told_exactly_when_it_happens() -> None:
    health = after(PASS)
    assert [health.probed(f) for f in (FAIL, FAIL, FAIL, FAIL)] == [False, False, True, False]
    assert [health.probed(f) for f in (PASS, PASS, PASS)] == [False, True, False]


def test_a_returning_server_is_fit_within_two_seconds() -> None:
    """Whenever between two probes it returns."""
    health = after(FAIL)
    elapsed = health.interval  # it returned right after a probe
    while not health.verdict.fit:
        health.probed(PASS)
        if not health.verdict.fit:
            elapsed += health.interval
    assert elapsed < 2.0


@given(st.lists(st.sampled_from([PASS, FAIL, ETCD]), min_size=1, max_size=40))
def test_fitness_follows_from_runs_alone(findings: list[Finding]) -> None:
    """Against the rule written backwards: the latest run long enough decides."""
    expected = findings[0].condition.passes
    for end in range(2, len(findings) + 1):
        passed = [f.condition.passes for f in findings[:end]]
        run = len(list(next(itertools.groupby(reversed(passed)))[1]))
        if passed[-1] and run >= RISE:
            expected = True
        elif not passed[-1] and run >= FALL:
            expected = False
    assert after(*findings).verdict.fit is expected
