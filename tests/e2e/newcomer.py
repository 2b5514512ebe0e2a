"""``apiguard demo`` as a newcomer runs it, and a shell beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from apiguard.demo.workspace import Ports
from tests.e2e.guard import until
from tests.e2e.real import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECONDS = 60.0  # for anything said to a newcomer, on a busy machine
START = """
import sys
from apiguard.demo.demo import DemoOptions, run
from apiguard.demo.workspace import Ports
sys.exit(run(DemoOptions(ports=Ports(*map(int, sys.argv[1:])))))
"""
ENDING = "Ctrl-C ends all of it."


@dataclass(frozen=True, slots=True)
class Demo:
    """``apiguard demo`` in ``folder``, but on ports of the kernel's choice; ``said`` at start."""

    folder: Path
    ports: Ports
    said: str

    def bash(self, script: str) -> str:
        """What the script prints when run as a newcomer would, ports aside."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.with_ports(script)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout

    def with_ports(self, script: str) -> str:
        default = Ports()
        for name in Ports.__slots__:
            script = script.replace(str(getattr(default, name)), str(getattr(self.ports, name)))
        return script

    @property
    def environment(self) -> dict[str, str]:
        found = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        # A machine without a kubectl of its own: that is whom the words are for.
        return found | {"PATH": os.defpath, "HOME": str(self.folder)}


@contextlib.contextmanager
def demonstrating(folder: Path) -> Iterator[Demo]:
    """Ends with the block, as Ctrl-C ends it."""
    ports = Ports(*free_ports(3))
    (folder / ".venv").symlink_to(BIN.parent)
    words = folder / "said"
    with (
        words.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-c", START, *map(str, (ports.guard, ports.admin, ports.apiserver))],
            cwd=folder,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            until(
                "the demo is ready",
                lambda: process.poll() is not None or ENDING in words.read_text(),
                SECONDS,
            )
            assert process.poll() is None, words.read_text()
            yield Demo(folder, ports, words.read_text())
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
