"""``apiguard check``: is a file sound?"""

from __future__ import annotations

import sys

from apiguard.commands.reading import EXIT_CODES
from apiguard.ctl.output import complain, write
from apiguard.ctl.parsing import Command, Given
from apiguard.errors import ApiguardError, ConfigError, Problem
from apiguard.policy.compile import compile_policy, warnings
from apiguard.policy.config import parse_config
from apiguard.policy.document import Scalar, parse
from apiguard.policy.policy import Policy
from apiguard.policy.relayrule import RelayUse
from apiguard.runtime.reload import read_text


def check(command: Command) -> None:
    """Validate configuration and policy files; - reads standard input.

    The kind in the file says what it is: GuardConfig or ThrottlePolicy. Every problem is a line
    "file:line: field: reason" on stderr. Warnings, such as rules that can never match, do not
    change the exit code.

    Examples:
      apiguard check config/guard.yaml config/policy.yaml
      kubectl get configmap policy -o jsonpath='{.data.policy}' | apiguard check -
    """
    command.add_argument("files", nargs="+", metavar="FILE")
    command.takes(_check_all, "FILE...", epilog=EXIT_CODES)


def _check_all(given: Given) -> None:
    failed = False
    for path in given.files:
        try:
            write(f"{path}: {_check(path)}\n")
        except ConfigError as error:
            failed = True
            for problem in error.problems:
                complain(str(problem))
        except ApiguardError as error:
            failed = True
            complain(str(error))
    sys.exit(1 if failed else 0)


def _check(path: str) -> str:
    """A summary of a sound file. Raises ConfigError or StartupError."""
    name = "<stdin>" if path == "-" else path
    text = sys.stdin.read() if path == "-" else read_text(path, "file")
    kind = parse(text, name).entries.get("kind")
    if isinstance(kind, Scalar) and kind.value == "GuardConfig":
        config = parse_config(text, name)
        relayed = len(config.relay.resources)
        relay = f", {relayed} relayed resources" if relayed else ""
        upstreams = len(config.upstream.servers)
        return f"ok: GuardConfig, {upstreams} upstream, {config.workers} workers{relay}"
    if isinstance(kind, Scalar) and kind.value == "ThrottlePolicy":
        policy = compile_policy(text, name)
        for warning in warnings(policy):
            complain(f"{name}: warning: {warning}")
        return f"ok: ThrottlePolicy, {len(policy.rules)} rules{_relay_of(policy)}"
    line = kind.line if kind is not None else 0
    raise ConfigError([Problem(name, line, "kind", "must be GuardConfig or ThrottlePolicy")])


def _relay_of(policy: Policy) -> str:
    """How many rules say something of the relay, where any does."""
    said = list(policy.relays.values())
    counted = {
        "past the relay": sum(one.use is RelayUse.BYPASS for one in said),
        "with relaxed reads": sum(one.relaxed_reads is True for one in said),
        "without relaxed reads": sum(one.relaxed_reads is False for one in said),
    }
    return "".join(f", {number} {words}" for words, number in counted.items() if number)
