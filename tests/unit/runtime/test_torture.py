"""Killed at any moment, the state has everything that was answered for, and nothing by halves."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

ROUNDS = 80


def test_a_kill_at_any_moment_loses_nothing_and_leaves_no_half(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # noqa: T201  for whoever has to repeat it
    run = [sys.executable, "-m", "tests.unit.runtime.torture_run", str(tmp_path / "guard")]
    done = subprocess.run(
        [*run, str(ROUNDS), str(seed)], capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    print(figures)  # noqa: T201  so that a run says what it did
    assert figures["answered"] > ROUNDS
    assert figures["halfWay"] > ROUNDS / 2
    assert 0 < figures["carriedOut"] < figures["halfWay"], "kills came before and after the record"
