"""Whatever is wrong: one line that says what to do, and no exit code 0."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.commands import invoke
from tests.conftest import Certificates
from tests.net.ctl.conftest import Run
from tests.net.ctl.fake import HOSTILE, FakeGuard, Said, status

BAN = ("ban", "--user", "x", "--reason", "INC-7")

WRONG_LINES = {
    "statsu": "did you mean 'status'?",
    "policy aply": "did you mean 'apply'?",
    "overrides lst": "did you mean 'list'?",
    "overrides -o name --watch": "--watch prints tables",
    "get overrides": "write apiguard overrides",
    "describe upstream 0": "write apiguard upstreams",
    "get pods": "there is no command 'get'",
    "status -o jsn": "'json'",
    "status --wach": "--watch",
    "top --by userAgents": "did you mean 'userAgent'?",
    "top --by user,user": "two with a comma",
    "top --over 5m": "'10m'",
    "ban --user x --reason r --for 30": "did you mean 30m or 30s?",
    "ban --user x --reason r --for soon": "write 30m, 1h30m, 45s or 2d",
    "ban --user x": "--reason is required",
    "ban --reason r": "at least one of --user-agent",
    "exempt --verb list --reason r": "--user, --group or --service-account",
    "limit --user x --reason r": "--rps",
    "limit --user x --reason r --rps -1": "--rps",
    "scale --factor 50% --reason r": "name one RULE, or --all",
    "scale a --all --factor 50% --reason r": "name one RULE, or --all",
    "scale a --factor half --reason r": "write 0.5 or 50%",
    "overrides delete": "name an ID",
    "overrides delete a --all": "name an ID",
    "overrides extend a": "--for",
    "enforcement set observed --reason r": "'shadow'",
    "enforcement set off": "--reason",
    "policy apply": "--filename",
    "policy apply a -f b": "--filename",
    "policy diff": "--filename",
    "explain GET pods --context demo": "a path such as /api/v1/pods",
    "policy rollback": "--reason",
    "config set-context a --server here": "write https://HOST:PORT",
    "config set-context a --server unix:/a --server unix:/b --name x": "as many --name",
    "explain GET /": "--policy, --config, --context and --server",
}


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(run: Run, line: str) -> None:
    done = run(*line.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert WRONG_LINES[line] in done.stderr


def fails(done: Any, *words: str) -> None:
    """Exit code 1 and one line on stderr with all ``words``."""
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.rstrip("\n").isprintable()
    for word in words:
        assert word in done.stderr


def test_a_wrong_token_names_its_file(run: Run, token_file: Path) -> None:
    token_file.write_text("another\n")
    fails(run("status"), "does not accept the token of", str(token_file), "--token-file")


def test_a_missing_token_file_is_named(run: Run, token_file: Path) -> None:
    token_file.unlink()
    fails(run("status"), "cannot read the token file", str(token_file), "No such file")


@pytest.mark.parametrize("content", ["", "two words", "a\x1b[2J"])
def test_a_file_that_holds_no_token_is_named(run: Run, token_file: Path, content: str) -> None:
    token_file.write_text(content)
    fails(run("status"), "holds no token", str(token_file))


def test_no_token_at_all_says_how_to_name_one(guard: FakeGuard) -> None:
    fails(invoke("status", "--server", guard.url), "wants a token", "--token-file")


def test_no_context_says_how_to_write_one() -> None:
    fails(invoke("status"), "no guard is named", "apiguard config set-context")


def test_a_wrong_context_names_the_nearest(run: Run) -> None:
    fails(run("status", "--context", "oen"), "no context 'oen'", "did you mean 'one'?")
    fails(run("--context", "oen", "status"), "no context 'oen'")


def test_server_and_context_exclude_each_other(run: Run) -> None:
    fails(run("status", "--context", "one", "--server", "unix:/x"), "exclude each other")


def test_an_unreachable_guard_names_its_address_and_the_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    fails(invoke("status", "--server", url), f"cannot reach {url}", "refused", "--server unix:")


def test_a_guard_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = invoke("status", "--server", url, "--request-timeout", "1s")
        fails(done, f"cannot reach {url}", "no answer within 1 s")


def test_a_socket_that_is_not_there_asks_whether_the_guard_runs(tmp_path: Path) -> None:
    fails(invoke("status", "--server", f"unix:{tmp_path}/none"), "no such socket", "guard running")


def test_a_socket_that_may_not_be_opened_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(invoke("status", "--server", f"unix:{tmp_path}/file"), "cannot reach unix:", "refused")


def test_a_certificate_nobody_vouches_for_asks_for_its_authority(
    certificates: Certificates, token_file: Path
) -> None:
    guard = FakeGuard(tls=certificates.server)
    try:
        by_flags = ("status", "--server", guard.url, "--token-file", str(token_file))
        fails(invoke(*by_flags), "certificate is not trusted", "--ca-file")
        assert invoke(*by_flags, "--ca-file", str(certificates.authority)).exit_code == 0
        missing = invoke(*by_flags, "--ca-file", "/nowhere/ca.crt")
        fails(missing, "/nowhere/ca.crt", "No such file")
        fails(invoke(*by_flags, "--cert", "/nowhere/me.crt"), "/nowhere/me.crt", "No such file")
    finally:
        guard.close()


def test_plain_http_to_a_tls_port_wonders_about_tls(certificates: Certificates) -> None:
    guard = FakeGuard(tls=certificates.server)
    try:
        plain = guard.url.replace("https", "http")
        fails(invoke("status", "--server", plain), f"cannot reach {plain}", "try https://")
    finally:
        guard.close()


def test_tls_to_a_plain_port_wonders_about_http(guard: FakeGuard) -> None:
    done = invoke("status", "--server", guard.url.replace("http", "https"))
    fails(done, "no TLS; try http://")


def test_a_certificate_that_cannot_be_used_says_what_it_lacks(certificates: Certificates) -> None:
    guard = FakeGuard(tls=certificates.server)
    certificate, key = (str(path) for path in certificates.client)
    by_flags = ("status", "--server", guard.url, "--ca-file", str(certificates.authority))
    try:
        fails(invoke(*by_flags, "--cert", certificate), "holds no key", "--key")
        other = str(certificates.server[1])
        fails(invoke(*by_flags, "--cert", certificate, "--key", other), f"go with {other}")
        refused = invoke(*by_flags, "--cert", certificate, "--key", key)
        fails(refused, f"does not accept the certificate {certificate}")
    finally:
        guard.close()


def test_a_stale_generation_says_get_then_apply(run: Run, guard: FakeGuard, tmp_path: Path) -> None:
    guard.routes["PUT /v1/policy"] = status(409, "generation 11 is not active any more, 12 is")
    file = tmp_path / "policy.yaml"
    file.write_text("rules: []\n")
    done = run("policy", "apply", "-f", str(file), "--generation", "11")
    fails(done, "generation 11 is not active any more, 12 is", "apiguard policy get, merge")


def test_an_invalid_policy_names_file_field_and_line(
    run: Run, guard: FakeGuard, tmp_path: Path
) -> None:
    causes = [("rules[0].mach", "line 4: unknown field"), ("default", "is required")]
    guard.routes["PUT /v1/policy"] = status(422, "invalid", causes)
    file = tmp_path / "policy.yaml"
    file.write_text("rules: []\n")
    done = run("policy", "apply", "-f", str(file))
    fails(done, f"{file}: rules[0].mach: line 4: unknown field; default: is required")


@pytest.mark.parametrize("path", ["/nowhere/policy.yaml", "/"])
def test_a_policy_file_that_cannot_be_read_is_named(run: Run, path: str) -> None:
    fails(run("policy", "apply", "-f", path), path)
    fails(run("policy", "diff", path), path)


@pytest.mark.parametrize("command", [("get",), ("extend", "--for", "1h"), ("delete",)])
def test_an_unknown_override_names_the_nearest(
    run: Run, guard: FakeGuard, command: tuple[str, ...]
) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        guard.routes[f"{method} /v1/overrides/7f3b"] = status(404, "no such override")
    fails(run("overrides", *command, "7f3b"), "no override '7f3b'", "did you mean '7f3a'?")


def test_an_unknown_rule_names_the_nearest(run: Run, guard: FakeGuard) -> None:
    fails(run("flows", "telemetry"), "no rule 'telemetry'", "did you mean 'telemetry-lists'?")
    guard.routes["POST /v1/overrides"] = status(422, "invalid", [("rule", "there is none")])
    done = run("scale", "heartbeat", "--factor", "2", "--reason", "INC-7")
    fails(done, "no rule 'heartbeat'", "did you mean 'heartbeats'?")


def test_a_rule_that_may_not_be_scaled_keeps_the_guards_words(run: Run, guard: FakeGuard) -> None:
    guard.routes["POST /v1/overrides"] = status(422, "invalid", [("rule", "is exempt")])
    fails(run("scale", "heartbeats", "--factor", "2", "--reason", "INC-7"), "rule: is exempt")


def test_an_unknown_upstream_lists_those_there_are(run: Run, guard: FakeGuard) -> None:
    guard.routes["POST /v1/upstreams/10.0.0.1:643/drain"] = status(404, "no such upstream server")
    done = run("upstreams", "drain", "10.0.0.1:643")
    fails(done, "did you mean '10.0.0.1:6443'?", "there are 10.0.0.1:6443")


REFUSALS = {
    403: (status(403, "this needs the role operator"), ("the role operator", "apiguard whoami")),
    404: (Said(404, "404: Not Found"), ("knows no /v1/overrides", "older guard")),
    421: (status(421, "this Host is not known here"), ("admin.hosts",)),
    429: (status(429, "200 overrides are in force already"), ("200 overrides",)),
    507: (status(507, "stateDir does not take it: No space left"), ("No space left",)),
    502: (Said(502, "<html>Bad Gateway</html>"), ("HTTP 502", "admin port")),
    500: (Said(500, {"kind": "Status", "message": f"a {HOSTILE}\nb"}), ("\\x1b]0;owned",)),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_every_refusal_is_one_line(run: Run, guard: FakeGuard, code: int) -> None:
    guard.routes["POST /v1/overrides"], words = REFUSALS[code]
    fails(run(*BAN), *words)


def test_something_else_than_json_is_no_guard(run: Run, guard: FakeGuard) -> None:
    guard.routes["GET /v1/status"] = Said(200, "<html>hello</html>")
    fails(run("status"), "not JSON", "admin port")


def test_a_broken_file_of_contexts_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("contexts: [")
    fails(run("status"), f"{tmp_path}/config.yaml:1")
