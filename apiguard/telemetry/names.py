"""Every metric the guard exports: name, type, labels and help text.

Prometheus' conventions: base units, ``_total`` on counters, a histogram named by its unit. Label
values come from the policy, the configuration or fixed lists, never from a request.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """``name`` is the sample name; counters carry their ``_total`` in it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"apiguard_{name}_total", Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"apiguard_{name}", Kind.GAUGE, text, labels)


def _histogram(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"apiguard_{name}", Kind.HISTOGRAM, text, labels)


RULE_REQUESTS = _counter(
    "rule_requests",
    "Requests by policy rule: admitted, refused, or admitted although over a limit in shadow.",
    "rule",
    "decision",
)
RULE_DECISIONS = ("admitted", "refused", "would_refuse")
REQUESTS = _counter(
    "requests",
    "Finished requests by decision, class of verb and status code (0: none was sent).",
    "decision",
    "verb_class",
    "code",
)
BOUND_HITS = _counter("bound_hits", "Times a configured bound was reached.", "bound")
GUARD_SECONDS = _histogram(
    "guard_duration_seconds", "Time the guard itself added to a request before forwarding it."
)
QUEUE_SECONDS = _histogram(
    "queue_duration_seconds", "Time a request waited for a connection upstream."
)
UPSTREAM_SECONDS = _histogram(
    "upstream_duration_seconds", "Time from sending a request upstream to its first answer byte."
)
RECEIVED_BYTES = _counter("received_bytes", "Bytes received from clients, after TLS.")
SENT_BYTES = _counter("sent_bytes", "Bytes sent to clients, before TLS.")
ACCEPTED = _counter("connections_accepted", "Client connections accepted.")

CONNECTIONS = _gauge("connections", "Open client connections.", "worker")
EXCHANGES = _gauge("requests_in_flight", "Requests being served, watches included.", "worker")
WATCHES = _gauge("watches", "Open watches and other long-running requests.", "worker")
BUCKETS = _gauge("buckets", "Token buckets that have been used and are remembered.")
UPSTREAM_USABLE = _gauge("upstream_usable", "1 when the upstream server is usable.", "server")
UPSTREAM_STATES = ("unprobed", "fit", "unfit", "drained")
UPSTREAM_STATE = _gauge("upstream_state", "1 for the server's state, else 0.", "server", "state")
UPSTREAM_IN_FLIGHT = _gauge(
    "upstream_requests_in_flight", "Requests under way, watches included.", "server"
)
CERTIFICATE_EXPIRY = _gauge(
    "certificate_expiration_timestamp_seconds",
    "When a certificate in use expires, as Unix time; of a bundle the first to expire.",
    "setting",
)
FILE_BROKEN = _gauge(
    "file_broken", "1 for a file that is broken on disk; what it held before is used.", "setting"
)
FILES_REJECTED = _counter("files_rejected", "Changed files that could not be used.")

WORKERS = _gauge("workers", "Workers configured.")
WORKERS_READY = _gauge("workers_ready", "Workers that serve and report.")
WORKER_RESTARTS = _counter("worker_restarts", "Workers replaced, by cause.", "cause")
LOOP_LAG = _gauge("worker_loop_lag_seconds", "Lag of a worker's event loop.", "worker")
REPORT_AGE = _gauge("worker_report_age_seconds", "Age of a worker's last report.", "worker")
PROCESS_CPU = _counter(
    "process_cpu_seconds",
    "CPU time of a process of the guard; a new process begins at 0.",
    "process",
)
PROCESS_MEMORY = _gauge(
    "process_resident_memory_bytes", "Resident memory of a process of the guard.", "process"
)
PROCESS_DESCRIPTORS = _gauge(
    "process_open_fds", "Open file descriptors of a process of the guard.", "process"
)
START_TIME = _gauge("start_time_seconds", "Start of the guard, as Unix time.")

GENERATION = _gauge("policy_generation", "Generation of the active policy.")
POLICY_CHANGES = _counter("policy_changes", "Attempts to change the policy, by result.", "result")
ENFORCEMENT = _gauge("enforcement", "1 for the mode in force, else 0.", "mode")
BUILD = _gauge("build_info", "Always 1; the version as label.", "version")
OVERRIDES = _gauge("overrides_active", "Overrides in force, by what they do.", "action")
OVERRIDE_EXPIRY = _gauge(
    "override_expiration_timestamp_seconds",
    "When an override ends, as Unix time; the 50 that end first.",
    "id",
    "action",
)
AUDIT_LINES = _counter("audit_lines", "Lines put on record, by kind.", "kind")
AUDIT_LINES_LOST = _counter(
    "audit_lines_lost", "Lines of the record that no disk took, or that were too many."
)
ACTIVITY_ROWS_DROPPED = _counter(
    "activity_rows_dropped", "Rows of what clients did that top lacks: no time to take them in."
)
ADMIN_REQUESTS = _counter(
    "admin_requests",
    "Requests answered by the admin port, by route and status code.",
    "route",
    "code",
)
LOG_DROPPED = _counter("log_lines_dropped", "Log lines lost because stderr did not take them.")

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of the above, in order of definition."""
