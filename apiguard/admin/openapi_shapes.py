"""What the admin port answers, as types: the source of the schemas in ``/openapi.json``.

``views`` builds the answers as plain values; these types say the same to a reader and to a
generator, and a test holds living answers against them. Every field is there unless it has a
default.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


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
    role: str
    source: str
    how: Literal["token", "certificate", "unix", "itself"]


class Check(Shape):
    name: str
    passed: bool
    reason: str


class Enforcement(Shape):
    """``override`` was set through this port; null: the configured mode holds."""

    enforcement: Literal["enforce", "shadow", "off"]
    configured: Literal["enforce", "shadow", "off"]
    override: str | None


class EnforcementChanged(Enforcement):
    workers: list[Acknowledgement]


class Origin(Shape):
    kind: str
    name: str
    actor: str
    at: str


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
    """A dry run. ``preview`` is null when nothing was sampled to replay."""

    dry_run: Literal[True]
    digest: str
    rules: int
    preview: dict[str, Any] | None


class Generation(Shape):
    generation: int
    active: bool
    digest: str
    name: str
    actor: str
    at: str
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
    created: str
    expires: str
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
    preview: dict[str, Any] | None


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
    first_seen: str | None
    new: bool


class Top(Shape):
    """Largest first; ``totals`` are of everybody."""

    by: str
    over: str
    sort: str
    seconds: float
    totals: Sums
    rows: list[Talker]


class Audit(Shape):
    """Lines as they are in the files of ``stateDir``."""

    kind: Literal["actions", "requests"]
    events: list[dict[str, Any]]


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
    mode: str
    exempt: bool
    requests: Decisions
    limits: list[FlowLimit]


class Flows(Shape):
    rules: list[Flow]


class UpstreamWorker(Shape):
    worker: int
    state: str
    requests_in_flight: int
    detail: str


class Server(Shape):
    server: str
    state: str
    usable: bool
    detail: str


class Upstream(Server, kw_only=True):
    """What probes found and what workers see."""

    index: int
    condition: str
    drained: bool
    probes: int
    probed_seconds_ago: float | None
    requests_in_flight: int
    workers: list[UpstreamWorker]


class UpstreamChanged(Upstream, kw_only=True):
    applied: list[Acknowledgement]


class Upstreams(Shape):
    upstreams: list[Upstream]
