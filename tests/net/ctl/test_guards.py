"""A context of several guards is acted on as a whole, and says who did not follow."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.commands import invoke
from tests.net.ctl.conftest import Run
from tests.net.ctl.fake import POLICY, FakeGuard, Said, override, status
from tests.net.ctl.terminal import PROGRAM

BAN = ("ban", "--user", "x", "--reason", "INC-7")


def test_a_change_is_a_line_for_every_guard(
    run_both: Run, guard: FakeGuard, second: FakeGuard
) -> None:
    second.routes["POST /v1/overrides"] = Said(201, override("9c2d"))
    done = run_both(*BAN)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "cp-1: override/7f3a banned users=x, expires in 30m (10:30:00)",
        "cp-2: override/9c2d banned userAgents=telemetry/* listShape.unpaged,"
        " expires in 30m (10:30:00)",
    ]
    assert guard.last("POST").body == second.last("POST").body


def test_one_guard_that_refuses_is_named_and_the_other_is_changed(
    run_both: Run, second: FakeGuard
) -> None:
    second.routes["POST /v1/overrides"] = status(507, "stateDir is full")
    done = run_both(*BAN)
    assert done.exit_code == 1
    assert done.stdout == "cp-1: override/7f3a banned users=x, expires in 30m (10:30:00)\n"
    assert done.stderr == "Error: cp-2: stateDir is full\n"


def test_one_guard_that_is_away_does_not_keep_the_others_from_being_shown(
    run_both: Run, guard: FakeGuard
) -> None:
    guard.close()
    done = run_both("status")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].startswith("GUARD   READY")
    assert done.stdout.splitlines()[1].startswith("cp-2    yes")
    assert done.stderr.startswith("Error: cp-1: cannot reach")
    assert done.stderr.count("\n") == 1


def test_json_says_whose_answer_is_whose(run_both: Run, second: FakeGuard) -> None:
    second.routes["GET /v1/whoami"] = status(403, "needs the role viewer")
    done = run_both("whoami", "-o", "json")
    first, other = json.loads(done.stdout)["guards"]
    assert (done.exit_code, first["guard"], other["guard"]) == (1, "cp-1", "cp-2")
    assert first["answer"] == {"name": "alice", "role": "operator"}
    assert "role viewer" in other["error"]


def test_an_override_is_found_on_whatever_guard_has_it(run_both: Run, second: FakeGuard) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        second.routes[f"{method} /v1/overrides/7f3a"] = status(404, "no such override")
    done = run_both("overrides", "delete", "7f3a")
    assert (done.exit_code, done.output) == (0, "cp-1: override/7f3a deleted\n")


def test_one_incident_is_undone_on_every_guard(run_both: Run, second: FakeGuard) -> None:
    second.routes["GET /v1/overrides"] = {
        "overrides": [override("9c2d"), override("eeee", reason="INC-8")]
    }
    second.routes["DELETE /v1/overrides/9c2d"] = {}
    done = run_both("overrides", "delete", "--with-reason", "INC-7")
    assert done.stdout.splitlines() == [
        "cp-1: override/7f3a deleted",
        "cp-2: override/9c2d deleted",
    ]


def test_policies_that_differ_are_told_apart(run_both: Run, second: FakeGuard) -> None:
    second.routes["GET /v1/policy"] = Said(200, "# another\n")
    done = run_both("policy", "get")
    assert done.stdout == f"---\n# guard: cp-1\n{POLICY}---\n# guard: cp-2\n# another\n"
    diff = run_both("policy", "diff", "-", stdin=POLICY)
    assert diff.exit_code == 1
    assert diff.stdout.startswith("--- cp-2: active\n")


# -- where guards are found


def test_a_unix_socket_is_a_guards_address(tmp_path: Path, token_file: Path) -> None:
    guard = FakeGuard(unix=tmp_path / "admin.sock")
    try:
        done = invoke("whoami", "--server", guard.url, "--token-file", str(token_file))
        assert (done.exit_code, done.stdout) == (0, "NAME    ROLE\nalice   operator\n")
        assert guard.last("GET").headers["host"] == "localhost"
    finally:
        guard.close()


def test_the_environment_names_a_guard(
    guard: FakeGuard, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APIGUARD_SERVER", guard.url)
    monkeypatch.setenv("APIGUARD_TOKEN_FILE", str(token_file))
    assert invoke("whoami").exit_code == 0


def test_flags_win_over_the_environment_and_stand_on_either_side(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APIGUARD_CONTEXT", "nowhere")
    assert run("whoami").exit_code == 1
    assert run("whoami", "--context", "one").exit_code == 0
    assert run("--context", "one", "whoami").exit_code == 0
    assert run("--context", "nowhere", "whoami", "--context", "one").exit_code == 0


def test_contexts_are_listed_chosen_and_deleted(run: Run, tmp_path: Path) -> None:
    assert run("config", "set-context", "two", "--server", "unix:/a", "--name", "n").exit_code == 0
    assert run("config", "current-context").stdout == "one\n"
    assert run("config", "use-context", "two").exit_code == 0
    listed = [line.split() for line in run("config", "get-contexts").stdout.splitlines()]
    assert listed[0] == ["CURRENT", "CONTEXT", "GUARD", "SERVER"]
    assert listed[2] == ["*", "two", "n", "unix:/a"]
    assert run("config", "delete-context", "two").exit_code == 0
    assert run("config", "current-context").exit_code == 1
    assert stat.S_IMODE((tmp_path / "config.yaml").stat().st_mode) == 0o600


# -- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_the_program(shell: str) -> None:
    done = invoke("completion", shell)
    assert done.exit_code == 0
    assert "_ARGCOMPLETE" in done.stdout
    assert "apiguard" in done.stdout


def completed(line: str, folder: Path) -> list[str]:
    """What a shell is offered where ``line`` ends."""
    found = folder / "completions"
    environment = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(found),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([str(PROGRAM)], env=os.environ | environment, check=True)
    return [word.strip() for word in found.read_text().split("\n")]


BASH = """
source <(apiguard completion bash)
COMP_LINE="apiguard upstreams dr" COMP_POINT=21
_python_argcomplete apiguard
echo "${COMPREPLY[@]}"
"""


def test_bash_completes_by_the_script() -> None:
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", BASH], env=os.environ | {"PATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("drain", "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("apiguard s", ["scale", "serve", "status"]),
        ("apiguard policy ro", ["rollback"]),
        ("apiguard top --ov", ["--over"]),
        ("apiguard top --over ", ["10m", "10s", "1m"]),
        ("apiguard top -o w", ["wide"]),
        ("apiguard status --context o", ["one"]),
        ("apiguard --context one sta", ["status"]),
        ("apiguard config use-context ", ["one"]),
        ("apiguard enforcement set sh", ["shadow"]),
        ("apiguard overrides delete --wi", ["--with-reason"]),
    ],
)
def test_what_may_follow_is_completed(
    run: Run, tmp_path: Path, line: str, offered: list[str]
) -> None:
    assert sorted(completed(line, tmp_path)) == offered


@pytest.mark.parametrize(
    "command",
    [
        ("overrides", "extend"),
        ("overrides", "list"),
        ("upstreams", "drain"),
        ("enforcement", "set"),
    ],
)
def test_help_needs_no_guard(command: tuple[str, ...]) -> None:
    done = invoke(*command, "--help")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage:")


def test_guards_may_be_named_at_any_place_of_the_line(guard: FakeGuard, token_file: Path) -> None:
    named = ("--server", guard.url, "--token-file", str(token_file))
    for line in (
        (*named, "overrides", "delete", "7f3a"),
        ("overrides", *named, "delete", "7f3a"),
        ("overrides", "delete", "7f3a", *named),
    ):
        done = invoke(*line)
        assert done.exit_code == 0, (line, done.output)
