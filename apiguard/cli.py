"""The command line: serve, demo, check, explain. Joins supervisor and admin into one process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

import apiguard
from apiguard.admin.app import AdminServer
from apiguard.admin.views import joined
from apiguard.errors import ApiguardError, ConfigError, Problem, StartupError
from apiguard.policy.compile import compile_policy, warnings
from apiguard.policy.config import (
    AdminConfig,
    GuardConfig,
    ListenConfig,
    UpstreamConfig,
    parse_config,
)
from apiguard.policy.document import Scalar, parse
from apiguard.policy.policy import Policy
from apiguard.runtime.control import Question
from apiguard.runtime.explaining import explain as explain_question
from apiguard.runtime.explaining import offline_gateway
from apiguard.runtime.keeper import PolicyKeeper
from apiguard.runtime.log import Bridge, StreamLog
from apiguard.runtime.reload import read_text
from apiguard.runtime.settings import parse_settings
from apiguard.runtime.statestore import StateStore
from apiguard.runtime.supervisor import Supervisor

T = TypeVar("T")

EXIT_CODES = """\b
Exit codes:
  0  success
  1  configuration, policy or environment is wrong; stderr says what
  2  the command line is wrong"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(apiguard.__version__, prog_name="apiguard")
def main() -> None:
    """A rate-limiting reverse proxy in front of kube-apiserver.

    \b
    Try it without a cluster:      apiguard demo
    Check files before using them: apiguard check config/guard.yaml config/policy.yaml
    Ask what a request would meet: apiguard explain GET /api/v1/pods --policy config/policy.yaml
    Run it:                        apiguard serve --config config/guard.yaml
    """


@main.command(epilog=EXIT_CODES)
@click.option("--config", "path", required=True, metavar="FILE", help="GuardConfig to run.")
def serve(path: str) -> None:
    """Run the guard: traffic port, admin port, workers.

    Logs are JSON lines on stderr. SIGTERM or SIGINT drains and exits 0, a second one ends at
    once. SIGHUP reloads the policy file; certificates, tokens and key sets are followed anyway.
    Other settings need a restart.

    \b
    Example:
      apiguard serve --config /etc/apiguard/guard.yaml
    """
    path = str(Path(path).absolute())  # workers resolve paths in the configuration against it
    text, config = _or_exit(lambda: _read_settings(path))
    log = StreamLog()
    Bridge(log).install()
    try:
        code = asyncio.run(_serve(config, text, path, log))
    except ConfigError as error:
        for problem in error.problems:
            log.error("cannot start", reason=str(problem))
        code = 1
    except ApiguardError as error:
        log.error("cannot start", reason=str(error))
        code = 1
    finally:
        log.close()
    sys.exit(code)


def _read_settings(path: str) -> tuple[str, GuardConfig]:
    text = read_text(path, "config")
    return text, parse_settings(text, path)


async def _serve(config: GuardConfig, text: str, path: str, log: StreamLog) -> int:
    """Everything that can be wrong is found before the first worker starts."""
    store = StateStore(config.state_dir)
    try:
        keeper = PolicyKeeper(store, config.policy_file, log)
        keeper.start()
        supervisor = Supervisor(config, text, path, keeper, log)
        admin = AdminServer(config.admin, supervisor, log)
        supervisor.open()
        admin.open()
        _log_settings(config, supervisor, admin, log)
        await admin.start()
        try:
            return await supervisor.run()
        finally:
            await admin.stop()
    finally:
        store.close()


def _log_settings(
    config: GuardConfig, supervisor: Supervisor, admin: AdminServer, log: StreamLog
) -> None:
    """The effective settings, without secrets."""
    if config.listen.tls is None:
        log.warning("listen.tls is absent: plain HTTP, over which kubectl sends no credentials")
    active = supervisor.keeper.active
    log.info(
        "starting",
        version=apiguard.__version__,
        listen=joined(*supervisor.address),
        tls=config.listen.tls is not None,
        admin=joined(*admin.address),
        upstream=", ".join(config.upstream.servers),
        workers=config.workers,
        enforcement=supervisor.enforcement,
        stateDir=config.state_dir,
        policyFile=config.policy_file,
        generation=active.revision.generation,
        digest=active.revision.policy_digest,
        policyWhy=active.why,
        firstStart=supervisor.keeper.first_start,
    )


@main.command()
@click.pass_context
def demo(context: click.Context) -> None:
    """Run the guard before an embedded API server with a synthetic cluster.

    Prints addresses and the admin token, writes .demo/kubeconfig and says what to try next.
    Ctrl-C ends all of it.
    """
    from apiguard.demo.demo import run

    context.exit(run())


@main.command(epilog=EXIT_CODES)
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


@main.command(epilog=EXIT_CODES)
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
) -> None:
    """Show which rule and buckets a request meets, and what becomes of it.

    METHOD is an HTTP method, TARGET path and query as sent. Runs the code that decides live
    requests, on full buckets; a running guard answers with its living buckets at POST /v1/explain.

    \b
    Examples:
      apiguard explain GET '/api/v1/pods?limit=500' --policy config/policy.yaml --user alice
      apiguard explain PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1 \\
          --config config/guard.yaml --user system:node:n1 --group system:nodes
    """
    if (policy_path is None) == (config_path is None):
        raise click.UsageError("name one of --policy and --config")
    if sum((bool(user), token_unverified, anonymous)) > 1:
        raise click.UsageError("--user, --token-unverified and --anonymous exclude each other")
    if groups and not user:
        raise click.UsageError("--group needs --user: only verified users have groups")
    policy, config = _or_exit(lambda: _read_policy(policy_path, config_path))
    question = Question(method, target, user_agent, user, groups, source, token_unverified)
    try:
        answer = explain_question(offline_gateway(policy, config), question, time.monotonic())
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(json.dumps(answer, indent=2) if output == "json" else _as_text(answer))


def _read_policy(policy_path: str | None, config_path: str | None) -> tuple[Policy, GuardConfig]:
    if policy_path is None:
        assert config_path is not None
        _, config = _read_settings(config_path)
        policy_path = config.policy_file
    else:
        config = GuardConfig(ListenConfig(""), UpstreamConfig(()), AdminConfig("", ""), "", "")
    return compile_policy(read_text(policy_path, "policy"), policy_path), config


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


def _or_exit(read: Callable[[], T]) -> T:
    """What ``read`` returns, or exit 1 with what it found wrong on stderr."""
    try:
        return read()
    except ConfigError as error:
        _exit_with([str(problem) for problem in error.problems])
    except StartupError as error:
        _exit_with([str(error)])


def _exit_with(lines: list[str]) -> NoReturn:
    for line in lines:
        click.echo(line, err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
