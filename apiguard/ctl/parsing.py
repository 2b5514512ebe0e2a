"""Commands over argparse: declared when they are called, wrong in one line.

A command is a function that declares it: the docstring is its help, its name stands in the table
of whoever lists it, and its body adds options and says what runs::

    def whoami(command: Command) -> None:
        \"""Show under which name and role the guard knows you.\"""
        command.takes(_whoami)

argparse, because importing it adds 6 ms of CPU to what a command needs anyway, and click 45: as
much as a whole command, spent before the first byte to a guard that has a flood to deal with.
"""

from __future__ import annotations

import argparse

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.errors import UsageError
from apiguard.ctl.hints import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

MOST_COLUMNS = 100
HELP_COLUMN = 32


class Listed:
    """A command in a list: ``summary`` is its line there, ``load`` gets what declares it."""

    __slots__ = ("load", "summary")

    def __init__(self, summary: str, load: Callable[[], Declare]) -> None:
        self.summary = summary
        self.load = load


def here(declare: Declare) -> Listed:
    """A command whose function is at hand; the first line of its help sums it up."""
    return Listed((declare.__doc__ or "").partition("\n")[0], lambda: declare)


def elsewhere(place: str, summary: str) -> Listed:
    """A command of another file, imported when it is called: ``place`` is ``module:function``."""

    def load() -> Declare:
        module, _, name = place.partition(":")
        found: Declare = getattr(__import__(module, fromlist=[name]), name)
        return found

    return Listed(summary, load)


class Command(argparse.ArgumentParser):
    """A command, or a group of them. Raises UsageError where argparse would print and exit."""

    def __init__(self, load: Callable[[], Declare], **keywords: Any) -> None:
        super().__init__(
            add_help=False,
            allow_abbrev=False,  # else every new option breaks scripts that abbreviate another
            formatter_class=_Help,
            **keywords,
        )
        self._load: Callable[[], Declare] | None = load
        self._run: Run | None = None
        self._gathers = ""
        self._listed: dict[str, Listed] = {}
        self.add_argument("-h", "--help", action="help", help="Show this message and exit.")
        self.set_defaults(command=self)

    # -- for functions that declare

    def takes(self, run: Run, arguments: str = "", *, epilog: str = "", gathers: str = "") -> None:
        """``run`` is called with what was given; ``arguments`` are what is no option, for usage.

        ``gathers`` names the argument that takes all others: argparse leaves those behind a later
        option over.
        """
        self._run, self._gathers = run, gathers
        self.usage = f"%(prog)s [OPTIONS] {arguments}".rstrip()
        self.epilog = epilog

    def holds(self, sections: Mapping[str, Mapping[str, Listed]], *, epilog: str = "") -> None:
        """Makes it a group; ``sections`` maps headings of its help to commands by name."""
        command = "COMMAND" if self._run is None else "[COMMAND]"
        self._listed = {name: one for part in sections.values() for name, one in part.items()}
        self.usage = f"%(prog)s [OPTIONS] {command} ..."
        self.epilog = "\n\n".join([*map(_list, sections, sections.values()), epilog])

    # -- for whoever calls

    def prepare(self, words: Sequence[str]) -> None:
        """Declares this command and those of its own that ``words`` name, or all to choose from.

        Only those, because eighteen parsers take 3 ms of CPU and importing their files ten times
        that.
        """
        if self._load is None:
            return
        declare, self._load = self._load(), None
        self.description = declare.__doc__
        declare(self)
        if not self._listed:
            return
        named = [name for name in self._listed if name in words]
        # With prog given argparse need not format a usage to find it.
        adding = self.add_subparsers(
            prog=self.prog, metavar="COMMAND", parser_class=Command, help=argparse.SUPPRESS
        )
        for name in named or self._listed:
            listed = self._listed[name]
            child = adding.add_parser(name, load=listed.load, help=listed.summary)
            if named:
                child.prepare(words)

    def run(self, given: Given) -> None:
        """Does what the command is for; a group without a command of its own shows its help."""
        if self._run is None:
            self.error(f"name a command: {', '.join(self._listed)}")
        try:
            self._run(given)
        except UsageError as error:
            self.error(str(error))

    def parse_known_args(  # type: ignore[override]  # one of its three overloads is all there is use for
        self, args: Sequence[str] | None = None, namespace: Given | None = None
    ) -> tuple[Given, list[str]]:
        """Complains of what is left over, in the name of the command that it was given to."""
        given, rest = super().parse_known_args(args, namespace)
        options = [word for word in rest if word.startswith("-") and word != "-"]
        if rest and not options and self._gathers:
            getattr(given, self._gathers).extend(rest)
        elif options:
            hint = did_you_mean(options[0].partition("=")[0], self._options())
            self.error(f"there is no option {options[0]!r}{hint}")
        elif rest:
            self.error(f"{rest[0]!r} is one word too many")
        return given, []

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            message += "; write one that begins with - as --option=-value"
        raise UsageError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        """As wide as the terminal, up to ``MOST_COLUMNS``."""
        import shutil  # 10 ms, which help alone pays
        import textwrap

        first, _, rest = (self.description or "").partition("\n")
        self.description = f"{first}\n{textwrap.dedent(rest)}".strip()
        _Help.columns = min(MOST_COLUMNS, shutil.get_terminal_size().columns)
        return super().format_help()

    def _options(self) -> list[str]:
        return [word.strip(",") for word in self.format_help().split() if word.startswith("-")]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse's own says what there is to choose from, not what was probably meant.

        It has no public hook for that; should this one go, its words are what is shown.
        """
        if action.choices is None or value in action.choices:
            return
        if isinstance(action.choices, dict):
            self.error(f"there is no command {value!r}{did_you_mean(value, self._listed)}")
        hint = did_you_mean(str(value), map(str, action.choices))
        known = ", ".join(map(repr, action.choices))
        raise argparse.ArgumentError(action, f"{value!r} is none of {known}{hint}")


Given = argparse.Namespace

if TYPE_CHECKING:
    Run = Callable[[Given], None]
    Declare = Callable[[Command], None]


class _Help(argparse.HelpFormatter):
    """``columns`` are asked of the terminal when help is wanted: argparse makes one of these for
    every option that it is told of."""

    columns = MOST_COLUMNS

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=HELP_COLUMN, width=self.columns)

    def add_usage(self, *arguments: Any, **keywords: Any) -> None:
        super().add_usage(*arguments, **keywords | {"prefix": "Usage: "})

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and heading[0].upper() + heading[1:])

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wraps paragraphs, and leaves those with indented lines: examples and tables.

        The hook that argparse's own formatters differ in.
        """
        import textwrap

        wrap = textwrap.TextWrapper(width, break_on_hyphens=False)
        return "\n\n".join(
            part if "\n " in part else wrap.fill(" ".join(part.split()))
            for part in text.split("\n\n")
        )


def _list(heading: str, commands: Mapping[str, Listed]) -> str:
    """A section of commands as help shows it."""
    width = max(map(len, commands))
    return "\n".join(
        [f"{heading}:", *(f"  {name:{width}}  {one.summary}" for name, one in commands.items())]
    )
