"""Every recipe of ``docs/cookbook.md`` is a sound policy and meets what it says it meets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from apiguard.policy.compile import compile_policy, warnings
from apiguard.policy.config import parse_config

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/cookbook.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
SECONDS = 60.0


def blocks() -> list[tuple[str, str]]:
    """Language and text, in order."""
    return re.findall(r"```(yaml|sh)\n(.*?)```", TEXT, re.DOTALL)


def policies() -> list[str]:
    return [text for kind, text in blocks() if kind == "yaml" and "kind: ThrottlePolicy" in text]


def examples() -> list[tuple[str, str, str]]:
    """Policy, command, and what stands behind it."""
    found: list[tuple[str, str, str]] = []
    policy = ""
    for kind, text in blocks():
        if kind == "yaml":
            policy = text
            continue
        for line in text.splitlines():
            command, promised = line.split("  # ")
            found.append((policy, command, promised))
    return found


@pytest.mark.parametrize("policy", policies(), ids=lambda text: str(text).split("name: ")[1][:20])
def test_a_recipe_is_sound(policy: str) -> None:
    assert list(warnings(compile_policy(policy, "policy.yaml"))) == []


@pytest.mark.parametrize(("policy", "command", "promised"), examples())
def test_a_request_meets_what_is_said(
    policy: str, command: str, promised: str, tmp_path: Path
) -> None:
    (tmp_path / "policy.yaml").write_text(policy)
    done = subprocess.run(
        ["bash", "-c", f'PATH="{BIN}:$PATH"; {command}'],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(re.findall(r"^(rule|decision) +(\S+)", done.stdout, re.MULTILINE))
    assert f"{said['rule']}, {said['decision']}" == promised


def test_the_relay_is_configured_as_told() -> None:
    """The fragment fits into a configuration."""
    (fragment,) = (text for kind, text in blocks() if kind == "yaml" and "# guard.yaml" in text)
    whole = yaml.safe_load((ROOT / "config/guard.yaml").read_text())
    whole["upstream"]["credentials"] = {"tokenFile": "token"}
    config = parse_config(yaml.safe_dump(whole | yaml.safe_load(fragment)), "guard.yaml")
    assert config.relay.find("", "v1", "pods") is not None
