"""Windows taken in turn: A B C A B C ..., so that whatever the machine does hits all alike.

Closed loops take turns within their windows, too: one generator asks all of a case's proxies.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loadtests.bench.cases.case import EVENTS_PER_SECOND, PODS, Case, Row
from loadtests.bench.certificates import Certificates
from loadtests.bench.generator.spec import Numbers, Spec
from loadtests.bench.peers.peer import Caller, Running, Setting
from loadtests.bench.processes import Cpus, Fleet, free_port, running_on

_GENERATOR_GRACE = 300.0  # thousands of handshakes on a busy machine
_MICROSECONDS = 1e6
_CALIBRATION_SECONDS = 1.5

Progress = Callable[[str], None]


class CaseError(Exception):
    """A case cannot be measured: a proxy answered wrongly, ended, or could not start."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure: ``runs`` rounds, 0 for each case's own, of windows of ``seconds``."""

    runs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all cases share."""

    folder: Path
    certificates: Certificates
    cpus: Cpus
    say: Progress


Samples = dict[str, list[Numbers]]
"""Per row, one ``Numbers`` per round; rows of missing peers are absent."""


def measure(case: Case, plan: Plan, around: Surroundings) -> Samples:
    """Start the case's proxies, take all windows in turn, end everything. Raises ``CaseError``."""
    samples: Samples = {row.name: [] for row in case.rows if not row.peer.missing()}
    turns = range(plan.runs or case.rounds)
    for part in [[turn] for turn in turns] if case.fresh else [turns]:
        with Fleet(around.folder / case.name) as fleet:
            _take_turns(case, plan, around, fleet, part, samples)
    return samples


def _take_turns(
    case: Case,
    plan: Plan,
    around: Surroundings,
    fleet: Fleet,
    turns: Sequence[int],
    samples: Samples,
) -> None:
    """All rows' windows, round after round, with one set of processes."""
    rows = [row for row in case.rows if row.name in samples]
    setting = surround(case, around, fleet)
    started = _start(rows, setting)
    rate = _half_load(case, rows, started, setting)
    for turn in turns:
        for group in _measured_together(rows):
            around.say(f"{case.name}: round {turn + 1}, {', '.join(row.name for row in group)}")
            specs = [
                replace(
                    spec_of(row, started[row.peer.name], setting),
                    seconds=plan.seconds * row.seconds,
                    rate=rate or row.rate,
                )
                for row in group
            ]
            for row, found in zip(group, windows(specs, setting.cpus), strict=True):
                samples[row.name].append(found)


def _measured_together(rows: Sequence[Row]) -> list[list[Row]]:
    """Closed loops, then each other row by itself."""
    closed = [row for row in rows if row.mode == "closed"]
    return [*([closed] if closed else []), *([row] for row in rows if row.mode != "closed")]


def windows(specs: Sequence[Spec], cpus: Cpus) -> list[Numbers]:
    """Run one generator; its numbers with what follows from them. Raises ``CaseError``."""
    mode = specs[0].mode
    with running_on(cpus.others):
        try:
            done = subprocess.run(  # noqa: S603 - our own module
                [sys.executable, "-m", "loadtests.bench.generator", *(s.dumps() for s in specs)],
                capture_output=True,
                text=True,
                timeout=sum(spec.seconds + spec.warmup for spec in specs) + _GENERATOR_GRACE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CaseError(f"generator {mode} did not end") from error
    if done.returncode:
        raise CaseError(f"generator {mode} failed: {done.stderr.strip()[-2000:]}")
    found = json.loads(done.stdout)
    if "error" in found:
        raise CaseError(str(found["error"]))
    return [derive(numbers) for numbers in found["windows"]]


def derive(numbers: Numbers) -> Numbers:
    """Adds CPU per unit, units per CPU second, throughput and how busy the proxy was."""
    units, cpu, seconds = numbers["units"], numbers["cpu_seconds"], numbers["seconds"]
    if not units:
        raise CaseError("nothing was completed within the window")
    return {
        **numbers,
        "cpu_us": cpu / units * _MICROSECONDS,
        "per_cpu_second": units / cpu if cpu else 0.0,
        "per_second": units / seconds if seconds else 0.0,
        "busy": cpu / seconds if seconds else 0.0,
    }


def surround(case: Case, around: Surroundings, fleet: Fleet) -> Setting:
    """The case's upstream, started, and where its proxies find everything."""
    plain, tls = free_port(), free_port()
    issued = around.certificates
    rate = () if case.upstream == PODS else (str(EVENTS_PER_SECOND),)
    fleet.start(
        "upstream",
        [
            *(sys.executable, "-m", case.upstream, str(plain), str(tls)),
            *(str(issued.certificate), str(issued.key), str(issued.authority)),
            *rate,
        ],
        cpus=around.cpus.others,
        ports=[plain, tls],
    )
    folder = around.folder / case.name
    upstream = tls if case.secure else plain
    return Setting(fleet, around.cpus, folder, issued, case.secure, upstream, plain)


def _start(rows: Sequence[Row], setting: Setting) -> dict[str, Running]:
    started: dict[str, Running] = {}
    for row in rows:
        if row.peer.name not in started:
            started[row.peer.name] = row.peer.start(setting)
    return started


def spec_of(row: Row, proxy: Running, setting: Setting) -> Spec:
    """A row's window through a running proxy; length and rate are at their defaults."""
    caller = proxy.callers[row.caller] if row.caller else Caller()
    return Spec(
        mode=row.mode,
        traffic=row.traffic,
        port=proxy.port,
        proxy=proxy.process,
        authority=str(setting.certificates.authority) if setting.secure else "",
        connections=row.connections,
        warmup=row.warmup,
        token=caller.token,
        certificate=caller.certificate,
        rate=row.rate,
        pods=row.pods,
        stalled=row.stalled,
        each_changed=row.each_changed,
        pace=proxy.pace,
        admin=proxy.admin,
        probe=proxy.probe,
    )


def _half_load(
    case: Case, rows: Sequence[Row], started: dict[str, Running], setting: Setting
) -> float:
    """Half of what the named row's proxy completes per second when it sets the pace."""
    if not case.half_load_of:
        return 0.0
    row = next(row for row in rows if row.name == case.half_load_of)
    spec = spec_of(replace(row, mode="closed"), started[row.peer.name], setting)
    (found,) = windows([replace(spec, seconds=_CALIBRATION_SECONDS)], setting.cpus)
    return found["per_second"] / 2
