"""The command line: every command by name; its file is imported when it is called.

Who types ``apiguard ban`` on a machine that has no CPU left must not wait for the proxy, an event
loop and a YAML library to be imported. So this file knows names, one line of help each, and where
to find the rest: the guard's own commands in ``apiguard.commands``, the operator's in
``apiguard.ctl``. To add one: a line in ``SECTIONS``, and there a function as in
``apiguard.ctl.parsing``.
"""

from __future__ import annotations

import gc
import os
import sys

import apiguard
from apiguard.ctl import TYPE_CHECKING

# What a command line needs is imported by ``run``: when ``main`` has seen to its priority.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiguard.ctl.parsing import Command

_READS = "apiguard.ctl.commands.reads"
_OVERRIDES = "apiguard.ctl.commands.overrides"

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Who is doing this": {
        "top": ("apiguard.ctl.commands.top:top", "Show who asks for most; ban from there."),
        "flows": (f"{_READS}:flows", "Show what each rule let through and refused."),
        "audit": (f"{_READS}:audit", "Show who did what and why, or sampled requests."),
    },
    "Contain it": {
        "ban": (f"{_OVERRIDES}:ban", "Refuse every matching request, for a while."),
        "limit": (f"{_OVERRIDES}:limit", "Hold matching requests to a rate, for a while."),
        "scale": (f"{_OVERRIDES}:scale", "Multiply the rates of a rule, for a while."),
        "exempt": (f"{_OVERRIDES}:exempt", "Lift every limit from an identity, for a while."),
        "overrides": (f"{_OVERRIDES}:overrides", "List, extend and delete all of these."),
        "enforcement": (f"{_READS}:enforcement", "Enforce limits, only count, or neither."),
    },
    "Policy and guard": {
        "policy": ("apiguard.ctl.commands.policy:policy", "Get, diff, apply and roll back."),
        "status": (f"{_READS}:status", "Show whether the guard serves and what is wrong."),
        "upstreams": (f"{_READS}:upstreams", "Show the API servers, or drain one."),
        "relay": (
            "apiguard.ctl.commands.relay:relay",
            "Show what is cached, for whom, and how fresh.",
        ),
        "whoami": (f"{_READS}:whoami", "Show how the guard knows you."),
    },
    "Run it": {
        "serve": ("apiguard.commands.serve:serve", "Run the guard."),
        "check": ("apiguard.commands.check:check", "Validate configuration and policies."),
        "explain": ("apiguard.commands.explain:explain", "Show what a request would meet."),
        "demo": ("apiguard.commands.demo:demo", "Run all of it before a synthetic cluster."),
    },
    "This command line": {
        "config": ("apiguard.ctl.commands.config:config", "Name the guards to work with."),
        "completion": ("apiguard.ctl.commands.completion:completion", "Print a completion script."),
    },
}

EPILOG = """\
Exit codes:
  0  success
  1  refused, failed, or something is wrong with a file; stderr says what
  2  the command line is wrong

Commands that ask a running guard take --context, --server, --token-file, --ca-file, --cert, --key
and --request-timeout, before or after the command. $APIGUARD_CONTEXT, $APIGUARD_SERVER and
$APIGUARD_TOKEN_FILE stand for them, $APIGUARD_CONFIG for the file of contexts."""

_DRY_RUNS = ("--dry-run=server", "--dry-run=client")
"""kubectl's two; here it is always the guard that says what would have happened."""

INTERRUPTED = 130  # what a shell reports for Ctrl-C
NICENESS = -10


def everything(command: Command) -> None:
    """A rate-limiting reverse proxy in front of kube-apiserver.

    Begin with:
      Try it without a cluster:      apiguard demo
      Check files before using them: apiguard check config/guard.yaml config/policy.yaml
      Ask what a request would meet: apiguard explain GET /api/v1/pods --policy config/policy.yaml
      Run it:                        apiguard serve --config config/guard.yaml
      See who is flooding it:        apiguard top
      Stop them for half an hour:    apiguard ban --user-agent 'agent/*' --for 30m --reason INC-7
    """
    from apiguard.ctl.options import add_connection
    from apiguard.ctl.parsing import elsewhere

    command.add_argument(
        "--version",
        action="version",
        version=f"apiguard, version {apiguard.__version__}",
        help="Show the version and exit.",
    )
    add_connection(command, hidden=True)
    listed = {
        heading: {name: elsewhere(*at) for name, at in commands.items()}
        for heading, commands in SECTIONS.items()
    }
    command.holds(listed, epilog=EPILOG)


def run(words: Sequence[str]) -> int:
    """The exit code of what a command line asks for; SystemExit where a command has its own."""
    from apiguard.ctl.errors import CtlError, UsageError
    from apiguard.ctl.parsing import Command

    root = Command(lambda: everything, prog="apiguard")
    if "_ARGCOMPLETE" in os.environ:
        from apiguard.ctl.completing import complete

        complete(root, os.environ)
    try:
        words = _spelt(words)
        root.prepare(words)
        given = root.parse_args(words)
        gc.freeze()  # what is imported stays: to look through it once is 1.5 % of ``status``
        gc.enable()
        given.command.run(given)
    except UsageError as error:
        return _failed(error, 2)
    except CtlError as error:
        return _failed(error, 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read along has enough; the interpreter's own last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _spelt(words: Sequence[str]) -> Sequence[str]:
    """``words`` as fingers used to kubectl type them, in our spelling. Raises UsageError."""
    words = ["--dry-run" if word in _DRY_RUNS else word for word in words]
    first, second = [*words, "", ""][:2]
    names = {name for commands in SECTIONS.values() for name in commands}
    if first == "version":
        return ["--version", *words[1:]]
    if f"{first}s" in names:
        return [f"{first}s", *words[1:]]
    if first in ("get", "describe", "list"):
        for name in (second, f"{second}s"):
            if name in names:
                from apiguard.ctl.errors import UsageError

                raise UsageError(f"there is no command {first!r}: write apiguard {name}")
    return words


def _failed(error: Exception, code: int) -> int:
    from apiguard.ctl.output import complain

    complain(f"Error: {' '.join(str(error).split())}")
    return code


def _hurry() -> None:
    """Goes before others that want this CPU, where the operator is root.

    Beside three busy processes on one core, ``status`` takes 0.45 s instead of 0.71; the rest of
    it is Python's own start, before this is read.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    except OSError:
        return


def _leave(code: int) -> None:
    """Ends at once: to take the interpreter apart is an eighth of a command's CPU, and all that it
    holds here is memory."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)


def main() -> None:
    """What ``apiguard`` runs."""
    gc.disable()  # until the command runs: imports are 5 % faster, and leave nothing to collect
    operating = SECTIONS["Run it"].keys().isdisjoint(sys.argv[1:])
    if operating:
        _hurry()
    try:
        code: int | str | None = run(sys.argv[1:])
    except SystemExit as end:
        code = end.code
    if isinstance(code, str) or not operating:
        sys.exit(code)  # the guard's own commands have threads, loops and processes to end
    _leave(code or 0)


if __name__ == "__main__":
    main()
