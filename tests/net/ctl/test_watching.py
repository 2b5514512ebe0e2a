"""``--watch`` prints what changes, and outlives a guard that does not answer."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from typing import IO

import pytest

from tests.net.ctl.conftest import Run
from tests.net.ctl.fake import ACTIONS, FakeGuard, override, row, status
from tests.net.ctl.terminal import PATIENCE, PROGRAM


class Watcher:
    """A watching command; ``line`` blocks until it prints the next line."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(PROGRAM), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        return self._of(self.process.stdout)

    def complaint(self) -> str:
        return self._of(self.process.stderr)

    def _of(self, stream: IO[str] | None) -> str:
        assert stream is not None
        return stream.readline().rstrip("\n")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@pytest.fixture
def watching(run: Run) -> Iterator[list[Watcher]]:
    """Append watchers; all are ended."""
    watchers: list[Watcher] = []
    yield watchers
    for watcher in watchers:
        watcher.process.kill()
        watcher.process.communicate()


def watch(watching: list[Watcher], *arguments: str) -> Watcher:
    watching.append(Watcher(*arguments))
    return watching[-1]


def test_only_rows_that_changed_are_printed_again(
    watching: list[Watcher], guard: FakeGuard
) -> None:
    watcher = watch(watching, "overrides", "--watch", "--interval", "1s")
    assert watcher.line().startswith("ID ")
    assert watcher.line().startswith("7f3a   ban ")
    guard.routes["GET /v1/overrides"] = {"overrides": [override(), override("9c2d")]}
    assert watcher.line().startswith("9c2d   ban ")
    assert watcher.interrupt() == 130


def test_a_guard_that_fails_is_reported_once_and_asked_again(
    watching: list[Watcher], guard: FakeGuard
) -> None:
    watcher = watch(watching, "overrides", "-w", "--interval", "1s")
    assert watcher.line().startswith("ID ")
    watcher.line()
    guard.routes["GET /v1/overrides"] = status(503, "no worker serves")
    assert watcher.complaint() == "Error: no worker serves"
    guard.routes["GET /v1/overrides"] = {"overrides": [override("9c2d")]}
    assert watcher.line().startswith("9c2d")


def test_top_watches_where_there_is_no_terminal(watching: list[Watcher], guard: FakeGuard) -> None:
    watcher = watch(watching, "top", "--watch", "--interval", "1s")
    assert watcher.line().startswith("USER-AGENT")
    assert watcher.line().startswith("telemetry")
    guard.routes["GET /v1/top"] = {"rows": [row("newcomer", "", 5)]}
    assert [watcher.line().split()[0] for _ in range(2)][-1] == "newcomer"


def test_the_audit_is_followed(watching: list[Watcher], guard: FakeGuard) -> None:
    watcher = watch(watching, "audit", "--follow")
    watcher.line()
    assert watcher.line().split()[2] == "override.add"
    more = {**ACTIONS["events"][0], "id": "2", "action": "override.expire"}
    guard.routes["GET /v1/audit"] = {"events": [*ACTIONS["events"], more]}
    assert watcher.line().split()[2] == "override.expire"


def test_json_is_printed_again_when_it_changed(watching: list[Watcher], guard: FakeGuard) -> None:
    watcher = watch(watching, "whoami", "-o", "json")
    assert [watcher.line() for _ in range(4)][1] == '  "name": "alice",'
    watcher = watch(watching, "overrides", "-o", "json", "-w", "--interval", "1s")
    assert watcher.line() == "{"
    guard.routes["GET /v1/overrides"] = {"overrides": []}
    lines = iter(watcher.line, '  "overrides": []')
    assert "{" in list(lines)
