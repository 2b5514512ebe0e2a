"""Label and field selectors, as text and as predicates over one object's labels or fields.

Source: k8s.io/apimachinery/pkg/{labels,fields}/selector.go, whose order of terms, wording of
errors and corner cases are kept: kubectl users search for these sentences.

A selector is a value: equal selectors have equal requirements, so objects can be matched once for
all watchers that wrote the same thing. Malformed text raises ``SelectorError``, which already
carries kube-apiserver's answer (400 BadRequest).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from apiguard.errors import WireError

MAX_QUOTED = 1024
"""Characters of a selector that an error message repeats; a target may hold 64 KiB of it."""


class SelectorError(WireError):
    """Malformed selector; ``message`` is kube-apiserver's sentence, control bytes escaped."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "BadRequest", message, close=False)


class Operator(enum.StrEnum):
    """k8s.io/apimachinery/pkg/selection/operator.go."""

    IN = "in"
    NOT_IN = "notin"
    EQUALS = "="
    DOUBLE_EQUALS = "=="
    NOT_EQUALS = "!="
    GREATER_THAN = "gt"
    LESS_THAN = "lt"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"


Predicate = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One term: ``values`` is sorted, empty for exists, a single one for all but in and notin."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements joined by AND, sorted by key; none of them selects everything."""

    requirements: tuple[LabelRequirement, ...]
    _predicates: tuple[Predicate, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        predicates = tuple(_label_predicate(r) for r in self.requirements)
        object.__setattr__(self, "_predicates", predicates)

    @property
    def empty(self) -> bool:
        """Whether this restricts nothing."""
        return not self.requirements

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with ``labels`` is selected."""
        for predicate in self._predicates:  # noqa: SIM110 - all() builds a generator per object
            if not predicate(labels):
                return False
        return True


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One term; ``operator`` is ``=``, ``==`` or ``!=``, ``value`` is unescaped."""

    field: str
    operator: Operator
    value: str


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Requirements joined by AND, in the byte order of their text; none selects everything."""

    requirements: tuple[FieldRequirement, ...]
    _terms: tuple[tuple[str, str, bool], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        terms = tuple(
            (r.field, r.value, r.operator is not Operator.NOT_EQUALS) for r in self.requirements
        )
        object.__setattr__(self, "_terms", terms)

    @property
    def empty(self) -> bool:
        """Whether this restricts nothing."""
        return not self.requirements

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether an object with ``fields`` is selected; an absent field reads as ""."""
        for name, value, equal in self._terms:  # noqa: SIM110 - all() builds a generator per object
            if (fields.get(name, "") == value) is not equal:
                return False
        return True

    def exact(self, name: str) -> str | None:
        """The value the first equality on field ``name`` demands, None without one."""
        for requirement in self.requirements:
            if requirement.field == name and requirement.operator is not Operator.NOT_EQUALS:
                return requirement.value
        return None


# --- labels ---------------------------------------------------------------------------------


def _label_predicate(requirement: LabelRequirement) -> Predicate:
    """The requirement as a call; decided once per selector, not once per object."""
    key, values = requirement.key, frozenset(requirement.values)
    match requirement.operator:
        case Operator.IN | Operator.EQUALS | Operator.DOUBLE_EQUALS:
            return lambda labels: labels.get(key) in values
        case Operator.NOT_IN | Operator.NOT_EQUALS:
            return lambda labels: labels.get(key) not in values
        case Operator.EXISTS:
            return lambda labels: key in labels
        case Operator.DOES_NOT_EXIST:
            return lambda labels: key not in labels
        case Operator.GREATER_THAN | Operator.LESS_THAN:
            return _ordering(key, requirement)


def _ordering(key: str, requirement: LabelRequirement) -> Predicate:
    """``>`` or ``<``: a label that is absent or no 64-bit integer is not selected."""
    bound = parse_int64(requirement.values[0])
    if bound is None:
        raise ValueError(f"{requirement.operator} needs an integer")
    limit = bound
    greater = requirement.operator is Operator.GREATER_THAN

    def compare(labels: Mapping[str, str]) -> bool:
        number = parse_int64(labels.get(key, ""))
        return number is not None and (number > limit if greater else number < limit)

    return compare


class _Token(NamedTuple):
    kind: str  # an operator or punctuation, "in", "notin", _WORD or _END
    text: str


_WORD = "word"
_END = "end"
_BLANKS = " \t\r\n"
# Go's lexer reads a NUL as the end of its input: it ends (and is eaten with) a token before it.
_SYMBOL = re.compile(r"(!=|==|[=!(),<>])\0?")
_IDENTIFIER = re.compile(r"([^\0=!(),<> \t\r\n]+)\0?")


def _tokens(text: str) -> list[_Token]:
    """All tokens of ``text``, the last being ``_END``."""
    found: list[_Token] = []
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in _BLANKS:
            at += 1
        if at == end or text[at] == "\0":
            found.append(_Token(_END, ""))
            return found
        if match := _SYMBOL.match(text, at):
            found.append(_Token(match[1], match[1]))
        elif match := _IDENTIFIER.match(text, at):
            word = match[1]
            found.append(_Token(word if word in ("in", "notin") else _WORD, word))
        else:  # pragma: no cover - the two patterns cover every character but blanks and NUL
            raise AssertionError(text[at])
        at = match.end()


_BINARY = {
    "in": Operator.IN,
    "notin": Operator.NOT_IN,
    "=": Operator.EQUALS,
    "==": Operator.DOUBLE_EQUALS,
    "!=": Operator.NOT_EQUALS,
    ">": Operator.GREATER_THAN,
    "<": Operator.LESS_THAN,
}
_EXPECTED_OPERATORS = ", ".join(_BINARY.values())


class _LabelParser:
    """Recursive descent over the tokens; ``in`` and ``notin`` are words except as operators."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def _peek(self) -> _Token:
        token = self._tokens[self._at]
        return _Token(_WORD, token.text) if token.kind in ("in", "notin") else token

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def parse(self) -> list[LabelRequirement]:
        requirements: list[LabelRequirement] = []
        while True:
            token = self._peek()
            if token.kind == _END:
                return requirements
            if token.kind not in (_WORD, "!"):
                raise _found(token, ", expected: !, identifier, or 'end of string'")
            requirements.append(self._requirement())
            separator = self._next()
            if separator.kind == _END:
                return requirements
            if separator.kind != ",":
                raise _found(separator, ", expected: ',' or 'end of string'")
            if self._peek().kind not in (_WORD, "!"):
                raise _found(self._peek(), ", expected: identifier after ','")

    def _requirement(self) -> LabelRequirement:
        try:
            return self._vetted_requirement()
        except SelectorError as error:
            raise SelectorError(f"unable to parse requirement: {error.message}") from None

    def _vetted_requirement(self) -> LabelRequirement:
        token = self._next()
        absent = token.kind == "!"
        if absent:
            token = self._next()
        if token.kind != _WORD:
            raise _found(token, ", expected: identifier")
        key = token.text
        _check_key(key)
        if absent:
            return LabelRequirement(key, Operator.DOES_NOT_EXIST)
        if self._peek().kind in (_END, ","):
            return LabelRequirement(key, Operator.EXISTS)
        operator = self._operator()
        if operator in (Operator.IN, Operator.NOT_IN):
            values = self._value_list()
        else:
            values = {self._value()}
        requirement = LabelRequirement(key, operator, tuple(sorted(values)))
        _check_values(requirement)
        return requirement

    def _operator(self) -> Operator:
        token = self._tokens[self._at]
        self._at += 1
        operator = _BINARY.get(token.kind)
        if operator is None:
            raise _found(token, f", expected: {_EXPECTED_OPERATORS}")
        return operator

    def _value(self) -> str:
        if self._peek().kind in (_END, ","):
            return ""
        token = self._next()
        if token.kind != _WORD:
            raise _found(token, ", expected: identifier")
        return token.text

    def _value_list(self) -> set[str]:
        opening = self._next()
        if opening.kind != "(":
            raise _found(opening, " expected: '('")
        first = self._peek()
        if first.kind == ")":
            self._next()
            return {""}
        if first.kind not in (_WORD, ","):
            raise _found(first, ", expected: ',', ')' or identifier")
        values: set[str] = set()
        while True:
            token = self._next()
            following = self._peek() if token.kind != _END else token
            if token.kind == _WORD:
                values.add(token.text)
                if following.kind not in (",", ")"):
                    raise _found(following, ", expected: ',' or ')'")
            elif token.kind == ",":
                if not values or following.kind in (",", ")"):
                    values.add("")
            else:
                raise _found(token, ", expected: ',', or identifier")
            if following.kind == ")":
                self._next()
                return values


def parse_label_selector(text: str) -> LabelSelector:
    """``a=b,c in (d,e),!f`` as a predicate; "" selects everything. Raises ``SelectorError``."""
    requirements = _LabelParser(text).parse()
    return LabelSelector(tuple(sorted(requirements, key=_by_key)))


def _by_key(requirement: LabelRequirement) -> str:
    return requirement.key


_NAME_FORMAT = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAME = re.compile(_NAME_FORMAT)
_DNS_LABEL_FORMAT = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_FORMAT = rf"{_DNS_LABEL_FORMAT}(\.{_DNS_LABEL_FORMAT})*"
_SUBDOMAIN = re.compile(_SUBDOMAIN_FORMAT)
_NAME_LIMIT = 63  # bytes, for the name part of a key and for a value
_PREFIX_LIMIT = 253  # bytes
_BAD_NAME = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
    f"regex used for validation is '{_NAME_FORMAT}')"
)
_BAD_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value', "
    f" or '12345', regex used for validation is '({_NAME_FORMAT})?')"
)
_BAD_PREFIX = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    f"for validation is '{_SUBDOMAIN_FORMAT}')"
)


def _key_problems(key: str) -> list[str]:
    """Why ``key`` is no label key: ``[DNS subdomain "/"] name``."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        return [
            f"a valid label key {_BAD_NAME} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    problems = []
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash:
        if len(prefix.encode()) > _PREFIX_LIMIT:
            problems.append(f"prefix part must be no more than {_PREFIX_LIMIT} bytes")
        if not _SUBDOMAIN.fullmatch(prefix):
            problems.append(f"prefix part {_BAD_PREFIX}")
    if not name:
        problems.append("name part must be non-empty")
    elif len(name.encode()) > _NAME_LIMIT:
        problems.append(f"name part must be no more than {_NAME_LIMIT} bytes")
    if not _NAME.fullmatch(name):
        problems.append(f"name part {_BAD_NAME}")
    return problems


def _check_key(key: str) -> None:
    if problems := _key_problems(key):
        raise SelectorError(f"<nil>: Invalid value: {_quoted(key)}: {'; '.join(problems)}")


def _value_problems(value: str) -> list[str]:
    problems = []
    if len(value.encode()) > _NAME_LIMIT:
        problems.append(f"must be no more than {_NAME_LIMIT} bytes")
    if value and not _NAME.fullmatch(value):
        problems.append(_BAD_VALUE)
    return problems


def _check_values(requirement: LabelRequirement) -> None:
    """Raise unless every value is a label value, and an integer where it is to be ordered."""
    invalid: list[str] = []
    if requirement.operator in (Operator.GREATER_THAN, Operator.LESS_THAN):
        value = requirement.values[0]
        if parse_int64(value) is None:
            invalid.append(
                f"values[0]: Invalid value: {_quoted(value)}: "
                "for 'Gt', 'Lt' operators, the value must be an integer"
            )
    for at, value in enumerate(requirement.values):
        if problems := _value_problems(value):
            place = f"values[{at}][{requirement.key}]"
            invalid.append(f"{place}: Invalid value: {_quoted(value)}: {'; '.join(problems)}")
    if invalid:
        raise SelectorError(invalid[0] if len(invalid) == 1 else f"[{', '.join(invalid)}]")


# --- fields ---------------------------------------------------------------------------------

_TERM = re.compile(r"(?:[^\\,]|\\.?)+", re.DOTALL)  # up to a comma no backslash precedes
_SPLIT = re.compile(r"!=|==?")
_ESCAPE = re.compile(r"\\(.?)|[,=]", re.DOTALL)
_FIELD_OPERATORS = {
    "=": Operator.EQUALS,
    "==": Operator.DOUBLE_EQUALS,
    "!=": Operator.NOT_EQUALS,
}


def parse_field_selector(text: str) -> FieldSelector:
    """``a=b,c!=d`` as a predicate; "" selects everything. Raises ``SelectorError``.

    Only syntax is judged: which fields a resource knows is for its owner to say.
    """
    requirements = []
    for term in sorted(_TERM.findall(text)):
        operator = _SPLIT.search(term)
        if operator is None:
            raise SelectorError(
                f"invalid selector: '{_shown(text)}'; can't understand '{_shown(term)}'"
            )
        value = _unescaped(term[operator.end() :])
        requirements.append(
            FieldRequirement(term[: operator.start()], _FIELD_OPERATORS[operator[0]], value)
        )
    return FieldSelector(tuple(requirements))


def _unescaped(value: str) -> str:
    r"""``value`` with ``\\``, ``\,`` and ``\=`` resolved; anything else after ``\`` is an error."""
    if "\\" not in value and "=" not in value:
        return value

    def resolve(match: re.Match[str]) -> str:
        if match[0] in (",", "="):
            raise SelectorError(
                f"invalid field selector: unescaped character in value: {ord(match[0])}"
            )
        if match[1] not in ("\\", ",", "="):
            raise SelectorError(
                f"invalid field selector: invalid escape sequence: {_shown(match[0])}"
            )
        return match[1]

    return _ESCAPE.sub(resolve, value)


# --- shared ---------------------------------------------------------------------------------

_INTEGER = re.compile(r"([+-]?)0*([0-9]{1,19})", re.ASCII)  # int64 has at most 19 digits
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def parse_int64(text: str) -> int | None:
    """As Go's ``strconv.ParseInt(text, 10, 64)``: None where that fails.

    Python's ``int`` also takes blanks, underscores and other scripts' digits, and refuses long
    runs of leading zeros.
    """
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    number = int(match[1] + match[2])
    return number if _INT64_MIN <= number <= _INT64_MAX else None


def _shown(text: str) -> str:
    """``text`` fit for a message: cut, control characters escaped."""
    if len(text) > MAX_QUOTED:
        text = text[:MAX_QUOTED] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _quoted(text: str) -> str:
    """``text`` in double quotes, as Go's ``%q``."""
    return '"' + _shown(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _found(token: _Token, expectation: str) -> SelectorError:
    return SelectorError(f"found '{_shown(token.text)}'{expectation}")


# --- as text --------------------------------------------------------------------------------

_INFIX = {
    Operator.EQUALS: "=",
    Operator.DOUBLE_EQUALS: "=",
    Operator.NOT_EQUALS: "!=",
    Operator.GREATER_THAN: ">",
    Operator.LESS_THAN: "<",
}


def label_selector_text(selector: LabelSelector) -> str:
    """A spelling that parses to ``selector``."""
    return ",".join(map(_label_text, selector.requirements))


def _label_text(requirement: LabelRequirement) -> str:
    key, operator = requirement.key, requirement.operator
    if operator is Operator.EXISTS:
        return key
    if operator is Operator.DOES_NOT_EXIST:
        return f"!{key}"
    if operator in (Operator.IN, Operator.NOT_IN):
        return f"{key} {operator.value} ({','.join(requirement.values)})"
    return f"{key}{_INFIX[operator]}{requirement.values[0]}"


def field_selector_text(selector: FieldSelector) -> str:
    """A spelling that parses to ``selector``."""
    return ",".join(
        f"{one.field}{_INFIX[one.operator]}{_SPECIAL.sub(_BACKSLASHED, one.value)}"
        for one in selector.requirements
    )


_SPECIAL = re.compile(r"[\\,=]")
_BACKSLASHED = r"\\\g<0>"
