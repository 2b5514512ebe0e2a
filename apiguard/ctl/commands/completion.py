"""``apiguard completion``: what a shell needs to complete this command line."""

from __future__ import annotations

import click

from apiguard.ctl.options import EXIT_CODES
from apiguard.ctl.output import write

VARIABLE = "_APIGUARD_COMPLETE"


@click.command(epilog=EXIT_CODES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for SHELL.

    \b
    Examples:
      source <(apiguard completion bash)
      source <(apiguard completion zsh)
      apiguard completion fish > ~/.config/fish/completions/apiguard.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # the choices are those click knows
    root = context.find_root().command
    write(found(root, {}, "apiguard", VARIABLE).source() + "\n")
