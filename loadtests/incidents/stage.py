"""One run of a scenario: API server, maybe the guard, players; what happens when; all that was
seen."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from loadtests.clients.recording import Sample
from loadtests.scenario import EVERYBODY, Scenario

from . import apiservers
from .apiservers import ApiServer, Load
from .guarding import Guard
from .operator import Operator
from .processes import Child

LEAD = 0.5  # seconds between saying when to begin and beginning
LOOK_EVERY = 0.25  # seconds between two looks at memory and CPU
AFTER = 5.0  # seconds for players to say their last words
POLITE = 10  # niceness of everybody who makes load instead of measuring it


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done to the cluster or by the operator; seconds from the start."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Of all processes of the guard."""

    at: float
    resident: int
    cpu: float


@dataclass(slots=True)
class Run:
    """Everything one run has shown. All times are seconds from its start."""

    scenario: Scenario
    guarded: bool
    model: bool
    samples: list[Sample] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    typed: list[Any] = field(default_factory=list)
    metrics: str = ""
    started: str = ""
    """Metrics as the clients had started."""

    before: str = ""
    """Metrics of a guard that was restarted meanwhile."""

    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """``act`` is done at ``at`` seconds; ``guard_only`` in runs with the guard."""

    at: float
    text: str
    act: Callable[[Stage], None]
    guard_only: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run is made of, beside its scenario."""

    scenario: str
    scale: float
    time: float
    bystanders: float
    together: bool
    server: str
    guarded: bool
    policy: Path
    capacity: Mapping[str, float]
    settings: Mapping[str, Any]


class Stage:
    """A context: leaving it ends every process, whatever happened inside."""

    def __init__(self, folder: Path, scenario: Scenario, setup: Setup) -> None:
        self.scenario = scenario
        self.setup = setup
        self._folder = folder
        self._players: list[Child] = []
        self._said: dict[str, bool] = {}
        self._ending = threading.Event()
        self.run = Run(scenario, setup.guarded, model=setup.server == "embedded")
        self._samples: list[Sample] = []
        self._guard: Guard | None = None
        self.origin = 0.0
        self.server: ApiServer | None = None

    def __enter__(self) -> Stage:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def guard(self) -> Guard:
        assert self._guard is not None, "only in runs with the guard"
        return self._guard

    def order(self, do: str, **details: Any) -> None:
        assert self.server is not None
        self.server.order(do, **details)

    def mark(self, text: str) -> None:
        self.run.marks.append(Mark(time.monotonic() - self.origin, text))

    def play(self, steps: Sequence[Step], progress: Callable[[Stage, float], None]) -> Run:
        """The whole scenario, with what happens meanwhile."""
        self.origin = time.monotonic() + LEAD
        for player in self._players:
            player.send(f"{self.origin:.6f}")
        looking = threading.Thread(target=self._look, daemon=True)
        looking.start()
        due = sorted((step for step in steps if self._applies(step)), key=lambda step: step.at)
        while (now := time.monotonic() - self.origin) < self.scenario.seconds:
            while due and due[0].at <= now:
                step = due.pop(0)
                self.mark(step.text)
                step.act(self)
            progress(self, now)
            time.sleep(0.05)  # the grain of steps
        for player in self._players:
            player.wait(AFTER)
        if self._guard is not None:
            self.run.metrics = self._guard.metrics()
        self._ending.set()
        looking.join()
        return self._finished()

    def count(self, condition: Callable[[Sample], bool]) -> int:
        """Samples so far."""
        return sum(map(condition, self._samples[:]))

    def close(self) -> None:
        self._ending.set()
        for player in self._players:
            player.close()
        if self._guard is not None:
            self._guard.close()
        if self.server is not None:
            self.server.close()

    def _applies(self, step: Step) -> bool:
        return self.setup.guarded or not step.guard_only

    def _start(self) -> None:
        setup = self.setup
        self.server = apiservers.start(setup.server, self._folder, self.scenario, setup.capacity)
        names = self.server.identities
        kubeconfig = names.kubeconfig("direct", self.server.url, self.server.authority)
        if setup.guarded:
            self._guard = Guard(self._folder, self.server, setup.policy, setup.settings)
            kubeconfig = names.kubeconfig("guarded", self._guard.url)
        for name in (EVERYBODY,) if setup.together else self.scenario.players:
            self._players.append(self._player(name, kubeconfig))
        for player in self._players:
            player.until(f"player {player.name} is ready", lambda p=player: self._said.get(p.name))  # type: ignore[misc]

    def _player(self, name: str, kubeconfig: Path) -> Child:
        setup = self.setup
        command = [
            *("loadtests.player", setup.scenario, str(kubeconfig), name),
            *("--scale", str(setup.scale), "--time", str(setup.time)),
            *("--bystanders", str(setup.bystanders)),
        ]
        log = self._folder / f"player-{name}.log"

        def take(line: str) -> None:
            if line.startswith("["):
                self._samples.extend(Sample(*fields) for fields in json.loads(line))
            elif line.strip() == "ready":
                self._said[name] = True

        return Child(name, command, log, take, niceness=POLITE if name == "storm" else 0)

    def _look(self) -> None:
        """A thread: memory and CPU of the guard, CPU of a real API server."""
        while not self._ending.wait(LOOK_EVERY):
            assert self.server is not None
            self.server.sample()
            if self._guard is not None:
                resident, cpu = self._guard.usage
                self.run.usage.append(Usage(time.monotonic() - self.origin, resident, cpu))

    def _finished(self) -> Run:
        assert self.server is not None
        origin, run = self.origin, self.run
        run.samples = [sample._replace(sent=sample.sent - origin) for sample in self._samples]
        run.loads = [{**load, "at": load["at"] - origin} for load in self.server.loads]
        return run

    def operator(self) -> Operator:
        """Whose commands are kept with the run."""
        made = Operator(self.guard)
        made.typed = self.run.typed
        return made
