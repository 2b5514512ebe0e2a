"""The loader refuses whatever YAML would do on its own initiative, and says on which line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.errors import ConfigError
from apiguard.policy.document import MAX_BYTES, Mapping, Scalar, parse


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: repeats the key 'a' of line 1"),
        ("x:\n  a: 1\n  a: 2\n", "f.yaml:3: repeats the key 'a' of line 2"),
        ("a: &x 1\n", "f.yaml:1: uses an anchor (&name); write the value out"),
        ("a: 1\nb: *x\n", "f.yaml:2: uses an alias (*name); write the value out"),
        ("a: !!python/name:os.system x\n", "f.yaml:1: uses a tag (!name); tags are not read"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: holds more than one document"),
        ("1: a\n", "f.yaml:1: has a key that is not text"),
        ("? [a]\n: b\n", "f.yaml:1: has a key that is not text"),
        ("- a\n", "f.yaml:1: must be a mapping of fields to values"),
        ("", "f.yaml: must be a mapping of fields to values"),
        ("a: " + "[" * 20 + "]" * 20, "f.yaml:1: is nested more than 16 levels deep"),
        ("a: '" + "x" * MAX_BYTES + "'", f"f.yaml: is {MAX_BYTES + 5} bytes long"),
        ("a: \ud800", "f.yaml: is not valid Unicode text"),
        ("a: 1\nb: \x07\n", "holds a character that YAML does not allow"),
        ("a: 1\nb: [1\nc: 2\n", "f.yaml:3: is not valid YAML"),
        ("a: [" + "1," * 250_000 + "]", "f.yaml:1: holds more than 200000 values"),
    ],
)
def test_each_refusal_names_line_and_reason(text: str, expected: str) -> None:
    assert expected in refusal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("12", 12),
        ("-3", -3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("e5", "e5"),
        (".", "."),
        ("null", None),
        ("~", None),
        ("'12'", "12"),
        ('""', ""),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_follow_yaml_1_2_and_not_1_1(text: str, value: object) -> None:
    node = parse(f"a: {text}\n", "f.yaml").entries["a"]
    assert isinstance(node, Scalar)
    assert node.value == value
    assert type(node.value) is type(value)


def read_or_refused(text: str) -> bool:
    try:
        return isinstance(parse(text, "f.yaml"), Mapping)
    except ConfigError as error:
        return len(error.problems) == 1


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_one_problem(text: str) -> None:
    assert read_or_refused(text)


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#,? \n\t", max_size=60))
def test_any_yaml_syntax_is_read_or_refused_with_one_problem(text: str) -> None:
    assert read_or_refused(text)
