"""Command lines: what is declared, what is understood, and what is said of the rest."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from apiguard import cli
from apiguard.ctl.errors import UsageError
from apiguard.ctl.options import add_connection, connection
from apiguard.ctl.parsing import Command, Given, here
from tests.commands import invoke

GROUPS = ("overrides", "upstreams", "enforcement", "policy", "config")


def nothing(given: Given) -> None:
    pass


def take(command: Command) -> None:
    """Take IDs."""
    command.add_argument("ids", nargs="*", default=[])
    command.add_argument("--for", dest="ttl")
    add_connection(command)
    command.takes(nothing, "[ID...]", gathers="ids")


def never(command: Command) -> None:
    """Be declared by mistake."""
    raise AssertionError("nobody named this command")


def everything(command: Command) -> None:
    """Hold both."""
    add_connection(command, hidden=True)
    command.holds({"Commands": {"take": here(take), "never": here(never)}})


def parsed(line: str) -> Given:
    root = Command(lambda: everything, prog="tried")
    root.prepare(line.split())
    return root.parse_args(line.split())


def ran(line: str) -> None:
    given = parsed(line)
    given.command.run(given)


@pytest.mark.parametrize(
    "line", ["take a b --for 1h", "take a --for 1h b", "take --for 1h a b", "take --for=1h a b"]
)
def test_words_and_options_stand_in_any_order(line: str) -> None:
    given = parsed(line)
    assert (given.ids, given.ttl) == (["a", "b"], "1h")


def test_a_flag_after_the_command_wins_over_the_one_before() -> None:
    assert connection(parsed("--context a take")).context == "a"
    assert connection(parsed("--context a take --context b")).context == "b"
    both = connection(parsed("--context a take --cert c"))
    assert (both.context, both.cert, both.server) == ("a", "c", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tkae", "there is no command 'tkae' (did you mean 'take'?) (see tried --help)"),
        ("", "name a command: take, never (see tried --help)"),
        ("take --fro 1h", "no option '--fro' (did you mean '--for'?) (see tried take --help)"),
        ("take --fo 1h", "no option '--fo'"),
        ("take --for", "--for: expected one argument"),
        ("take --for -1h", "write one that begins with - as --option=-value"),
    ],
)
def test_what_is_wrong_is_said_in_the_name_of_its_command(line: str, said: str) -> None:
    with pytest.raises(UsageError) as failure:
        ran(line)
    assert said in str(failure.value)


def commands() -> Iterator[tuple[str, ...]]:
    """All there are, groups' own too, as they are typed."""
    yield ()
    for names in cli.SECTIONS.values():
        for name in names:
            yield (name,)
            if name in GROUPS:
                listed = invoke(name, "--help").stdout.partition("\nCommands:\n")[2]
                lines = listed.partition("\n\n")[0].splitlines()
                yield from ((name, line.split()[0]) for line in lines)


@pytest.mark.parametrize("columns", [100, 200])
def test_every_help_has_a_summary_and_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    tried = 0
    for command in commands():
        done = invoke(*command, "--help")
        usage, summary, *_ = done.stdout.split("\n\n")
        assert done.exit_code == 0
        assert usage.startswith(" ".join(("Usage: apiguard", *command)))
        assert summary.endswith("."), (command, summary)
        assert max(map(len, done.stdout.splitlines())) <= 100
        tried += 1
    assert tried > 30


@pytest.mark.parametrize(("words", "hurried"), [(["status"], True), (["serve"], False)])
def test_an_operators_command_goes_first_and_the_guard_itself_does_not(
    words: list[str], hurried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    priorities: list[int] = []
    monkeypatch.setattr("os.setpriority", lambda which, who, value: priorities.append(value))
    monkeypatch.setattr(cli, "_leave", sys.exit)
    monkeypatch.setattr(sys, "argv", ["apiguard", *words, "--help"])
    try:
        with pytest.raises(SystemExit):
            cli.main()
    finally:
        gc.enable()
    assert priorities == ([cli.NICENESS] if hurried else [])
