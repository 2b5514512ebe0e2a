"""Nothing a client sends reaches a terminal as anything but visible characters."""

from __future__ import annotations

import json
import unicodedata

import yaml
from hypothesis import given
from hypothesis import strategies as st

from apiguard.ctl.address import parse_address
from apiguard.ctl.fleet import Answer
from apiguard.ctl.guard import Guard
from apiguard.ctl.output import align, encoded, merged
from apiguard.ctl.printable import printable, printable_lines
from apiguard.ctl.wire import Tls

ANYTHING = st.text(st.characters(), max_size=40)
STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def steers(text: str, but: str = "") -> list[str]:
    """Characters of ``text`` that a terminal acts upon instead of showing them."""
    return [c for c in text if unicodedata.category(c) in STEERING and c not in but]


@given(ANYTHING)
def test_no_text_steers_a_terminal(text: str) -> None:
    assert not steers(printable(text))


@given(ANYTHING)
def test_lines_of_a_file_keep_tabs_and_line_feeds_alone(text: str) -> None:
    assert not steers(printable_lines(text), but="\n\t")


@given(st.lists(st.lists(ANYTHING, min_size=2, max_size=2), min_size=1, max_size=4))
def test_a_table_has_a_line_per_row_whatever_cells_hold(rows: list[list[str]]) -> None:
    table = align(rows)
    assert not steers(table, but="\n")
    assert table.count("\n") == len(rows)


@given(ANYTHING.filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)))
def test_json_and_yaml_are_exact_and_ascii(text: str) -> None:
    value = {"key": text}
    for form, decode in (("json", json.loads), ("yaml", yaml.safe_load)):
        written = encoded(value, form)
        assert written.isascii()
        assert not steers(written, but="\n")
        assert decode(written) == value


def test_escapes_are_shown_as_codes() -> None:
    assert printable("a\x1b[2J\u202eb\U000e0001") == "a\\x1b[2J\\u202eb\\U000e0001"


def test_letters_of_every_script_stay() -> None:
    assert printable("Müller 管理者 агент") == "Müller 管理者 агент"


def test_several_guards_answers_say_whose_they_are() -> None:
    guards = [Guard(name, parse_address("unix:/x"), Tls(), "", 5.0) for name in ("a", "b")]
    answers = [Answer(guard, value) for guard, value in zip(guards, (1, 2), strict=True)]
    assert merged(answers[:1]) == 1
    assert [one["guard"] for one in merged(answers)["guards"]] == ["a", "b"]
