"""Faults on demand: which requests are slowed, failed, hung or cut.

Faults are values in a list; the first whose filter matches a request applies. They are set by
tests through ``Faults`` and in the demo by ``POST /demo/faults``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from apiguard.demo.encoding import Object
from apiguard.demo.target import Target


@dataclass(slots=True)
class Fault:
    """One fault. Empty filters match everything; ``resources`` are plural names.

    ``delay``   seconds added before the answer
    ``factor``  multiplies the work of the request in the capacity model
    ``code``    answered instead of the real answer; ``retry_after`` in seconds, 0 for none
    ``hang``    never answered, the connection stays open until the client or the server ends
    ``reset``   the connection is cut without an answer
    ``times``   how many requests it hits, 0 for all until cleared
    """

    verbs: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    user_agent: str = ""
    delay: float = 0.0
    factor: float = 1.0
    code: int = 0
    retry_after: int = 0
    hang: bool = False
    reset: bool = False
    times: int = 0
    hits: int = 0

    def matches(self, target: Target, user_agent: str) -> bool:
        if self.times and self.hits >= self.times:
            return False
        if self.verbs and target.verb not in self.verbs:
            return False
        if self.resources and target.resource not in self.resources:
            return False
        return user_agent.startswith(self.user_agent)


@dataclass(slots=True)
class Faults:
    """The faults in force, and the health checks that fail."""

    active: list[Fault] = field(default_factory=list)
    failing_checks: set[str] = field(default_factory=set)

    def add(self, fault: Fault) -> Fault:
        self.active.append(fault)
        return fault

    def clear(self) -> None:
        self.active.clear()
        self.failing_checks.clear()

    def hit(self, target: Target, user_agent: str) -> Fault | None:
        """The fault that applies to a request, counted."""
        for fault in self.active:
            if fault.matches(target, user_agent):
                fault.hits += 1
                return fault
        return None


_SETTABLE = {f.name for f in fields(Fault)} - {"hits"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One ``POST /demo/faults``: ``actions`` are done once, in order, and not remembered."""

    faults: list[Fault]
    failing_checks: set[str]
    actions: list[str]


def read_faults(document: Any, actions: Collection[str] = ()) -> Wanted:
    """``{"faults": [{...}], "failingChecks": ["etcd"], "actions": ["endWatches"]}`` -> values.

    Raises ``ValueError``; ``actions`` are the names there are.
    """
    if not isinstance(document, dict) or set(document) - {"faults", "failingChecks", "actions"}:
        raise ValueError('expected {"faults": [...], "failingChecks": [...], "actions": [...]}')
    named = [str(name) for name in document.get("actions", [])]
    for name in named:
        if name not in actions:
            raise ValueError(f"unknown action {name!r}; there are {', '.join(sorted(actions))}")
    return Wanted(
        [_read_fault(entry) for entry in document.get("faults", [])],
        {str(name) for name in document.get("failingChecks", [])},
        named,
    )


def _read_fault(entry: Any) -> Fault:
    if not isinstance(entry, dict):
        raise ValueError("a fault is an object")
    unknown = sorted(set(entry) - _SETTABLE)
    if unknown:
        known = ", ".join(sorted(_SETTABLE))
        raise ValueError(f"unknown field {unknown[0]!r}; a fault has {known}")
    defaults = Fault()
    values: Object = {}
    for name, value in entry.items():
        wanted = type(getattr(defaults, name))
        if wanted is tuple:
            value = tuple(str(part) for part in value)
        elif wanted is float and isinstance(value, int):
            value = float(value)
        if type(value) is not wanted:
            raise ValueError(f"{name} must be {wanted.__name__}")
        values[name] = value
    return Fault(**values)
