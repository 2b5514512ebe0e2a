"""The double reads requests as kube-apiserver did, by every recorded line it said something of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apiguard.demo.target import Query, parse_target

RECORDED = Path(__file__).parents[2] / "data" / "requestinfo.jsonl"
LINES = [json.loads(line) for line in RECORDED.read_text().splitlines()]
# Without a refusal that names the verb there is nothing to compare.
TOLD = [line for line in LINES if line.get("verb") and line["status"] == 403]


def test_recorded_targets_are_read_alike() -> None:
    wrong = []
    for line in TOLD:
        target = parse_target(line["method"], line["target"])
        if "path" in line:
            found = (target.verb, "" if target.is_resource else target.path)
            wanted = (line["verb"], line["path"])
        else:
            found = (target.verb, f"{target.resource}|{target.group}|{target.namespace}")
            wanted = (
                line["verb"],
                f"{line['resource'].partition('/')[0]}|{line['apiGroup']}|{line['namespace']}",
            )
        if found != wanted:
            wrong.append((line["method"], line["target"], found, wanted))
    assert not wrong, f"{len(wrong)} of {len(TOLD)}: {wrong[:5]}"


@pytest.mark.parametrize(
    ("raw", "name", "value"),
    [
        ("a=1&a=2", "a", "1"),
        ("a=1;b=2&c=3", "a", ""),
        ("a=%zz&a=2", "a", "2"),
        ("a=x+y%2Bz", "a", "x y+z"),
    ],
)
def test_queries_are_read_as_go_reads_them(raw: str, name: str, value: str) -> None:
    assert Query(raw).get(name) == value
