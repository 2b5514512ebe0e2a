"""The operator's command line against a whole guard: named, banned, undone, on record."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.guard import Guard, policy, until
from tests.net.ctl.terminal import PROGRAM, Terminal

pytestmark = pytest.mark.e2e

AGENT = "storm/1.0"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``apiguard`` with a context that names the started guard."""
    guard.start()
    until("the guard reaches its upstream", lambda: guard.get().code == 200)
    monkeypatch.setenv("APIGUARD_CONFIG", str(tmp_path / "contexts.yaml"))
    for name in ("CONTEXT", "SERVER", "TOKEN_FILE"):
        monkeypatch.delenv(f"APIGUARD_{name}", raising=False)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PROGRAM), *arguments], capture_output=True, text=True, check=False, env=os.environ
        )

    host, port = guard.admin_address
    named = call(
        "config", "set-context", "here", "--server", f"http://{host}:{port}",
        "--token-file", str(guard.directory / "token"),
    )  # fmt: skip
    assert named.returncode == 0, named.stderr
    return call


def words(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """Lines of a table as words; fails unless the command succeeded and found some."""
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


def clients(run: Run) -> list[list[str]]:
    """Rows of ``top``; none for as long as the guard has counted nobody."""
    return [line.split() for line in run("top").stdout.splitlines()[1:]]


def test_whoever_storms_is_named_banned_and_let_in_again(guard: Guard, run: Run) -> None:
    for _ in range(50):
        guard.get("/api/v1/pods", AGENT)
    named = until("top names it", lambda: [w for w in clients(run) if w[0] == "storm"])
    assert named[0][7] == named[0][1], "every one of its requests is an unpaged LIST"
    preview = run("ban", "--user-agent", "storm/*", "--dry-run")
    assert "would be refused: " in preview.stdout
    assert guard.get("/api/v1/pods", AGENT).code == 200
    laid = run("ban", "--user-agent", "storm/*", "--for", "5m", "--reason", "INC-7")
    assert laid.stdout.startswith("override/"), laid.stderr
    until("the ban is in force", lambda: guard.get("/api/v1/pods", AGENT).code == 429, 1.0)
    assert guard.get("/api/v1/pods", "kubelet/1").code == 200
    row = words(run("overrides"))[1]
    assert row[1:3] == ["ban", "userAgents=storm/*"]
    assert run("overrides", "delete", row[0]).stdout == f"override/{row[0]} deleted\n"
    until("it is let in again", lambda: guard.get("/api/v1/pods", AGENT).code == 200, 1.0)
    actions = [line[2] for line in words(run("audit"))[1:]]
    assert actions[-2:] == ["override.add", "override.delete"]


def test_a_policy_is_compared_applied_and_rolled_back(
    guard: Guard, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(policy(ban="storm/*"))
    assert run("policy", "diff", str(file)).returncode == 1
    assert run("policy", "apply", "-f", str(file), "--dry-run").returncode == 0
    applied = run("policy", "apply", "-f", str(file), "--reason", "INC-7", "--generation", "1")
    assert applied.stdout == "policy applied: generation 2, 1 rules\n", applied.stderr
    assert run("policy", "diff", str(file)).returncode == 0
    assert run("policy", "get").stdout == file.read_text()
    stale = run("policy", "apply", "-f", str(file), "--generation", "1")
    assert (stale.returncode, stale.stderr.count("\n")) == (1, 1)
    assert "2 is; run apiguard policy get" in stale.stderr
    assert run("policy", "rollback", "--reason", "wrong").returncode == 0
    history = words(run("policy", "history"))
    assert [line[0] for line in history[1:]] == ["3", "2", "1"]
    assert run("policy", "get").stdout == policy()


def test_every_look_at_the_guard_has_rows_and_its_json(run: Run) -> None:
    until("somebody is counted", lambda: clients(run))
    for command in ("top", "status", "flows", "upstreams", "enforcement", "whoami", "audit"):
        assert len(words(run(command, "-o", "wide"))) > 1
        assert json.loads(run(command, "-o", "json").stdout)


def test_the_guards_own_words_reach_the_operator_in_one_line(run: Run) -> None:
    wrong = [
        ("scale", "defualt", "--factor", "50%", "--reason", "INC-7"),
        ("limit", "--user", "x", "--rps", "1", "--per", "usr", "--reason", "INC-7"),
        ("ban", "--verb", "lst", "--reason", "INC-7"),
        ("ban", "--source", "10.0.0.0/99", "--reason", "INC-7"),
        ("ban", "--user", "x", "--for", "400d", "--reason", "INC-7"),
        ("overrides", "delete", "nothing"),
        ("upstreams", "drain", "9"),
        ("policy", "rollback", "--to", "999", "--reason", "INC-7"),
    ]
    for command in wrong:
        done = run(*command)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
        assert done.stderr.startswith("Error: ")


def test_top_bans_from_a_terminal(guard: Guard, run: Run) -> None:
    for _ in range(50):
        guard.get("/api/v1/pods", AGENT)
    terminal = Terminal("top")
    try:
        terminal.wait_for("storm")
        terminal.press("gB")
        terminal.wait_for("ban userAgents=storm,storm/*,storm *")
        terminal.press("INC-7\r\r")
        terminal.wait_for("[y/N]")
        terminal.press("y")
        terminal.wait_for(" banned userAgents=storm,storm/*,storm *")
        until("the ban is in force", lambda: guard.get("/api/v1/pods", AGENT).code == 429, 1.0)
        terminal.press("q")
        assert terminal.end() == 0
    finally:
        terminal.close()
