"""An operator's command imports what it needs: it must answer where there is no CPU left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.net.ctl.conftest import Run
from tests.net.ctl.fake import FakeGuard

CALL = """
import sys
from apiguard.cli import run
try:
    code = run(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""
HEAVY = {
    "aiohttp", "argcomplete", "asyncio", "click", "contextlib", "dataclasses", "email",
    "http.client", "inspect", "msgspec", "rich", "shutil", "ssl", "threading", "typing",
    "urllib.parse", "uvloop", "yaml",
    "apiguard.runtime", "apiguard.policy", "apiguard.demo", "apiguard.kube",
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "top -o table",
        "flows",
        "overrides",
        "ban --user x --dry-run",
        "ban --user x --reason INC-7",
        "whoami -o json",
    ],
)
def test_no_command_imports_what_it_does_not_need(run: Run, guard: FakeGuard, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, *command.split()], capture_output=True, text=True, check=True
    )
    assert done.stdout, done.stderr
    assert guard.asked
    assert HEAVY.isdisjoint(done.stderr.split())


def test_help_imports_no_command() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, "--help"], capture_output=True, text=True, check=True
    )
    assert not [name for name in done.stderr.split() if name.startswith("apiguard.ctl.commands")]
