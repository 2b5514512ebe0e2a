"""Ten times what upstream's ceiling admits: others are served, and operators are answered.

Times asserted are five times the promise, and only where the machine had a core for the guard: on
one that is busy with other work they would be that work's. The figures are printed (``pytest -s``)
and kept as properties of the report; ``python -m tests.e2e.overload`` holds them against the
promise itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.e2e.overload import PROMISED_LEASES, PROMISED_P99, TENFOLD, run

pytestmark = pytest.mark.e2e

HEADROOM = 5
WINDOW = 8.0  # seconds
USEFUL = 0.75
"""Of the capacity, with headroom. While refusals for want of a connection cost no penalty it was
0.07 to 0.35."""

BUSY = 0.2
"""A guard that waited for its core longer than this part of the time had none to itself."""


def test_others_are_served_and_operators_answered(
    tmp_path: Path,
    certificates: Certificates,
    record_property: Callable[[str, object], None],
) -> None:
    figures = run(tmp_path, certificates, WINDOW)
    for line in figures.lines():
        print(line)  # noqa: T201 - measured, for whoever runs it with -s
    for name, value in asdict(figures).items():
        record_property(name, value)
    assert figures.leases_served >= PROMISED_LEASES
    assert figures.connections_broken == 0
    if figures.guard_waited < BUSY:
        assert figures.useful_share >= USEFUL
        slowest = max(figures.admin_p99, figures.metrics_p99, figures.cli_p99)
        assert slowest <= PROMISED_P99 * HEADROOM
        assert figures.times_offered >= TENFOLD * USEFUL
