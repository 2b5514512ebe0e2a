"""Groups of commands whose errors are one line each, whatever went wrong."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from apiguard.ctl.errors import CtlError
from apiguard.ctl.hints import did_you_mean
from apiguard.ctl.printable import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class OneLineError(click.ClickException):
    """``Error: what, and what to do`` on stderr; exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def show(self, file: Any = None) -> None:
        click.echo(f"Error: {printable(self.message)}", err=True, file=file)


class OneLineUsageError(OneLineError):
    """The same, exit code 2."""

    exit_code = 2


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turns what click and the commands raise into ``OneLineError``."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
        raise OneLineUsageError(error.format_message() + where) from None
    except CtlError as error:
        raise OneLineError(str(error)) from None


class Commands(click.Group):
    """A group that suggests the nearest command and keeps errors to one line."""

    def make_context(self, *args: Any, **keywords: Any) -> click.Context:
        with one_line():
            return super().make_context(*args, **keywords)

    def invoke(self, ctx: click.Context) -> Any:
        with one_line():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            hint = did_you_mean(name, self.list_commands(ctx))
            ctx.fail(f"there is no command {name!r}{hint}")
        return super().resolve_command(ctx, args)


class Listed(NamedTuple):
    """A command that is imported when it is called: ``place`` is ``module:name``."""

    place: str
    help: str


class LazyCommands(Commands):
    """A group that knows its commands' names and help, and imports one when it is called.

    ``sections`` maps headings of ``--help`` to names and commands.
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, Listed]], **keywords: Any
    ) -> None:
        super().__init__(*args, **keywords)
        self.sections = sections
        self.listed = {n: listed for part in sections.values() for n, listed in part.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.listed)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        listed = self.listed.get(cmd_name)
        if listed is None:
            return None
        module, _, name = listed.place.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, listed.help) for name, listed in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the list; click would import every command for its help."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=listed.help)
            for name, listed in self.listed.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)
