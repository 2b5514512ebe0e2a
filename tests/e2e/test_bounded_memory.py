"""However many clients there are, a guard's memory is bounded and the busy ones are named.

As many as a few seconds suffice for; ``python -m tests.e2e.crowd`` takes more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.e2e.crowd import run

pytestmark = pytest.mark.e2e

AGENTS = 20_000
"""Ten times what a worker keeps apart within one interval."""


def test_a_crowd_costs_bounded_memory_and_hides_nobody(
    tmp_path: Path, certificates: Certificates, record_property: Callable[[str, object], None]
) -> None:
    figures = run(tmp_path, certificates, AGENTS)
    for line in figures.lines():
        print(line)  # noqa: T201 - measured, for whoever runs it with -s
    record_property("grown MiB", figures.grown_mib)
    assert figures.missed() == []
