"""Selectors are read, worded and matched as kube-apiserver does."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.kube.selectors import (
    FieldRequirement,
    LabelRequirement,
    Operator,
    SelectorError,
    parse_field_selector,
    parse_int64,
    parse_label_selector,
)

STATUS_DATA = pathlib.Path(__file__).parents[2] / "data" / "status"


def label_error(text: str) -> str:
    with pytest.raises(SelectorError) as error:
        parse_label_selector(text)
    assert (error.value.code, error.value.reason, error.value.close) == (400, "BadRequest", False)
    return error.value.message


# --- labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "operator", "values"),
    [
        ("a=b", "a", Operator.EQUALS, ("b",)),
        ("a==b", "a", Operator.DOUBLE_EQUALS, ("b",)),
        ("a!=b", "a", Operator.NOT_EQUALS, ("b",)),
        (" a \t= \n b ", "a", Operator.EQUALS, ("b",)),
        ("a=", "a", Operator.EQUALS, ("",)),
        ("a", "a", Operator.EXISTS, ()),
        ("!a", "a", Operator.DOES_NOT_EXIST, ()),
        ("! a", "a", Operator.DOES_NOT_EXIST, ()),
        ("a in (x,y)", "a", Operator.IN, ("x", "y")),
        ("a in (y,x,y)", "a", Operator.IN, ("x", "y")),
        ("a in ()", "a", Operator.IN, ("",)),
        ("a in (,)", "a", Operator.IN, ("",)),
        ("a in (x,)", "a", Operator.IN, ("", "x")),
        ("a in (,x)", "a", Operator.IN, ("", "x")),
        ("a in (x,,y)", "a", Operator.IN, ("", "x", "y")),
        ("a notin(x)", "a", Operator.NOT_IN, ("x",)),
        ("in in (in,notin)", "in", Operator.IN, ("in", "notin")),
        ("notin", "notin", Operator.EXISTS, ()),
        ("a=in", "a", Operator.EQUALS, ("in",)),
        ("a>5", "a", Operator.GREATER_THAN, ("5",)),
        ("a<+07", None, None, None),  # "+" is no label value
        ("a<07", "a", Operator.LESS_THAN, ("07",)),
        ("example.com/a=b", "example.com/a", Operator.EQUALS, ("b",)),
        ("a=b\0", "a", Operator.EQUALS, ("b",)),
    ],
)
def test_reads_every_operator(
    text: str, key: str | None, operator: Operator | None, values: tuple[str, ...] | None
) -> None:
    if key is None or operator is None or values is None:
        label_error(text)
        return
    assert parse_label_selector(text).requirements == (LabelRequirement(key, operator, values),)


def test_requirements_are_sorted_by_key_so_that_equal_meanings_are_equal_values() -> None:
    assert parse_label_selector("b=1,a") == parse_label_selector("a,b = 1")
    assert hash(parse_label_selector("b=1,a")) == hash(parse_label_selector("a,b=1"))


@pytest.mark.parametrize("text", ["", " ", "\0", "\t\0a=b"])
def test_nothing_selects_everything(text: str) -> None:
    selector = parse_label_selector(text)
    assert selector.empty
    assert selector.matches({})
    assert selector.matches({"a": "b"})


@pytest.mark.parametrize(
    ("text", "selected", "rejected"),
    [
        ("a=b", [{"a": "b"}, {"a": "b", "c": ""}], [{}, {"a": "c"}, {"a": ""}]),
        ("a=", [{"a": ""}], [{}, {"a": "x"}]),
        ("a!=b", [{}, {"a": "c"}], [{"a": "b"}]),
        ("a in (x,y)", [{"a": "x"}, {"a": "y"}], [{}, {"a": "z"}]),
        ("a in ()", [{"a": ""}], [{}, {"a": "z"}]),
        ("a notin (x)", [{}, {"a": "y"}], [{"a": "x"}]),
        ("a", [{"a": ""}, {"a": "x"}], [{}, {"b": "x"}]),
        ("!a", [{}, {"b": "x"}], [{"a": ""}]),
        ("a>5", [{"a": "6"}, {"a": "+6"}], [{}, {"a": "5"}, {"a": "x"}, {"a": "1_0"}]),
        ("a<5", [{"a": "-1"}, {"a": "0"}], [{}, {"a": "5"}, {"a": "99999999999999999999"}]),
        ("a=b,c!=d", [{"a": "b"}], [{"a": "b", "c": "d"}, {"c": "x"}]),
    ],
)
def test_matches_labels(
    text: str, selected: list[dict[str, str]], rejected: list[dict[str, str]]
) -> None:
    selector = parse_label_selector(text)
    assert not selector.empty
    assert all(selector.matches(labels) for labels in selected)
    assert not any(selector.matches(labels) for labels in rejected)


def test_the_recorded_refusal_is_worded_alike() -> None:
    recorded = json.loads((STATUS_DATA / "list-label-selector-invalid.json").read_bytes())
    assert label_error("a b c") == recorded["message"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("!a b", "found 'b', expected: ',' or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a==(", "unable to parse requirement: found '(', expected: identifier"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a in (x y)", "unable to parse requirement: found 'y', expected: ',' or ')'"),
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (x,", "unable to parse requirement: found '', expected: ',', or identifier"),
        ("a in (,", "unable to parse requirement: found '', expected: ',', or identifier"),
        (
            "a>x",
            'unable to parse requirement: values[0]: Invalid value: "x": '
            "for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        (
            "/a",
            "unable to parse requirement: "
            '<nil>: Invalid value: "/a": prefix part must be non-empty',
        ),
    ],
)
def test_errors_are_worded_as_the_server_words_them(text: str, message: str) -> None:
    assert label_error(text) == message


def test_long_or_malformed_keys_and_values_are_errors() -> None:
    name = "must consist of alphanumeric characters"
    assert f'Invalid value: "-a": name part {name}' in label_error("-a")
    assert "must be no more than 63 bytes" in label_error("a" * 64)
    assert "prefix part must be no more than 253 bytes" in label_error("a" * 254 + "/b")
    assert "prefix part a lowercase RFC 1123 subdomain" in label_error("A/b")
    assert "with an optional DNS subdomain prefix" in label_error("a/b/c")
    assert 'values[0][a]: Invalid value: "-": a valid label' in label_error("a=-")
    assert "values[1][a]" in label_error("a in (b,c_)")
    assert label_error("a in (b_,c_)").startswith("unable to parse requirement: [values[0][a]")


def test_messages_hold_no_control_character_and_are_bounded() -> None:
    assert "\x1b" not in label_error("a \x1b[2J")
    assert "\\x1b" in label_error("a \x1b[2J")
    assert len(label_error("a b" + "c" * 60_000)) < 2_000


# --- fields ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "requirements"),
    [
        ("", []),
        (",,", []),
        ("a=b", [("a", "=", "b")]),
        ("a==b", [("a", "==", "b")]),
        ("a!=b", [("a", "!=", "b")]),
        ("a=", [("a", "=", "")]),
        ("=b", [("", "=", "b")]),
        ("b=1,a=2", [("a", "=", "2"), ("b", "=", "1")]),
        (r"a=x\,y\=z\\", [("a", "=", r"x,y=z" + "\\")]),
        ("a!b=c", [("a!b", "=", "c")]),
        ("a = b", [("a ", "=", " b")]),
        ("a=\n", [("a", "=", "\n")]),
    ],
)
def test_reads_field_terms(text: str, requirements: list[tuple[str, str, str]]) -> None:
    expected = tuple(FieldRequirement(f, Operator(op), v) for f, op, v in requirements)
    assert parse_field_selector(text).requirements == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("a=b,c", "invalid selector: 'a=b,c'; can't understand 'c'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_malformed_field_selectors_are_errors(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as error:
        parse_field_selector(text)
    assert error.value.message == message


def test_matches_fields_and_reads_an_absent_one_as_empty() -> None:
    selector = parse_field_selector("spec.nodeName=n,status.phase!=Failed")
    assert selector.matches({"spec.nodeName": "n", "status.phase": "Running"})
    assert selector.matches({"spec.nodeName": "n"})
    assert not selector.matches({"spec.nodeName": "n", "status.phase": "Failed"})
    assert not selector.matches({})
    assert parse_field_selector("spec.nodeName=").matches({})
    assert not parse_field_selector("spec.nodeName!=").matches({})
    assert parse_field_selector("").matches({})
    assert parse_field_selector("").empty


def test_exact_is_the_first_equality_in_byte_order() -> None:
    selector = parse_field_selector("metadata.name=b,metadata.name=a,x!=y")
    assert selector.exact("metadata.name") == "a"
    assert selector.exact("x") is None
    assert selector.exact("z") is None
    assert parse_field_selector("metadata.name=").exact("metadata.name") == ""


# --- properties -----------------------------------------------------------------------------

PIECES = (*"ab1-_./ ,=!()<>\\\0\n\u00e9", " in ", " notin ")
TEXT = st.lists(st.sampled_from(PIECES)).map("".join)
NAMES = st.text(alphabet="abcXYZ019", min_size=1, max_size=5)


@given(TEXT)
def test_any_text_is_a_selector_or_a_selector_error(text: str) -> None:
    for parse in (parse_label_selector, parse_field_selector):
        try:
            parse(text).matches({"a": "1"})
        except SelectorError as error:
            assert error.message  # noqa: PT017 - either outcome is right


@given(st.dictionaries(NAMES, NAMES, max_size=4), st.dictionaries(NAMES, NAMES, max_size=4))
def test_equalities_select_exactly_supersets(
    wanted: dict[str, str], labels: dict[str, str]
) -> None:
    text = ",".join(f"{key}={value}" for key, value in wanted.items())
    expected = wanted.items() <= labels.items()
    assert parse_label_selector(text).matches(labels) is expected
    assert parse_field_selector(text).matches(labels) is expected


@given(st.dictionaries(NAMES, NAMES, max_size=4), NAMES, st.lists(NAMES, min_size=1, max_size=3))
def test_each_negation_selects_what_its_counterpart_does_not(
    labels: dict[str, str], key: str, values: list[str]
) -> None:
    listed = ",".join(values)
    for positive, negative in (
        (f"{key} in ({listed})", f"{key} notin ({listed})"),
        (f"{key}={values[0]}", f"{key}!={values[0]}"),
        (key, f"!{key}"),
    ):
        selected = parse_label_selector(positive).matches(labels)
        assert parse_label_selector(negative).matches(labels) is not selected


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_an_escaped_field_value_comes_back(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
    assert parse_field_selector(f"f={escaped}").exact("f") == value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("0", 0), ("-0", 0), ("+5", 5), ("007", 7), ("0" * 5000 + "1", 1)),
        *(("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63))),
        *(("9223372036854775808", None), ("", None), ("+", None), ("1_0", None), (" 1", None)),
        *(("1\n", None), ("\u0661", None), ("0x1", None), ("0" * 60_000 + "x", None)),
    ],
)
def test_integers_are_those_of_go(text: str, number: int | None) -> None:
    assert parse_int64(text) == number
