"""``apiguard check``: is a file sound?"""

from __future__ import annotations

import sys

import click

from apiguard.commands.reading import EXIT_CODES
from apiguard.errors import ApiguardError, ConfigError, Problem
from apiguard.policy.compile import compile_policy, warnings
from apiguard.policy.config import parse_config
from apiguard.policy.document import Scalar, parse
from apiguard.runtime.reload import read_text


@click.command(epilog=EXIT_CODES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def check(files: tuple[str, ...]) -> None:
    """Validate configuration and policy files; - reads standard input.

    The kind in the file says what it is: GuardConfig or ThrottlePolicy. Every problem is a line
    "file:line: field: reason" on stderr. Warnings, such as rules that can never match, do not
    change the exit code.

    \b
    Examples:
      apiguard check config/guard.yaml config/policy.yaml
      kubectl get configmap policy -o jsonpath='{.data.policy}' | apiguard check -
    """
    failed = False
    for path in files:
        try:
            click.echo(f"{path}: {_check(path)}")
        except ConfigError as error:
            failed = True
            for problem in error.problems:
                click.echo(str(problem), err=True)
        except ApiguardError as error:
            failed = True
            click.echo(str(error), err=True)
    sys.exit(1 if failed else 0)


def _check(path: str) -> str:
    """A summary of a sound file. Raises ConfigError or StartupError."""
    name = "<stdin>" if path == "-" else path
    text = sys.stdin.read() if path == "-" else read_text(path, "file")
    kind = parse(text, name).entries.get("kind")
    if isinstance(kind, Scalar) and kind.value == "GuardConfig":
        config = parse_config(text, name)
        return f"ok: GuardConfig, {len(config.upstream.servers)} upstream, {config.workers} workers"
    if isinstance(kind, Scalar) and kind.value == "ThrottlePolicy":
        policy = compile_policy(text, name)
        for warning in warnings(policy):
            click.echo(f"{name}: warning: {warning}", err=True)
        return f"ok: ThrottlePolicy, {len(policy.rules)} rules"
    line = kind.line if kind is not None else 0
    raise ConfigError([Problem(name, line, "kind", "must be GuardConfig or ThrottlePolicy")])
