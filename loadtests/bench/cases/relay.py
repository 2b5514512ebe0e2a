"""What the relay costs: its lists, its events, and the memory of both."""

from __future__ import annotations

from loadtests.bench.cases.case import PODS, Case, Row
from loadtests.bench.peers.broadcaster import BARE_UVLOOP
from loadtests.bench.peers.kubernetes import KUBERNETES
from loadtests.bench.peers.nginx_file import NGINX_FILE
from loadtests.bench.peers.relay import PROBED_RELAY, RELAY

_LISTERS = 4
_MANY_LISTERS = 50
_IDLE = 500
_LATENCY_WATCHERS = 200
_STALLED = 2
_NODE_CHANGES = 200.0

RELAY_LIST = Case(
    "relay-list",
    "LIST of 10,000 pods of 4 KB: from the relay, as a static file",
    "list",
    (
        Row(RELAY, "relay-lists", connections=_LISTERS, seconds=2.0, label="relay"),
        Row(NGINX_FILE, "relay-lists", connections=_LISTERS, seconds=2.0, label="file"),
        # One reader, so that every list is built anew.
        Row(
            RELAY,
            "relay-lists",
            connections=1,
            seconds=2.0,
            each_changed=True,
            label="relay, changing",
        ),
    ),
    upstream=PODS,
)
RELAY_EVENTS = Case(
    "relay-events",
    "watch events of 4 KB: from the relay, as bare writes of uvloop",
    "event",
    (
        Row(RELAY, "relay-watch", connections=1000, rate=20.0, seconds=2.0, label="relay, 1000"),
        Row(
            BARE_UVLOOP,
            "relay-watch",
            connections=1000,
            rate=20.0,
            seconds=2.0,
            label="uvloop, 1000",
        ),
        Row(RELAY, "relay-watch", connections=200, rate=100.0, seconds=2.0, label="relay, 200"),
        Row(
            BARE_UVLOOP,
            "relay-watch",
            connections=200,
            rate=100.0,
            seconds=2.0,
            label="uvloop, 200",
        ),
    ),
    upstream=PODS,
    columns=("cpu_us", "p50_ms", "p99_ms"),
)
RELAY_APISERVER = Case(
    "relay-apiserver",
    "LIST of 10,000 pods and watch events of 4 KB: from the relay, from kube-apiserver",
    "unit",
    (
        Row(RELAY, "relay-lists", connections=_LISTERS, seconds=2.0, label="relay, list"),
        Row(KUBERNETES, "relay-lists", connections=_LISTERS, seconds=3.0, label="apiserver, list"),
        Row(RELAY, "relay-watch", connections=1000, rate=20.0, seconds=2.0, label="relay, event"),
        Row(
            KUBERNETES,
            "relay-watch",
            connections=1000,
            rate=20.0,
            seconds=2.0,
            label="apiserver, event",
        ),
    ),
    upstream=PODS,
)
RELAY_STALLED = Case(
    "relay-stalled",
    "delivery of events to 200 watchers, none or two more of which read nothing",
    "event",
    (
        Row(
            RELAY,
            "relay-watch",
            connections=_LATENCY_WATCHERS,
            rate=20.0,
            seconds=3.0,
            warmup=1.5,
            label="none stalled",
        ),
        Row(
            RELAY,
            "relay-watch",
            connections=_LATENCY_WATCHERS,
            rate=20.0,
            seconds=3.0,
            stalled=_STALLED,
            warmup=1.5,
            label="1 % stalled",
        ),
    ),
    upstream=PODS,
    rounds=3,
    columns=("p50_ms", "p99_ms", "cpu_us"),
)
RELAY_NODES = Case(
    "relay-nodes",
    "changes of pods, each on a node that one watcher watches",
    "change",
    tuple(
        Row(
            RELAY,
            "relay-nodes",
            connections=number,
            pods=number,
            rate=_NODE_CHANGES,
            seconds=2.0,
            label=f"{number} nodes",
        )
        for number in (50, 5_000)
    ),
    upstream=PODS,
    columns=("cpu_us", "idle_ms"),
)
RELAY_LOOP = Case(
    "relay-loop",
    "the worker's loop with 50 LISTs of 40 MB in progress",
    "list",
    (
        Row(PROBED_RELAY, "relay-lag", connections=_MANY_LISTERS, seconds=3.0, label="unchanged"),
        Row(
            PROBED_RELAY,
            "relay-lag",
            connections=_MANY_LISTERS,
            seconds=3.0,
            rate=20.0,
            label="changing",
        ),
    ),
    upstream=PODS,
    columns=("callback_ms", "lag_ms", "cpu_us"),
)
RELAY_FILLING = Case(
    "relay-filling",
    "the worker's loop while 10,000 pods are listed upstream",
    "filling",
    (Row(PROBED_RELAY, "relay-filling", label="relay"),),
    upstream=PODS,
    fresh=True,
    columns=("callback_ms", "lag_ms"),
)
RELAY_MEMORY = Case(
    "relay-memory",
    "resident memory: of an idle watcher, of a reader that takes nothing of its LIST",
    "reader",
    (
        Row(RELAY, "relay-idle", connections=_IDLE, label="relay, idle watcher"),
        Row(BARE_UVLOOP, "relay-idle", connections=_IDLE, label="uvloop, idle watcher"),
        Row(RELAY, "relay-stall", connections=_MANY_LISTERS, label="relay, stalled list"),
    ),
    upstream=PODS,
    fresh=True,
    columns=("growth_kib",),
)
RELAY_STORE = Case(
    "relay-store",
    "resident memory of 10,000 pods by their bytes",
    "byte",
    (Row(RELAY, "relay-fill", label="relay"),),
    upstream=PODS,
    fresh=True,
    rounds=1,
    columns=("share",),
)
RELAY_CEILINGS = Case(
    "relay-ceilings",
    "seven lists of 35 MB and 16,000 changes, where 128 and 64 MiB are to be kept",
    "cache",
    (Row(RELAY, "relay-ceilings", rate=2_000.0, label="relay"),),
    upstream=PODS,
    fresh=True,
    rounds=1,
    columns=("bodies_share", "log_share", "share"),
)

RELAY_CASES = (
    RELAY_LIST,
    RELAY_EVENTS,
    RELAY_APISERVER,
    RELAY_STALLED,
    RELAY_NODES,
    RELAY_LOOP,
    RELAY_FILLING,
    RELAY_MEMORY,
    RELAY_STORE,
    RELAY_CEILINGS,
)
