"""An operator's command imports what it needs: it must answer where there is no CPU left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.net.ctl.conftest import Run
from tests.net.ctl.fake import FakeGuard

CALL = """
import sys
sys.argv = ["apiguard", *sys.argv[1:]]
from apiguard.cli import main
try:
    main()
except SystemExit:
    print(*sorted(sys.modules), file=sys.stderr)
"""
HEAVY = {
    "aiohttp", "asyncio", "email", "http.client", "msgspec", "rich", "ssl", "uvloop",
    "yaml", "apiguard.runtime", "apiguard.policy", "apiguard.demo", "apiguard.kube",
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    ["status", "top", "flows", "overrides", "ban --user x --reason INC-7", "whoami -o json"],
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
