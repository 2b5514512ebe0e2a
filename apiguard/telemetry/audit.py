"""The record: admin actions and chosen requests, as lines of JSON.

Texts come from operators and from hostile clients. What is written holds no control character
(JSON escapes them, and U+2028 and lone surrogates too), nothing longer than stated here, and
nothing that looks like a credential.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apiguard.telemetry.sample import Sample

LONGEST_TEXT = 512
LONGEST_LIST = 256
LONGEST_VALUE = 16_384
DEEPEST = 12
"""Characters of a text, elements of a list, bytes of JSON for one of ``before`` and ``after``, and
how far they may nest."""

LONGEST_LINE = 131_072
"""Bytes of a line: every text escaped at six bytes a character, with room."""

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
"""A JSON value."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One admin action, whether it was carried out or not.

    ``id``      unique in the record
    ``at``      Unix seconds
    ``actor``   name from the token, certificate or socket; ``role`` and ``how`` as it got in
    ``source``  where it asked from: an address, or ``unix``
    ``action``  what was asked: ``override.add``, ``policy.put``, ``enforcement.set`` …
    ``target``  what it was about: an override's id, a server
    ``before``, ``after``  of what changed, None where there is none
    ``reason``  as the actor gave it
    ``result``  ``done``, or why it was not
    """

    id: str
    at: float
    actor: str
    role: str
    how: str
    source: str
    action: str
    target: str
    before: Value
    after: Value
    reason: str
    result: str


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """One request of a sample; ``at`` is Unix seconds."""

    at: float
    sample: Sample


def to_line(event: AuditEvent | RequestEvent) -> str:
    """``event`` as one line of JSON in ASCII, with its newline; at most ``LONGEST_LINE``."""
    record = _action(event) if isinstance(event, AuditEvent) else _request(event)
    return _json(record) + "\n"


def _action(event: AuditEvent) -> Value:
    return {
        "kind": "action",
        "at": rfc3339(event.at),
        "id": clean(event.id),
        "actor": clean(event.actor),
        "role": clean(event.role),
        "how": clean(event.how),
        "source": clean(event.source),
        "action": clean(event.action),
        "target": clean(event.target),
        "reason": clean(event.reason),
        "result": clean(event.result),
        "before": _bounded(event.before),
        "after": _bounded(event.after),
    }


def _request(event: RequestEvent) -> Value:
    """Without groups, which identify nobody, and without the path behind a proxy."""
    sample = event.sample
    return {
        "kind": "request",
        "at": rfc3339(event.at),
        "weight": round(sample.weight, 1),
        "decision": clean(sample.decision),
        "code": sample.code,
        "rule": clean(sample.rule),
        "limit": clean(sample.limit),
        "verb": clean(sample.verb),
        "apiGroup": clean(sample.api_group),
        "resource": clean(sample.resource),
        "subresource": clean(sample.subresource),
        "namespace": clean(sample.namespace),
        "name": clean(sample.name),
        "path": clean(sample.path),
        "standing": clean(sample.standing),
        "user": clean(sample.user),
        "impersonated": None if sample.impersonated is None else clean(sample.impersonated),
        "userAgent": clean(sample.user_agent),
        "source": clean(sample.source),
        "bytes": sample.bytes_out,
        "guardSeconds": round(sample.guard_seconds, 6),
        "upstreamSeconds": round(sample.upstream_seconds, 6),
        "auditID": clean(sample.audit_id),
    }


def rfc3339(at: float) -> str:
    """Unix seconds in UTC, to the microsecond, as Kubernetes writes its MicroTime."""
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def clean(text: str) -> str:
    """``text`` bounded, with what looks like a credential masked, lone surrogates as text."""
    if len(text) > LONGEST_TEXT:
        text = text[: LONGEST_TEXT - 1] + "…"
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _SECRETS.sub(_masked, text)


_SECRETS = re.compile(
    r"""
    (?P<scheme> \b bearer (?:[\s:=+]|%20)+ | base64url\.bearer\.authorization\.k8s\.io\. )
        [^\s,;"']+
  | (?P<basic> \b (?:basic|negotiate) (?:[\s:=+]|%20)+ ) [\w+/=-]{12,}
  | (?P<name> (?:token|secret|passw(?:or)?d|api[_-]?key|authorization|cookie) ["']? \s* [=:] \s* )
        [^\s,;&]+
  | \b eyJ [\w-]{5,} (?: \. [\w-]* ){0,4}      # a JSON object in base64url: part of a JWT
  | \b sha256~ [\w-]+                          # OpenShift's tokens
  | \b k8s-aws-v1\. [\w-]+                     # EKS'
  | (?P<run> [A-Za-z0-9_+/=-]{32,} )           # judged below
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Clients send credentials in odd places; masking too much costs a name, too little a cluster."""


def _masked(found: re.Match[str]) -> str:
    run = found["run"]
    if run is not None and not _looks_random(run):
        return run
    return (found["scheme"] or found["basic"] or found["name"] or "") + "***"


def _looks_random(run: str) -> bool:
    """Kubernetes' names and digests know no capitals; base64 hardly does without."""
    return run != run.lower() and run != run.upper() and any(c.isdigit() for c in run)


def _bounded(value: Value) -> Value:
    """``value`` with its texts cleaned; what is too large is told by its size."""
    cleaned = _cleaned(value, DEEPEST)
    size = len(_json(cleaned))
    return cleaned if size <= LONGEST_VALUE else {"omittedBytes": size}


def _cleaned(value: Value, depth: int) -> Value:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_cleaned(each, depth - 1) for each in value[:LONGEST_LIST]] if depth else "…"
    if isinstance(value, dict):
        if not depth:
            return "…"
        items = list(value.items())[:LONGEST_LIST]
        return {clean(name): _hidden(name) or _cleaned(v, depth - 1) for name, v in items}
    return value


def _hidden(name: str) -> str:
    return "***" if name.lower() in _SECRET_NAMES else ""


_SECRET_NAMES = frozenset({"authorization", "token", "password", "secret", "cookie"})


def _json(value: Value) -> str:
    """JSON in printable ASCII: the encoder leaves DEL, which terminals act on."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f")
