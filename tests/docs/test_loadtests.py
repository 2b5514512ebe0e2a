"""Whoever reads of a load test can play it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_command_of_the_page_is_a_target_and_every_incident_is_in_it() -> None:
    page = (ROOT / "docs/loadtests.md").read_text()
    targets = set(re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"`make ([\w-]+)", page))
    assert {re.sub(r"S\d+$", "%", name) for name in shown} <= targets
    played = {path.stem for path in (ROOT / "loadtests/scenarios").glob("S*.yaml")}
    assert played <= set(re.findall(r"^\| (S\d+) \|", page, re.MULTILINE))
