"""Ten times what upstream's ceiling admits, and what becomes of everybody else.

``python -m tests.e2e.overload`` prints the figures and fails when they miss a promise; ``--help``
lists what can be varied. All processes of the guard have one core; clients and upstream have the
others, and so has the operator's shell unless ``--crowded`` puts it on the guard's.

Upstream serves ``SLOTS`` requests at once, each for ``SECONDS``; the guard's ceiling for ordinary
traffic lies below, so its capacity for that is ``CEILING / SECONDS`` requests a second. First as
many clients as the ceiling use it fully: what they get is the capacity. Then ``FLOOD`` connections
ask again as soon as they are answered, whatever the answer is, while leases are renewed under an
exempt rule and an operator asks the admin port one thing after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from apiguard.demo.certs import Authority
from loadtests.bench.processes import Cpus, running_on
from loadtests.bench.procfs import cpu_seconds, tree
from tests.conftest import Certificates
from tests.e2e.guard import TOKEN, ask, until
from tests.e2e.hammer import Group, HammerProcess, Tally
from tests.e2e.real import free_ports
from tests.e2e.responder import listens
from tests.e2e.stands import Stand

ROOT = Path(__file__).parents[2]
CEILING, SLOTS, SECONDS = 40, 60, 0.1
FLOOD = 2_000
"""Connections; the guard's default for one source address is as many."""

TENFOLD = 10
PROMISED_P99 = 0.1  # seconds
PROMISED_LEASES = 0.999
PROMISED_USEFUL = 0.9
NODES, RENEWAL = 50, 0.5  # connections that renew a lease each, seconds between two renewals
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1"
LATE = 10.0  # seconds after which a lease's renewal has failed: its client no longer waits
ADMIN_TARGETS = ("/v1/status", "/v1/flows", "/v1/policy", "/v1/upstreams", "/livez", "/readyz")
METRICS = "/metrics"
COMMAND = Path(sys.executable).with_name("apiguard")
ASKED_EVERY = 0.02  # seconds: the operator, a dashboard and Prometheus together
TOKENS = 'node-token,system:node:node-1,1,"system:nodes"\nuser-token,user,2\n'
POLICY = """\
apiVersion: apiguard.io/v1alpha1
kind: ThrottlePolicy
rules:
  - name: leases
    match: {groups: ["system:nodes"], resources: [leases.coordination.k8s.io]}
    exempt: true
default:
  limits: [{requestsPerSecond: 1000000, burst: 1000000, per: [user]}]
"""


@dataclass(frozen=True, slots=True)
class Paced:
    """An upstream of limited capacity; see ``paced``."""

    url: str
    ca_file: Path
    tokens_file: Path


@contextlib.contextmanager
def paced(folder: Path, certificates: Certificates) -> Iterator[Paced]:
    (port,) = free_ports(1)
    tokens = folder / "tokens.csv"
    tokens.write_text(TOKENS)
    command = [sys.executable, "-m", "tests.e2e.paced", str(port)]
    pair = map(str, certificates.server)
    with subprocess.Popen([*command, *pair, str(SLOTS), str(SECONDS)], cwd=ROOT) as process:
        try:
            until("upstream listens", lambda: listens(port))
            yield Paced(f"https://127.0.0.1:{port}", certificates.authority, tokens)
        finally:
            process.kill()


@dataclass(slots=True)
class Figures:
    """What a run found; seconds and shares unless named otherwise."""

    capacity_per_second: float = 0.0
    useful_per_second: float = 0.0
    offered_per_second: float = 0.0
    refused_per_second: float = 0.0
    leases: int = 0
    leases_failed: int = 0
    lease_p99: float = 0.0
    lease_worst: float = 0.0
    admin_p99: float = 0.0
    admin_worst: float = 0.0
    metrics_p99: float = 0.0
    metrics_worst: float = 0.0
    cli_median: float = 0.0
    cli_p99: float = 0.0
    cli_worst: float = 0.0
    guard_cores: float = 0.0
    guard_waited: float = 0.0  # for its core, which others used, by the wall clock
    connections_broken: int = 0

    @property
    def useful_share(self) -> float:
        """Of the capacity, by requests answered 200."""
        return self.useful_per_second / self.capacity_per_second

    @property
    def times_offered(self) -> float:
        """What clients sent, as a multiple of the capacity."""
        return self.offered_per_second / self.capacity_per_second

    @property
    def leases_served(self) -> float:
        return 1.0 - self.leases_failed / self.leases

    def missed(self, headroom: float = 1.0) -> list[str]:
        """Promises not kept; times may be ``headroom`` times as long."""
        slowest = max(self.admin_p99, self.metrics_p99, self.cli_p99)
        kept = {
            f"ten times the capacity is offered, not {self.times_offered:.1f}": (
                self.times_offered >= TENFOLD
            ),
            f"operators are answered within {PROMISED_P99} s, not {slowest:.3f}": (
                slowest <= PROMISED_P99 * headroom
            ),
            f"leases are renewed, not all but {self.leases_failed}": (
                self.leases_served >= PROMISED_LEASES
            ),
            f"{PROMISED_USEFUL:.0%} of the capacity is used, not {self.useful_share:.0%}": (
                self.useful_share >= PROMISED_USEFUL
            ),
        }
        return [f"missed: {promise}" for promise, holds in kept.items() if not holds]

    def lines(self) -> list[str]:
        named = [*(field.name for field in fields(self)), "useful_share", "times_offered"]
        return [f"{name:22} {getattr(self, name):10.3f}" for name in [*named, "leases_served"]]


class Overload:
    """A stand on one core, and clients on the others. Leave with ``close``."""

    def __init__(
        self,
        folder: Path,
        upstream: Paced,
        certificates: Certificates,
        *,
        workers: int = 1,
        crowded: bool = False,
    ) -> None:
        cpus = Cpus()
        self._shell = cpus.proxy if crowded else cpus.others
        self._clients: list[HammerProcess] = []
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cpus.others)
        self._restore = before
        try:
            with running_on(cpus.proxy):
                self.stand = Stand(
                    "overload",
                    folder,
                    upstream,
                    certificates,
                    POLICY,
                    {"bounds": {"requestsPerUpstream": CEILING}, "workers": workers},
                )
        except BaseException:
            os.sched_setaffinity(0, before)
            raise
        self.nodes = self._hammer(
            Group(
                *("nodes", NODES, "kubelet/v1.36", "node-token"),
                target=LEASE,
                method="PUT",
                body='{"kind":"Lease","apiVersion":"coordination.k8s.io/v1"}',
                pause=RENEWAL,
            )
        )

    def close(self) -> None:
        for clients in self._clients:
            clients.kill()
        self.stand.close()
        os.sched_setaffinity(0, self._restore)

    def capacity(self, seconds: float) -> float:
        """Answers a second that as many clients as the ceiling get, with nobody else there."""
        users = self._hammer(Group("users", CEILING, "users/1", "user-token"))
        tally = _during(users, seconds, "users")
        users.kill()
        return tally.answers.get(200, 0) / seconds

    def flood(self) -> HammerProcess:
        """At work when this returns. Last in line for a CPU: it is the load, not the measure."""
        group = Group("flood", FLOOD, "flood/1", "user-token", source="127.0.0.2")
        return self._hammer(group, niceness=10)

    def measure(self, figures: Figures, flood: HammerProcess, seconds: float) -> None:
        """What clients and operator see within ``seconds``."""
        root = self.stand.guard.process.pid
        self.nodes.tally()
        flood.tally()
        begun, cpu, waited = time.monotonic(), cpu_seconds(root), _waited(root)
        self._operate(figures, begun + seconds)
        flooded, leases = flood.tally()["flood"], self.nodes.tally()["nodes"]
        took = time.monotonic() - begun
        figures.guard_cores = (cpu_seconds(root) - cpu) / took
        figures.guard_waited = (_waited(root) - waited) / took
        figures.useful_per_second = flooded.answers.get(200, 0) / took
        figures.refused_per_second = sum(flooded.answers.values()) / took - (
            figures.useful_per_second
        )
        figures.offered_per_second = flooded.sent / took
        figures.connections_broken = flooded.broken + leases.broken
        figures.leases = leases.sent
        figures.leases_failed = _failed(leases)
        figures.lease_p99, figures.lease_worst = _p99(leases.seconds), max(leases.seconds)

    def _operate(self, figures: Figures, until: float) -> None:
        """One question after the other to the admin port, by HTTP and by command line."""
        admin: list[float] = []
        metrics: list[float] = []
        commands: list[float] = []
        questions: list[tuple[list[float], Callable[[], float]]] = [
            (admin, partial(self._admin_seconds, target)) for target in ADMIN_TARGETS
        ]
        questions.append((metrics, partial(self._admin_seconds, METRICS)))
        questions.append((commands, self._command_seconds))
        for durations, question in itertools.cycle(questions):
            if time.monotonic() >= until:
                break
            durations.append(question())
            time.sleep(ASKED_EVERY)  # the operator's pace
        figures.admin_p99, figures.admin_worst = _p99(admin), max(admin)
        figures.metrics_p99, figures.metrics_worst = _p99(metrics), max(metrics)
        figures.cli_median = statistics.median(commands)
        figures.cli_p99, figures.cli_worst = _p99(commands), max(commands)

    def _command_seconds(self) -> float:
        """How long one command takes, from starting its process to its end."""
        guard = self.stand.guard
        address = "http://{}:{}".format(*guard.admin_address)
        asked = ["--server", address, "--token-file", str(guard.directory / "token")]
        with running_on(self._shell):
            begun = time.perf_counter()
            done = subprocess.run(
                [str(COMMAND), "status", *asked],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return time.perf_counter() - begun

    def _admin_seconds(self, target: str) -> float:
        """How long one admin request takes, on a connection of its own."""
        begun = time.perf_counter()
        answer = ask(
            self.stand.guard.admin_address, "GET", target, {"Authorization": f"Bearer {TOKEN}"}
        )
        assert answer.code == 200, answer.text
        return time.perf_counter() - begun

    def _hammer(self, group: Group, niceness: int = 0) -> HammerProcess:
        port, authority = self.stand.guard.address[1], self.stand.guarded.authority
        made = HammerProcess(port, authority, [group], niceness=niceness)
        self._clients.append(made)
        made.wait()
        return made


def _during(clients: HammerProcess, seconds: float, name: str) -> Tally:
    clients.tally()
    time.sleep(seconds)  # the window of a measurement
    return clients.tally()[name]


def _failed(tally: Tally) -> int:
    """Requests answered otherwise than with 200, too late, or not at all in time."""
    others = sum(count for code, count in tally.answers.items() if code != 200)
    late = sum(seconds > LATE for seconds in tally.seconds) + (tally.oldest > LATE)
    return others + late + tally.broken


def _waited(root: int) -> float:
    """Seconds in which the processes of a tree could have run and did not (proc(5), schedstat)."""
    nanoseconds = (Path(f"/proc/{pid}/schedstat").read_text().split()[1] for pid in tree(root))
    return sum(map(int, nanoseconds)) / 1e9


def _p99(values: Sequence[float]) -> float:
    """The nearest rank: the greatest of fewer than a hundred."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def run(
    folder: Path,
    certificates: Certificates,
    seconds: float,
    *,
    workers: int = 1,
    crowded: bool = False,
) -> Figures:
    """All of it once; ``seconds`` is the window under overload."""
    figures = Figures()
    with paced(folder, certificates) as upstream:
        overload = Overload(folder, upstream, certificates, workers=workers, crowded=crowded)
        try:
            figures.capacity_per_second = overload.capacity(min(seconds, 4.0))
            overload.measure(figures, overload.flood(), seconds)
        except BaseException:
            sys.stderr.writelines(overload.stand.guard.stderr[-20:])
            raise
        finally:
            overload.close()
    return figures


def certificates_in(folder: Path) -> Certificates:
    authority = Authority("apiguard tests")
    (folder / "ca.crt").write_bytes(authority.certificate)
    return Certificates(
        folder / "ca.crt",
        authority.server().write(folder, "server"),
        authority.client("alice", ["devs"]).write(folder, "client"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.overload")
    parser.add_argument("--seconds", type=float, default=15.0, help="window under overload")
    parser.add_argument("--workers", type=int, default=1, help="processes that carry traffic")
    parser.add_argument("--crowded", action="store_true", help="commands on the guard's core")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = run(
            folder,
            certificates_in(folder),
            arguments.seconds,
            workers=arguments.workers,
            crowded=arguments.crowded,
        )
    missed = found.missed()
    print("\n".join([*found.lines(), *missed]))  # noqa: T201 - its result
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
