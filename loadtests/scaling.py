"""Measured costs turned into what clusters of some sizes need: writes ``docs/scaling.md``.

    python -m loadtests.scaling .bench/RUN.json

The run must hold the cases named in ``MEASURED``; what is missing is named and nothing is written.
The figures used are kept in ``docs/scaling.json`` beside the page, so that the page can be made
again without the run. What a node asks for is assumed; ``Demand`` says what and why.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from loadtests.bench.results import Run, read

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FIGURES = DOCS / "scaling.md", DOCS / "scaling.json"
SIZES = (1_000, 5_000, 15_000, 65_000)
CONTROL_PLANES = 3
BUSY = 0.6
"""Share of a core a worker may use in the mean: the rest is for bursts and reconnects."""

PORTS = 28_232
"""Linux' default range, 32768-60999: connections from one address to one API server's port."""

MOST_PORTS = 64_511
"""With ip_local_port_range widened to 1024-65535, less one."""

WORKER_MIB = 80
OBJECT_BYTES = 4_096
SHARED_OBJECTS = 2
"""Services and endpoint slices, for each node of the cluster."""

Where = tuple[str, str, str]

MEASURED: Mapping[str, Where] = {
    "request": ("proxied-tls", "apiguard", "cpu_us"),
    "refusal": ("refused", "refused", "cpu_us"),
    "handshake": ("handshakes", "apiguard", "cpu_us"),
    "forwarded_event": ("watch", "apiguard", "cpu_us"),
    "relayed_event": ("relay-events", "relay, 1000", "cpu_us"),
    "forwarded_mib": ("list", "apiguard", "cpu_us"),
    "relayed_list": ("relay-list", "relay", "cpu_us"),
    "watcher_kib": ("relay-memory", "relay, idle watcher", "growth_kib"),
    "store_share": ("relay-store", "relay", "share"),
}
"""Field of ``Costs`` -> case, row and figure of a run."""

WORDS = {
    "request": "a request, proxied over TLS on both sides (CPU µs)",
    "refusal": "a refusal with 429 (CPU µs)",
    "handshake": "a full TLS handshake with one request (CPU µs)",
    "forwarded_event": "a 4 KB watch event, forwarded (CPU µs)",
    "relayed_event": "a 4 KB watch event from the relay to one of 1,000 watchers (CPU µs)",
    "forwarded_mib": "a MiB of a forwarded LIST (CPU µs)",
    "relayed_list": "a LIST of 10,000 pods, 40 MB, from the relay (CPU µs)",
    "watcher_kib": "an idle watcher (KiB)",
    "store_share": "an object in the relay, by its JSON bytes",
}


@dataclass(frozen=True, slots=True)
class Costs:
    """Medians, in the units of ``WORDS``; of the worker process alone."""

    request: float
    refusal: float
    handshake: float
    forwarded_event: float
    relayed_event: float
    forwarded_mib: float
    relayed_list: float
    watcher_kib: float
    store_share: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What one node asks of the API in quiet operation; per second where a rate."""

    heartbeats: float = 0.1
    """kubelet renews its lease every 10 s."""

    other_requests: float = 0.1
    """Statuses of pods and nodes, events, tokens, reviews, DaemonSets' few GETs."""

    watches: int = 35
    """kubelet 6 and about 20 secrets and configmaps, kube-proxy 4, CNI agent 5."""

    watch_seconds: float = 450.0
    """client-go ends a watch after 5 to 10 minutes and asks again."""

    request_connections: int = 4
    """Kept open beside the watches: kubelet, kube-proxy, CNI agent, telemetry."""

    own_events: float = 0.2
    """Changes of its own pods and referenced objects, to its own watches."""

    shared_watches: int = 3
    """Of those watches, how many see every change of services and endpoint slices."""

    @property
    def requests(self) -> float:
        return self.heartbeats + self.other_requests + self.watches / self.watch_seconds

    @property
    def connections(self) -> int:
        """Over HTTP/1.1 each watch is a connection of its own."""
        return self.watches + self.request_connections


SHARED_CHANGES = 1 / 1_000
"""Changes of services and endpoint slices a second, for each node of the cluster."""

CONTROLLERS = 100.0, 0.02
"""Requests a second of controllers, operators and people: a floor, and for each node."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What all guards of a cluster need together; ``upstream`` connections to API servers."""

    nodes: int
    requests: float
    events: float
    cores: float
    memory_gib: float
    clients: int
    upstream: int

    @property
    def workers(self) -> int:
        return math.ceil(self.cores / BUSY)


def capacity(nodes: int, costs: Costs, demand: Demand, *, relay: bool) -> Capacity:
    """With ``relay`` shared watches are answered from one store in each worker."""
    floor, each = CONTROLLERS
    requests = floor + nodes * (each + demand.requests)
    shared = nodes * demand.shared_watches * nodes * SHARED_CHANGES
    own = nodes * demand.own_events
    shared_cost = costs.relayed_event if relay else costs.forwarded_event
    micros = requests * costs.request + own * costs.forwarded_event + shared * shared_cost
    clients = nodes * demand.connections
    relayed = nodes * demand.shared_watches if relay else 0
    upstream = nodes * demand.watches - relayed + int(requests)
    cores = micros / 1e6
    kib = (clients + upstream) * costs.watcher_kib
    workers = math.ceil(cores / BUSY)
    store = nodes * SHARED_OBJECTS * OBJECT_BYTES * costs.store_share / 1_024 if relay else 0.0
    kib += workers * (WORKER_MIB * 1_024 + store)
    return Capacity(nodes, requests, own + shared, cores, kib / (1 << 20), clients, upstream)


def largest(fits: Sequence[int]) -> int:
    """The last size of an ascending row that fits, 0 for none."""
    return fits[-1] if fits else 0


# -- the run


def costs_of(run: Run) -> Costs:
    """Raises ValueError naming every case the run lacks."""
    missing = sorted(
        {
            case
            for case, row, name in MEASURED.values()
            if not any(name in window for window in run.samples.get(case, {}).get(row, []))
        }
    )
    if missing:
        raise ValueError(f"the run lacks {', '.join(missing)}")
    found = {
        field: statistics.median(window[name] for window in run.samples[case][row])
        for field, (case, row, name) in MEASURED.items()
    }
    return Costs(**found)


# -- the page


def page(costs: Costs, environment: Mapping[str, str]) -> str:
    demand = Demand()
    return "\n".join(
        [
            _head(environment),
            _measured(costs),
            _assumed(demand),
            _table("Everything forwarded", costs, demand, relay=False),
            _table("Services and endpoint slices from the relay", costs, demand, relay=True),
            _ends(costs, demand),
        ]
    )


def _head(environment: Mapping[str, str]) -> str:
    machine = ", ".join(
        f"{name} {environment[name]}" for name in ("cpu", "cpus", "load", "python", "commit")
    )
    return f"""\
# Scaling

<!-- Written by `python -m loadtests.scaling .bench/RUN.json`; a test holds it current. -->

What the benchmarks measured, turned into what a cluster needs. Costs are CPU of the worker process
on one machine ({machine}).
Another machine, or the same less busy, has other ones, and two commands give its page: `make
bench`, then `python -m loadtests.scaling .bench/latest.json`.

A result is an estimate: its costs are measured, its demand is assumed. Measure the demand of your
cluster in shadow mode ([static pod](../deploy/static-pod/README.md), step 3): `apiguard top` and
`/metrics` have every figure of the second table.
"""


def _measured(costs: Costs) -> str:
    rows = [f"| {WORDS[one.name]} | {_short(getattr(costs, one.name))} |" for one in fields(costs)]
    return "\n".join(["## Measured", "", "| One of | costs |", "|---|---|", *rows, ""])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _assumed(demand: Demand) -> str:
    floor, each = CONTROLLERS
    return f"""\
## Assumed

| Of | is |
|---|---|
| requests of a node, heartbeats included | {demand.requests:.2g} a second |
| requests of controllers and people | {floor:.0f} a second and {each:g} for each node |
| watches of a node | {demand.watches}, {demand.shared_watches} of all services or endpoint slices |
| connections of a node | {demand.connections}: over HTTP/1.1 each watch is one |
| changes of those | {SHARED_CHANGES * 1_000:g} a second for each 1,000 nodes |
| those | {SHARED_OBJECTS} for each node, of {OBJECT_BYTES:,} bytes |
| a worker | may use {BUSY:.0%} of a core in the mean, and has {WORKER_MIB} MiB to itself |

Quiet operation, that is. After a restart of a guard every client connects anew: at
`bounds.unfinishedHandshakes` a worker sets up as many connections a second as the handshake above
lets it, and the others wait.
"""


def _table(title: str, costs: Costs, demand: Demand, *, relay: bool) -> str:
    lines = [
        f"## {title}",
        "",
        "| Nodes | Requests/s | Events/s | Cores used | Workers | Memory, GiB |"
        " Clients' connections | Connections upstream |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for nodes in SIZES:
        one = capacity(nodes, costs, demand, relay=relay)
        lines.append(
            f"| {nodes:,} | {one.requests:,.0f} | {one.events:,.0f} | {one.cores:,.2f} |"
            f" {one.workers:,} | {one.memory_gib:,.1f} | {one.clients:,} | {one.upstream:,} |"
        )
    return "\n".join([*lines, "", "Of all guards of the cluster together.", ""])


def _fitting(costs: Costs, demand: Demand, *, relay: bool) -> tuple[int, int, int]:
    """Largest clusters one worker can serve, three guards by their ports, and those widened."""
    sizes = range(50, 100_001, 50)
    found = [capacity(nodes, costs, demand, relay=relay) for nodes in sizes]
    return (
        largest([one.nodes for one in found if one.workers <= 1]),
        largest([one.nodes for one in found if one.upstream <= CONTROL_PLANES * PORTS]),
        largest([one.nodes for one in found if one.upstream <= CONTROL_PLANES * MOST_PORTS]),
    )


def _mostly_shared(nodes: int, costs: Costs, demand: Demand) -> bool:
    """Whether events that everybody gets cost more than half of the cores."""
    shared = nodes * demand.shared_watches * nodes * SHARED_CHANGES * costs.forwarded_event
    return shared / 1e6 > capacity(nodes, costs, demand, relay=False).cores / 2


def _ends(costs: Costs, demand: Demand) -> str:
    one, ports, wide = _fitting(costs, demand, relay=False)
    square = next(n for n in range(50, 100_001, 50) if _mostly_shared(n, costs, demand))
    relayed_one, relayed_ports, relayed_wide = _fitting(costs, demand, relay=True)
    return f"""\
## Where it ends

- **One worker** serves the cluster of up to {one:,} nodes, with the relay {relayed_one:,}. Beyond,
  `workers` adds cores on one machine, and each control-plane node has a guard of its own.
- **Ports.** A forwarded watch holds a local port of the guard, and Linux has {PORTS:,} from one
  address to one API server. {CONTROL_PLANES} guards with an API server each reach them at
  {ports:,} nodes (relay: {relayed_ports:,}); with `net.ipv4.ip_local_port_range = 1024 65535` at
  {wide:,} ({relayed_wide:,}). `bounds.watchesPerUpstream` stops at 20,000 before that and has to be
  raised with it. Several API servers behind each guard multiply the ports.
- **HTTP/1.1** is the reason for those numbers: clients that could put all their watches on one
  connection of HTTP/2 need one for each here, at both sides. Beyond the sizes above this guard is
  the wrong tool, or needs several in parallel for disjoint sets of nodes.
- **Changes that everybody watches** grow with the square of the cluster. From {square:,} nodes on
  they cost the guard more than all else, and the API servers likewise. What helps is fewer watchers
  or fewer changes, not a proxy.
"""


def main(arguments: Sequence[str]) -> int:
    """Exit code: 1 when the run does not hold what is needed."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)  # noqa: T201  a command's usage
        return 2
    try:
        run = read(Path(arguments[0]))
        costs = costs_of(run)
    except (OSError, ValueError, TypeError) as error:
        print(f"scaling: {arguments[0]}: {error}", file=sys.stderr)  # noqa: T201  why there is no page
        return 1
    kept = {"environment": run.environment, "costs": asdict(costs)}
    FIGURES.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(costs, run.environment), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
