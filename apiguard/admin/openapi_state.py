"""What ``/v1/status`` and ``/v1/explain`` answer, as types; see ``openapi_shapes``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from apiguard.admin.openapi_shapes import (
    Check,
    Count,
    EnforcementNow,
    Instant,
    Policy,
    Server,
    Shape,
    one_of,
)
from apiguard.admin.views import MEMORY_LEVELS
from apiguard.kube.identity import Standing
from apiguard.limiter.flow import Mode
from apiguard.policy.config import Enforcement
from apiguard.runtime.fleet import State
from apiguard.telemetry.bounds import BOUNDS

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Digest = Annotated[str, msgspec.Meta(description='"" before the worker has confirmed one.')]


class Listen(Shape):
    """Where traffic arrives."""

    address: str
    tls: bool


class Worker(Shape):
    """One worker by its last report; ``problem`` is why it was replaced last, or is not there."""

    worker: Count
    pid: int | None
    state: Annotated[str, one_of(state.value for state in State)]
    policy_digest: Digest
    report_age_seconds: Seconds | None
    loop_lag_seconds: float
    resident_bytes: Count
    memory_limit_bytes: Count | None
    memory_level: Annotated[str, one_of(MEMORY_LEVELS)]
    cpu_seconds: Seconds
    connections: Count
    requests_in_flight: Count
    watches: Count
    buckets: Count
    problem: str


class Restarts(Shape):
    """Workers that were replaced, by cause."""

    died: Count
    stalled: Count


class Certificate(Shape):
    """``expiresInSeconds`` is negative once it has expired."""

    setting: str
    file: str
    subject: str
    not_after: Instant
    expires_in_seconds: int


class KeySet(Shape):
    """One source of keys for tokens."""

    usable: bool
    detail: str


class GuardStatus(Shape):
    """``brokenFiles`` by setting, with what is wrong; what a file held before stays in use.
    ``boundHits`` names the bounds that were hit, and how often."""

    version: str
    started_at: Instant
    uptime_seconds: float
    ready: bool
    checks: list[Check]
    enforcement: EnforcementNow
    policy: Policy
    listen: Listen
    workers: list[Worker]
    restarts: Restarts
    upstream: list[Server]
    certificates: list[Certificate]
    broken_files: dict[str, str]
    key_sets: list[KeySet]
    bound_hits: Annotated[
        dict[str, Count],
        msgspec.Meta(extra_json_schema={"propertyNames": {"enum": sorted(BOUNDS)}}),
    ]
    log_lines_dropped: Count


class RequestAsked(Shape):
    """As kube-apiserver would read it: with a ``path`` where it is about no resource."""

    verb: str
    path: str | None = None
    api_group: str | None = None
    resource: str | None = None
    subresource: str | None = None
    namespace: str | None = None
    name: str | None = None


class CallerAsked(Shape):
    """Whom the guard would take the caller for."""

    standing: Standing
    user: str
    groups: list[str]
    user_agent: str
    user_agent_family: str
    source: str


class LimitMet(Shape):
    """One limit on the request's way, and the bucket it would be taken from."""

    limit: str
    per: list[str]
    bucket: str
    key: list[str]
    level: float
    requests_per_second: float
    burst: float


class Explanation(Shape):
    """What would become of the request. ``overLimit`` and ``tokenInSeconds`` are there where a
    limit is exceeded; null seconds: never."""

    decision: Literal["forwarded", "refused", "would_refuse"]
    rule: str
    mode: Mode
    exempt: bool
    enforcement: Enforcement
    request: RequestAsked
    caller: CallerAsked
    limits: list[LimitMet]
    relay: Literal["none", "bypass", "consistent", "relaxed"]
    over_limit: str | None = None
    token_in_seconds: Seconds | None = None


class Rejection(Shape):
    """The request is none that would be judged."""

    decision: Literal["rejected"]
    code: int
    reason: str
    message: str
