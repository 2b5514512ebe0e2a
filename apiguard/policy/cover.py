"""Whether one rule matches everything another does, and other rules that cannot be meant.

A rule is dead when an earlier one takes all its requests. Two rules are compared field by field;
that several earlier rules take a later one's requests only together is not looked for (it would
be the satisfiability problem), so a warning is always right and silence proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import re2

from apiguard.kube.identity import ANONYMOUS_USER, UNAUTHENTICATED_GROUP

from .patterns import Kind, Pattern
from .resources import ResourcePattern
from .schema import (
    ANY_VERB,
    IDENTITY_FIELDS,
    METHOD_VERBS,
    RESOURCE_FIELDS,
    RESOURCE_VERBS,
    ListShapeMatch,
    Match,
)
from .sources import Network

if TYPE_CHECKING:
    from .policy import Rule

# Stands for "whatever a star spans": no pattern of a policy file can hold it, as YAML refuses it.
_WHATEVER = "\x01"


def suspicions(rules: Sequence[Rule]) -> Iterator[tuple[Rule, str]]:
    """Rules that never match, or exempt more than they seem to, each with the reason."""
    given = [rule.match.given for rule in rules]
    for place, rule in enumerate(rules):
        reason = _contradiction(rule)
        if reason:
            yield rule, reason
            continue
        for earlier in range(place):
            # Comparing the sets of fields first keeps 2,000 rules below a second.
            if given[earlier] <= given[place] and covers(rules[earlier], rule):
                name, line = rules[earlier].name, rules[earlier].line
                yield rule, f"never matches: rule {name!r} of line {line} takes all its requests"
                break
        else:
            if rule.flow.exempt and given[place].isdisjoint(IDENTITY_FIELDS):
                yield rule, "exempts every verified caller: it names no user, group or account"


def _contradiction(rule: Rule) -> str:
    """Why no request can satisfy all fields of one rule; "" when some can."""
    match = rule.match
    on_resources = not RESOURCE_FIELDS.isdisjoint(match.given)
    if match.paths is not None and on_resources:
        return "never matches: no request has both a resource and a non-resource path"
    verbs = set(match.verbs or (ANY_VERB,))
    if ANY_VERB not in verbs:
        if on_resources and verbs.isdisjoint(RESOURCE_VERBS):
            return "never matches: its verbs are HTTP methods, which resource requests do not have"
        if match.paths is not None and verbs.isdisjoint(METHOD_VERBS):
            return "never matches: non-resource requests have none of its verbs"
        if match.list_shape is not None and verbs.isdisjoint({"list", "watch"}):
            return "never matches: only the verbs 'list' and 'watch' have a listShape"
    if rule.flow.exempt and only_anonymous(match):
        return "never matches: it names only unauthenticated callers, which are never exempt"
    return _group_contradiction(match)


def _group_contradiction(match: Match) -> str:
    if match.resources is None or match.api_groups is None:
        return ""
    for resource in match.resources:
        for group in match.api_groups:
            exact = resource.group.kind is Kind.EXACT and group.kind is Kind.EXACT
            if not exact or resource.group == group:
                return ""
    return "never matches: its resources are all in other groups than its apiGroups"


def only_anonymous(match: Match) -> bool:
    """Whether nobody who is verified can match."""
    users = match.users is not None and set(match.users) == {_exact(ANONYMOUS_USER)}
    groups = match.groups is not None and set(match.groups) == {_exact(UNAUTHENTICATED_GROUP)}
    return users or groups


def _exact(text: str) -> Pattern:
    return Pattern(Kind.EXACT, text)


def _only_verified(rule: Rule) -> bool:
    """Whether only verified callers can match: then an exempt rule before it takes them all."""
    match = rule.match
    if rule.flow.exempt or match.service_accounts is not None:
        return True
    if match.users is not None:
        return not any(_pattern_covers(p, _exact(ANONYMOUS_USER)) for p in match.users)
    if match.groups is not None:
        return not any(_pattern_covers(p, _exact(UNAUTHENTICATED_GROUP)) for p in match.groups)
    return False


def covers(earlier: Rule, later: Rule) -> bool:
    """Whether every request that ``later`` matches is matched by ``earlier``."""
    if earlier.flow.exempt and not _only_verified(later):
        return False
    one, other = earlier.match, later.match
    return (
        _patterns_cover(one.user_agents, other.user_agents)
        and _verbs_cover(one, other)
        and _resources_cover(one, other)
        and _shape_covers(one.list_shape, other.list_shape)
        and _networks_cover(one.sources, other.sources)
        and _patterns_cover(one.users, other.users)
        and _patterns_cover(one.groups, other.groups)
        and _patterns_cover(one.service_accounts, other.service_accounts)
        and _patterns_cover(one.impersonated_users, other.impersonated_users)
        and _patterns_cover(one.api_groups, other.api_groups)
        and _patterns_cover(one.namespaces, other.namespaces)
        and _patterns_cover(one.names, other.names)
        and _patterns_cover(one.paths, other.paths)
    )


def _patterns_cover(one: tuple[Pattern, ...] | None, other: tuple[Pattern, ...] | None) -> bool:
    if one is None:
        return True
    return other is not None and all(any(_pattern_covers(p, q) for p in one) for q in other)


def _pattern_covers(one: Pattern, other: Pattern) -> bool:
    """Whether all that ``other`` matches, ``one`` matches. Expressions cover only themselves.

    A glob covers another exactly if it matches its text with each star read as one character
    that only a star can match.
    """
    if one == other:
        return True
    if one.kind is Kind.EXACT or other.kind is Kind.REGEX:
        return False
    if one.kind is Kind.REGEX:
        return other.kind is Kind.EXACT and _matches(one, other.text)
    text = other.text.replace("*", _WHATEVER)
    first, _, rest = one.text.partition("*")
    if not text.startswith(first) or not text.endswith(rest.rpartition("*")[2]):
        return False  # decides nearly every pair of two policies' globs, at a tenth of the price
    return not rest or _matches(one, text)


def _matches(pattern: Pattern, text: str) -> bool:
    return re2.fullmatch(pattern.regex(), text) is not None


def _verbs_cover(one: Match, other: Match) -> bool:
    if one.verbs is None or ANY_VERB in one.verbs:
        return True
    return other.verbs is not None and set(other.verbs) <= set(one.verbs)


def _resources_cover(one: Match, other: Match) -> bool:
    if one.resources is None:
        return True
    return other.resources is not None and all(
        any(_resource_covers(p, q) for p in one.resources) for q in other.resources
    )


def _resource_covers(one: ResourcePattern, other: ResourcePattern) -> bool:
    if not _pattern_covers(one.resource, other.resource):
        return False
    if not _pattern_covers(one.group, other.group):
        return False
    if one.subresource is None:
        return True
    if other.subresource is None:
        return False
    if not other.subresource.text or not one.subresource.text:
        return one.subresource == other.subresource
    return _pattern_covers(one.subresource, other.subresource)


def _networks_cover(one: tuple[Network, ...] | None, other: tuple[Network, ...] | None) -> bool:
    if one is None:
        return True
    return other is not None and all(
        any(p.version == q.version and q.subnet_of(p) for p in one)  # type: ignore[arg-type]  # same version, so same type
        for q in other
    )


def _shape_covers(one: ListShapeMatch | None, other: ListShapeMatch | None) -> bool:
    if one is None:
        return True
    if other is None:
        return False
    pairs = (
        (one.unpaged, other.unpaged),
        (one.without_resource_version, other.without_resource_version),
        (one.without_selector, other.without_selector),
    )
    return all(ours is None or ours == theirs for ours, theirs in pairs)
