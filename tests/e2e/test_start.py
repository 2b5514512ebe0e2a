"""What keeps a guard from starting is one clear line and exit code 1; the rest does not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.guard import Guard, ask, until

pytestmark = pytest.mark.e2e


def _fails_with(guard: Guard, *words: str) -> None:
    guard.launch()
    assert guard.exit_code() == 1
    said = "".join(line for line in guard.stderr if '"level": "warning"' not in line)
    assert said.count("\n") == 1, said
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_a_configuration_with_an_unknown_key_names_file_and_field(guard: Guard) -> None:
    guard.settings["lissten"] = {}
    _fails_with(guard, "guard.yaml:1", "lissten")


def test_an_invalid_policy_names_file_line_and_field(guard: Guard) -> None:
    guard.write_policy(
        "apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\nrules: []\n"
        "default:\n  limits: [{requestsPerSecond: many}]\n"
    )
    _fails_with(guard, "policy.yaml:5", "requestsPerSecond")


def test_a_missing_policy_is_named(guard: Guard) -> None:
    (guard.directory / "policy.yaml").unlink()
    _fails_with(guard, "policy.yaml", "No such file")


@pytest.mark.parametrize(("section", "field"), [("listen", "listen"), ("admin", "admin")])
def test_an_occupied_port_is_named(guard: Guard, section: str, field: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        guard.settings[section]["address"] = address
        _fails_with(guard, f"{field}.address", address, "already in use")


def test_an_occupied_port_is_noticed_with_several_workers_too(guard: Guard) -> None:
    guard.settings["workers"] = 2
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        guard.settings["listen"]["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
        _fails_with(guard, "already in use")


def test_a_missing_certificate_is_named(guard: Guard) -> None:
    guard.settings["listen"]["tls"] = {"certFile": "no.crt", "keyFile": "no.key"}
    _fails_with(guard, "certFile", "no.crt", "No such file")


def test_a_file_that_is_no_certificate_is_named(guard: Guard) -> None:
    (guard.directory / "no.crt").write_text("hello")
    guard.settings["listen"]["tls"] = {"certFile": "no.crt", "keyFile": "no.crt"}
    _fails_with(guard, "no.crt", "PEM")


def test_a_missing_admin_token_is_named(guard: Guard) -> None:
    (guard.directory / "token").unlink()
    _fails_with(guard, "admin.tokenFile", "No such file")


def test_an_empty_admin_token_is_no_token(guard: Guard) -> None:
    (guard.directory / "token").write_text("\n")
    _fails_with(guard, "holds no token")


def test_static_tokens_that_cannot_be_read_as_such_are_named(guard: Guard) -> None:
    (guard.directory / "tokens.csv").write_text("only-a-token\n")
    guard.settings["identity"] = {"staticTokensFile": "tokens.csv"}
    _fails_with(guard, "tokens.csv:1")


def test_a_state_directory_that_is_none_is_named(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    _fails_with(guard, "stateDir")


def test_two_guards_do_not_share_a_state_directory(guard: Guard, tmp_path: Path) -> None:
    guard.start()
    second = Guard(tmp_path, guard.upstream_url)
    try:
        _fails_with(second, "in use by another apiguard")
    finally:
        second.close()


def test_an_unreachable_upstream_does_not_keep_the_guard_from_starting(guard: Guard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    guard.settings["upstream"]["servers"] = [f"http://127.0.0.1:{port}"]
    guard.start()
    assert ask(guard.admin_address, "GET", "/livez").code == 200
    ready = ask(guard.admin_address, "GET", "/readyz?verbose")
    assert ready.code == 503
    assert "[+]workers ok\n[-]upstream failed" in ready.text
    answer = guard.get()
    assert (answer.code, answer.json["reason"]) == (503, "ServiceUnavailable")
    assert int(answer.headers["retry-after"]) >= 1


def test_an_upstream_that_comes_later_makes_the_guard_ready(guard: Guard) -> None:
    guard.start()
    until("ready", lambda: ask(guard.admin_address, "GET", "/readyz").code == 200)
    assert ask(guard.admin_address, "GET", "/readyz").text == "ok"
    assert guard.get().json == {"kind": "PodList"}


def test_start_up_prints_settings_and_no_secret(guard: Guard) -> None:
    (guard.directory / "tokens.csv").write_text("very-secret,alice,1\n")
    guard.settings["identity"] = {"staticTokensFile": "tokens.csv"}
    guard.start()
    line = guard.wait_for("starting")
    assert line["policyWhy"] == "first start"
    assert line["enforcement"] == "enforce"
    assert not any("very-secret" in text or "admin-token" in text for text in guard.stderr)
