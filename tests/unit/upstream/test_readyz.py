"""What a server says of itself, read as kube-apiserver writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.upstream.readyz import LONGEST_DETAIL, Condition, Finding, read_answer

HEALTHY = b"[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\nreadyz check passed\n"


def failing(*names: str) -> bytes:
    lines = ["[+]ping ok", *(f"[-]{name} failed: reason withheld" for name in names)]
    return "\n".join([*lines, "readyz check failed"]).encode()


def test_a_server_that_is_ready_needs_no_words() -> None:
    assert read_answer(200, HEALTHY) == Finding(Condition.READY)
    assert read_answer(200, b"") == Finding(Condition.READY)


@pytest.mark.parametrize("name", ["etcd", "etcd-readiness", "etcd-override-readiness-0"])
def test_a_failing_etcd_check_is_told_apart(name: str) -> None:
    finding = read_answer(500, failing("informer-sync", name))
    assert finding.condition is Condition.STORAGE
    assert name in finding.detail


def test_a_check_that_merely_sounds_like_etcd_is_not_storage() -> None:
    assert read_answer(500, failing("etcdx")).condition is Condition.NOT_READY


def test_a_server_that_shuts_down_says_so() -> None:
    assert read_answer(500, failing("shutdown")).condition is Condition.LEAVING
    assert read_answer(500, failing("shutdown", "etcd")).condition is Condition.STORAGE


@pytest.mark.parametrize("status", [401, 403, 404, 429])
def test_a_server_that_will_not_say_is_not_held_to_be_unfit(status: int) -> None:
    finding = read_answer(status, b"")
    assert finding.condition is Condition.UNJUDGED
    assert finding.condition.passes


@pytest.mark.parametrize("status", [500, 502, 503, 302])
def test_an_error_without_checks_is_not_ready(status: int) -> None:
    assert read_answer(status, b"<html>").condition is Condition.NOT_READY


@given(st.integers(200, 599), st.binary(max_size=2_000))
def test_no_answer_breaks_the_reader_or_its_line(status: int, body: bytes) -> None:
    finding = read_answer(status, body)
    assert len(finding.detail) <= LONGEST_DETAIL
    assert finding.detail.isprintable()


@given(st.lists(st.text(max_size=150), max_size=50))
def test_check_names_are_shown_only_if_printable_and_short(names: list[str]) -> None:
    detail = read_answer(500, failing(*names)).detail
    assert detail.isprintable()
    assert len(detail) <= LONGEST_DETAIL
