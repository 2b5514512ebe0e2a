"""A whole guard as a process, its upstream as a thread, and the little HTTP tests need."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

TOKEN = "admin-token-of-the-tests"
PATIENCE = 15.0
"""Seconds within which anything on a busy machine must have happened."""

Headers = dict[str, str]


def until(what: str, condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The first truthy result of ``condition``; fails naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)  # between looks; what is waited for is the condition


class Answer:
    """Status code, headers (lower case) and body of one response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.code = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(
    address: tuple[str, int],
    method: str,
    target: str,
    headers: Headers | None = None,
    body: str | None = None,
    seconds: float = PATIENCE,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=seconds)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


class Upstream:
    """Answers everything with 200; ``/slow`` only once ``release`` is set."""

    def __init__(self) -> None:
        upstream = self
        self.release = threading.Event()
        self.slow_arrived = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path.startswith("/slow"):
                    upstream.slow_arrived.set()
                    upstream.release.wait(60)
                body = b'{"kind":"PodList"}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
                """Nothing: the guard's log is what a failing test shows."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return "http://127.0.0.1:%d" % self._server.server_address[1]  # noqa: UP031  an int

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Guard:
    """``apiguard serve`` in ``directory``; started by ``start``, ended by ``close``."""

    def __init__(self, directory: Path, upstream_url: str) -> None:
        self.directory = directory
        self.upstream_url = upstream_url
        self.settings: dict[str, Any] = {
            "apiVersion": "apiguard.io/v1alpha1",
            "kind": "GuardConfig",
            "listen": {"address": "127.0.0.1:0"},
            "upstream": {"servers": [upstream_url]},
            "admin": {"address": "127.0.0.1:0", "tokenFile": "token"},
            "stateDir": "state",
            "policyFile": "policy.yaml",
        }
        self.log: list[dict[str, Any]] = []
        self.stderr: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        (directory / "token").write_text(TOKEN + "\n")
        self.write_policy(policy())

    def write_policy(self, text: str) -> None:
        (self.directory / "policy.yaml").write_text(text)

    # -- life

    def launch(self) -> None:
        """Starts the process and reads its log from then on."""
        config = self.directory / "guard.yaml"
        config.write_text(json.dumps(self.settings))
        self.log.clear()
        self.stderr.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "apiguard.cli", "serve", "--config", str(config)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def start(self) -> None:
        """Launches, and waits until every worker serves."""
        self.launch()
        self.wait_for("worker serves", self.settings.get("workers", 1))

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._process is not None:
            self.exit_code()

    def exit_code(self) -> int:
        """Waits for the end of the process and of its log."""
        process = self.process
        code = process.wait(PATIENCE)
        assert self._reader is not None
        self._reader.join(PATIENCE)
        if process.stderr is not None:
            process.stderr.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.stderr.append(line)
            if line.startswith("{"):
                self.log.append(json.loads(line))

    # -- what it says

    def lines(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["msg"] == message]

    def wait_for(self, message: str, count: int = 1) -> dict[str, Any]:
        """The ``count``-th log line ``message``; fails at once when the guard has ended."""

        def found() -> bool:
            if len(self.lines(message)) >= count:
                return True
            assert self.process.poll() is None, "".join(self.stderr)
            return False

        until(message, found)
        return self.lines(message)[count - 1]

    @property
    def address(self) -> tuple[str, int]:
        return _split(self.wait_for("starting")["listen"])

    @property
    def admin_address(self) -> tuple[str, int]:
        return _split(self.wait_for("starting")["admin"])

    @property
    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.admin("GET", "/v1/status").json["workers"]]

    # -- requests

    def get(self, target: str = "/api/v1/pods", agent: str = "tests/1") -> Answer:
        return ask(self.address, "GET", target, {"User-Agent": agent})

    def admin(
        self, method: str, target: str, body: str | None = None, headers: Headers | None = None
    ) -> Answer:
        sent = {"Authorization": f"Bearer {TOKEN}"}
        if body is not None:
            sent["Content-Type"] = "application/yaml"
        return ask(self.admin_address, method, target, {**sent, **(headers or {})}, body)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def policy(*, ban: str = "", rate: float = 1_000, burst: float = 1_000) -> str:
    """One bucket for everybody; ``ban`` is a user-agent pattern that gets nothing."""
    rules = (
        f'  - name: banned\n    match: {{userAgents: ["{ban}"]}}\n'
        "    limits: [{requestsPerSecond: 0}]\n"
        if ban
        else "  []\n"
    )
    return (
        f"apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\nrules:\n{rules}"
        f"default:\n  limits: [{{requestsPerSecond: {rate}, burst: {burst}}}]\n"
    )


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before or while it is read
        return False


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)
