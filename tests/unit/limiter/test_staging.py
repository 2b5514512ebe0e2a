"""Staged rollout: which keys a rule already refuses on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from apiguard.limiter.flow import BucketSpec, Flow, LimitSpec, Mode, Per
from apiguard.limiter.staging import Stage

from .requests import LIST_PODS, anonymous, in_namespace, unverified, verified


def stage(percent: int, *per: Per, name: str = "rule") -> Stage:
    limit = LimitSpec(f"{name}/x", BucketSpec(1, 1), per)
    return Stage(Flow(name, (limit,), Mode.PARTIAL, percent=percent))


def chosen(percent: int, name: str = "rule", users: int = 5_000) -> set[int]:
    staged = stage(percent, Per.USER, name=name)
    return {i for i in range(users) if staged.chosen(LIST_PODS, verified(f"user-{i}"))}


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 99])
def test_about_the_wanted_share_of_keys_is_chosen(percent: int) -> None:
    """Within four standard deviations of a fair draw of 5,000."""
    share = percent / 100
    tolerance = 4 * (share * (1 - share) / 5_000) ** 0.5
    assert len(chosen(percent)) / 5_000 == pytest.approx(share, abs=tolerance)


def test_raising_the_percentage_only_adds_keys() -> None:
    assert chosen(5) < chosen(20) < chosen(60)


def test_another_rule_begins_with_other_keys() -> None:
    assert len(chosen(10) & chosen(10, "other-rule")) < 300  # of 500, were they the same


def test_a_rebuilt_flow_chooses_the_same_keys() -> None:
    assert chosen(30) == chosen(30)


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_every_process_chooses_the_same_keys(seed: str) -> None:
    """Workers do not tell each other: the seed of Python's own hash must not matter."""
    program = (
        "from tests.unit.limiter.test_staging import chosen; print(sorted(chosen(30, users=200)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stdout.strip() == str(sorted(chosen(30, users=200)))


def test_without_per_fields_the_caller_is_chosen_or_not_as_a_whole() -> None:
    """By the verified user wherever it comes from, else by source whatever it claims to be."""
    staged = stage(50)
    for i in range(50):
        answers = {
            staged.chosen(in_namespace(f"n{j}"), verified(f"u{i}", f"agent-{j}", f"10.0.0.{j}"))
            for j in range(10)
        }
        assert len(answers) == 1
        source = f"192.0.2.{i}"
        callers = [unverified(source, "a"), unverified(source, "b"), anonymous(source)]
        assert len({staged.chosen(LIST_PODS, caller) for caller in callers}) == 1


def test_fields_of_all_limits_make_the_key() -> None:
    limits = (
        LimitSpec("rule/user", BucketSpec(1, 1), (Per.USER,)),
        LimitSpec("rule/namespace", BucketSpec(1, 1), (Per.NAMESPACE,)),
    )
    both = Stage(Flow("rule", limits, Mode.PARTIAL, percent=50))
    together = stage(50, Per.USER, Per.NAMESPACE)
    asked = [(in_namespace(f"n{i}"), verified(f"u{i % 7}")) for i in range(100)]
    answers = [both.chosen(*each) for each in asked]
    assert answers == [together.chosen(*each) for each in asked]
    assert set(answers) == {True, False}


def test_values_that_are_no_text_are_hashed_all_the_same() -> None:
    staged = stage(50, Per.USER_AGENT)
    assert staged.chosen(LIST_PODS, verified("u", "bad\udc80agent")) in (True, False)
