"""More clients than anybody could keep apart, and what they cost a guard in memory.

``python -m tests.e2e.crowd`` prints the figures and fails when they miss a promise. A crowd sends
every request with a user-agent of its own and with one of ``USERS`` tokens, at the guard's full
speed; among it three agents have some connections each. Resident memory is that of all processes
of the guard, before the crowd (the same connections, one agent) and after it. What ``/v1/top`` says
of the three is compared with what they sent.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.bench.procfs import resident_bytes
from tests.conftest import Certificates
from tests.e2e.guard import until
from tests.e2e.hammer import Group, HammerProcess, Tallies
from tests.e2e.overload import certificates_in
from tests.e2e.responder import Responder, responding
from tests.e2e.stands import Stand

USERS = 10_000
CROWD = 48  # connections
KNOWN = {"steady-agent": 1, "busy-agent": 4, "heavy-agent": 11}
"""Connections of each agent that has to be named; 64 in all, so the least has about 1.5 %."""

PROMISED_MIB = 64.0
PROMISED_ERROR = 0.1
LEAST_SHARE = 0.01
POLICY = """\
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules: []
default:
  limits:
    - {requestsPerSecond: 1000000, burst: 1000000, per: [user]}
    - {requestsPerSecond: 1000000, burst: 1000000, per: [userAgent]}
    - {requestsPerSecond: 1000000, burst: 1000000, per: [userAgentFamily, user]}
"""


@dataclass(slots=True)
class Figures:
    """``shares`` maps each known agent to its true share of requests and the one reported."""

    requests: int = 0
    agents: int = 0
    seconds: float = 0.0
    before_mib: float = 0.0
    after_mib: float = 0.0
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def grown_mib(self) -> float:
        return self.after_mib - self.before_mib

    def missed(self) -> list[str]:
        """Promises not kept."""
        found = []
        if self.grown_mib > PROMISED_MIB:
            found.append(f"missed: {PROMISED_MIB:.0f} MiB, not {self.grown_mib:.1f}")
        for name, (true, told) in self.shares.items():
            if true >= LEAST_SHARE and abs(told - true) > PROMISED_ERROR * true:
                found.append(f"missed: {name} has {true:.2%}, not {told:.2%}")
        return found

    def lines(self) -> list[str]:
        shares = [
            f"{name}: {true:.2%}, told {told:.2%}" for name, (true, told) in self.shares.items()
        ]
        grown = f"{self.grown_mib:.1f} MiB more than {self.before_mib:.1f}"
        return [
            f"{self.requests} requests of {self.agents} user-agents in {self.seconds:.0f} s",
            f"{grown}, at the end {self.after_mib:.1f}",
            *shares,
        ]


def run(folder: Path, certificates: Certificates, agents: int) -> Figures:
    """Until the crowd has sent ``agents`` requests, each with a user-agent of its own."""
    tokens = "".join(f"user-{n},user-{n},{n}\n" for n in range(USERS))
    with responding(folder, certificates, tokens) as upstream:
        stand = Stand("crowd", folder, upstream, certificates, POLICY)
        try:
            return _measure(stand, upstream, agents)
        finally:
            stand.close()


def _measure(stand: Stand, upstream: Responder, agents: int) -> Figures:
    figures = Figures(agents=agents)
    root = stand.guard.process.pid
    known = [Group(name, count, f"{name}/1", "user-0") for name, count in KNOWN.items()]
    sent: dict[str, int] = {}
    _send(stand, [Group("crowd", CROWD, "first-agent/1", "user-0"), *known], 5_000, sent)
    figures.before_mib = resident_bytes(root) / 2**20
    begun = time.monotonic()
    crowd = Group("crowd", CROWD, "agent-", "user-", agents=agents, tokens=USERS)
    _send(stand, [crowd, *known], agents, sent)
    figures.seconds = time.monotonic() - begun
    figures.after_mib = resident_bytes(root) / 2**20
    figures.requests = sum(sent.values())
    told = _told(stand, figures.requests)
    for name in KNOWN:
        figures.shares[name] = sent[name] / figures.requests, told.get(name, 0.0)
    return figures


def _send(stand: Stand, groups: list[Group], least: int, sent: dict[str, int]) -> None:
    """Until the crowd has had ``least`` answers; adds everybody's to ``sent``."""
    clients = HammerProcess(stand.guard.address[1], stand.guarded.authority, groups)
    answered = 0

    def add(tallies: Tallies) -> int:
        for name, tally in tallies.items():
            assert not tally.broken
            assert set(tally.answers) <= {200}, tally.answers
            sent[name] = sent.get(name, 0) + tally.answers.get(200, 0)
        return tallies["crowd"].answers.get(200, 0)

    try:
        while answered < least:
            time.sleep(0.2)  # between looks
            answered += add(clients.tally())
        add(clients.end())
    finally:
        clients.kill()


def _told(stand: Stand, requests: int) -> Mapping[str, float]:
    """Share of each named agent over the last ten minutes, once all of it is counted."""

    def look() -> dict[str, float] | None:
        top = stand.guard.admin("GET", "/v1/top?by=userAgent&over=10m&limit=20").json
        if top["totals"]["requests"] < 0.99 * requests:
            return None
        return {row["key"]["userAgent"]: row["share"]["requests"] for row in top["rows"]}

    return until("everything is counted", look) or {}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.crowd")
    parser.add_argument("--agents", type=int, default=200_000, help="different user-agents")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = run(folder, certificates_in(folder), arguments.agents)
    missed = found.missed()
    print("\n".join([*found.lines(), *missed]))  # noqa: T201 - its result
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
