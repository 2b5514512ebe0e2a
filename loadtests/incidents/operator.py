"""The operator of a run, who has nothing but the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from .guarding import Guard
from .processes import ROOT

COMMAND_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Typed:
    """One command: when it was typed and when it was done, CLOCK_MONOTONIC, and what it said."""

    command: str
    begun: float
    done: float
    code: int
    output: str


class Operator:
    """Types ``apiguard`` commands at one guard."""

    def __init__(self, guard: Guard) -> None:
        self.typed: list[Typed] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if "APIGUARD" not in name},
            "APIGUARD_SERVER": guard.admin,
            "APIGUARD_TOKEN_FILE": str(guard.folder / "admin-token"),
            "APIGUARD_CONFIG": str(guard.folder / "contexts.yaml"),
        }

    def type(self, *arguments: str) -> Typed:
        begun = time.monotonic()
        done = subprocess.run(  # noqa: S603 - the harness's own command
            [sys.executable, "-m", "apiguard.cli", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        shown = " ".join(_quoted(argument) for argument in arguments)
        typed = Typed(
            f"apiguard {shown}", begun, time.monotonic(), done.returncode,
            (done.stdout + done.stderr).strip(),
        )  # fmt: skip
        self.typed.append(typed)
        return typed


def _quoted(argument: str) -> str:
    return f"'{argument}'" if " " in argument or "*" in argument else argument
