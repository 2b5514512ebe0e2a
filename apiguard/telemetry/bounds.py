"""Names of the bounds: one counter each, so that a bound that bites is never silent.

The names are label values of ``apiguard_bound_hits_total`` and keys of ``Counters.bounds``.
Each describes what was refused, closed or cut when the bound was reached.
"""

from __future__ import annotations

from types import MappingProxyType

HEADER_BYTES = "header_bytes"
HEADER_FIELDS = "header_fields"
HEADER_DEADLINE = "header_deadline"
TARGET_BYTES = "target_bytes"
HANDSHAKE_DEADLINE = "handshake_deadline"
HANDSHAKES_OPEN = "handshakes_open"
BODY_BYTES = "body_bytes"
BODY_RATE = "body_rate"
CLIENT_IDLE = "client_idle"
UPSTREAM_IDLE = "upstream_idle"
UPSTREAM_FIRST_BYTE = "upstream_first_byte"
CONNECTIONS = "connections"
CONNECTIONS_PER_SOURCE = "connections_per_source"
BUCKETS = "buckets"
PIPELINED = "pipelined"
BUFFERED = "buffered"
WAITING_REQUESTS = "waiting_requests"
WATCHES = "watches"
WRITE_STALL = "write_stall"
REFUSED_TOO_OFTEN = "refused_too_often"
SIGNATURE_CHECKS = "signature_checks"
TOKEN_REVIEWS = "token_reviews"  # noqa: S105  the name of a bound, not of a secret
ACTIVITY = "activity"
DRAIN = "drain"
MEMORY_COMFORT = "memory_comfort"
MEMORY_READS = "memory_reads"
MEMORY_CLIENTS = "memory_clients"
MEMORY_CONNECTIONS = "memory_connections"

BOUNDS = MappingProxyType(
    {
        HEADER_BYTES: "request headers larger than allowed: 431",
        HEADER_FIELDS: "more request header fields than allowed: 431",
        HEADER_DEADLINE: "request headers incomplete at their deadline: 408",
        TARGET_BYTES: "request target longer than allowed: 414",
        HANDSHAKE_DEADLINE: "TLS handshakes unfinished at their deadline: closed",
        HANDSHAKES_OPEN: "connections over the number of unfinished TLS handshakes: closed",
        BODY_BYTES: "request bodies larger than allowed: 413",
        BODY_RATE: "request bodies slower than the least rate: 408",
        CLIENT_IDLE: "client connections closed for idling",
        UPSTREAM_IDLE: "upstream connections closed for idling",
        UPSTREAM_FIRST_BYTE: "requests whose answer did not begin (504) or go on (cut) in time",
        CONNECTIONS: "connections over the limit of the worker: closed",
        CONNECTIONS_PER_SOURCE: "connections over the limit of their source address: closed",
        BUCKETS: "requests that found the bucket table full and used the overflow bucket",
        PIPELINED: "times reading stopped for pipelined requests",
        BUFFERED: "times reading stopped for a full buffer",
        WAITING_REQUESTS: "requests that found no upstream connection and no place to wait: 429",
        WRITE_STALL: "clients that accepted no byte of an answer for too long: closed",
        WATCHES: "watches refused at the limit of open watches: 429",
        REFUSED_TOO_OFTEN: "times a connection refused too often was not read for a while",
        SIGNATURE_CHECKS: "tokens not verified for now: too many new signatures to check",
        TOKEN_REVIEWS: "tokens not reviewed for now: too many reviews wanted",
        ACTIVITY: "requests of more clients than one interval names: counted without client",
        DRAIN: "exchanges cut at the end of a drain",
        MEMORY_COMFORT: "times a worker short of memory gave back caches and idle connections",
        MEMORY_READS: "lists and watches of collections refused for memory: 429",
        MEMORY_CLIENTS: "clients that held answers without reading them, cut for memory",
        MEMORY_CONNECTIONS: "connections refused for memory: closed",
    }
)
"""Every bound with what a hit of it means."""
