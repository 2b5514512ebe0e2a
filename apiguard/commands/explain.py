"""``apiguard explain``: what would a request meet?"""

from __future__ import annotations

import os
from typing import Any

import click

from apiguard.ctl.errors import CtlError
from apiguard.ctl.options import Connection, connected
from apiguard.ctl.output import encoded
from apiguard.ctl.printable import printable_lines

EXIT_CODES = """\b
Exit codes:
  0  the answer is printed, whatever it says
  1  a file is wrong, or the guard did not answer; stderr says what
  2  the command line is wrong"""


@click.command(epilog=EXIT_CODES)
@click.argument("method")
@click.argument("target")
@click.option("--policy", "policy_path", metavar="FILE", help="ThrottlePolicy to ask.")
@click.option(
    "--config", "config_path", metavar="FILE", help="GuardConfig whose policyFile to ask."
)
@click.option("--user-agent", default="", metavar="TEXT", help="User-Agent header of the client.")
@click.option("--user", default="", metavar="NAME", help="Verified user; without one: anonymous.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Group of the user; repeat.")
@click.option("--source", default="127.0.0.1", show_default=True, help="Client's IP address.")
@click.option("--token-unverified", is_flag=True, help="A token nobody could verify.")
@click.option("--anonymous", is_flag=True, help="No credential at all (the default).")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@connected
def explain(
    method: str,
    target: str,
    policy_path: str | None,
    config_path: str | None,
    user_agent: str,
    user: str,
    groups: tuple[str, ...],
    source: str,
    token_unverified: bool,
    anonymous: bool,
    output: str,
    connection: Connection,
) -> None:
    """Show which rule and buckets a request meets, and what becomes of it.

    METHOD is an HTTP method, TARGET path and query as sent. With --policy or --config the code that
    decides live requests runs here, on full buckets; with --context or --server a running guard
    answers by its living ones.

    \b
    Examples:
      apiguard explain GET '/api/v1/pods?limit=500' --policy config/policy.yaml --user alice
      apiguard explain PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1 \\
          --config config/guard.yaml --user system:node:n1 --group system:nodes
    """
    live = bool(connection.context or connection.server)
    if sum((policy_path is not None, config_path is not None, live)) != 1:
        raise click.UsageError("name one of --policy, --config, --context and --server")
    if sum((bool(user), token_unverified, anonymous)) > 1:
        raise click.UsageError("--user, --token-unverified and --anonymous exclude each other")
    if groups and not user:
        raise click.UsageError("--group needs --user: only verified users have groups")
    asked = {
        "method": method,
        "target": target,
        "userAgent": user_agent,
        "user": user,
        "groups": list(groups),
        "source": source,
        "unverified": token_unverified,
    }
    answer = _ask(connection, asked) if live else _offline(asked, policy_path, config_path)
    if output == "json":
        click.echo(encoded(answer, "json"), nl=False)
    else:
        click.echo(printable_lines(_as_text(answer)))


def _ask(connection: Connection, asked: dict[str, Any]) -> Any:
    """The first guard of the context: all of them run the same policy."""
    answer = connection.guards(os.environ)[0].send("POST", "/v1/explain", asked)
    if not isinstance(answer, dict) or "decision" not in answer:
        raise CtlError("the guard's answer says nothing about a decision; is it an older guard?")
    return answer


def _offline(asked: dict[str, Any], policy_path: str | None, config_path: str | None) -> Any:
    from apiguard.commands.offline import explain_offline  # the whole guard, which --server spares

    return explain_offline(asked, policy_path, config_path)


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
    over = f" over {answer['overLimit']}" if "overLimit" in answer else ""
    return "\n".join([*lines, f"decision  {answer['decision'].replace('_', ' ')}{over}"])
