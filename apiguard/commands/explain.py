"""``apiguard explain``: what would a request meet?"""

from __future__ import annotations

import os
from typing import Any

from apiguard.ctl.errors import CtlError, UsageError
from apiguard.ctl.options import Connection, add_connection, connection
from apiguard.ctl.output import encoded, write
from apiguard.ctl.parsing import Command, Given
from apiguard.ctl.printable import printable_lines

EXIT_CODES = """\
Exit codes:
  0  the answer is printed, whatever it says
  1  a file is wrong, or the guard did not answer; stderr says what
  2  the command line is wrong"""


def explain(command: Command) -> None:
    """Show which rule and buckets a request meets, and what becomes of it.

    METHOD is an HTTP method, TARGET path and query as sent. With --policy or --config the code that
    decides live requests runs here, on full buckets; with --context or --server a running guard
    answers by its living ones.

    Examples:
      apiguard explain GET '/api/v1/pods?limit=500' --policy config/policy.yaml --user alice
      apiguard explain PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1 \\
          --config config/guard.yaml --user system:node:n1 --group system:nodes
    """
    command.takes(_explain, "METHOD TARGET", epilog=EXIT_CODES)
    command.add_argument("method", metavar="METHOD")
    command.add_argument("target", metavar="TARGET")
    for flag, metavar, said in (
        ("--policy", "FILE", "ThrottlePolicy to ask."),
        ("--config", "FILE", "GuardConfig whose policyFile to ask."),
        ("--user-agent", "TEXT", "User-Agent header of the client."),
        ("--user", "NAME", "Verified user; without one: anonymous."),
    ):
        command.add_argument(flag, default="", metavar=metavar, help=said)
    command.add_argument(
        "--group",
        dest="groups",
        action="append",
        default=[],
        metavar="NAME",
        help="Group of the user; repeat.",
    )
    command.add_argument(
        "--source",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="Client's IP address.  [default: %(default)s]",
    )
    command.add_argument(
        "--token-unverified", action="store_true", help="A token nobody could verify."
    )
    command.add_argument(
        "--anonymous", action="store_true", help="No credential at all (the default)."
    )
    command.add_argument(
        "-o",
        "--output",
        dest="form",
        choices=("text", "json"),
        default="text",
        metavar="FORM",
        help="How to print: text, json.",
    )
    add_connection(command)


def _explain(given: Given) -> None:
    if not given.target.startswith(("/", "http:", "https:", "*")):
        raise UsageError(f"TARGET is a path such as /api/v1/pods, not {given.target!r}")
    named = connection(given)
    live = bool(named.context or named.server)
    if sum((bool(given.policy), bool(given.config), live)) != 1:
        raise UsageError("name one of --policy, --config, --context and --server")
    if sum((bool(given.user), given.token_unverified, given.anonymous)) > 1:
        raise UsageError("--user, --token-unverified and --anonymous exclude each other")
    if given.groups and not given.user:
        raise UsageError("--group needs --user: only verified users have groups")
    asked = {
        "method": given.method,
        "target": given.target,
        "userAgent": given.user_agent,
        "user": given.user,
        "groups": given.groups,
        "source": given.source,
        "unverified": given.token_unverified,
    }
    answer = _ask(named, asked) if live else _offline(asked, given.policy, given.config)
    if given.form == "json":
        write(encoded(answer, "json"))
    else:
        write(printable_lines(_as_text(answer)) + "\n")


def _ask(named: Connection, asked: dict[str, Any]) -> Any:
    """The first guard of the context: all of them run the same policy."""
    answer = named.guards(os.environ)[0].send("POST", "/v1/explain", asked)
    if not isinstance(answer, dict) or "decision" not in answer:
        raise CtlError("the guard's answer says nothing about a decision; is it an older guard?")
    return answer


def _offline(asked: dict[str, Any], policy_path: str, config_path: str) -> Any:
    from apiguard.commands.offline import explain_offline  # the whole guard, which --server spares

    return explain_offline(asked, policy_path, config_path)


_RELAY = {
    "bypass": "bypassed: goes upstream",
    "consistent": "may answer; without resourceVersion only what is proven fresh",
    "relaxed": "may answer; without resourceVersion as its cache stands",
}


def _as_text(answer: dict[str, Any]) -> str:
    if answer["decision"] == "rejected":
        return f"decision  rejected: {answer['code']} {answer['reason']}\n{answer['message']}"
    request = ", ".join(f"{k}={v}" for k, v in answer["request"].items() if v)
    caller = answer["caller"]
    who = f"{caller['standing']} {caller['user']}".strip()
    lines = [
        f"request   {request}",
        f"caller    {who}, family={caller['userAgentFamily'] or '-'}, source={caller['source']}",
        f"rule      {answer['rule']}{' (exempt)' if answer['exempt'] else ''}"
        f"{' (shadow)' if answer['mode'] == 'shadow' else ''}",
    ]
    for limit in answer["limits"]:
        key = "/".join(value.replace("\x00", "") for value in limit["key"]) or "(one for all)"
        lines.append(
            f"bucket    {limit['limit']} [{key}]: {limit['level']:g} of {limit['burst']:g}, "
            f"{limit['requestsPerSecond']:g}/s"
        )
    if said := _RELAY.get(answer.get("relay", "none")):
        lines.append(f"relay     {said}")
    over = f" over {answer['overLimit']}" if "overLimit" in answer else ""
    return "\n".join([*lines, f"decision  {answer['decision'].replace('_', ' ')}{over}"])
