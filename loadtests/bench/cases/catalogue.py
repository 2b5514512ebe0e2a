"""Every case, in the order in which it runs."""

from __future__ import annotations

from loadtests.bench.cases.case import Case, Row
from loadtests.bench.cases.relay import RELAY_CASES
from loadtests.bench.peers.direct import DIRECT
from loadtests.bench.peers.guard import guard
from loadtests.bench.peers.haproxy import HAPROXY
from loadtests.bench.peers.identities import CERTIFICATE, IDENTITY_GUARD, JWT, OPAQUE
from loadtests.bench.peers.nginx import NGINX, STREAMING_NGINX
from loadtests.bench.peers.python_proxies import FLOOR, NAIVE

_GUARD = guard()
_TEN_RULES = guard("apiguard-10", rules=10)
_THOUSAND_RULES = guard("apiguard-1000", rules=1000)

_OBSERVING = guard("apiguard-observing", shadow=True)
_BLIND = guard("apiguard-blind", observing=False)

# Below the guard's 2,000 connections per source address; 1,536 = 24 groups of 64.
_WAVE_CONNECTIONS = 1536
_WATCHERS = 200
_LISTERS = 4
_STALLED = 8
# Below the guard's 64 unfinished handshakes per worker.
_SHAKING = 16

PROXIED_TLS = Case(
    "proxied-tls",
    "GET of a 2 KB object, TLS on both sides, 64 connections, 20 rules",
    "request",
    tuple(Row(peer) for peer in (_GUARD, HAPROXY, NGINX, FLOOR, NAIVE)),
    rounds=3,
)
PROXIED_PLAIN = Case(
    "proxied-plain",
    "the same in plain HTTP, for information",
    "request",
    tuple(Row(peer, seconds=0.5) for peer in (_GUARD, HAPROXY, NGINX, FLOOR, NAIVE)),
    secure=False,
    rounds=1,
)
REFUSED = Case(
    "refused",
    "a 429 beside a proxied request of the same guard",
    "answer",
    (
        Row(_GUARD, label="proxied"),
        Row(_GUARD, "waves", "refused", _WAVE_CONNECTIONS, label="refused"),
        Row(HAPROXY, "waves", "refused", _WAVE_CONNECTIONS, label="haproxy refused"),
    ),
)
RULES = Case(
    "rules",
    "1,000 rules and 50,000 distinct (user-agent, user, path) beside 10 rules",
    "request",
    (
        Row(_TEN_RULES, label="10 rules, one client"),
        Row(_TEN_RULES, traffic="distinct", label="10 rules, distinct", warmup=2.0),
        Row(_THOUSAND_RULES, traffic="distinct", label="1,000 rules, distinct", warmup=2.0),
    ),
)
WATCH = Case(
    "watch",
    "forwarded 4 KB watch events, 200 watchers, 100 events a second",
    "event",
    tuple(
        Row(peer, "watch", "watches", _WATCHERS)
        for peer in (_GUARD, HAPROXY, STREAMING_NGINX, FLOOR)
    ),
)
LIST = Case(
    "list",
    "forwarded 40 MB LISTs, 4 at a time",
    "MiB",
    tuple(Row(peer, "lists", "lists", _LISTERS) for peer in (_GUARD, HAPROXY, NGINX, FLOOR)),
)
STALLED = Case(
    "stalled",
    "memory per client that asked for a 40 MB LIST and stopped reading",
    "reader",
    tuple(Row(peer, "stall", "lists", _STALLED) for peer in (_GUARD, HAPROXY)),
    fresh=True,
    columns=("growth_kib", "connection_kib"),
)
LATENCY = Case(
    "latency",
    "latency at half load: constant rate, measured from the moment a request was due",
    "request",
    tuple(Row(peer, "open", seconds=1.5) for peer in (_GUARD, DIRECT, HAPROXY)),
    half_load_of="apiguard",
    rounds=3,
    columns=("p50_ms", "p99_ms", "p999_ms"),
)
HANDSHAKES = Case(
    "handshakes",
    "full TLS handshakes, one request each",
    "handshake",
    tuple(
        Row(peer, "handshakes", connections=_SHAKING) for peer in (_GUARD, HAPROXY, NGINX, FLOOR)
    ),
    columns=("cpu_us", "per_cpu_second"),
)
IDENTITY = Case(
    "identity",
    "a verified token and a client certificate beside an unknown token of equal length",
    "request",
    (
        Row(IDENTITY_GUARD, label="unknown token", caller=OPAQUE),
        Row(IDENTITY_GUARD, label="verified JWT", caller=JWT),
        Row(IDENTITY_GUARD, label="certificate", caller=CERTIFICATE),
    ),
)
OBSERVABILITY = Case(
    "observability",
    "sketches, samples, audit and a shadow rule that would refuse nearly all, on and off",
    "request",
    (
        Row(_OBSERVING, label="on"),
        Row(_BLIND, label="off"),
        Row(_OBSERVING, traffic="distinct", label="on, distinct", warmup=2.0),
        Row(_BLIND, traffic="distinct", label="off, distinct", warmup=2.0),
    ),
    rounds=3,
)

CASES = (
    PROXIED_TLS,
    PROXIED_PLAIN,
    REFUSED,
    RULES,
    WATCH,
    LIST,
    STALLED,
    LATENCY,
    HANDSHAKES,
    IDENTITY,
    OBSERVABILITY,
    *RELAY_CASES,
)
