"""``python -m loadtests.bench``: measure, compare two runs, or profile the guard."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from loadtests.bench import comparison, environment, profiling, report, results
from loadtests.bench.cases.case import Case
from loadtests.bench.cases.catalogue import CASES
from loadtests.bench.certificates import issue
from loadtests.bench.interleave import CaseError, Plan, Progress, Surroundings, measure
from loadtests.bench.processes import Cpus, StartError
from loadtests.bench.targets import judge, load

FOLDER = Path(".bench")
_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything asked for was measured, whatever the figures; 1 when a case failed."""
    options = _parser().parse_args(arguments)
    # Ends like Ctrl-C, so that processes started here end with it.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        if options.command == "compare":
            return _compare(options.base, options.other)
        if options.list:
            _write(f"{case.name:15} {case.title}" for case in CASES)
            return 0
        return _profile() if options.profile else _bench(options)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; everything started has been ended\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench",
        description="CPU per unit of work of apiguard beside other proxies; JSON in .bench/.",
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this case")
    parser.add_argument("--runs", type=int, default=0, help="interleaved rounds (by case)")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="a window (%(default)s)")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--profile", action="store_true", help="where the worker's CPU goes")
    commands = parser.add_subparsers(dest="command", metavar="compare A.json B.json")
    compare = commands.add_parser("compare", help="two earlier runs side by side")
    compare.add_argument("base", type=Path)
    compare.add_argument("other", type=Path)
    return parser


def _bench(options: argparse.Namespace) -> int:
    cases = [case for case in CASES if not options.only or case.name in options.only]
    if unknown := set(options.only) - {case.name for case in CASES}:
        sys.stderr.write(f"no such case: {', '.join(sorted(unknown))}; --list names them\n")
        return 2
    plan = Plan(max(0, options.runs), options.seconds)
    run = results.begin(environment.describe(), plan)
    around = _surroundings()
    for case in cases:
        _run_case(case, plan, around, run)
    _write(["", *report.surroundings_lines(run), ""])
    asked_for = {case.name for case in cases}
    targets = [target for target in load() if target.case in asked_for]
    _write(report.target_lines([judge(target, run.samples) for target in targets]))
    _write(["", f"written to {results.save(run, FOLDER)}"])
    return 1 if run.failed else 0


def _run_case(case: Case, plan: Plan, around: Surroundings, run: results.Run) -> None:
    """Measure one case into ``run`` and print its table; a failure is kept, and others go on."""
    for row in case.rows:
        if reason := row.peer.missing():
            run.absent[row.peer.name] = reason
    try:
        run.samples[case.name] = measure(case, plan, around)
    except (CaseError, StartError) as error:
        run.failed[case.name] = str(error)
        _write(["", f"{case.name}: FAILED: {error}"])
        return
    _write(["", *report.case_lines(case, run.samples[case.name])])


def _compare(base: Path, other: Path) -> int:
    try:
        runs = results.read(base), results.read(other)
    except (OSError, ValueError, TypeError) as error:
        sys.stderr.write(f"not a run: {error}\n")
        return 2
    _write(comparison.lines(load(), *runs))
    return 0


def _profile() -> int:
    try:
        _write(profiling.take(_surroundings()))
    except (CaseError, StartError) as error:
        sys.stderr.write(f"no profile: {error}\n")
        return 1
    return 0


def _surroundings() -> Surroundings:
    """A fresh folder for files and logs of everything that is started."""
    folder = FOLDER.resolve() / "work"
    shutil.rmtree(folder, ignore_errors=True)
    return Surroundings(folder, issue(folder / "tls"), Cpus(), _progress())


def _progress() -> Progress:
    """Says on standard error what is being measured, with the time since the start."""
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:5.0f} s] {text}\n")

    return say


def _write(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
