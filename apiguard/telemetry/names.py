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
MEMORY_LIMIT = _gauge(
    "worker_memory_limit_bytes", "Resident memory each worker sheds to stay below; 0: none."
)
MEMORY_LEVEL = _gauge(
    "worker_memory_level",
    "What the worker nearest to its memory limit sheds: 0 nothing, 1 caches, 2 also lists and"
    " watches, 3 also clients that do not read.",
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
_CACHE = ("group", "version", "resource", "form")
"""Labels of a cache; the 12 that were asked for first are exported."""
RELAY_CACHE_READY = _gauge(
    "relay_cache_ready", "1 while all workers that hold the cache are in step.", *_CACHE
)
RELAY_CACHE_OBJECTS = _gauge("relay_cache_objects", "Objects in a cache.", *_CACHE)
RELAY_CACHE_BYTES = _gauge(
    "relay_cache_bytes", "Bytes of a cache's objects, over all workers.", *_CACHE
)
RELAY_CACHE_LOST = _gauge(
    "relay_cache_lost_seconds", "For how long upstream was not heard, 0 while it is.", *_CACHE
)
RELAY_CACHE_WATCHERS = _gauge("relay_cache_watchers", "Open watches of a cache.", *_CACHE)
RELAY_CACHES = _gauge("relay_caches", "Caches by state, one for each worker's.", "state")
RELAY_MEMORY = _gauge("relay_memory_bytes", "Memory of the relay, by what it holds.", "kind")
RELAY_WATCHERS = _gauge("relay_watchers", "Open watches answered by the relay.")
RELAY_SLOW_WATCHERS = _gauge("relay_slow_watchers", "Watchers behind the latest event.")
RELAY_WAITING = _gauge("relay_waiting_requests", "Requests waiting for review, cache or proof.")
RELAY_LISTS = _counter(
    "relay_lists", "Lists answered by the relay, by the state they had to show.", "reading"
)
RELAY_WATCHES = _counter("relay_watches", "Watches begun by the relay.")
RELAY_EVENTS = _counter("relay_events", "Events delivered to watchers that kept up.")
RELAY_STALE_READS = _counter(
    "relay_stale_reads", "Lists answered with old data while upstream was away."
)
RELAY_BYPASSES = _counter(
    "relay_bypasses", "Reads of relayed resources that went upstream, by reason.", "reason"
)
RELAY_REFUSALS = _counter("relay_refusals", "Reads refused by the relay, by status.", "code")
RELAY_WAITS = _counter("relay_waits", "Reads that had to wait, by what for.", "cause")
RELAY_WATCHER_LAGS = _counter("relay_watcher_lags", "Times a watcher fell behind.")
RELAY_ENDINGS = _counter("relay_watch_endings", "Ends of relayed watches, by why.", "reason")
RELAY_REVOCATIONS = _counter(
    "relay_revocations", "Watches ended because their reader may no longer read.", "reason"
)
RELAY_PROOFS = _counter("relay_proofs", "Proofs of freshness asked of upstream.")
RELAY_DIGESTS = _counter("relay_digests", "Comparisons of caches with upstream.")
RELAY_MISMATCHES = _counter("relay_digest_mismatches", "Comparisons that differed.")
RELAY_COMPRESSED = _counter(
    "relay_compressed_pieces", "Pieces of lists compressed, each once for all who read it."
)
RELAY_REBUILDS = _counter("relay_rebuilds", "Times a cache contradicted upstream.")
RELAY_UPSTREAM = _counter(
    "relay_upstream_requests", "Lists and watches the relay itself asked of upstream.", "verb"
)
RELAY_REVIEWS = _counter("relay_reviews", "SubjectAccessReviews by result.", "result")
RELAY_VERDICTS = _counter(
    "relay_verdicts", "How readers were judged without a review of their own.", "kind"
)
RELAY_BUDGET = _gauge("relay_review_budget", "SubjectAccessReviews allowed per second.")
RELAY_BUDGET_USED = _gauge("relay_review_budget_used_ratio", "Part of it used just now.")
RELAY_STRETCH = _gauge(
    "relay_review_stretch_seconds", "By how much the most overdue review is late."
)
RELAY_VERDICTS_HELD = _gauge("relay_verdicts_held", "Verdicts remembered.")
RELAY_WATCH_QUESTIONS = _gauge("relay_watch_questions", "Distinct questions of open watches.")
LOG_DROPPED = _counter("log_lines_dropped", "Log lines lost because stderr did not take them.")

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of the above, in order of definition."""
