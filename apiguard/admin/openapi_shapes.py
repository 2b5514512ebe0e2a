"""What the admin port answers, as types: the source of the schemas in ``/openapi.json``.

``views`` builds the answers as plain values; these types say the same to a reader and to a
generator, and a test holds living answers against them. Every field is there unless it has a
default. What the code counts off in an enum or a tuple is taken from there; previews are the
dataclasses that ``replies.as_json`` writes.

Those of the guard's state are in ``openapi_state``, those of the relay in ``openapi_relay``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from apiguard.limiter.flow import Mode
from apiguard.policy.adminconfig import Role
from apiguard.policy.config import Enforcement
from apiguard.policy.preview import PreviewReport
from apiguard.telemetry.names import UPSTREAM_STATES
from apiguard.telemetry.toptalkers import OVER, SORTS
from apiguard.upstream.endpoint import State
from apiguard.upstream.readyz import Condition


def one_of(words: Iterable[str]) -> msgspec.Meta:
    """A text that is one of these."""
    return msgspec.Meta(extra_json_schema={"enum": list(words)})


Count = Annotated[int, msgspec.Meta(ge=0)]
Instant = Annotated[
    str, msgspec.Meta(description="RFC 3339, in UTC.", extra_json_schema={"format": "date-time"})
]


class Shape(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """A JSON object with exactly these fields."""


class StatusCause(Shape):
    """One problem of several; ``field`` is a path such as ``rules[0].name``."""

    reason: str | None = None
    message: str | None = None
    field: str | None = None


class StatusDetails(Shape):
    """What the refusal is about."""

    name: str | None = None
    group: str | None = None
    kind: str | None = None
    uid: str | None = None
    causes: list[StatusCause] | None = None
    retry_after_seconds: int | None = None


class Status(Shape):
    """A Kubernetes Status: every refusal."""

    kind: Literal["Status"]
    api_version: Literal["v1"]
    metadata: dict[str, Any]
    status: Literal["Failure"]
    message: str
    code: int
    reason: str | None = None
    details: StatusDetails | None = None


class Acknowledgement(Shape):
    """Whether one worker carried a change out."""

    worker: int
    applied: bool
    problem: str


class Whoami(Shape):
    """Whom the guard takes the caller for."""

    name: str
    role: Role
    source: str
    how: Literal["token", "certificate", "unix", "itself"]


class Check(Shape):
    name: str
    passed: bool
    reason: str


class EnforcementNow(Shape):
    """``override`` was set through this port; null: the configured mode holds."""

    enforcement: Enforcement
    configured: Enforcement
    override: Enforcement | None


class EnforcementChanged(EnforcementNow):
    workers: list[Acknowledgement]


class Origin(Shape):
    kind: Literal["file", "admin", "rollback"]
    name: str
    actor: str
    at: Instant


class Policy(Shape):
    """The active policy; ``why`` this one."""

    generation: int
    digest: str
    origin: Origin
    why: str
    rules: int


class PolicyText(Policy):
    policy: str


class PolicyChanged(Policy):
    workers: list[Acknowledgement]


class PolicyTried(Shape):
    """A dry run."""

    dry_run: Literal[True]
    digest: str
    rules: int
    preview: PreviewReport


class Generation(Shape):
    generation: int
    active: bool
    digest: str
    name: str
    actor: str
    at: Instant
    reason: str
    origin: str


class History(Shape):
    generations: list[Generation]


class Hits(Shape):
    refused: int
    admitted: int
    last_seconds_ago: float | None


class Override(Shape):
    """``match``, ``limits``, ``rule`` and ``factor`` as they were asked for."""

    id: str
    action: Literal["ban", "limit", "scale", "exempt"]
    reason: str
    actor: str
    created: Instant
    expires: Instant
    remaining_seconds: float
    end_watches: bool
    end_watches_seconds: float
    hits: Hits
    workers: list[Acknowledgement]
    match: dict[str, Any] | None = None
    limits: list[dict[str, Any]] | None = None
    rule: str | None = None
    factor: float | None = None


class OverrideTried(Shape):
    """A dry run: what would be laid over the policy, and whom it would have hit."""

    dry_run: Literal[True]
    override: dict[str, Any]
    preview: PreviewReport


class Overrides(Shape):
    overrides: list[Override]


class Limit(Shape):
    """``per`` names what each bucket is for one of."""

    requests_per_second: float
    burst: float | None = None
    per: list[str] | None = None


class OverrideBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """``match`` as in a rule of a policy; see docs/configuration.md."""

    action: Literal["ban", "limit", "scale", "exempt"]
    reason: str
    match: dict[str, Any] | None = None
    limits: list[Limit] | None = None
    rule: str | None = None
    factor: float | None = None
    ttl_seconds: float | None = None
    end_watches: bool | None = None
    end_watches_seconds: float | None = None


class Sums(Shape):
    requests: int
    refused: int
    bytes: int
    upstream_seconds: float
    unpaged_lists: int
    rv_less_lists: int


class Share(Shape):
    requests: float
    bytes: float
    upstream_seconds: float


class Talker(Sums, kw_only=True):
    """``new`` within ``since``."""

    key: dict[str, str]
    requests_per_second: float
    share: Share
    first_seen: Instant | None
    new: bool


class Top(Shape):
    """Largest first; ``totals`` are of everybody."""

    by: str
    over: Annotated[str, one_of(OVER)]
    sort: Annotated[str, one_of(SORTS)]
    seconds: float
    totals: Sums
    rows: list[Talker]


class ActionLine(Shape, tag_field="kind", tag="action"):
    """What somebody did or tried. ``result`` is "done", or why it was not; ``before`` and ``after``
    are what the action is about, null where there is none."""

    at: Instant
    id: str
    actor: str
    role: str
    how: str
    source: str
    action: str
    target: str
    reason: str
    result: str
    before: Any
    after: Any


class RequestLine(Shape, tag_field="kind", tag="request"):
    """One request of a sample, which stands for ``weight`` of them."""

    at: Instant
    weight: float
    decision: str
    code: int
    rule: str
    limit: str
    verb: str
    api_group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    path: str
    standing: str
    user: str
    impersonated: str | None
    user_agent: str
    source: str
    bytes: Count
    guard_seconds: float
    upstream_seconds: float
    audit_id: str = msgspec.field(name="auditID")


class Audit(Shape):
    """Lines as they are in the files of ``stateDir``."""

    kind: Literal["actions", "requests"]
    events: list[ActionLine | RequestLine]


class Decisions(Shape):
    forwarded: int
    refused: int
    would_refuse: int
    rejected: int
    failed: int


class Bucket(Shape):
    bucket: str
    key: list[str]
    level: float
    admitted: int
    refused: int
    would_refuse: int
    last_seen_seconds_ago: float


class FlowLimit(Shape):
    """``buckets`` are the most refused ones."""

    limit: str
    per: list[str]
    requests_per_second: float
    burst: float
    bucket_count: int
    buckets: list[Bucket]


class Flow(Shape):
    rule: str
    mode: Mode
    exempt: bool
    requests: Decisions
    limits: list[FlowLimit]


class Flows(Shape):
    rules: list[Flow]


class UpstreamWorker(Shape):
    worker: int
    state: Annotated[str, one_of(state.value for state in State)]
    requests_in_flight: int
    detail: str


class Server(Shape):
    server: str
    state: Annotated[str, one_of(UPSTREAM_STATES)]
    usable: bool
    detail: str


class Upstream(Server, kw_only=True):
    """What probes found and what workers see."""

    index: int
    condition: Annotated[str, one_of(one.name.lower() for one in Condition)]
    drained: bool
    probes: int
    probed_seconds_ago: float | None
    requests_in_flight: int
    workers: list[UpstreamWorker]


class UpstreamChanged(Upstream, kw_only=True):
    applied: list[Acknowledgement]


class Upstreams(Shape):
    upstreams: list[Upstream]
