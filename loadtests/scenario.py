"""A scenario: which clients, how many, from when to when, before which cluster. YAML -> values.

::

    name: S1                    seconds: 40
    about: ...                  trouble: {begin: 10, end: 30}
    cluster: {nodes: 100, pods: 200, podBytes: 4096}
    clients:
      - {name: storm, client: careless-telemetry, count: 100, begin: 10, end: 30, ramp: 5,
         player: storm, options: {every: 10}}

Times are seconds from the start. Unknown keys are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

FOLDER = Path(__file__).with_name("scenarios")
DEFAULT_PLAYER = "others"
EVERYBODY = "everybody"
MANY = ("pods", "secrets", "customObjects")
QUIET = 4.0  # seconds at least before trouble, however short the rest

T = TypeVar("T")


class ScenarioError(Exception):
    """What is wrong with a scenario, in one line."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Every client of a group is replaced once, one after the other, by ``agent`` if given."""

    at: float
    over: float = 0.0
    agent: str = ""


@dataclass(frozen=True, slots=True)
class ClientGroup:
    """``count`` clients of one model. They begin spread over ``ramp`` seconds from ``begin`` and
    end at ``end`` (0: with the scenario). ``player`` names the process they share: offenders get
    one of their own, so that what they cost does not delay what others measure."""

    name: str
    client: str
    count: int = 1
    begin: float = 0.0
    end: float = 0.0
    ramp: float = 0.0
    agent: str = ""
    player: str = DEFAULT_PLAYER
    restart: Restart | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """What the embedded API server holds. Sizes in bytes of JSON, rates per second."""

    nodes: int = 20
    pods: int = 200
    podBytes: int = 4096  # noqa: N815 - spelled as in the file
    services: int = 40
    updates: float = 2.0
    """Of pods' status."""

    replacements: float = 0.2
    """Pods deleted and made anew."""

    configmaps: int = 40
    secrets: int = 0
    secretBytes: int = 0  # noqa: N815
    customObjects: int = 0  # noqa: N815
    stamped: int = 0
    """Configmaps in namespace ``fanout`` that the server rewrites with the time on request."""

    stampedBytes: int = 4096  # noqa: N815


@dataclass(frozen=True, slots=True)
class Trouble:
    """When whatever the scenario is about begins and ends."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    about: str
    seconds: float
    clients: tuple[ClientGroup, ...]
    cluster: ClusterSize = ClusterSize()
    trouble: Trouble | None = None

    def scaled(self, clients: float = 1.0, time: float = 1.0, bystanders: float = 1.0) -> Scenario:
        """Times as many clients on times as many nodes, in a schedule times as long.

        ``bystanders`` multiplies once more those of the default player, who make no trouble.
        Clients keep their own periods and deadlines: those are what is tested.
        """
        moved = self._schedule(time)
        groups = tuple(
            _scaled(group, clients * (bystanders if group.player == DEFAULT_PLAYER else 1.0), moved)
            for group in self.clients
        )
        trouble = self.trouble and Trouble(moved(self.trouble.begin), moved(self.trouble.end))
        cluster = replace(self.cluster, nodes=max(1, round(self.cluster.nodes * clients)))
        return replace(
            self, clients=groups, seconds=moved(self.seconds), trouble=trouble, cluster=cluster
        )

    def holding(self, times: float) -> Scenario:
        """With ``times`` as many pods, secrets and custom objects in the cluster."""
        size = self.cluster
        more = {kind: round(getattr(size, kind) * times) for kind in MANY}
        return replace(self, cluster=replace(size, **more))

    def _schedule(self, time: float) -> Callable[[float], float]:
        """Where a moment lies in a schedule ``time`` times as long. Before trouble there is always
        time to connect, unless the scenario itself leaves less."""
        begin = self.trouble.begin if self.trouble else 0.0
        quiet = max(begin * time, min(begin, QUIET))

        def moved(at: float) -> float:
            return at * quiet / begin if at < begin else quiet + (at - begin) * time

        return moved

    @property
    def players(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(group.player for group in self.clients))

    def of(self, player: str) -> tuple[ClientGroup, ...]:
        """The groups of one process; ``EVERYBODY`` plays all of them."""
        return tuple(group for group in self.clients if player in (group.player, EVERYBODY))


def _scaled(group: ClientGroup, clients: float, moved: Callable[[float], float]) -> ClientGroup:
    # Single instances stay single: there is one scheduler, however many nodes there are.
    count = group.count if group.count == 1 else max(1, round(group.count * clients))
    restart = group.restart and replace(
        group.restart,
        at=moved(group.restart.at),
        over=moved(group.restart.at + group.restart.over) - moved(group.restart.at),
    )
    return replace(
        group,
        count=count,
        begin=moved(group.begin),
        end=moved(group.end) if group.end else 0.0,
        ramp=moved(group.begin + group.ramp) - moved(group.begin),
        restart=restart,
    )


def load(name: str) -> Scenario:
    """By file name, or by the name of one that comes along. Raises ``ScenarioError``."""
    path = Path(name)
    if not path.suffix:
        path = FOLDER / f"{name}.yaml"
    try:
        return parse(path.read_text())
    except OSError as error:
        known = ", ".join(shipped())
        raise ScenarioError(f"{path}: {error.strerror}; there are {known}") from None
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def shipped() -> list[str]:
    """Names of the scenarios that come along."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def parse(text: str) -> Scenario:
    """Raises ``ScenarioError``."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError(str(error)) from None
    return _read(Scenario, document, "scenario")


def _read(kind: type[T], document: Any, where: str) -> T:
    """A frozen value from a mapping with exactly its fields."""
    if not isinstance(document, dict):
        raise ScenarioError(f"{where}: expected a mapping")
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    for key in document:
        if key not in known:
            raise ScenarioError(f"{where}: unknown key {key!r}; there are {', '.join(known)}")
    for name, one in known.items():
        required = one.default is MISSING and one.default_factory is MISSING
        if required and name not in document:
            raise ScenarioError(f"{where}: {name} is required")
    return kind(**{key: _value(key, value, where) for key, value in document.items()})


_NESTED: Mapping[str, type[Any]] = {
    "cluster": ClusterSize,
    "trouble": Trouble,
    "restart": Restart,
}


def _value(key: str, value: Any, where: str) -> Any:
    if key == "clients":
        if not isinstance(value, list) or not value:
            raise ScenarioError(f"{where}.clients: expected a list of groups")
        groups = tuple(
            _read(ClientGroup, entry, f"clients[{number}]") for number, entry in enumerate(value)
        )
        names = [group.name for group in groups]
        if len(set(names)) < len(names):
            raise ScenarioError(f"{where}.clients: a name occurs twice")
        return groups
    if key in _NESTED:
        return _read(_NESTED[key], value, f"{where}.{key}")
    return value
