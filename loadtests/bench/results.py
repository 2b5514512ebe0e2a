"""A run as JSON: environment, plan, every window of every row, and what was left out and why."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from loadtests.bench.interleave import Plan, Samples


@dataclass(slots=True)
class Run:
    """``samples`` per case; ``absent`` per peer what to install; ``failed`` per case why."""

    environment: dict[str, str]
    runs: int
    seconds: float
    started: str
    samples: dict[str, Samples] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def begin(environment: dict[str, str], plan: Plan) -> Run:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Run(environment, plan.runs, plan.seconds, started)


def save(run: Run, folder: Path) -> Path:
    """Write ``run`` to a file of its own, and as ``latest.json``. Returns the former's path."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(run), indent=1)
    stamp = run.started.translate(str.maketrans("", "", "-:"))
    commit = run.environment.get("commit", "").rstrip("+") or "uncommitted"
    path = folder / f"{stamp}-{commit}.json"
    path.write_text(text)
    (folder / "latest.json").write_text(text)
    return path


def read(path: Path) -> Run:
    """Raises OSError, or ValueError or TypeError when the file holds no run."""
    return Run(**json.loads(path.read_text()))
