"""Options many commands share, and the guards and output they choose.

Flags win over the environment, the environment over the file of contexts. The options that say
which guard stand before the command's name or after it, as with kubectl.
"""

from __future__ import annotations

import argparse
import os

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.address import parse_address
from apiguard.ctl.contexts import GuardEntry, config_path, load_contexts
from apiguard.ctl.durations import parse_duration
from apiguard.ctl.errors import CtlError
from apiguard.ctl.guard import Guard
from apiguard.ctl.output import FORMATS
from apiguard.ctl.parsing import Command, Given
from apiguard.ctl.wire import Tls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

DEFAULT_SECONDS = 5

EXIT_CODES = """\
Exit codes:
  0  done by every guard asked
  1  refused, failed or unreachable; stderr says what to do
  2  the command line is wrong"""


def in_seconds(text: str) -> int:
    """Type of options that take a duration: ``30m`` -> 1800."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole(least: int, most: int = 1 << 53) -> Callable[[str], int]:
    """Type of options that take a whole number within bounds."""

    def convert(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
            return int(text)
        upper = f" to {most}" if most < 1 << 53 else " or more"
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no whole number, {least}{upper}")

    return convert


class Connection:
    """What the flags say about guards; "" where they say nothing."""

    __slots__ = ("ca_file", "cert", "context", "key", "seconds", "server", "token_file")

    def __init__(
        self,
        *,
        context: str = "",
        server: str = "",
        token_file: str = "",
        ca_file: str = "",
        cert: str = "",
        key: str = "",
        seconds: int | None = None,
    ) -> None:
        self.context = context
        self.server = server
        self.token_file = token_file
        self.ca_file = ca_file
        self.cert = cert
        self.key = key
        self.seconds = seconds

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
        return GuardEntry(
            entry.server,
            entry.name,
            token_file or entry.token_file,
            self.ca_file or entry.ca_file,
            self.cert or entry.cert_file,
            self.key or entry.key_file,
            entry.server_name,
        )


def _guard(entry: GuardEntry, seconds: float) -> Guard:
    try:
        address = parse_address(entry.server)
    except ValueError as error:
        raise CtlError(str(error)) from None
    tls = Tls(entry.ca_file, entry.cert_file, entry.key_file, entry.server_name)
    name = entry.name or address.path or address.authority
    return Guard(name, address, tls, entry.token_file, seconds)


def add_connection(command: Command, *, hidden: bool = False) -> None:
    """Flags that say which guard. What is not given sets nothing: of the same flag before and after
    a command's name the one after wins, and the one before lasts when there is no other."""
    group = command.add_argument_group("which guard")

    def add(flag: str, metavar: str, said: str, **keywords: Any) -> argparse.Action:
        shown = argparse.SUPPRESS if hidden else said
        return group.add_argument(
            flag, metavar=metavar, help=shown, default=argparse.SUPPRESS, **keywords
        )

    context = add("--context", "NAME", "Context to use instead of the current one.")
    vars(context)["completer"] = complete_context  # where argcomplete looks for it
    address = "https://HOST:PORT, http://HOST:PORT or unix:/PATH, without a context."
    add("--server", "ADDRESS", address)
    add("--token-file", "FILE", "Admin token.")
    add("--ca-file", "FILE", "Authority to trust.")
    add("--cert", "FILE", "Client certificate.")
    add("--key", "FILE", "Its key.")
    patience = f"How long a guard may take to answer.  [default: {DEFAULT_SECONDS}s]"
    add("--request-timeout", "DURATION", patience, dest="seconds", type=in_seconds)


def complete_context(**_: object) -> list[str]:
    try:
        return [context.name for context in load_contexts(config_path(os.environ)).contexts]
    except CtlError:
        return []


def connection(given: Given) -> Connection:
    """What the flags of ``add_connection`` say."""
    values = vars(given)
    return Connection(**{f: values[f] for f in Connection.__slots__ if f in values})


class Session:
    """What a command works with: guards in order, and how to print.

    ``chosen`` says whether ``-o`` named the form.
    """

    __slots__ = ("chosen", "form", "guards")

    def __init__(self, guards: tuple[Guard, ...], form: str, *, chosen: bool) -> None:
        self.guards = guards
        self.form = form
        self.chosen = chosen

    @property
    def wide(self) -> bool:
        return self.form == "wide"

    @property
    def tabular(self) -> bool:
        return self.form in ("table", "wide")

    def prefix(self, guard: Guard) -> str:
        """``name: `` before a line when there are several guards."""
        return f"{guard.name}: " if len(self.guards) > 1 else ""


def on_guards(
    command: Command,
    run: Callable[[Session, Given], None],
    arguments: str = "",
    *,
    formats: tuple[str, ...] = FORMATS,
    epilog: str = EXIT_CODES,
    gathers: str = "",
) -> None:
    """``command.takes`` for what works with guards: adds ``-o`` and the flags that say which.

    No ``formats``, no ``-o``.
    """

    def with_session(given: Given) -> None:
        form = given.form if formats else None
        guards = connection(given).guards(os.environ)
        run(Session(guards, form or "table", chosen=form is not None), given)

    command.takes(with_session, arguments, epilog=epilog, gathers=gathers)
    if formats:
        command.add_argument(
            "-o",
            "--output",
            dest="form",
            choices=formats,
            metavar="FORM",
            help=f"How to print: {', '.join(formats)}.",
        )
    add_connection(command)
