"""What a newcomer is told works: README, the demo's own words, ``--help`` and ``config/``."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from apiguard.admin.routes import ROUTES
from tests.e2e.newcomer import BIN, ROOT, SECONDS, Demo

pytestmark = pytest.mark.e2e

README = (ROOT / "README.md").read_text()


def blocks(section: str) -> list[str]:
    """Shell blocks under a heading of the README."""
    text = README.partition(f"## {section}\n")[2].partition("\n## ")[0]
    assert text, f"README has no section {section}"
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def loop_of(script: str) -> str:
    """The loop that sends six requests and prints their codes."""
    match = re.search(r"^for .*?^done; echo$", script, re.DOTALL | re.MULTILINE)
    assert match is not None, script
    return match[0]


def test_the_readme_throttles_as_it_says(demo: Demo) -> None:
    throttle, flows = blocks("First throttle")
    out = demo.bash(throttle)
    assert "shop" in out
    assert "200 200 200 200 200 200 \n" in out
    promised = re.search(r"now answers `([\d ]+)`", README)
    assert promised is not None
    assert demo.bash(loop_of(throttle)).strip() == promised[1]
    assert "noisy-agent" in demo.bash(flows)


def test_what_the_demo_says_to_try_works(demo: Demo) -> None:
    """All of it in one shell, in its order; the endless watch for itself."""
    assert demo.folder.joinpath(".demo/admin.token").read_text().strip() in demo.said
    commands = re.findall(r"^  ((?:export|kubectl|curl|for) .*?(?<!\\))$", demo.said, re.M | re.S)
    assert len(commands) == 11
    endless = [command for command in commands if command.endswith(" -w")]
    out = demo.bash("\n".join(command for command in commands if command not in endless))
    for expected in ("configmap/hello created", "demo-viewer", "200 200 200 200 200 200",
                     '"generation":', "[+]upstream ok"):  # fmt: skip
        assert expected in out
    again = next(command for command in commands if command.startswith("for "))
    assert demo.bash(again).split().count("429") >= 3
    for command in endless:
        watch_changes(demo, command)


def watch_changes(demo: Demo, command: str) -> None:
    """Prints what is there and then, since pods keep changing, more."""
    export = re.search(r"^  export .*$", demo.said, re.MULTILINE)
    assert export is not None
    once = demo.bash(f"{export[0]}\n{command.removesuffix(' -w')}")
    with subprocess.Popen(
        ["bash", "-c", f"{export[0]}\nexec {command}"],
        cwd=demo.folder,
        env=demo.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for _ in range(once.count("\n") + 1):
                assert process.stdout.readline()
        finally:
            process.kill()


def test_the_readme_names_targets_that_exist() -> None:
    """``make -n`` finds a recipe for each, without running it."""
    targets = set(
        re.findall(r"\bmake ([a-z]+)(?=[ `\n])", "\n".join(blocks("Two commands")) + README)
    )
    assert {"demo", "test", "lint", "unit"} <= targets
    for target in sorted(targets):
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_readme_shows_the_operators_minute(demo: Demo) -> None:
    (minute,) = blocks("The operator's minute")
    out = demo.bash(minute)
    assert re.search(r"^override/\S+ banned userAgents=noisy-agent/\*", out, re.MULTILINE)
    assert "override.add" in out


def test_the_readme_relays_as_it_says(demo: Demo) -> None:
    """Twenty lists: hardly any goes on, and upstream is asked for one list and one watch."""
    (script,) = blocks("First relay")
    out = demo.bash(script)
    assert out.count("200 ") == 20
    assert re.search(r"^pods\b", out, re.MULTILINE)
    counted = dict.fromkeys(("lists", "upstream_requests"), 0.0)
    for name, value in re.findall(r"^apiguard_relay_(\w+)_total\S* (\S+)$", out, re.MULTILINE):
        counted[name] += float(value)
    assert counted["lists"] >= 10  # as far as reported: workers tell five times a second
    assert 2 <= counted["upstream_requests"] <= 4


def test_the_admin_page_names_every_route_of_the_admin_port() -> None:
    admin = (ROOT / "docs" / "admin.md").read_text()
    for route in ROUTES:
        last = route.path.rpartition("/")[2]
        assert route.path in admin or f"…/{last}" in admin, route
        assert route.method in admin


def apiguard(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "apiguard"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_the_examples_in_config_are_sound() -> None:
    done = apiguard("check", "config/guard.yaml", "config/policy.yaml")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [(), ("check",), ("explain",)])
def test_the_examples_of_help_work(command: tuple[str, ...]) -> None:
    """Those that need neither a cluster nor standard input."""
    text = apiguard(*command, "--help").stdout.replace("\\\n", " ")
    examples = re.findall(
        r"^(?!Usage)[^|\n]*?\bapiguard ((?:check|explain) .+)$", text, re.MULTILINE
    )
    assert examples
    for example in examples:
        done = apiguard(*shlex.split(example))
        assert done.returncode == 0, (example, done.stderr)


LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"
NODE = ("--user", "system:node:n1", "--group", "system:nodes")
AGENT = ("--user", "system:serviceaccount:monitoring:agent", "--group", "system:serviceaccounts")


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        ("node-heartbeats", ("PUT", LEASE, *NODE)),
        ("nodes", ("GET", "/api/v1/nodes/n1", *NODE)),
        ("unpaged-lists", ("GET", "/api/v1/pods", *AGENT)),
        ("workloads", ("GET", "/api/v1/pods?limit=500", *AGENT)),
        ("workload-watches", ("GET", "/api/v1/pods?watch=1", *AGENT)),
        ("events", ("POST", "/api/v1/namespaces/default/events", *AGENT)),
        ("probes", ("GET", "/livez?verbose")),
        ("anonymous", ("GET", "/apis")),
        ("default", ("GET", "/apis", "--token-unverified")),
        ("default", ("DELETE", "/api/v1/namespaces/default/pods/a", "--user", "alice")),
    ],
)  # fmt: skip
def test_the_example_policy_classifies_as_its_comments_say(
    rule: str, arguments: tuple[str, ...]
) -> None:
    done = apiguard("explain", *arguments, "--policy", "config/policy.yaml")
    assert done.returncode == 0, done.stderr
    found = re.search(r"^rule +(\S+)", done.stdout, re.MULTILINE)
    assert found is not None
    assert found[1] == rule
