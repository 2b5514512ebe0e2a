"""``apiguard config``: the file of contexts."""

from __future__ import annotations

import os

from apiguard.ctl.address import parse_address
from apiguard.ctl.contexts import (
    Context,
    Contexts,
    GuardEntry,
    config_path,
    load_contexts,
    save_contexts,
)
from apiguard.ctl.errors import CtlError, UsageError
from apiguard.ctl.options import EXIT_CODES, complete_context
from apiguard.ctl.output import align, write
from apiguard.ctl.parsing import Command, Given, here


def config(command: Command) -> None:
    """Name the guards to work with.

    Contexts are kept in $APIGUARD_CONFIG or ~/.config/apiguard/config.yaml. A context may list
    several guards: what changes something then acts on all of them.

    Examples:
      apiguard config set-context prod --server https://10.0.0.1:7444 --name cp-1 \\
          --server https://10.0.0.2:7444 --name cp-2 --token-file prod.token --ca-file ca.crt
      apiguard config set-context here --server unix:/run/apiguard/admin.sock
      apiguard config use-context prod
    """
    commands = {
        "get-contexts": here(get_contexts),
        "use-context": here(use_context),
        "set-context": here(set_context),
        "delete-context": here(delete_context),
        "current-context": here(current_context),
    }
    command.holds({"Commands": commands}, epilog=EXIT_CODES)


def get_contexts(command: Command) -> None:
    """List contexts and their guards; * marks the current one."""
    command.takes(_get_contexts, epilog=EXIT_CODES)


def _get_contexts(given: Given) -> None:
    contexts = load_contexts(config_path(os.environ))
    lines = [
        [
            "*" if context.name == contexts.current else " ",
            context.name,
            g.name or g.server,
            g.server,
        ]
        for context in contexts.contexts
        for g in context.guards
    ]
    write(align([["CURRENT", "CONTEXT", "GUARD", "SERVER"], *lines]))


def use_context(command: Command) -> None:
    """Make NAME the current context."""
    _takes_name(command)
    command.takes(_use_context, "NAME", epilog=EXIT_CODES)


def _takes_name(command: Command) -> None:
    name = command.add_argument("name", metavar="NAME")
    vars(name)["completer"] = complete_context  # where argcomplete looks for it


def _use_context(given: Given) -> None:
    name: str = given.name
    path = config_path(os.environ)
    contexts = load_contexts(path)
    contexts.find(name)
    save_contexts(path, Contexts(name, contexts.contexts))
    write(align([[f"context is now {name}"]]))


def set_context(command: Command) -> None:
    """Write a context of one --server or several, all with the same credentials."""
    _takes_name(command)
    command.add_argument(
        "--server", dest="servers", action="append", required=True, metavar="ADDRESS",
        help="https://HOST:PORT, http://HOST:PORT or unix:/PATH; repeat for several guards.",
    )  # fmt: skip
    command.add_argument(
        "--name", dest="names", action="append", metavar="TEXT", help="Of each server, in order."
    )
    for flag, metavar, said in (
        ("--token-file", "FILE", "Admin token."),
        ("--ca-file", "FILE", "Authority to trust."),
        ("--cert", "FILE", "Client certificate."),
        ("--key", "FILE", "Its key."),
        ("--server-name", "TEXT", "What its certificate must say."),
    ):
        command.add_argument(flag, default="", metavar=metavar, help=said)
    command.takes(_set_context, "NAME", epilog=EXIT_CODES)


def _set_context(given: Given) -> None:
    servers: list[str] = given.servers
    names: list[str] | None = given.names
    shared = GuardEntry(
        "", "", given.token_file, given.ca_file, given.cert, given.key, given.server_name
    ).beside(os.getcwd())
    if names and len(names) != len(servers):
        raise UsageError("as many --name as --server, or none")
    guards: list[GuardEntry] = []
    for index, server in enumerate(servers):
        try:
            parse_address(server)
        except ValueError as error:
            raise UsageError(f"--server: {error}") from None
        guards.append(shared.at(server, names[index] if names else ""))
    path = config_path(os.environ)
    save_contexts(path, load_contexts(path).having(Context(given.name, tuple(guards))))
    write(align([[f"context {given.name} set in {path}"]]))


def delete_context(command: Command) -> None:
    """Remove a context; the files it names stay."""
    _takes_name(command)
    command.takes(_delete_context, "NAME", epilog=EXIT_CODES)


def _delete_context(given: Given) -> None:
    name: str = given.name
    path = config_path(os.environ)
    save_contexts(path, load_contexts(path).without(name))
    write(align([[f"context {name} deleted from {path}"]]))


def current_context(command: Command) -> None:
    """Print the current context's name."""
    command.takes(_current_context, epilog=EXIT_CODES)


def _current_context(given: Given) -> None:
    current = load_contexts(config_path(os.environ)).current
    if not current:
        raise CtlError("no context is current; choose one with apiguard config use-context")
    write(align([[current]]))
