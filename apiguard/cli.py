"""The command line: every command by name; its file is imported when it is called.

Who types ``apiguard ban`` on a machine that has no CPU left must not wait for the proxy, an event
loop and a YAML library to be imported. So this file knows names, one line of help each, and where
to find the rest: the guard's own commands in ``apiguard.commands``, the operator's in
``apiguard.ctl``.
"""

from __future__ import annotations

import click

import apiguard
from apiguard.ctl.grouping import LazyCommands, Listed
from apiguard.ctl.options import before_commands

_READS = "apiguard.ctl.commands.reads"
_OVERRIDES = "apiguard.ctl.commands.overrides"

SECTIONS = {
    "Who is doing this": {
        "top": Listed("apiguard.ctl.commands.top:top", "Show who asks for most; ban from there."),
        "flows": Listed(f"{_READS}:flows", "Show what each rule let through and refused."),
        "audit": Listed(f"{_READS}:audit", "Show who did what and why, or sampled requests."),
    },
    "Contain it": {
        "ban": Listed(f"{_OVERRIDES}:ban", "Refuse every matching request, for a while."),
        "limit": Listed(f"{_OVERRIDES}:limit", "Hold matching requests to a rate, for a while."),
        "scale": Listed(f"{_OVERRIDES}:scale", "Multiply the rates of a rule, for a while."),
        "exempt": Listed(f"{_OVERRIDES}:exempt", "Lift every limit from an identity, for a while."),
        "overrides": Listed(f"{_OVERRIDES}:overrides", "List, extend and delete all of these."),
        "enforcement": Listed(f"{_READS}:enforcement", "Enforce limits, only count, or neither."),
    },
    "Policy and guard": {
        "policy": Listed("apiguard.ctl.commands.policy:policy", "Get, diff, apply and roll back."),
        "status": Listed(f"{_READS}:status", "Show whether the guard serves and what is wrong."),
        "upstreams": Listed(f"{_READS}:upstreams", "Show the API servers, or drain one."),
        "whoami": Listed(f"{_READS}:whoami", "Show how the guard knows you."),
    },
    "Run it": {
        "serve": Listed("apiguard.commands.serve:serve", "Run the guard."),
        "check": Listed("apiguard.commands.check:check", "Validate configuration and policies."),
        "explain": Listed("apiguard.commands.explain:explain", "Show what a request would meet."),
        "demo": Listed("apiguard.commands.demo:demo", "Run all of it before a synthetic cluster."),
    },
    "This command line": {
        "config": Listed("apiguard.ctl.commands.config:config", "Name the guards to work with."),
        "completion": Listed(
            "apiguard.ctl.commands.completion:completion", "Print a completion script."
        ),
    },
}

EPILOG = """\b
Exit codes:
  0  success
  1  refused, failed, or something is wrong with a file; stderr says what
  2  the command line is wrong

Commands that ask a running guard take --context, --server, --token-file, --ca-file, --cert, --key
and --request-timeout, before or after the command. $APIGUARD_CONTEXT, $APIGUARD_SERVER and
$APIGUARD_TOKEN_FILE stand for them, $APIGUARD_CONFIG for the file of contexts.
"""


@click.group(
    cls=LazyCommands,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(apiguard.__version__, prog_name="apiguard")
@before_commands
def main() -> None:
    """A rate-limiting reverse proxy in front of kube-apiserver.

    \b
    Try it without a cluster:      apiguard demo
    Check files before using them: apiguard check config/guard.yaml config/policy.yaml
    Ask what a request would meet: apiguard explain GET /api/v1/pods --policy config/policy.yaml
    Run it:                        apiguard serve --config config/guard.yaml
    See who is flooding it:        apiguard top
    Stop them for half an hour:    apiguard ban --user-agent 'agent/*' --for 30m --reason INC-7
    """


if __name__ == "__main__":
    main()
