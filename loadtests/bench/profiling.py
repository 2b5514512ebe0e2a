"""Where the CPU of the guard's worker goes, under the traffic of the first case.

py-spy samples from outside and names native frames too; it is used when it is on PATH or beside
the interpreter. Without it the worker runs under cProfile, started by a ``sitecustomize`` module
on its PYTHONPATH: exact call counts, but every call is charged for the counting, so that shares of
small functions come out too large.

On a busy machine py-spy also samples a worker that is ready to run but has no CPU: one line with a
surprising share of its own may be where the worker was waiting. ``perf`` counts CPU only.
"""

from __future__ import annotations

import os
import pstats
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from loadtests.bench import interleave, procfs
from loadtests.bench.cases.catalogue import PROXIED_TLS
from loadtests.bench.interleave import CaseError, Surroundings
from loadtests.bench.processes import Fleet

_SECONDS = 8.0
_LEAD = 1.0  # until the load is steady, and again to tell which process carries it
_SAVING = 5.0
_TOP = 40
_HOOK = """\
import cProfile, os, signal, sys
if any("apiguard.runtime.worker" in part for part in sys.orig_argv):
    profile = cProfile.Profile()
    def save(number, frame):
        profile.disable()
        profile.dump_stats({path!r} + ".part")
        os.replace({path!r} + ".part", {path!r})
    signal.signal(signal.SIGUSR2, save)
    profile.enable()
"""


def take(around: Surroundings) -> list[str]:
    """Lines of a profile; files stay in ``<folder>/profile``. Raises ``CaseError``."""
    folder = around.folder / "profile"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    program = _py_spy()
    around.say(f"profile: {_SECONDS:.0f} s of {'py-spy' if program else 'cProfile'}")
    return _sampled(around, folder, program) if program else _traced(around, folder)


def _py_spy() -> str:
    beside = str(Path(sys.executable).parent)
    return shutil.which("py-spy") or shutil.which("py-spy", path=beside) or ""


def _sampled(around: Surroundings, folder: Path, program: str) -> list[str]:
    stacks = folder / "stacks.txt"

    def record(worker: int) -> None:
        options = ["-d", str(int(_SECONDS - 2 * _LEAD) - 1), "-r", "400", "-f", "raw", "--native"]
        subprocess.run(  # noqa: S603 - a profiler found beside the interpreter
            [program, "record", *options, "-o", str(stacks), "-p", str(worker)],
            capture_output=True,
            check=False,
        )

    _load(around, folder, record)
    if not stacks.exists():
        raise CaseError("py-spy wrote nothing: it needs the right to trace (root or ptrace_scope)")
    return [f"stacks in {stacks} (flamegraph.pl, speedscope)", *shares(stacks.read_text())]


def _traced(around: Surroundings, folder: Path) -> list[str]:
    profile = folder / "worker.prof"
    (folder / "sitecustomize.py").write_text(_HOOK.format(path=str(profile)))

    def save(worker: int) -> None:
        time.sleep(_SECONDS - 2 * _LEAD)
        # A signal, not the end of the process: a worker ends with its supervisor, at once.
        os.kill(worker, signal.SIGUSR2)
        deadline = time.monotonic() + _SAVING
        while not profile.exists() and time.monotonic() < deadline:
            time.sleep(_LEAD / 10)

    with _python_path(folder):
        _load(around, folder, save)
    if not profile.exists():
        raise CaseError("the worker wrote no profile")
    text = folder / "functions.txt"
    with text.open("w") as sink:
        pstats.Stats(str(profile), stream=sink).sort_stats("tottime").print_stats(_TOP)
    return [f"profile in {profile} (python -m pstats)", *text.read_text().splitlines()]


def _load(around: Surroundings, folder: Path, meanwhile: Callable[[int], None]) -> None:
    """Send the first case's traffic through a guard while ``meanwhile(worker)`` runs."""
    row = PROXIED_TLS.rows[0]
    with Fleet(folder) as fleet:
        setting = interleave.surround(PROXIED_TLS, around, fleet)
        running = row.peer.start(setting)

        def watch() -> None:
            time.sleep(_LEAD)
            meanwhile(procfs.busiest(running.process, _LEAD))

        watcher = threading.Thread(target=watch)
        watcher.start()
        spec = interleave.spec_of(row, running, setting)
        try:
            interleave.windows([replace(spec, seconds=_SECONDS)], setting.cpus)
        finally:
            watcher.join()


@contextmanager
def _python_path(folder: Path) -> Iterator[None]:
    """Processes started inside find modules in ``folder`` first."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before}" if before else str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def shares(stacks: str) -> list[str]:
    """Of collapsed stacks (``outer;inner count`` a line): the heaviest frames, as lines."""
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = frames.split(";")
        total += int(count)
        alone[names[-1]] += int(count)
        for name in set(names):
            within[name] += int(count)
    lines = []
    for title, counts in (("by themselves", alone), ("with what they call", within)):
        lines.append(f"heaviest frames {title}, of {total} samples:")
        lines += [f"{n / total:6.1%}  {name}" for name, n in counts.most_common(_TOP)]
    return lines
