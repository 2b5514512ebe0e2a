"""Scenarios in locust's web UI, as a browser uses it."""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.guard import Answer, ask, until

LOCUST = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py"]
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:9", certificate-authority: ca.crt}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
SCENARIO = """\
name: short
about: Two who are not answered.
seconds: 1
clients: [{name: agents, client: careless-telemetry, count: 2}]
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "ca.crt").write_bytes(Path("tests/data/identity-ca.pem").read_bytes())
    (tmp_path / "short.yaml").write_text(SCENARIO)
    files = ["--kubeconfig", str(tmp_path / "kubeconfig"), "--scenario"]
    return [*LOCUST, *files, str(tmp_path / "short.yaml")]


def test_a_scenario_is_played_as_often_as_start_is_pressed(
    arguments: list[str], tmp_path: Path
) -> None:
    """On loopback, by the scenario's clients, against the kubeconfig's server."""
    address = ("127.0.0.1", free_port())
    log = tmp_path / "log"
    with log.open("w") as errors:
        locust = subprocess.Popen([*arguments, "--web-port", str(address[1])], stderr=errors)
    try:
        until("it listens", lambda: _listens(address))

        def page(method: str, path: str, body: str | None = None) -> Answer:
            typed = {"Content-Type": "application/x-www-form-urlencoded"}
            return ask(address, method, path, typed if body else None, body)

        assert "https://127.0.0.1:9" in page("GET", "/").text
        for times in (1, 2):
            assert page("POST", "/swarm", "user_count=1&spawn_rate=1").json["success"]
            for told in ("(2 total users)", "Shape test stopping"):
                until(told, functools.partial(_told, log, told, times))
            until("stopped", lambda: page("GET", "/stats/requests").json["state"] == "stopped")
        found = page("GET", "/stats/requests").json
        assert {row["name"] for row in found["stats"]} == {"storm", "Aggregated"}
        assert {row["error"] for row in found["errors"]} == {"no answer: refused, reset or cut"}
    finally:
        locust.kill()
        locust.wait()


def _told(log: Path, line: str, times: int) -> bool:
    return log.read_text().count(line) == times


def free_port() -> int:
    """Of the kernel's choice; locust cannot say which it got when it asks for any itself."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def _listens(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError):
        return ask(address, "GET", "/").code == 200
    return False


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--scenario", "S99", "S99.yaml"), ("--kubeconfig", "nowhere", "start `make demo` first")],
)
def test_what_is_absent_is_told_in_one_line(
    arguments: list[str], option: str, value: str, told: str
) -> None:
    ended = subprocess.run([*arguments, option, value], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert told in ended.stderr
