"""``python -m loadtests.incidents [NAME...]``: replay incidents, without the guard and with it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.scenario import load

from . import apiservers
from .apiservers import SERVERS
from .catalogue import INCIDENTS, NO_HARM
from .figures import STORM, figures, fine
from .guarding import SHIPPED_POLICY
from .incident import Incident, Pair, Played, scaled_capacity, scaled_settings
from .report import Result, lines, write
from .stage import Setup, Stage

REPORTS = Path(".incidents")
PROGRESS_EVERY = 1.0  # seconds
REAL_OBJECTS = 10.0
"""The model takes an object as dear as fifty; a real server takes it as it is."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to play: ``scale`` times the clients before a server ``scale`` times as large, in
    ``time`` times the time; ``bystanders`` multiplies those who make no trouble once more;
    ``objects`` those that the cluster holds."""

    scale: float = 1.0
    time: float = 1.0
    bystanders: float = 1.0
    objects: float = 1.0
    server: str = "embedded"
    policy: Path = SHIPPED_POLICY
    headroom: float = 1.0
    together: bool = False
    """Whether all clients share a process: less to start, and offenders delay what others see."""

    progress: Callable[[str], None] = lambda text: None


def play(incident: Incident, wanted: Wanted, folder: Path) -> Result:
    """Both runs. Raises ``StageError``."""
    without = run(incident, wanted, folder / "without", guarded=False)
    guarded = run(incident, wanted, folder / "with", guarded=True)
    claims = [*incident.harms(without), *incident.relieves(guarded)]
    return Result(incident, Pair(without, guarded), claims, wanted.server)


def run(incident: Incident, wanted: Wanted, folder: Path, *, guarded: bool) -> Played:
    """One of both. Raises ``StageError``."""
    scenario = load(incident.name).scaled(wanted.scale, wanted.time, wanted.bystanders)
    scenario = scenario.holding(wanted.objects)
    setup = Setup(
        scenario=incident.name,
        scale=wanted.scale,
        time=wanted.time,
        bystanders=wanted.bystanders,
        together=wanted.together,
        server=wanted.server,
        guarded=guarded,
        policy=wanted.policy,
        capacity=scaled_capacity(incident.capacity, wanted.scale),
        settings=scaled_settings(incident.settings, wanted.scale),
    )
    name = f"{incident.name} {'with guard' if guarded else 'without'}"
    wanted.progress(f"{name}: starting")
    with Stage(folder, scenario, setup) as stage:
        seen = stage.play(incident.steps(scenario), _Progress(name, wanted.progress))
    return Played(seen, figures(seen, incident.protects), wanted.headroom)


class _Progress:
    """A line now and then: what is answered, what is not, what was done."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self._name = name
        self._say = say
        self._next = 0.0

    def __call__(self, stage: Stage, now: float) -> None:
        if now < self._next:
            return
        self._next = now + PROGRESS_EVERY
        answered = stage.count(fine)
        refused = stage.count(lambda s: s.code == 429)
        failed = stage.count(lambda s: s.code in (0, -1) and s.operation != STORM)
        event = stage.run.marks[-1].text if stage.run.marks else "quiet"
        self._say(
            f"{self._name}: {now:3.0f} of {stage.scenario.seconds:.0f} s; {answered} answered, "
            f"{refused} refused, {failed} failed; {event}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: everything held; 1: something did not, or could not be played."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.incidents", description="Replay incidents; all if none is named."
    )
    parser.add_argument("names", nargs="*", help=", ".join(INCIDENTS), metavar="NAME")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many clients")
    parser.add_argument("--time", type=float, default=1.0, help="times as long a schedule")
    parser.add_argument("--bystanders", type=float, default=1.0, help="times as many others")
    parser.add_argument(
        "--objects",
        type=float,
        help=f"times as many objects (1, before a real server {REAL_OBJECTS:g})",
    )
    parser.add_argument("--server", choices=SERVERS, default="embedded")
    parser.add_argument(
        "--policy", type=Path, default=SHIPPED_POLICY, help="instead of the shipped"
    )
    parser.add_argument("--headroom", type=float, default=1.0, help="times as long bounds")
    parser.add_argument("--report", type=Path, default=REPORTS, help="folder of the report")
    given = parser.parse_args(arguments)
    names = given.names or [name for name in INCIDENTS if name != NO_HARM]
    unknown = [name for name in names if name not in INCIDENTS]
    if unknown:
        parser.error(f"unknown incident {unknown[0]!r}; there are {', '.join(INCIDENTS)}")
    if why := apiservers.absent(given.server):
        parser.error(why)
    wanted = Wanted(
        given.scale,
        given.time,
        given.bystanders,
        given.objects or (REAL_OBJECTS if given.server == "real" else 1.0),
        given.server,
        given.policy,
        given.headroom,
        progress=_tell,
    )
    results = [result for name in names if (result := _play_one(INCIDENTS[name], wanted))]
    if results:
        page, data = write(results, given.report)
        _say(f"report: {page} and {data}")
    return 0 if all(result.held for result in results) else 1


def _play_one(incident: Incident, wanted: Wanted) -> Result | None:
    if wanted.server == "real" and not incident.real:
        _say(f"{incident.name}: needs the accidents of the embedded API server; left out")
        return None
    with tempfile.TemporaryDirectory(prefix="incident-") as folder:
        begun = time.monotonic()
        result = play(incident, wanted, Path(folder))
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        _say("\n".join([*lines(result), f"  took {time.monotonic() - begun:.0f} s", ""]))
        return result


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - its result


def _tell(text: str) -> None:
    """Progress goes to stderr: one line that is written over on a terminal."""
    sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
