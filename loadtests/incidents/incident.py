"""What an incident is: values that a stage plays and a report states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.scenario import Scenario

from .figures import Figures
from .stage import Run, Step

# Two cores and 4 GiB for fifty and 100 GiB; see the package. What a request or a write costs is
# not scaled, since clients are: a byte of an object is, since objects are fifty times fewer.
OBJECTS = 50.0
CLIENTS = 25.0
MODEL: Mapping[str, float] = {
    "cores": 2.0,
    "per_list_byte": OBJECTS * 0.6 / 40e6,
    "per_gzip_byte": OBJECTS * 0.37 / 40e6,
    "memory_per_list_byte": OBJECTS * 5.0,
    "memory_limit": 4 << 30,
    "max_inflight": 600 / CLIENTS,
    "restart": 3.0,
    "recovery": 10.0,
}
BOUNDS: Mapping[str, Any] = {"bounds": {"requestsPerUpstream": int(500 / CLIENTS)}}
"""The guard's ceiling shrinks with the server it is for. It lies below what that server takes at
once: exempt requests come on top, and a modelled server refuses without looking who asks."""

LEASES_AND_WRITES: Mapping[str, float] = {
    "lease": 1.0,
    "write": 1.0,
    "create": 1.0,
    "node status": 1.0,
}
"""Kubernetes' own objective: mutations within a second."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that must show; ``found`` is what did."""

    text: str
    found: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Played:
    """One run with its figures. ``headroom`` multiplies bounds in seconds, for machines with other
    work."""

    run: Run
    figures: Figures
    headroom: float = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Both runs of an incident."""

    without: Played
    guarded: Played


@dataclass(frozen=True, slots=True)
class Incident:
    """``harms`` is what must show without the guard, or it is no incident; ``relieves`` what must
    with it. ``contains`` says in one sentence what stops it, ``limits`` what does not."""

    name: str
    title: str
    contains: str
    protects: Mapping[str, float]
    steps: Callable[[Scenario], Sequence[Step]]
    harms: Callable[[Played], Sequence[Claim]]
    relieves: Callable[[Played], Sequence[Claim]]
    limits: str = ""
    capacity: Mapping[str, float] = field(default_factory=lambda: MODEL)
    settings: Mapping[str, Any] = field(default_factory=lambda: BOUNDS)
    real: bool = True
    """Whether a real kube-apiserver can play it: it knows no accidents of the model."""


def scaled_capacity(capacity: Mapping[str, float], scale: float) -> Mapping[str, float]:
    """Of a server ``scale`` times as large; what one request costs stays."""
    base = capacity.get("memory_base", 600 << 20)
    larger = {
        "cores": capacity["cores"] * scale,
        "memory_limit": base + (capacity["memory_limit"] - base) * scale,
        "max_inflight": max(1.0, capacity["max_inflight"] * scale),
    }
    return {**capacity, **larger}


def scaled_settings(settings: Mapping[str, Any], scale: float) -> Mapping[str, Any]:
    """The guard's ceiling is that of its server."""
    bounds = settings["bounds"]
    ceiling = max(1, int(bounds["requestsPerUpstream"] * scale))
    return {**settings, "bounds": {**bounds, "requestsPerUpstream": ceiling}}
