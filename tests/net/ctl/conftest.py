"""A fake guard, and the command line pointed at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import Result, invoke
from tests.net.ctl.fake import TOKEN, FakeGuard

Run = Callable[..., Result]


@pytest.fixture
def guard() -> Iterator[FakeGuard]:
    fake = FakeGuard()
    yield fake
    fake.close()


@pytest.fixture
def second() -> Iterator[FakeGuard]:
    fake = FakeGuard()
    yield fake
    fake.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No context of whoever runs the tests; local times are UTC."""
    for name in ("CONTEXT", "SERVER", "TOKEN_FILE"):
        monkeypatch.delenv(f"APIGUARD_{name}", raising=False)
    monkeypatch.setenv("APIGUARD_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def run(guard: FakeGuard, token_file: Path) -> Run:
    """One guard in the current context."""
    done = invoke(
        "config", "set-context", "one", "--server", guard.url, "--token-file", str(token_file)
    )
    assert done.exit_code == 0, done.output
    return invoke


@pytest.fixture
def run_both(guard: FakeGuard, second: FakeGuard, token_file: Path) -> Run:
    """Two guards, cp-1 and cp-2, in the current context."""
    servers = ("--server", guard.url, "--name", "cp-1", "--server", second.url, "--name", "cp-2")
    done = invoke("config", "set-context", "both", *servers, "--token-file", str(token_file))
    assert done.exit_code == 0, done.output
    return invoke
