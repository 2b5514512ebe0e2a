"""An operator's shell: ``apiguard`` as a process, and what it printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.guard import Guard

ROOT = Path(__file__).parents[2]
SECONDS = 60.0  # for one command on a busy machine


class Shell:
    """Commands against ``guard``, with its admin token, as their environment says."""

    def __init__(self, guard: Guard) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if "APIGUARD" not in name},
            "APIGUARD_SERVER": "http://{}:{}".format(*guard.admin_address),
            "APIGUARD_TOKEN_FILE": str(guard.directory / "token"),
            "APIGUARD_CONFIG": str(guard.directory / "contexts.yaml"),
        }

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """For commands that may fail."""
        return subprocess.run(
            [sys.executable, "-m", "apiguard.cli", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def run(self, *arguments: str) -> str:
        """What it printed; fails when it fails."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json"))
