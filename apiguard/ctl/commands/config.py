"""``apiguard config``: the file of contexts."""

from __future__ import annotations

import os

import click

from apiguard.ctl.address import parse_address
from apiguard.ctl.contexts import (
    Context,
    Contexts,
    GuardEntry,
    config_path,
    load_contexts,
    save_contexts,
)
from apiguard.ctl.errors import CtlError
from apiguard.ctl.grouping import Commands
from apiguard.ctl.options import EXIT_CODES
from apiguard.ctl.output import align, write


@click.group(cls=Commands, epilog=EXIT_CODES)
def config() -> None:
    """Name the guards to work with.

    Contexts are kept in $APIGUARD_CONFIG or ~/.config/apiguard/config.yaml. A context may list
    several guards: what changes something then acts on all of them.

    \b
    Examples:
      apiguard config set-context prod --server https://10.0.0.1:7444 --name cp-1 \\
          --server https://10.0.0.2:7444 --name cp-2 --token-file prod.token --ca-file ca.crt
      apiguard config set-context here --server unix:/run/apiguard/admin.sock
      apiguard config use-context prod
    """


@config.command("get-contexts", epilog=EXIT_CODES)
def get_contexts() -> None:
    """List contexts and their guards; * marks the current one."""
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


@config.command("use-context", epilog=EXIT_CODES)
@click.argument("name")
def use_context(name: str) -> None:
    """Make NAME the current context."""
    path = config_path(os.environ)
    contexts = load_contexts(path)
    contexts.find(name)
    save_contexts(path, Contexts(name, contexts.contexts))
    write(align([[f"context is now {name}"]]))


@config.command("set-context", epilog=EXIT_CODES)
@click.argument("name")
@click.option("--server", "servers", multiple=True, required=True, metavar="ADDRESS")
@click.option("--name", "names", multiple=True, metavar="TEXT", help="Of each server, in order.")
@click.option("--token-file", default="", metavar="FILE", help="Admin token.")
@click.option("--ca-file", default="", metavar="FILE", help="Authority to trust.")
@click.option("--cert", default="", metavar="FILE", help="Client certificate.")
@click.option("--key", default="", metavar="FILE", help="Its key.")
@click.option("--server-name", default="", metavar="TEXT", help="What its certificate must say.")
def set_context(
    name: str,
    servers: tuple[str, ...],
    names: tuple[str, ...],
    token_file: str,
    ca_file: str,
    cert: str,
    key: str,
    server_name: str,
) -> None:
    """Write a context of one --server or several, all with the same credentials."""
    if names and len(names) != len(servers):
        raise click.UsageError("as many --name as --server, or none")
    shared = GuardEntry("", "", token_file, ca_file, cert, key, server_name).beside(os.getcwd())
    guards: list[GuardEntry] = []
    for index, server in enumerate(servers):
        try:
            parse_address(server)
        except ValueError as error:
            raise click.UsageError(f"--server: {error}") from None
        guards.append(shared._replace(server=server, name=names[index] if names else ""))
    path = config_path(os.environ)
    save_contexts(path, load_contexts(path).having(Context(name, tuple(guards))))
    write(align([[f"context {name} set in {path}"]]))


@config.command("delete-context", epilog=EXIT_CODES)
@click.argument("name")
def delete_context(name: str) -> None:
    """Remove a context; the files it names stay."""
    path = config_path(os.environ)
    save_contexts(path, load_contexts(path).without(name))
    write(align([[f"context {name} deleted from {path}"]]))


@config.command("current-context", epilog=EXIT_CODES)
def current_context() -> None:
    """Print the current context's name."""
    current = load_contexts(config_path(os.environ)).current
    if not current:
        raise CtlError("no context is current; choose one with apiguard config use-context")
    write(align([[current]]))
