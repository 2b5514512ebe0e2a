"""A scenario's groups as locust's users.

Every client is one locust user, all of them are there from the start, and each waits for its own
time: who comes and goes when is the scenario's to say, whoever presses the button, and however
often. Samples of requests are locust's request events too, so that its pages and reports have them;
what clients merely noted is no request there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import gevent
from locust import LoadTestShape, User, task
from locust.env import Environment

from loadtests.clients.catalogue import MODELS
from loadtests.clients.client import Client, Setting
from loadtests.clients.credentials import Kubeconfig
from loadtests.clients.recording import BROKEN, LATE, NOTED, UNFINISHED, Recorder, Sample
from loadtests.scenario import ClientGroup, Scenario, ScenarioError

SPAWN_RATE = 100.0
"""Users a second in the web UI: of more locust warns, and a client counts its own time anyway."""

_REFUSING = frozenset({404, 409, 410})  # answers that are part of a healthy client's life


class Playing:
    """What all users of a run share. ``origin`` is when it began, by CLOCK_MONOTONIC; ``take`` gets
    every sample."""

    def __init__(
        self,
        scenario: Scenario,
        kubeconfig: Kubeconfig,
        take: Callable[[Sample], None] = lambda sample: None,
    ) -> None:
        self.scenario = scenario
        self.kubeconfig = kubeconfig
        self.take = take
        self.origin = time.monotonic()


def user_classes(playing: Playing, groups: tuple[ClientGroup, ...]) -> list[type[User]]:
    """One class per group. Raises ``ScenarioError``."""
    return [_user_class(playing, group) for group in groups if group.count]


def _user_class(playing: Playing, group: ClientGroup) -> type[User]:
    model = MODELS.get(group.client)
    if model is None:
        raise ScenarioError(f"unknown client {group.client!r}; there are {', '.join(MODELS)}")
    unknown = sorted(set(group.options) - set(model.options))
    if unknown:
        known = ", ".join(model.options)
        raise ScenarioError(f"{group.name}: {group.client} has no {unknown[0]!r}; it has {known}")
    name = "".join(part.capitalize() for part in group.name.replace("_", "-").split("-"))
    members = {
        "playing": playing,
        "group": group,
        "model": model,
        "numbers": itertools.count(),
        "fixed_count": group.count,
        "host": playing.kubeconfig.server,
        "abstract": False,
    }
    return type(name, (ScenarioUser,), members)


class ScenarioUser(User):
    """One client; see ``_user_class`` for what a class of it holds."""

    abstract = True
    playing: Playing
    group: ClientGroup
    model: type[Client]
    numbers: itertools.count[int]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._number = next(self.numbers) % self.group.count  # the same ones in every run
        self._client: Client | None = None

    @task
    def live(self) -> None:
        """All of a client's life: it does not return before the user is stopped."""
        group, origin = self.group, self.playing.origin
        later = group.ramp * self._number / group.count
        _sleep_until(origin + group.begin + later)
        recorder = Recorder(group.name, f"{group.name}-{self._number}", self._sink())
        setting = Setting(
            self._number, group.agent, group.options, recorder, self.playing.kubeconfig.access
        )
        self._client = self.model(setting)
        self._client.live()
        if group.restart is not None:
            restart = group.restart
            _sleep_until(origin + restart.at + restart.over * self._number / group.count)
            self._client.restart(restart.agent)
        _sleep_until(origin + (group.end or self.playing.scenario.seconds))
        self._client.close()
        self._client = None
        gevent.sleep(_FOREVER)

    def on_stop(self) -> None:
        if self._client is not None:
            self._client.close()

    def _sink(self) -> Callable[[Sample], None]:
        fire, take = self.environment.events.request.fire, self.playing.take

        def send(sample: Sample) -> None:
            take(sample)
            if sample.code != NOTED:
                fire(
                    request_type=sample.group,
                    name=sample.operation,
                    response_time=sample.seconds * 1000.0,
                    response_length=sample.size,
                    exception=_exception(sample),
                    context={},
                )

        return send


def _exception(sample: Sample) -> str | None:
    """What locust counts as a failure."""
    if 200 <= sample.code < 300 or sample.code in _REFUSING:
        return None
    return _WORDS.get(sample.code, f"code {sample.code}")


_WORDS = {
    BROKEN: "no answer: refused, reset or cut",
    LATE: "no answer within the client's deadline",
    UNFINISHED: "still under way at the end",
}


_FOREVER = 1e6


def _sleep_until(when: float) -> None:
    gevent.sleep(max(0.0, when - time.monotonic()))


def shape_of(playing: Playing, users: int) -> type[LoadTestShape]:
    """All users at once, until the scenario is over."""

    class Whole(LoadTestShape):
        def tick(self) -> tuple[int, float] | None:
            # By locust's clock: a second run's first tick comes before ``origin`` is set anew.
            since = self.get_run_time()  # type: ignore[no-untyped-call]  # locust's
            over = since > playing.scenario.seconds + 1.0
            return None if over else (users, min(SPAWN_RATE, float(users)))

    return Whole
