"""Reads declared fields out of a document's nodes and collects every problem it meets.

A field is known by being asked for: ``close`` reports what the file has besides. Reading never
stops at the first problem, so each reader returns a harmless value of its type after reporting.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple, TypeVar

from apiguard.errors import ConfigError, Problem

from .document import Mapping, Node, Scalar, Sequence

API_VERSION = "apiguard.io/v1alpha1"
MAX_PROBLEMS = 100  # a file with more is of another kind; the rest would not be read
LONGEST_TEXT = 1_024

E = TypeVar("E", bound=Enum)


class Findings:
    """The problems of one file."""

    __slots__ = ("file", "problems")

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def add(self, line: int, field: str, reason: str) -> None:
        """Note one problem."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(self.file, line, field, reason))

    def raise_any(self) -> None:
        """Raise ConfigError with all problems in the order of their lines, if there are any."""
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda problem: problem.line))


class Text(NamedTuple):
    """A string of the file and where it stands there."""

    value: str
    line: int
    field: str


class Section:
    """One mapping of the file, read field by field."""

    __slots__ = ("asked", "findings", "mapping", "path")

    def __init__(self, findings: Findings, mapping: Mapping, path: str = "") -> None:
        self.findings = findings
        self.mapping = mapping
        self.path = path
        self.asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.mapping.entries

    def field(self, key: str) -> str:
        """Path of a field from the root, as in ``rules[3].match.verbs``."""
        return f"{self.path}.{key}" if self.path else key

    def line(self, key: str) -> int:
        """Line of a field's key; of the mapping itself when the field is absent."""
        return self.mapping.keys.get(key, self.mapping.line)

    def complain(self, key: str, reason: str) -> None:
        """Report a problem with a field as a whole."""
        self.findings.add(self.line(key), self.field(key), reason)

    def close(self) -> None:
        """Report every field that nobody asked for, with the nearest known name."""
        for key, line in self.mapping.keys.items():
            if key not in self.asked:
                near = difflib.get_close_matches(key, sorted(self.asked), 1, 0.6)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                self.findings.add(line, self.field(key[:64]), f"unknown field{hint}")

    def _node(self, key: str, required: bool = False) -> Node | None:
        self.asked.add(key)
        node = self.mapping.entries.get(key)
        if node is None and required:
            self.complain(key, "is required")
        return node

    # -- single values

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required when there is no default."""
        node = self._node(key, required=default is None)
        text = None if node is None else self._text(node, self.field(key))
        return (default or "") if text is None else text.value

    def optional_text(self, key: str) -> str | None:
        """A string, or None when absent."""
        node = self._node(key)
        text = None if node is None else self._text(node, self.field(key))
        return None if text is None else text.value

    def _text(self, node: Node, field: str) -> Text | None:
        if not isinstance(node, Scalar):
            self.findings.add(node.line, field, f"must be text, not {_kind(node)}")
        elif not isinstance(node.value, str):
            hint = f"; put {node.text!r} in quotes" if node.text else ", not nothing"
            self.findings.add(node.line, field, f"must be text{hint}")
        elif len(node.value) > LONGEST_TEXT:
            self.findings.add(node.line, field, f"is longer than {LONGEST_TEXT} characters")
        elif not node.value.isprintable():
            self.findings.add(node.line, field, "holds control characters or line ends")
        else:
            return Text(node.value, node.line, field)
        return None

    def number(self, key: str, *, least: float, most: float, default: float | None) -> float:
        """A finite number from ``least`` to ``most``; required when there is no default."""
        node = self._node(key, required=default is None)
        if node is None:
            return least if default is None else default
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.findings.add(node.line, self.field(key), "must be a number")
        elif not math.isfinite(value) or not least <= value <= most:
            self.findings.add(
                node.line, self.field(key), f"must be from {least:g} to {most:g}, not {value:g}"
            )
        else:
            return float(value)
        return least

    def integer(self, key: str, *, least: int, most: int, default: int) -> int:
        """A whole number from ``least`` to ``most``."""
        node = self._node(key)
        if node is None:
            return default
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, bool) or not isinstance(value, int):
            self.findings.add(node.line, self.field(key), "must be a whole number")
        elif not least <= value <= most:
            self.findings.add(
                node.line, self.field(key), f"must be from {least} to {most}, not {value}"
            )
        else:
            return value
        return default

    def boolean(self, key: str) -> bool | None:
        """``true`` or ``false``; None when absent."""
        node = self._node(key)
        if node is None:
            return None
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        self.findings.add(node.line, self.field(key), "must be true or false")
        return None

    def choice(self, key: str, of: type[E], default: E) -> E:
        """One of an enumeration's values."""
        node = self._node(key)
        if node is None:
            return default
        found = self._choice(node, self.field(key), of)
        return default if found is None else found

    def _choice(self, node: Node, field: str, of: type[E]) -> E | None:
        for member in of:
            if isinstance(node, Scalar) and node.value == member.value:
                return member
        names = ", ".join(str(member.value) for member in of)
        self.findings.add(node.line, field, f"must be one of {names}")
        return None

    # -- lists and sections

    def _items(self, key: str, most: int) -> Iterator[tuple[Node, str]]:
        node = self._node(key)
        if node is None:
            return
        if not isinstance(node, Sequence):
            self.findings.add(node.line, self.field(key), f"must be a list, not {_kind(node)}")
            return
        if len(node.items) > most:
            self.complain(key, f"holds {len(node.items)} entries; at most {most} are allowed")
            return
        for index, item in enumerate(node.items):
            yield item, f"{self.field(key)}[{index}]"

    def texts(
        self, key: str, *, most: int = 1_024, empty: str | None = None
    ) -> tuple[Text, ...] | None:
        """A list of strings; None when absent. ``empty``: why it must not be empty."""
        node = self._node(key)
        if node is None:
            return None
        if empty is not None and isinstance(node, Sequence) and not node.items:
            self.complain(key, empty)
        found = [self._text(item, field) for item, field in self._items(key, most)]
        return tuple(text for text in found if text is not None)

    def choices(self, key: str, of: type[E]) -> tuple[E, ...]:
        """A list of different values of an enumeration, in the order of the enumeration."""
        chosen: list[E] = []
        for item, field in self._items(key, 64):
            member = self._choice(item, field, of)
            if member in chosen:
                self.findings.add(item.line, field, "is named twice")
            elif member is not None:
                chosen.append(member)
        return tuple(member for member in of if member in chosen)

    def section(self, key: str, *, required: bool = False) -> Section | None:
        """A nested mapping; None when absent or of another kind.

        An optional one may be left empty, as when all its fields are commented out.
        """
        node = self._node(key, required)
        if isinstance(node, Scalar) and node.value is None and not required:
            return None
        return None if node is None else self._section(node, self.field(key))

    def sections(self, key: str, *, most: int) -> list[Section]:
        """A list of mappings."""
        found = [self._section(item, field) for item, field in self._items(key, most)]
        return [section for section in found if section is not None]

    def _section(self, node: Node, path: str) -> Section | None:
        if isinstance(node, Mapping):
            return Section(self.findings, node, path)
        self.findings.add(node.line, path, f"must be a mapping, not {_kind(node)}")
        return None


def check_kind(root: Section, kind: str) -> None:
    """Report a file of another kind or version."""
    for key, expected in (("apiVersion", API_VERSION), ("kind", kind)):
        found = root.optional_text(key)
        if found is None and key not in root:
            root.complain(key, f"is required and must be {expected}")
        elif found is not None and found != expected:
            root.complain(key, f"must be {expected}")


def _kind(node: Node) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    return "nothing" if node.value is None else "a single value"
