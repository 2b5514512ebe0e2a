"""A bounded, fair choice of single requests, kept for preview and for the record.

A worker chooses by reservoir, admitted and refused requests apart: in an emergency nine of ten
may be refused, and the few that were admitted are what a new limit would change. Every sample
carries how many requests it stands for, so that sums over samples estimate sums over requests.

A sample holds what rules match on and nothing that is secret: no query, no header but the
user-agent and upstream's Audit-Id. Texts are as received; whoever writes them escapes them.
"""

from __future__ import annotations

import math
import random
import re
from typing import Annotated, NamedTuple

import msgspec

from apiguard.kube.identity import Caller, Identity, Standing, user_agent_family
from apiguard.kube.requestinfo import ListShape, RequestInfo, reads_collection

ADMITTED_PER_INTERVAL = 10
REFUSED_PER_INTERVAL = 10
"""Requests one worker describes per interval of 200 ms; neither kind crowds out the other."""

GROUPS = 32
LONGEST_GROUP = 128
LONGEST_NAME = 256
LONGEST_PATH = 256
LONGEST_USER_AGENT = 512
"""Characters of a text that count, and the number of groups: a rule on what lies behind does not
find the sample, though it found the request."""

_Text = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request as it ended, or as it began if it is a watch.

    ``at``        monotonic seconds of its end (of a watch: of its beginning)
    ``weight``    how many requests it stands for, at least 1
    ``decision``  one of ``telemetry.counters.DECISIONS``
    ``code``      the status the client got, 0 for none
    ``rule``      the matched rule, "" for none; ``limit`` the id of the limit that refused it
    ``path``      of non-resource requests, else ""
    ``shape``     bits of ``ListShape``
    ``standing``  value of ``Standing``; ``user`` and ``groups`` are empty unless known
    ``source_key``  as in Caller; "" when it equals ``source``
    ``bytes_out`` bytes of the response body so far
    ``guard_seconds``  from its head to its sending upstream
    ``upstream_seconds``  from there to its end (of a watch: to upstream's head)
    ``audit_id``  upstream's Audit-Id, "" without one
    """

    at: _Amount
    weight: Annotated[float, msgspec.Meta(ge=1, le=1e15)]
    decision: _Text
    code: Annotated[int, msgspec.Meta(ge=0, le=999)]
    rule: _Text
    limit: _Text
    verb: _Text
    is_resource: bool
    long_running: bool
    api_group: _Text
    resource: _Text
    subresource: _Text
    namespace: _Text
    name: _Text
    path: Annotated[str, msgspec.Meta(max_length=LONGEST_PATH)]
    shape: Annotated[int, msgspec.Meta(ge=0, le=7)]
    standing: _Text
    user: _Text
    groups: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=LONGEST_GROUP)], ...],
        msgspec.Meta(max_length=GROUPS),
    ]
    user_agent: Annotated[str, msgspec.Meta(max_length=LONGEST_USER_AGENT)]
    source: _Text
    source_key: _Text
    impersonated: _Text | None
    bytes_out: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] = 0
    guard_seconds: _Amount = 0.0
    upstream_seconds: _Amount = 0.0
    audit_id: _Text = ""

    @property
    def admitted(self) -> bool:
        return self.decision not in ("refused", "rejected")


def request_of(sample: Sample) -> RequestInfo:
    """What the sample's request meant, as far as rules and limits ask."""
    resource, group, subresource = sample.resource, sample.api_group, sample.subresource
    qualified = f"{resource}.{group}" if group else resource
    shape = ListShape(sample.shape)
    return RequestInfo(
        is_resource=sample.is_resource,
        path=sample.path,
        verb=sample.verb,
        api_prefix="",
        api_group=group,
        api_version="",
        namespace=sample.namespace,
        resource=resource,
        subresource=subresource,
        name=sample.name,
        parts=(),
        field_selector="",
        label_selector="",
        long_running=sample.long_running,
        mutating=sample.verb not in ("get", "list", "watch"),
        shape=shape,
        collection=reads_collection(sample.verb, sample.name, shape),
        qualified=f"{qualified}/{subresource}" if subresource else qualified,
    )


def caller_of(sample: Sample) -> Caller:
    """Who made the sample's request. Raises ValueError for a standing there is not."""
    standing = Standing(sample.standing)
    known = standing is not Standing.UNVERIFIED
    return Caller(
        standing=standing,
        identity=Identity(sample.user, sample.groups) if known else None,
        user_agent=sample.user_agent,
        family=user_agent_family(sample.user_agent),
        source=sample.source,
        source_key=sample.source_key or sample.source,
        impersonated=sample.impersonated,
    )


class Observation(NamedTuple):
    """A chosen request before it is written out; ``head`` are upstream's header lines, b"" if none.

    Most of those chosen are replaced before the interval ends, so texts are copied only at its
    end.
    """

    at: float
    info: RequestInfo
    caller: Caller
    rule: str
    limit: str
    decision: str
    code: int
    bytes_out: int
    guard_seconds: float
    upstream_seconds: float
    head: bytes


class Reservoir:
    """A uniform choice of ``size`` among all that pass, without a random number for each.

    Li's algorithm L (ACM TOMS 20/4, 1994): how many to pass over is drawn at once. Whoever has one
    counts ``seen`` up and calls ``keep`` when it reached ``due``: 0.05 us for those passed over.
    """

    __slots__ = ("_random", "_size", "_w", "due", "kept", "seen")

    def __init__(self, size: int, random: random.Random) -> None:
        self._size = size
        self._random = random
        self.clear()

    def clear(self) -> None:
        self.kept: list[Observation] = []
        self.seen = 0
        self.due = 1
        self._w = 1.0

    def keep(self, observation: Observation) -> None:
        if len(self.kept) < self._size:
            self.kept.append(observation)
        else:
            self.kept[self._random.randrange(self._size)] = observation
        if len(self.kept) < self._size:
            self.due = self.seen + 1
        else:
            self._w *= self._draw() ** (1.0 / self._size)
            self.due = self.seen + 1 + int(math.log(self._draw()) / math.log1p(-self._w))

    def _draw(self) -> float:
        """Within (0, 1): of 0 there is no logarithm."""
        return 1.0 - self._random.random() or 0.5


class Sampler:
    """The samples of one worker's current interval."""

    __slots__ = ("admitted", "refused")

    def __init__(
        self,
        random: random.Random,
        *,
        admitted: int = ADMITTED_PER_INTERVAL,
        refused: int = REFUSED_PER_INTERVAL,
    ) -> None:
        self.admitted = Reservoir(admitted, random)
        self.refused = Reservoir(refused, random)

    def take(self) -> tuple[Sample, ...]:
        """What was chosen since the previous call, in no order of time."""
        samples: list[Sample] = []
        for stratum in (self.admitted, self.refused):
            if stratum.kept:
                weight = stratum.seen / len(stratum.kept)
                samples.extend(_written_out(o, weight) for o in stratum.kept)
                stratum.clear()
        return tuple(samples)


def _written_out(seen: Observation, weight: float) -> Sample:
    info, caller = seen.info, seen.caller
    identity = caller.identity
    return Sample(
        at=seen.at,
        weight=weight,
        decision=seen.decision,
        code=seen.code,
        rule=_text(seen.rule),
        limit=_text(seen.limit),
        verb=_text(info.verb),
        is_resource=info.is_resource,
        long_running=info.long_running,
        api_group=_text(info.api_group),
        resource=_text(info.resource),
        subresource=_text(info.subresource),
        namespace=_text(info.namespace),
        name=_text(info.name),
        path="" if info.is_resource else _text(info.path, LONGEST_PATH),
        shape=info.shape.value,
        standing=caller.standing.value,
        user=_text(identity.user) if identity is not None else "",
        groups=tuple(_text(g, LONGEST_GROUP) for g in identity.groups[:GROUPS]) if identity else (),
        user_agent=_text(caller.user_agent, LONGEST_USER_AGENT),
        source=caller.source,
        source_key="" if caller.source_key == caller.source else caller.source_key,
        impersonated=None if caller.impersonated is None else _text(caller.impersonated),
        bytes_out=seen.bytes_out,
        guard_seconds=max(0.0, seen.guard_seconds),
        upstream_seconds=max(0.0, seen.upstream_seconds),
        audit_id=audit_id_of(seen.head),
    )


_AUDIT_ID = re.compile(rb"^audit-id:[ \t]*([!-~]{1,64})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


def audit_id_of(lines: bytes) -> str:
    """The Audit-Id among serialised header fields, "" when there is none worth the name."""
    found = _AUDIT_ID.search(lines)
    return found[1].decode("ascii") if found else ""


def _text(text: str, longest: int = LONGEST_NAME) -> str:
    """At most ``longest`` characters that MessagePack can carry: lone surrogates become ``?``."""
    text = text[:longest]
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
