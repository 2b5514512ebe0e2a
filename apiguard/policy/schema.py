"""Shape of a ThrottlePolicy file: text -> frozen values, or every problem with its line.

What the fields mean is said at ``Match``, ``RuleDocument`` and ``LimitDocument``. Values that are
a small language of their own (globs, resources, networks) are parsed here, so that everything
behind this module deals in values that cannot be wrong.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from apiguard.limiter.flow import BucketSpec, Mode, Per

from .document import parse
from .fields import Findings, Section, Text, check_kind
from .patterns import Kind, Pattern, parse_pattern
from .relayrule import USUAL, RelayRule, read_relay_rule
from .resources import ResourcePattern, parse_resource
from .sources import Network, parse_network

KIND = "ThrottlePolicy"
MAX_RULES = 2_000
MAX_LIMITS = 8
DEFAULT = "default"
ANY_VERB = "*"

# Of resource requests: the verbs RequestInfo derives. ``proxy`` only under the old /proxy/ prefix.
RESOURCE_VERBS = frozenset(
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"]
)
# Of non-resource requests: the lower-cased method.
METHOD_VERBS = frozenset(["get", "head", "post", "put", "patch", "delete", "options"])

_RULE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MOST_RATE = 1e9
_EMPTY = "must hold at least one value, or no request ever matches"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListShapeMatch:
    """What a LIST or watch-list must or must not be; None accepts both."""

    unpaged: bool | None = None
    """Has neither a limit nor a continue token; a watch-list never has."""

    without_resource_version: bool | None = None
    """Has no resourceVersion: a consistent read, the most expensive kind."""

    without_selector: bool | None = None
    """Has neither a label nor a field selector."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is about. All fields given must match; any value within a field does.

    None is a field that was not given. An empty string in ``namespaces`` and ``names`` stands for
    requests that have none; ``*`` includes them.
    """

    user_agents: tuple[Pattern, ...] | None = None
    """The User-Agent header as sent; "" when there is none."""

    users: tuple[Pattern, ...] | None = None
    """Verified user names, and ``system:anonymous``. Never an unverified claim."""

    groups: tuple[Pattern, ...] | None = None
    """At least one group of a verified user (or ``system:unauthenticated``)."""

    service_accounts: tuple[Pattern, ...] | None = None
    """Verified service accounts as ``namespace/name``."""

    impersonated_users: tuple[Pattern, ...] | None = None
    """Users the request asks to act as; only requests that ask. Such a rule adds its limits to
    those of the rule that matches otherwise: whom one asks to be must not buy a looser limit."""

    sources: tuple[Network, ...] | None = None
    """Networks holding the client's address."""

    verbs: tuple[str, ...] | None = None
    """Kubernetes verbs; for non-resource requests lower-cased methods; ``*`` for any."""

    resources: tuple[ResourcePattern, ...] | None = None
    """See ``resources``; resource requests only."""

    api_groups: tuple[Pattern, ...] | None = None
    """"" is the core group; resource requests only."""

    namespaces: tuple[Pattern, ...] | None = None
    """"" is a cluster-wide request; resource requests only."""

    names: tuple[Pattern, ...] | None = None
    """"" is a request for a whole collection; resource requests only."""

    list_shape: ListShapeMatch | None = None
    """Requests that read a collection only: LISTs, and watch-lists (WATCH with
    ``sendInitialEvents=true``), with which current informers start; ``verbs: [list]`` or
    ``[watch]`` beside it means one of both."""

    paths: tuple[Pattern, ...] | None = None
    """Non-resource requests only, by their decoded path."""

    @property
    def given(self) -> frozenset[str]:
        """Names of the fields that are not None."""
        return frozenset(name for name in MATCH_FIELDS if getattr(self, name) is not None)


MATCH_FIELDS = tuple(Match.__dataclass_fields__)
IDENTITY_FIELDS = frozenset({"users", "groups", "service_accounts"})
RESOURCE_FIELDS = frozenset({"resources", "api_groups", "namespaces", "names", "list_shape"})


@dataclass(frozen=True, slots=True)
class LimitDocument:
    """One entry of ``limits``: a bucket for every distinct value of ``per``."""

    bucket: BucketSpec
    per: tuple[Per, ...]


@dataclass(frozen=True, slots=True)
class RuleDocument:
    """One rule. Either exempt, or with at least one limit; all limits must admit."""

    name: str
    line: int
    match: Match
    mode: Mode
    exempt: bool
    limits: tuple[LimitDocument, ...]
    percent: int = 100
    """Share of keys on which the rule refuses; below 100 its mode is PARTIAL."""

    relay: RelayRule = USUAL
    """Whether the relay may answer its lists and watches; exempt rules may say so too."""


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A policy file. The default rule matches whatever no rule does and is never exempt."""

    rules: tuple[RuleDocument, ...]
    default: RuleDocument


def parse_policy(text: str, name: str) -> PolicyDocument:
    """The policy that ``text`` writes; ``name`` is what errors call the file.

    Raises ConfigError with every problem found.
    """
    findings = Findings(name)
    root = Section(findings, parse(text, name))
    check_kind(root, KIND)
    rules = [_rule(section) for section in root.sections("rules", most=MAX_RULES)]
    _check_names(findings, rules)
    fallback = root.section("default", required=True)
    default = _default(fallback) if fallback else None
    root.close()
    findings.raise_any()
    assert default is not None  # its absence is a finding
    return PolicyDocument(tuple(rules), default)


def _check_names(findings: Findings, rules: list[RuleDocument]) -> None:
    lines: dict[str, int] = {}
    for index, rule in enumerate(rules):
        if rule.name in lines:
            reason = f"repeats the name of the rule at line {lines[rule.name]}"
            findings.add(rule.line, f"rules[{index}].name", reason)
        elif rule.name:
            lines[rule.name] = rule.line


def _rule(section: Section) -> RuleDocument:
    name = section.text("name")
    if name and not _RULE_NAME.fullmatch(name):
        reason = "must be lower-case letters, digits and '-', at most 63, as in 'node-heartbeats'"
        section.complain("name", reason)
    elif name == DEFAULT:
        section.complain("name", "is reserved for the default")
    match = section.section("match", required=True)
    mode, percent = _mode(section)
    rule = RuleDocument(
        name=name,
        line=section.mapping.line,
        match=read_match(match) if match else Match(),
        mode=mode,
        exempt=section.boolean("exempt") or False,
        limits=read_limits(section),
        percent=percent,
        relay=read_relay_rule(section),
    )
    _check_relay(section, rule.match)
    if rule.exempt and rule.match.impersonated_users is not None:
        reason = "impersonatedUsers can only limit: upstream has not yet judged the impersonation"
        section.complain("exempt", reason)
    if rule.exempt and "limits" in section:
        section.complain("limits", "an exempt rule has no limits")
    elif rule.exempt and "mode" in section:
        section.complain("mode", "an exempt rule refuses nothing, so it has no mode")
    elif rule.exempt and "percent" in section:
        section.complain("percent", "an exempt rule refuses nothing, so it has no percent")
    elif not rule.exempt and "limits" not in section:
        section.complain("limits", "is required unless the rule is exempt")
    section.close()
    return rule


def _check_relay(section: Section, match: Match) -> None:
    """Refuses what could be written and would mean nothing."""
    for key in ("relay", "relaxedReads"):
        if key in section and match.impersonated_users is not None:
            reason = "says nothing here: requests that impersonate always go upstream"
            section.complain(key, reason)
        elif key in section and match.paths is not None:
            section.complain(key, "says nothing here: the relay answers for resources only")


def _default(section: Section) -> RuleDocument:
    mode, percent = _mode(section)
    limits = read_limits(section)
    relay = read_relay_rule(section)
    if "limits" not in section:
        section.complain("limits", "is required")
    section.close()
    line = section.mapping.line
    return RuleDocument(DEFAULT, line, Match(), mode, False, limits, percent, relay)


# What a file may write; the rest of Mode follows from other fields.
class _WrittenMode(Enum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


def _mode(section: Section) -> tuple[Mode, int]:
    """When the rule refuses, and on what share of keys."""
    mode = Mode(section.choice("mode", _WrittenMode, _WrittenMode.ENFORCE).value)
    percent = section.integer("percent", least=1, most=100, default=100)
    if "percent" in section and mode is Mode.SHADOW:
        section.complain("percent", "a rule in mode shadow refuses on no key; drop one of the two")
    elif percent < 100:
        mode = Mode.PARTIAL
    return mode, percent


# -- limits


def read_limits(section: Section) -> tuple[LimitDocument, ...]:
    """The field ``limits`` of a rule or an override."""
    limits = tuple(_limit(entry) for entry in section.sections("limits", most=MAX_LIMITS))
    if "limits" in section and not limits:
        section.complain("limits", "must hold at least one limit")
    return limits


def _limit(section: Section) -> LimitDocument:
    rate = section.number("requestsPerSecond", least=0.0, most=_MOST_RATE, default=None)
    usual = max(1.0, rate) if rate > 0.0 else 0.0
    burst = section.number("burst", least=0.0, most=_MOST_RATE, default=usual)
    if "requestsPerSecond" in section:
        if rate == 0.0 and burst > 0.0:
            section.complain("burst", "must be 0 or absent at 0 requests per second")
        elif rate > 0.0 and burst < 1.0:
            section.complain("burst", "must be at least 1, or no request ever passes")
    per = section.choices("per", Per)
    section.close()
    return LimitDocument(BucketSpec(rate, burst), per)


# -- match


def read_match(section: Section) -> Match:
    """The field ``match`` of a rule or an override."""
    groups = _patterns(section, "apiGroups")
    match = Match(
        user_agents=_patterns(section, "userAgents"),
        users=_patterns(section, "users"),
        groups=_patterns(section, "groups"),
        service_accounts=_parsed(section, "serviceAccounts", _service_account),
        impersonated_users=_patterns(section, "impersonatedUsers"),
        sources=_parsed(section, "sourceCIDRs", parse_network),
        verbs=_verbs(section),
        resources=_parsed(
            section, "resources", lambda t: parse_resource(t, with_groups=groups is not None)
        ),
        api_groups=groups,
        namespaces=_patterns(section, "namespaces"),
        names=_patterns(section, "names"),
        list_shape=_list_shape(section),
        paths=_parsed(section, "nonResourcePaths", _path),
    )
    section.close()
    return match


def _parsed(section: Section, key: str, parse_one: Callable[[str], T]) -> tuple[T, ...] | None:
    """A list of texts, each parsed; a ValueError becomes a finding at its line."""
    texts = section.texts(key, empty=_EMPTY)
    if texts is None:
        return None
    values: list[T] = []
    for text in texts:
        try:
            values.append(parse_one(text.value))
        except ValueError as error:
            section.findings.add(text.line, text.field, str(error))
    return tuple(values)


def _patterns(section: Section, key: str) -> tuple[Pattern, ...] | None:
    return _parsed(section, key, parse_pattern)


def _path(text: str) -> Pattern:
    pattern = parse_pattern(text)
    if pattern.kind is not Kind.REGEX and not text.startswith(("/", "*")):
        raise ValueError("must begin with '/'")
    return pattern


def _service_account(text: str) -> Pattern:
    pattern = parse_pattern(text)
    if pattern.kind is not Kind.REGEX and text.count("/") != 1 and text != "*":
        raise ValueError("must be namespace/name, as in 'monitoring/*'")
    return pattern


def _verbs(section: Section) -> tuple[str, ...] | None:
    texts = section.texts("verbs", most=64, empty=_EMPTY)
    if texts is None:
        return None
    known = RESOURCE_VERBS | METHOD_VERBS | {ANY_VERB}
    for text in texts:
        if text.value not in known:
            section.findings.add(text.line, text.field, _unknown_verb(text))
    return tuple(text.value for text in texts)


def _unknown_verb(text: Text) -> str:
    if text.value.lower() in METHOD_VERBS | {"connect", "trace"}:
        return f"{text.value!r} is an HTTP method; verbs are Kubernetes verbs, as in 'list'"
    near = difflib.get_close_matches(text.value, sorted(RESOURCE_VERBS), 1, 0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{text.value[:64]!r} is no Kubernetes verb{hint}"


def _list_shape(section: Section) -> ListShapeMatch | None:
    shape = section.section("listShape")
    if shape is None:
        return None
    match = ListShapeMatch(
        unpaged=shape.boolean("unpaged"),
        without_resource_version=shape.boolean("withoutResourceVersion"),
        without_selector=shape.boolean("withoutSelector"),
    )
    shape.close()
    return match
