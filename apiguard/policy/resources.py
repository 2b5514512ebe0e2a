"""Which resources a rule means: ``pods``, ``pods/*``, ``deployments.apps``, ``*/status``, ``*``.

Written ``resource[.group][/subresource]``, as kubectl does:

=================  ==============================================================
``pods``           the core group's pods; no subresource of them
``pods/log``       that subresource only
``pods/*``         every subresource of pods, not pods themselves
``deployments.apps``, ``deployments.apps/scale``  in the group ``apps``
``*/status``       the subresource ``status`` of anything, in any group
``*``              everything, subresources included, in any group
``*.apps``         everything in the group ``apps``
=================  ==============================================================

A rule that also has ``apiGroups`` takes the group from there: then ``deployments`` alone means
those groups' deployments. ``*`` within a part spans characters of that part only: the parts are
matched one by one, so no invented resource name reads as another's group or subresource.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .patterns import Kind, Pattern, PatternTable, parse_pattern

_ANY = Pattern(Kind.GLOB, "*")
_CORE = Pattern(Kind.EXACT, "")
_NONE = Pattern(Kind.EXACT, "")
_WORD = re.compile(r"[a-z0-9*]([-a-z0-9.*]*[a-z0-9*])?")
_SUBRESOURCE = re.compile(r"[-a-zA-Z0-9*]+")


@dataclass(frozen=True, slots=True)
class ResourcePattern:
    """The three parts. A ``subresource`` of ``*`` spans subresources only; None spans all."""

    resource: Pattern
    group: Pattern
    subresource: Pattern | None


def parse_resource(text: str, *, with_groups: bool) -> ResourcePattern:
    """The pattern that ``text`` writes; ``with_groups`` when the rule has ``apiGroups``.

    Raises ValueError with the reason.
    """
    whole, slash, sub = text.partition("/")
    name, dot, group = whole.partition(".")
    if not name or not _WORD.fullmatch(whole) or (dot and not group):
        raise ValueError("must be resource[.group][/subresource] in lower case, as in 'pods/log'")
    if slash and not _SUBRESOURCE.fullmatch(sub):
        raise ValueError("names no subresource after '/'")
    unsaid = _ANY if with_groups or name == "*" else _CORE
    within = parse_pattern(group) if dot else unsaid
    if slash:
        return ResourcePattern(parse_pattern(name), within, parse_pattern(sub))
    return ResourcePattern(parse_pattern(name), within, None if name == "*" else _NONE)


class ResourceTable:
    """Resource patterns, each with the rules that name it.

    A value is looked up part by part: each part's table answers with the *patterns* it accepts,
    and only those that all three accept contribute their rules.
    """

    __slots__ = ("_groups", "_resources", "_rules", "_subresources", "_whole")

    def __init__(self, patterns: Iterable[tuple[ResourcePattern, int]]) -> None:
        rules: dict[ResourcePattern, int] = {}
        for pattern, mask in patterns:
            rules[pattern] = rules.get(pattern, 0) | mask
        self._rules = list(rules.values())
        bits = [(pattern, 1 << i) for i, pattern in enumerate(rules)]
        self._resources = PatternTable((p.resource, bit) for p, bit in bits)
        self._groups = PatternTable((p.group, bit) for p, bit in bits)
        self._subresources = PatternTable(
            (p.subresource, bit) for p, bit in bits if p.subresource is not None
        )
        # Patterns that a request without subresource satisfies: ``*`` alone and plain names.
        self._whole = (
            sum(bit for p, bit in bits if p.subresource is None),
            sum(bit for p, bit in bits if p.subresource is None or p.subresource == _NONE),
        )

    def mask(self, resource: str, group: str, subresource: str) -> int:
        """Which rules name this resource."""
        anything, plain = self._whole
        found = self._subresources.mask(subresource) | anything if subresource else plain
        if found:
            found &= self._resources.mask(resource)
        if found:
            found &= self._groups.mask(group)
        mask = 0
        while found:
            lowest = found & -found
            mask |= self._rules[lowest.bit_length() - 1]
            found ^= lowest
        return mask
