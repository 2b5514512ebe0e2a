"""A guard and its upstream for every test, ended whatever the test did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.guard import Guard, Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    started = Upstream()
    yield started
    started.close()


@pytest.fixture
def guard(tmp_path: Path, upstream: Upstream) -> Iterator[Guard]:
    """Not started yet: the test may change settings and policy first."""
    made = Guard(tmp_path, upstream.url)
    yield made
    made.close()
