"""What every command prints, to the letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from apiguard.admin.views import MEMORY_LEVELS
from apiguard.ctl.views import GIVEN_UP
from tests.net.ctl.conftest import Run
from tests.net.ctl.fake import (
    HISTORY,
    POLICY,
    STANDING_OUT,
    STATUS,
    FakeGuard,
    Said,
    override,
    row,
    status,
)

TABLES = {
    "top": "top",
    "top --by user,userAgent --sort bytes": "top-by-user-userAgent-sort-bytes",
    "status": "status",
    "flows": "flows",
    "flows telemetry-lists": "flows-telemetry-lists",
    "upstreams": "upstreams",
    "overrides": "overrides",
    "enforcement": "enforcement",
    "audit": "audit",
    "audit --kind requests": "audit-kind-requests",
    "whoami": "whoami",
    "relay": "relay",
    "relay pods": "relay-pods",
    "overrides get 7f3a": "overrides-get-7f3a",
}
"""Commands and the file in ``tables`` that holds what they print."""

LINES = {
    "ban --user-agent telemetry/* --for 30m --reason INC-7": (
        "override/7f3a banned userAgents=telemetry/*, expires in 30m (10:30:00)"
    ),
    "limit --verb list --unpaged --rps 5 --burst 10 --per user --for 1h30m --reason INC-7": (
        "override/7f3a limited verbs=list listShape.unpaged to 5/s burst 10 per user,"
        " expires in 1h30m (10:30:00)"
    ),
    "scale telemetry-lists --factor 50% --reason INC-7": (
        "override/7f3a scaled telemetry-lists x0.5, expires in 30m (10:30:00)"
    ),
    "scale --all --factor 0.25 --reason INC-7": (
        "override/7f3a scaled (all rules) x0.25, expires in 30m (10:30:00)"
    ),
    "exempt --service-account kube-system/rescue --reason INC-7": (
        "override/7f3a exempted serviceAccounts=kube-system/rescue, expires in 30m (10:30:00)"
    ),
    "overrides extend 7f3a --for 1h": "override/7f3a extended, ends at 10:30:00",
    "overrides delete override/7f3a": "override/7f3a deleted",
    "overrides delete --with-reason INC-7": "override/7f3a deleted",
    "overrides delete --with-reason INC-8": "nothing deleted",
    "overrides delete --all": "override/7f3a deleted",
    "enforcement set shadow --reason INC-7": "enforcement is shadow",
    "enforcement reset --reason INC-7": "enforcement is enforce",
    "upstreams drain 0": "upstream/https://10.0.0.1:6443 drained",
    "upstreams undrain 0": "upstream/https://10.0.0.1:6443 undrained",
    "policy rollback --reason INC-7": "policy rolled back: generation 14, 3 rules",
}


def table(name: str) -> str:
    return (Path(__file__).parent / "tables" / f"{name}.txt").read_text()


@pytest.mark.parametrize("command", TABLES)
def test_a_table_has_kubectls_columns(run: Run, command: str) -> None:
    done = run(*command.split())
    assert (done.exit_code, done.stdout, done.stderr) == (0, table(TABLES[command]), "")


@pytest.mark.parametrize("command", LINES)
def test_a_change_is_one_line(run: Run, command: str) -> None:
    done = run(*command.split())
    assert (done.exit_code, done.stdout, done.stderr) == (0, LINES[command] + "\n", "")


def test_wide_adds_columns_and_keeps_the_others(run: Run) -> None:
    for command in ("top", "status", "flows", "upstreams", "overrides", "audit", "relay"):
        narrow = run(command).stdout.splitlines()[0].split()
        wide = run(command, "-o", "wide").stdout.splitlines()[0].split()
        assert wide[: len(narrow)] == narrow
        assert len(wide) > len(narrow)


def test_names_are_what_delete_takes(run: Run) -> None:
    named = run("overrides", "-o", "name").stdout
    assert named.splitlines()[0] == "override/7f3a"
    assert run("overrides", "delete", named.split()[0]).stdout == "override/7f3a deleted\n"


@pytest.mark.parametrize("typed", ["override", "flow", "upstream"])
def test_one_of_a_kind_is_the_same_command(run: Run, typed: str) -> None:
    assert run(typed).stdout == run(f"{typed}s").stdout


def test_json_and_yaml_are_what_the_guard_said(run: Run) -> None:
    assert json.loads(run("status", "-o", "json").stdout) == STATUS
    assert yaml.safe_load(run("policy", "history", "-o", "yaml").stdout) == HISTORY


def test_the_history_says_who_when_and_why(run: Run) -> None:
    lines = [line.split() for line in run("policy", "history").stdout.splitlines()]
    assert lines[0] == ["GENERATION", "ACTIVE", "AGE", "BY", "ORIGIN", "REASON"]
    assert [line[:2] + line[3:] for line in lines[1:]] == [
        ["12", "yes", "alice", "admin", "INC-7"],
        ["11", "no", "-", "file", "-"],
    ]


def test_status_says_below_its_line_what_is_wrong(run: Run, guard: FakeGuard) -> None:
    guard.routes["GET /v1/status"] = STATUS | {
        "ready": False,
        "checks": [{"name": "upstream", "passed": False, "reason": "none usable"}],
        "upstream": [{"server": "https://a:1", "state": "down", "usable": False, "detail": "\x1b"}],
        "brokenFiles": {"listen.tls.certFile": "is no PEM"},
        "certificates": [{"file": "a.crt", "expiresInSeconds": 7_200}],
    }
    assert run("status").stdout.splitlines()[2:] == [
        "! check upstream fails: none usable",
        "! upstream https://a:1 is down: \\x1b",
        "! listen.tls.certFile: is no PEM",
        "! certificate a.crt expires in 120m",
    ]


def test_status_says_what_is_given_up_for_want_of_memory(run: Run, guard: FakeGuard) -> None:
    """A policy that admits everything would not explain the 429s."""
    assert GIVEN_UP.keys() <= set(MEMORY_LEVELS), "levels the guard speaks of"
    full = {"worker": 0, "residentBytes": 870 << 20, "memoryLimitBytes": 1 << 30}
    empty = {"worker": 1, "residentBytes": 900 << 20, "memoryLimitBytes": 8 << 30}
    guard.routes["GET /v1/status"] = STATUS | {
        "workers": [full | {"memoryLevel": "tight"}, empty | {"memoryLevel": "ample"}]
    }
    head, row, problem = run("status", "-o", "wide").stdout.splitlines()
    memory = row[head.index("MEMORY") :].split()[0]
    assert memory == "870Mi/1.0Gi", "that of the worker nearest to its limit"
    assert problem == "! worker 0: memory is tight (870Mi/1.0Gi): new lists and watches are refused"


def test_a_resource_the_relay_does_not_hold_is_told_from_what_it_does(
    run: Run, guard: FakeGuard
) -> None:
    guard.routes["GET /v1/relay/pod"] = status(404, "no such thing")
    done = run("relay", "pod")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the relay holds no 'pod' (did you mean 'pods'?)" in done.stderr
    assert "it knows pods, deployments.apps, nodes" in done.stderr


def test_a_guard_without_a_relay_says_where_it_would_be_configured(
    run: Run, guard: FakeGuard
) -> None:
    guard.routes["GET /v1/relay"] = {"enabled": False, "caches": []}
    done = run("relay")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "relay.resources" in done.stderr
    guard.routes["GET /v1/relay/pods"] = status(404, "the relay is off: relay.resources names none")
    done = run("relay", "pods")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "relay.resources" in done.stderr


def test_a_resource_at_rest_has_its_line_and_no_empty_tables(run: Run, guard: FakeGuard) -> None:
    quiet = {**STANDING_OUT, "elephants": [], "hotKeys": []}
    guard.routes["GET /v1/relay/pods"] = {"resource": "pods", "caches": [quiet]}
    done = run("relay", "pods")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2)
    assert "Nothing changed in the last minute." in done.stderr


def test_a_long_name_hides_nobodys_figures(run: Run, guard: FakeGuard) -> None:
    guard.routes["GET /v1/top"] = {"rows": [row("x" * 500, "\x1b" * 500, 5)]}
    narrow = run("top", "--by", "userAgent,user").stdout.splitlines()[1].split()
    assert [len(name) for name in narrow[:2]] == [40, 40]
    assert run("top", "-o", "wide").stdout.splitlines()[1].split()[0] == "x" * 500


def test_nothing_to_show_is_said_on_stderr(run: Run, guard: FakeGuard) -> None:
    guard.routes["GET /v1/overrides"] = {"overrides": []}
    done = run("overrides")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No overrides.\n")


def test_an_answer_of_another_shape_is_shown_as_far_as_it_goes(run: Run, guard: FakeGuard) -> None:
    for path in ("top", "status", "flows", "upstreams", "overrides", "audit", "whoami", "relay"):
        odd: list[object] = [{}, [], {"rows": None, "rules": [1], "workers": "x", "overrides": {}}]
        for answer in odd:
            guard.routes[f"GET /v1/{path}"] = answer
            done = run(path)
            assert done.exit_code == 0, (path, answer, done.output)


# -- what is sent


def test_a_ban_sends_what_its_flags_say(run: Run, guard: FakeGuard) -> None:
    run(
        "ban", "--user-agent", "a/*", "--user-agent", "b/*", "--user", "x", "--group", "g",
        "--service-account", "ns/name", "--source", "10.0.0.0/8", "--verb", "list",
        "--resource", "pods", "--namespace", "", "--unpaged", "--rv-less", "--end-watches",
        "--for", "45s", "--reason", "INC-7",
    )  # fmt: skip
    assert guard.last("POST").body == {
        "action": "ban",
        "match": {
            "userAgents": ["a/*", "b/*"], "users": ["x"], "groups": ["g"],
            "serviceAccounts": ["ns/name"], "sourceCIDRs": ["10.0.0.0/8"], "verbs": ["list"],
            "resources": ["pods"], "namespaces": [""],
            "listShape": {"unpaged": True, "withoutResourceVersion": True},
        },
        "endWatches": True, "endWatchesSeconds": 10, "reason": "INC-7", "ttlSeconds": 45,
    }  # fmt: skip


def test_without_for_the_guard_chooses_how_long(run: Run, guard: FakeGuard) -> None:
    run("ban", "--user", "x", "--end-watches=30s", "--reason", "INC-7")
    assert "ttlSeconds" not in guard.last("POST").body
    assert guard.last("POST").body["endWatchesSeconds"] == 30


def test_top_asks_for_what_it_was_told(run: Run, guard: FakeGuard) -> None:
    run("top", "--by", "source,request", "--over", "10m", "--since", "5m", "--limit", "3")
    assert guard.last("GET").query == {
        "by": "source,request", "over": "10m", "sort": "requests", "limit": "3", "since": "5m",
    }  # fmt: skip


def test_a_request_is_shown_as_verb_and_resource(run: Run, guard: FakeGuard) -> None:
    listing = row("", "", 5) | {"key": {"verb": "list", "resource": "pods"}}
    guard.routes["GET /v1/top"] = {"rows": [listing]}
    assert run("top", "--by", "request").stdout.splitlines()[1].startswith("list pods   5 ")


# -- previews


def test_a_dry_run_says_who_would_be_hit_and_lays_nothing(run: Run, guard: FakeGuard) -> None:
    done = run("ban", "--user-agent", "telemetry/*", "--dry-run")
    assert (done.exit_code, done.stdout) == (0, table("preview"))
    assert guard.last("POST").query == {"dryRun": "All"}


def test_a_policys_dry_run_says_it_too(run: Run, guard: FakeGuard, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    done = run("policy", "apply", str(file), "--dry-run=server")
    assert (done.exit_code, done.stdout) == (0, table("preview"))
    assert guard.last("PUT").query == {"dryRun": "All"}


def test_a_preview_of_nothing_recorded_says_so(run: Run, guard: FakeGuard) -> None:
    guard.routes["POST /v1/overrides"] = {"dryRun": True, "preview": {"sampledRequests": 0}}
    done = run("ban", "--user", "x", "--dry-run")
    assert done.stdout.startswith("No request is on record")


# -- policy


def test_a_policy_is_printed_as_it_was_written(run: Run) -> None:
    assert run("policy", "get").stdout == POLICY
    assert run("policy", "get", "--generation", "11").stdout == "# the one before\n"


def test_a_policy_is_sent_as_it_was_written(run: Run, guard: FakeGuard, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(b"# caf\xc3\xa9\r\nrules: []\n")
    done = run("policy", "apply", "-f", str(file), "--reason", "a b&c", "--generation", "12")
    assert (done.exit_code, done.stdout) == (0, "policy applied: generation 13, 4 rules\n")
    asked = guard.last("PUT")
    assert asked.body.encode() == file.read_bytes()
    assert asked.headers["content-type"] == "application/yaml"
    assert asked.query == {"reason": "a b&c", "generation": "12"}


def test_diff_exits_0_for_the_active_policy_and_1_for_another(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    same = run("policy", "diff", str(file))
    assert (same.exit_code, same.stdout) == (0, "")
    file.write_text(POLICY.replace("# end", "# other"))
    other = run("policy", "diff", "-f", str(file))
    assert other.exit_code == 1
    assert other.stdout.splitlines() == [
        "--- active",
        f"+++ {file}",
        "@@ -1,4 +1,4 @@",
        " apiVersion: apiguard.io/v1alpha1",
        " kind: ThrottlePolicy",
        " rules: []",
        "-# end",
        "+# other",
    ]


def test_standard_input_is_a_file_too(run: Run, guard: FakeGuard) -> None:
    assert run("policy", "diff", "-", stdin=POLICY).exit_code == 0
    assert run("policy", "apply", "-f", "-", stdin=POLICY).exit_code == 0
    assert guard.last("PUT").body == POLICY


def test_explain_asks_the_guard_that_runs(run: Run, guard: FakeGuard) -> None:
    done = run("explain", "GET", "/api/v1/pods", "--user-agent", "a/1", "--context", "one")
    assert done.exit_code == 0
    assert done.stdout.endswith("rule      default\ndecision  forwarded\n")
    assert guard.last("POST").body["userAgent"] == "a/1"


def test_an_override_that_a_worker_has_not_confirmed_says_so(run: Run, guard: FakeGuard) -> None:
    late = [{"worker": 0, "applied": True}, {"worker": 1, "applied": False, "problem": "slow"}]
    guard.routes["POST /v1/overrides"] = Said(201, override(workers=late))
    done = run("ban", "--user", "x", "--reason", "INC-7")
    assert done.stdout.endswith("; not yet confirmed by worker 1\n")
