"""What one window of one generator is asked to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

Numbers = dict[str, float]
"""What a window found: ``units`` and ``cpu_seconds`` always, more where a mode says so."""


class WrongAnswerError(Exception):
    """An answer that must not be counted: wrong status, wrong bytes, lost connection."""


@dataclass(frozen=True, slots=True)
class Spec:
    """``proxy`` is the root process whose tree's CPU and memory are read; times are seconds."""

    mode: str
    traffic: str
    port: int
    proxy: int
    authority: str = ""  # PEM file of the CA; "" for plain HTTP
    connections: int = 64
    warmup: float = 0.5
    seconds: float = 2.0
    rate: float = 0.0  # requests per second of the open loop; changes upstream of relays
    token: str = ""  # instead of the traffic's own
    certificate: str = ""  # PEM file of certificate and key, presented instead of any token
    pods: int = 0  # how many of them change
    each_changed: bool = False  # before every list
    stalled: int = 0  # watchers that read nothing
    pace: int = 0  # plain port where ``rate`` and ``pods`` are set
    admin: int = 0  # port of a guard that says what it holds
    probe: str = ""  # file of the proxy's loop probe

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Spec:
        return cls(**json.loads(text))
