"""Ten thousand requests with faults leave nothing behind, in a process that does nothing else."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path


def test_everything_returns_to_baseline(rng: random.Random) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.net.traffic.leak_run", str(rng.getrandbits(32))],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    left = json.loads(done.stdout)
    assert left["tasks"] == 0
    assert left["descriptors"] <= 0
    assert set(left["connections"].values()) == {0}, left
