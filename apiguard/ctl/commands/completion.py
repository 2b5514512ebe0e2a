"""``apiguard completion``: what a shell needs to complete this command line."""

from __future__ import annotations

from apiguard.ctl.options import EXIT_CODES
from apiguard.ctl.output import write
from apiguard.ctl.parsing import Command, Given

SHELLS = ("bash", "zsh", "fish")


def completion(command: Command) -> None:
    """Print a completion script for SHELL: bash, zsh or fish.

    Examples:
      source <(apiguard completion bash)
      source <(apiguard completion zsh)
      apiguard completion fish > ~/.config/fish/completions/apiguard.fish
    """
    command.takes(_print, "SHELL", epilog=EXIT_CODES)
    command.add_argument("shell", metavar="SHELL", choices=SHELLS)


def _print(given: Given) -> None:
    from argcomplete.shell_integration import shellcode

    write(shellcode(["apiguard"], shell=given.shell))
