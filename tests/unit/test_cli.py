"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import apiguard
from tests.commands import invoke as run

POLICY = """\
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
  - name: banned
    match: {userAgents: ["bad-agent/*"]}
    limits: [{requestsPerSecond: 0}]
  - name: heartbeats
    match: {groups: ["system:nodes"], resources: ["leases.coordination.k8s.io"]}
    exempt: true
default:
  limits: [{requestsPerSecond: 20, burst: 40, per: [user]}]
"""
CONFIG = """\
apiVersion: apiguard.io/v1alpha1
kind: GuardConfig
listen: {address: "127.0.0.1:0"}
upstream: {servers: ["https://127.0.0.1:1"]}
admin: {address: "127.0.0.1:0", tokenFile: token}
stateDir: state
policyFile: policy.yaml
"""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "guard.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_sums_up_sound_files(folder: Path) -> None:
    result = run("check", "guard.yaml", "policy.yaml")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "guard.yaml: ok: GuardConfig, 1 upstream, 1 workers",
        "policy.yaml: ok: ThrottlePolicy, 2 rules",
    ]


def test_check_names_file_line_field_and_reason(folder: Path) -> None:
    (folder / "policy.yaml").write_text(POLICY.replace("exempt: true", "exempted: true"))
    result = run("check", "policy.yaml")
    assert result.exit_code == 1
    assert re.search(r"^policy\.yaml:9: rules\[1\]\.exempted: ", result.stderr, re.M)


def test_check_goes_on_after_a_bad_file(folder: Path) -> None:
    result = run("check", "missing.yaml", "policy.yaml")
    assert result.exit_code == 1
    assert "missing.yaml: No such file" in result.stderr
    assert "policy.yaml: ok" in result.stdout


def test_check_reads_standard_input(folder: Path) -> None:
    result = run("check", "-", stdin=POLICY)
    assert (result.exit_code, result.stdout) == (0, "-: ok: ThrottlePolicy, 2 rules\n")


def test_check_refuses_a_file_of_another_kind(folder: Path) -> None:
    result = run("check", "-", stdin="apiVersion: v1\nkind: Pod\n")
    assert result.exit_code == 1
    assert result.stderr == "<stdin>:2: kind: must be GuardConfig or ThrottlePolicy\n"


def test_check_warns_of_a_rule_that_can_never_match(folder: Path) -> None:
    shadowed = '  - name: later\n    match: {userAgents: ["bad-agent/1"]}\n    exempt: true\n'
    (folder / "policy.yaml").write_text(POLICY.replace("default:", shadowed + "default:"))
    result = run("check", "policy.yaml")
    assert result.exit_code == 0
    assert "warning" in result.stderr
    assert "later" in result.stderr


def test_the_shipped_examples_are_sound_and_free_of_warnings() -> None:
    config = Path(apiguard.__file__).parent.parent / "config"
    result = run("check", str(config / "guard.yaml"), str(config / "policy.yaml"))
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_shipped_configuration_is_sound_with_all_its_examples_too(tmp_path: Path) -> None:
    shipped = Path(apiguard.__file__).parent.parent / "config" / "guard.yaml"
    text = re.sub(r"(?m)^( *)# (?= *(- )?\{?\w+:( |$))", r"\1", shipped.read_text())
    examples = ("frontProxy", "jwt", "tokenReview", "tokens", "tls", "certificates", "socket")
    assert [name for name in examples if f"\n  {name}:\n" not in text] == []
    (tmp_path / "guard.yaml").write_text(text)
    result = run("check", str(tmp_path / "guard.yaml"))
    assert (result.exit_code, result.stderr) == (0, "")


def test_explain_names_rule_bucket_and_decision(folder: Path) -> None:
    result = run("explain", "GET", "/api/v1/pods?limit=5", "--policy", "policy.yaml")
    assert result.exit_code == 0
    assert "verb=list, resource=pods" in result.stdout
    assert "anonymous system:anonymous" in result.stdout
    assert "default/user [system:anonymous]: 40 of 40, 20/s" in result.stdout
    assert result.stdout.endswith("decision  forwarded\n")


def test_explain_finds_the_policy_of_a_configuration(folder: Path) -> None:
    result = run(
        "explain", "PUT", LEASE, "--config", "guard.yaml", "--user", "system:node:n1",
        "--group", "system:nodes", "-o", "json",
    )  # fmt: skip
    answer = json.loads(result.stdout)
    assert (answer["rule"], answer["exempt"], answer["decision"]) == (
        "heartbeats",
        True,
        "forwarded",
    )
    assert answer["caller"]["groups"] == ["system:nodes", "system:authenticated"]


def test_explain_never_exempts_a_caller_nobody_verified(folder: Path) -> None:
    result = run("explain", "PUT", LEASE, "--policy", "policy.yaml", "--token-unverified", "-ojson")
    assert json.loads(result.stdout)["rule"] == "default"


def test_explain_says_what_is_refused_and_why(folder: Path) -> None:
    result = run("explain", "GET", "/api", "--policy", "policy.yaml", "--user-agent", "bad-agent/2")
    assert "decision  refused over banned/all" in result.stdout


def test_explain_says_what_the_guard_would_not_forward_at_all(folder: Path) -> None:
    result = run("explain", "GET", "/api/v1/namespaces/a%2fb/pods", "--policy", "policy.yaml")
    assert result.exit_code == 0
    assert "decision  rejected: 400 BadRequest" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "GET", "/api"),
        ("explain", "GET", "/api", "--policy", "policy.yaml", "--config", "guard.yaml"),
        ("explain", "GET", "/api", "--policy", "policy.yaml", "--group", "a"),
        ("explain", "GET", "/api", "--policy", "policy.yaml", "--user", "a", "--anonymous"),
        ("explain", "GET", "/api", "--policy", "policy.yaml", "--source", "nowhere"),
        ("serve",),
        ("nonsense",),
    ],
)
def test_a_wrong_command_line_exits_with_2(folder: Path, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error:" in result.stderr


def test_serve_refuses_a_bad_configuration_in_one_line(folder: Path) -> None:
    (folder / "guard.yaml").write_text(CONFIG + "typo: 1\n")
    result = run("serve", "--config", "guard.yaml")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "guard.yaml:8: typo" in result.stderr


@pytest.mark.parametrize("command", [(), ("serve",), ("check",), ("explain",), ("demo",)])
def test_help_is_there_for_every_command(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage:")


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout.strip().endswith(apiguard.__version__)
    assert run("version").stdout == run("--version").stdout


RELAYED = """\
upstream: {servers: ["https://127.0.0.1:1"], credentials: {tokenFile: t}}
relay: {resources: [{version: v1, resource: pods}]}
"""


def test_check_and_explain_say_what_the_relay_would_do(folder: Path) -> None:
    servers = 'upstream: {servers: ["https://127.0.0.1:1"]}\n'
    (folder / "guard.yaml").write_text(CONFIG.replace(servers, RELAYED))
    said = "- {name: past, match: {users: [eve]}, exempt: true, relay: bypass}\n"
    said += "  - {name: quick, match: {users: [bob]}, exempt: true, relaxedReads: true}\n  "
    (folder / "policy.yaml").write_text(POLICY.replace("- name:", said + "- name:", 1))
    checked = run("check", "guard.yaml", "policy.yaml").stdout
    assert "1 workers, 1 relayed resources" in checked
    assert "4 rules, 1 past the relay, 1 with relaxed reads" in checked

    def relay(target: str, *caller: str) -> str:
        result = run("explain", "GET", target, "--config", "guard.yaml", "-ojson", *caller)
        return str(json.loads(result.stdout)["relay"])

    assert relay("/api/v1/pods", "--user", "eve") == "bypass"
    assert relay("/api/v1/pods", "--user", "bob") == "relaxed"
    assert relay("/api/v1/pods?watch=1", "--user", "carol") == "consistent"
    assert relay("/api/v1/namespaces/a/pods/b", "--user", "carol") == "none"
    assert relay("/api/v1/secrets", "--user", "carol") == "none"
    text = run("explain", "GET", "/api/v1/pods", "--config", "guard.yaml", "--user", "eve").stdout
    assert "relay     bypassed" in text
