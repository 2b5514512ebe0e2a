"""Strict YAML: one document of plain mappings, sequences and scalars, each with its line.

A file of this kind can come over the network, so everything a parser does on its own initiative
is refused: tags, anchors and aliases (one line of them can expand to gigabytes), merge keys,
second documents, duplicate keys, and YAML 1.1's guesses (``off`` as false, ``010`` as eight,
``1:30`` as ninety). What is left are YAML 1.2's core scalars: null, true, false, decimal numbers;
anything else is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from apiguard.errors import ConfigError, Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_NODES = 200_000

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value. ``quoted`` text is a string whatever it looks like."""

    line: int
    value: Value
    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mapping:
    """``keys`` holds the line of each key, which is where a wrong key is reported."""

    line: int
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping

# libyaml parses a megabyte in 0.8 s, the pure Python parser in 10 s; both yield the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})?(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, Value] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "false": False,
}


def parse(text: str, name: str) -> Mapping:
    """The one mapping that ``text`` holds; ``name`` is what errors call the file.

    Raises ConfigError with the line of the first offence: later ones would be guesses.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _error(name, 0, "is not valid Unicode text") from None
    if size > MAX_BYTES:
        raise _error(name, 0, f"is {size} bytes long; at most {MAX_BYTES} are read")
    try:
        root = _Composer(name).document(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"is not valid YAML: {error.problem or error.context}"
        raise _error(name, mark.line + 1 if mark else 0, reason) from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 0
        raise _error(name, line, "holds a character that YAML does not allow") from None
    if not isinstance(root, Mapping):
        raise _error(name, root.line if root else 0, "must be a mapping of fields to values")
    return root


def _error(name: str, line: int, reason: str) -> ConfigError:
    return ConfigError([Problem(name, line, "", reason)])


def _value(text: str) -> Value:
    """A plain scalar under YAML 1.2's core schema, without octal, hexadecimal and infinities."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and any(c.isdigit() for c in text):
        try:
            return float(text)
        except ValueError:  # an exponent without digits before it
            return text
    return text


class _Composer:
    """Builds nodes from parser events; one level of Python calls per level of nesting."""

    __slots__ = ("name", "nodes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes = 0

    def document(self, events: Iterator[yaml.Event]) -> Node | None:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self.error(event, "holds more than one document")
            elif isinstance(event, yaml.NodeEvent):
                root = self.node(event, events, 1)
        return root

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        self.vet(event, depth)
        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            quoted = bool(event.style)
            value: Value = event.value if quoted else _value(event.value)
            return Scalar(line, value, event.value, quoted)
        if isinstance(event, yaml.SequenceStartEvent):
            sequence = Sequence(line)
            for item in events:
                if isinstance(item, yaml.SequenceEndEvent):
                    break
                sequence.items.append(self.node(item, events, depth + 1))
            return sequence
        return self.mapping(line, events, depth)

    def mapping(self, line: int, events: Iterator[yaml.Event], depth: int) -> Mapping:
        mapping = Mapping(line)
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.node(event, events, depth + 1)
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                raise self.error(event, "has a key that is not text")
            if key.value in mapping.entries:
                first = mapping.keys[key.value]
                raise self.error(event, f"repeats the key {key.value!r} of line {first}")
            mapping.entries[key.value] = self.node(next(events), events, depth + 1)
            mapping.keys[key.value] = key.line
        return mapping

    def vet(self, event: yaml.Event, depth: int) -> None:
        """Refuse what can expand, nest or count without bound, and what asks for a type."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.error(event, f"holds more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise self.error(event, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            raise self.error(event, "uses an alias (*name); write the value out")
        if getattr(event, "anchor", None) is not None:
            raise self.error(event, "uses an anchor (&name); write the value out")
        if getattr(event, "tag", None) is not None:
            raise self.error(event, "uses a tag (!name); tags are not read")

    def error(self, event: yaml.Event, reason: str) -> ConfigError:
        return _error(self.name, _line(event), reason)


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark else 0
