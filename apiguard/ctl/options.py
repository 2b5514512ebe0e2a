"""Options many commands share, and the guards and output they choose.

Flags win over the environment, the environment over the file of contexts. The options that say
which guard stand before the command's name or after it, as with kubectl.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from apiguard.ctl.address import parse_address
from apiguard.ctl.contexts import GuardEntry, config_path, load_contexts
from apiguard.ctl.durations import parse_duration
from apiguard.ctl.errors import CtlError
from apiguard.ctl.guard import Guard
from apiguard.ctl.output import FORMATS
from apiguard.ctl.wire import Tls

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SECONDS = 5

EXIT_CODES = """\b
Exit codes:
  0  done by every guard asked
  1  refused, failed or unreachable; stderr says what to do
  2  the command line is wrong"""


def in_seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of options that take a duration: ``30m`` -> 1800."""
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Connection(NamedTuple):
    """What the flags say about guards; "" where they say nothing."""

    context: str = ""
    server: str = ""
    token_file: str = ""
    ca_file: str = ""
    cert: str = ""
    key: str = ""
    seconds: int | None = None

    def over(self, below: Connection) -> Connection:
        """These values where there are any, else those of ``below``."""
        chosen = {f: getattr(self, f) or getattr(below, f) for f in Connection._fields}
        return Connection(**chosen)

    def guards(self, environment: Mapping[str, str]) -> tuple[Guard, ...]:
        """The guards meant. Raises CtlError."""
        seconds = float(self.seconds or DEFAULT_SECONDS)
        named = self.context or ("" if self.server else environment.get("APIGUARD_CONTEXT", ""))
        server = self.server or ("" if named else environment.get("APIGUARD_SERVER", ""))
        if self.server and self.context:
            raise CtlError("--server and --context exclude each other")
        if server:
            entries: tuple[GuardEntry, ...] = (self._entry(server, environment),)
        else:
            entries = self._of_context(named, environment)
        return tuple(_guard(entry, seconds) for entry in entries)

    def _entry(self, server: str, environment: Mapping[str, str]) -> GuardEntry:
        token_file = self.token_file or environment.get("APIGUARD_TOKEN_FILE", "")
        return GuardEntry(server, "", token_file, self.ca_file, self.cert, self.key)

    def _of_context(self, name: str, environment: Mapping[str, str]) -> tuple[GuardEntry, ...]:
        path = config_path(environment)
        contexts = load_contexts(path)
        wanted = name or contexts.current
        if not wanted:
            raise CtlError(
                f"no guard is named: pass --server, or write {path} with"
                " apiguard config set-context NAME --server URL --token-file FILE"
            )
        folder = os.path.dirname(os.path.abspath(path))
        token_file = self.token_file or environment.get("APIGUARD_TOKEN_FILE", "")
        return tuple(
            self._overlaid(entry.beside(folder), token_file)
            for entry in contexts.find(wanted).guards
        )

    def _overlaid(self, entry: GuardEntry, token_file: str) -> GuardEntry:
        return entry._replace(
            token_file=token_file or entry.token_file,
            ca_file=self.ca_file or entry.ca_file,
            cert_file=self.cert or entry.cert_file,
            key_file=self.key or entry.key_file,
        )


def _guard(entry: GuardEntry, seconds: float) -> Guard:
    try:
        address = parse_address(entry.server)
    except ValueError as error:
        raise CtlError(str(error)) from None
    tls = Tls(entry.ca_file, entry.cert_file, entry.key_file, entry.server_name)
    name = entry.name or address.path or address.authority
    return Guard(name, address, tls, entry.token_file, seconds)


def _complete_context(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    try:
        names = [context.name for context in load_contexts(config_path(os.environ)).contexts]
    except CtlError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _connection_flags(function: F, *, hidden: bool) -> F:
    for option in reversed(
        (
            click.option(
                "--context",
                default="",
                metavar="NAME",
                hidden=hidden,
                help="Context to use instead of the current one.",
                shell_complete=_complete_context,
            ),
            click.option(
                "--server",
                default="",
                metavar="ADDRESS",
                hidden=hidden,
                help="https://HOST:PORT, http://HOST:PORT or unix:/PATH, without a context.",
            ),
            click.option(
                "--token-file", default="", metavar="FILE", hidden=hidden, help="Admin token."
            ),
            click.option(
                "--ca-file", default="", metavar="FILE", hidden=hidden, help="Authority to trust."
            ),
            click.option(
                "--cert", default="", metavar="FILE", hidden=hidden, help="Client certificate."
            ),
            click.option("--key", default="", metavar="FILE", hidden=hidden, help="Its key."),
            click.option(
                "--request-timeout",
                "seconds",
                callback=in_seconds,
                metavar="DURATION",
                hidden=hidden,
                help=f"How long a guard may take to answer.  [default: {DEFAULT_SECONDS}s]",
            ),
        )
    ):
        function = option(function)
    return function


def before_commands(function: Callable[..., None]) -> Callable[..., None]:
    """Connection flags of the whole command line; a command's own win over them."""

    @functools.wraps(function)
    def wrapper(**flags: Any) -> None:
        click.get_current_context().obj = _take_connection(flags)
        function(**flags)

    return _connection_flags(wrapper, hidden=True)


def _take_connection(flags: dict[str, Any]) -> Connection:
    return Connection(**{field: flags.pop(field) for field in Connection._fields})


class Session(NamedTuple):
    """What a command works with: guards in order, and how to print."""

    guards: tuple[Guard, ...]
    form: str = "table"
    chosen: bool = False  # whether -o named the form

    @property
    def wide(self) -> bool:
        return self.form == "wide"

    @property
    def tabular(self) -> bool:
        return self.form in ("table", "wide")

    def prefix(self, guard: Guard) -> str:
        """``name: `` before a line when there are several guards."""
        return f"{guard.name}: " if len(self.guards) > 1 else ""


def connected(function: Callable[..., None]) -> Callable[..., None]:
    """Adds connection flags to a command; it is called with ``connection`` in their place."""

    @functools.wraps(function)
    def wrapper(*args: Any, **flags: Any) -> None:
        context = click.get_current_context()
        below = context.find_object(Connection) or Connection()
        context.obj = _take_connection(flags).over(below)
        function(*args, connection=context.obj, **flags)

    return _connection_flags(wrapper, hidden=False)


def on_guards(
    *, formats: tuple[str, ...] = FORMATS, output: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds connection flags and ``-o``; the command is called with ``session`` in their place."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def wrapper(
            *args: Any, connection: Connection, form: str | None = None, **rest: Any
        ) -> None:
            if click.get_current_context().invoked_subcommand is not None:
                return  # it finds its guards itself, and its --help needs none
            session = Session(
                connection.guards(os.environ), form or "table", chosen=form is not None
            )
            function(*args, session=session, **rest)

        if output:
            option = click.option(
                "-o", "--output", "form", type=click.Choice(formats), help="How to print."
            )
            return connected(option(wrapper))
        return connected(wrapper)

    return decorate
